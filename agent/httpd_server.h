/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small HTTP/1.1 server for the module: whole bodies in, whole answers out,
 * one thread for each connection, so that a handler may wait.
 *
 * Thread:  start and stop: one owner. The handler runs on many threads at once.
 * Memory:  max_connections times max_body_bytes at most; a longer body is read
 *          to its end and thrown away, and the handler told.
 * Promise: after httpd_stop() no handler runs and no descriptor is left; a
 *          handler inside httpd_wait() is woken for that.
 */
#ifndef RETRIEVER_AGENT_HTTPD_SERVER_H
#define RETRIEVER_AGENT_HTTPD_SERVER_H

#include <stddef.h>
#include <stdint.h>

struct httpd;      /* opaque */
struct httpd_conn; /* opaque: one request's connection */

struct httpd_request {
    const char *method;
    const char *path; /* without the query */
    const char *body;
    size_t n_body;
    int body_too_large; /* n_body is 0 then */
    struct httpd_conn *conn;
};

struct httpd_reply {
    unsigned status;
    const char *content_type; /* static; NULL = none */
    char *body;               /* malloc, taken; NULL = empty */
    size_t n_body;
    unsigned retry_after_s; /* 0 = no header */
    int cut;                /* no answer: reset the connection */
    int tell_over;          /* call httpd_options.over afterwards */
};

/** Fill *@reply, which is zeroed. */
typedef void httpd_handle_fn(void *arg, const struct httpd_request *request,
                             struct httpd_reply *reply);

/** A request whose reply asked for it is over: its answer was sent, or its
 *  connection is gone. */
typedef void httpd_over_fn(void *arg);

struct httpd_options {
    int listen_fd; /* listening socket; taken, also on failure */
    size_t max_body_bytes;
    unsigned max_connections;
    unsigned idle_timeout_s; /* 0 = connections may idle for ever */
    const char *tls_cert;    /* PEM text, borrowed until stop; NULL = plain */
    const char *tls_key;
    httpd_handle_fn *handle;
    httpd_over_fn *over; /* NULL when no reply asks for it */
    void *arg;
};

enum httpd_wait_rc { HTTPD_WAIT_GONE = 1, HTTPD_WAIT_STOPPING };

/** Bind and listen on "ADDR:PORT" or "[ADDR]:PORT" (numeric; port 0 = any);
 *  *@where becomes the address in the same form with the port it got. Returns
 *  the descriptor or -errno (-EINVAL: not such an address). */
int httpd_listen(const char *address, char *where, size_t n_where);

/** Returns 0, or -EINVAL when the server does not start (no TLS support, bad
 *  certificate, no thread). */
int httpd_start(struct httpd **out, const struct httpd_options *o);

/** NULL-safe. */
void httpd_stop(struct httpd *h);

/** A header of the request, or NULL; valid during the handler. */
const char *httpd_header(const struct httpd_request *r, const char *name);

/** Wait @ms (-1: for ever). Returns 0 when the time is over, else why not. */
int httpd_wait(const struct httpd_request *r, int ms);

#endif
