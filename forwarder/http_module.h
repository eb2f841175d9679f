/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads retriever-http.so beside the running loop.
 *
 * The descriptor was opened by the keeper at its start: a package upgrade that
 * replaces the file cannot mix versions. Loading takes some milliseconds (the
 * libraries behind libcurl), which a helper thread spends.
 *
 * Thread:  the loop, for every call and the callback; the helper thread lives
 *          from http_module_load() until shortly before the callback.
 * Memory:  embedded; the module itself stays loaded for the life of the process
 *          (its libraries are not made to be unloaded).
 * Promise: the callback runs once, from the loop, unless http_module_close()
 *          comes first.
 */
#ifndef RETRIEVER_FORWARDER_HTTP_MODULE_H
#define RETRIEVER_FORWARDER_HTTP_MODULE_H

#include <pthread.h>
#include <stdbool.h>
#include <uv.h>

#include "forwarder/http.h"

#define HTTP_MODULE_ERROR_MAX 256

struct http_module;

/** @ops: NULL when the module cannot be had; @error then says why, valid in the
 *  callback. */
typedef void http_module_loaded_fn(void *arg, const struct http_ops *ops,
                                   const char *error);
typedef void http_module_closed_fn(void *arg);

struct http_module {
    uv_async_t bell;
    pthread_t thread;
    bool joinable;
    int fd;
    const char *key_log_file;
    const struct http_ops *ops; /* the thread's result, read after the join */
    char error[HTTP_MODULE_ERROR_MAX];
    http_module_loaded_fn *loaded;
    http_module_closed_fn *closed;
    void *arg;
};

/** Begin. @fd stays the caller's and should stay open for good (the dynamic
 *  linker remembers what it loaded by a path made of the number), @key_log_file
 *  is borrowed until the callback. Returns 0 or -errno; then there is nothing to
 *  close. */
int http_module_load(struct http_module *m, uv_loop_t *loop, int fd,
                     const char *key_log_file, http_module_loaded_fn *loaded,
                     void *arg);

/** Waits for the helper thread if it still runs; @closed is called from the loop
 *  when @m may be freed. */
void http_module_close(struct http_module *m, http_module_closed_fn *closed);

/** The blocking part, for the helper thread and for tests: load the module
 *  behind @fd, check its build, prepare it. Returns its table, or NULL and
 *  @error (HTTP_MODULE_ERROR_MAX bytes). */
const struct http_ops *http_module_open(int fd, const char *key_log_file,
                                        char *error);

#endif
