/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The module that serves HTTP, retriever-httpd.so: `retriever intake` and the
 * answer on health_port. It is loaded when something is to be served, because
 * the HTTP library brings a TLS library that a plain agent never needs.
 *
 * Thread:  loading: one at a time. The table's functions as said there.
 * Memory:  the module is never unloaded.
 * Promise: a module of another build is refused. It can be opened early (by the
 *          keeper, at start) and loaded late by that descriptor, so that a
 *          package upgrade in between does not mix versions.
 */
#ifndef RETRIEVER_AGENT_HTTPD_H
#define RETRIEVER_AGENT_HTTPD_H

#include <stddef.h>
#include <stdint.h>

struct httpd_health; /* opaque */

/** 1 = healthy. Called on a thread of the server, for each request. */
typedef int httpd_health_fn(void *arg);

struct httpd_module {
    const char *build_id; /* RETRIEVER_VERSION of the build */

    /** Answer GET on @port of all addresses with 200 or 500 and no body, on
     *  threads of its own. Returns 0 or -errno (the port is taken); *@out is
     *  untouched then. */
    int (*health_start)(struct httpd_health **out, uint16_t port,
                        httpd_health_fn *fn, void *arg);

    /** Returns when no thread of it is left; @fn is not called again.
     *  NULL-safe. */
    void (*health_stop)(struct httpd_health *h);

    /** The command `retriever intake`; returns its exit code. */
    int (*intake_main)(int argc, char **argv);
};

/** The name under which the module exports its table. */
#define HTTPD_MODULE_FILE "retriever-httpd.so"
#define HTTPD_MODULE_SYMBOL "retriever_httpd_module"

/** Open the module's file beside the running program, else in the library
 *  folder of the installation. Returns a descriptor (close-on-exec, the
 *  caller's) or -errno. */
int httpd_module_open(void);

/** Load the module behind @fd (stays the caller's, may be closed afterwards).
 *  Returns 0 with *@out set for the life of the process, or -ENOEXEC with the
 *  cause in @why (at most @n bytes). */
int httpd_module_load(int fd, const struct httpd_module **out, char *why,
                      size_t n);

#endif
