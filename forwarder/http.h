/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP for the forwarder: libcurl's multi interface on the loop.
 *
 * http.c is the only file that includes curl.h. It is built as the module
 * retriever-http.so, which the worker loads after its sockets are served: linked
 * into the program, libcurl's 33 libraries alone would cost 3-4 ms of start and
 * 8 MiB. The program sees it through struct http_ops.
 *
 * Thread:  the loop, for every call and every callback.
 * Memory:  request bodies are borrowed until the callback; of a response at most
 *          HTTP_BODY_MAX bytes are kept.
 * Promise: each started request gives exactly one callback, from the loop, never
 *          from inside http_ops.start(). An answer whose head came whole counts,
 *          whatever becomes of the connection afterwards. TLS is verified unless the user switched
 *          that off; no redirect is followed; no key is ever logged.
 */
#ifndef RETRIEVER_FORWARDER_HTTP_H
#define RETRIEVER_FORWARDER_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define HTTP_BODY_MAX 4096
#define HTTP_MODULE_SYMBOL "retriever_http_module"

/** Everything borrowed for the life of the struct http. */
struct http_config {
    const char *user_agent;
    const char *ca_file; /* "" = the system's */
    const char *min_tls; /* "tlsv1.2", "tlsv1.3" (also 1.0, 1.1) */
    bool skip_verify;
    bool http1_only;
    uint32_t timeout_ms;     /* of one whole exchange */
    uint32_t tls_timeout_ms; /* connect and handshake */
    uint32_t max_connections;
    const char *proxy_http, *proxy_https, *no_proxy; /* "" = none */
    const char *key_log_file; /* SSLKEYLOGFILE format; "" = none */
};

enum http_error {
    HTTP_OK,      /* an answer came: see status */
    HTTP_DNS,     /* the name was not found */
    HTTP_CONNECT, /* refused, unreachable */
    HTTP_TLS,     /* handshake or certificate */
    HTTP_TIMEOUT,
    HTTP_RESET,     /* the connection ended early */
    HTTP_CANCELLED, /* by http_ops.close() */
    HTTP_OTHER
};

struct http_result {
    enum http_error error;
    int status;              /* 100..599 when error is HTTP_OK */
    uint32_t retry_after_ms; /* of the header, seconds or date; 0 = none */
    const char *body;        /* NUL terminated, cut; valid in the callback */
    const char *message;     /* for people: libcurl's words; no secret */
    bool body_sent;          /* the last byte of the body was given away */
};

typedef void http_done_fn(void *arg, const struct http_result *result);
/** The body is about to be given away (its last byte): mark it maybe_sent. */
typedef void http_sending_fn(void *arg);

struct http_request {
    const char *method; /* "POST", "GET" */
    const char *url;
    const char *const *headers; /* "Name: value", NULL terminated; copied */
    const void *body;
    size_t n_body;
    uint32_t timeout_ms;      /* 0 = the configured one */
    http_sending_fn *sending; /* may be NULL */
    http_done_fn *done;
    void *arg;
};

struct http; /* opaque */

struct http_ops {
    const char *build; /* RETRIEVER_VERSION of the module; must equal ours */
    /** The slow part, once per process and before create(): any thread. Returns
     *  0 or -errno. @key_log_file: as in struct http_config. */
    int (*prepare)(const char *key_log_file);
    /** @cfg is borrowed for the life of *out. Returns 0, -ENOMEM, or -EINVAL for
     *  a min_tls that is none of the words above. */
    int (*create)(struct http **out, uv_loop_t *loop,
                  const struct http_config *cfg);
    /** Everything but the body is copied. Returns 0, -ENOMEM, or -ECANCELED after
     *  close(); then no callback comes. */
    int (*start)(struct http *h, const struct http_request *rq);
    /** Cancel what runs (callbacks come with HTTP_CANCELLED), then free; closed is
     *  called from the loop when no handle of ours is left on it. */
    void (*close)(struct http *h, void (*closed)(void *arg), void *arg);
};

#endif
