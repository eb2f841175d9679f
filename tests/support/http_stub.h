/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scripted HTTP/1.1 server on loopback, on the loop of the test itself: what
 * an intake, a broken proxy or an enemy answers, byte by byte.
 *
 * Thread:  the loop.
 * Memory:  requests of up to STUB_MAX bytes; a longer one fails the test.
 * Promise: on_request runs once per whole request; what it does not answer hangs.
 */
#ifndef RETRIEVER_TESTS_SUPPORT_HTTP_STUB_H
#define RETRIEVER_TESTS_SUPPORT_HTTP_STUB_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#define STUB_MAX (1u << 20)

struct stub;
struct stub_conn;

struct stub_request {
    const char *method, *path; /* terminated */
    const char *head;          /* all of it, terminated */
    const char *body;
    size_t n_body;
};

typedef void stub_fn(struct stub *s, struct stub_conn *c,
                     const struct stub_request *rq);

struct stub {
    uv_loop_t *loop;
    uv_tcp_t listener;
    char url[64]; /* http://127.0.0.1:PORT */
    stub_fn *on_request;
    void *arg;
    unsigned n_requests, n_connections;
    struct stub_conn *conns;
};

void stub_open(struct stub *s, uv_loop_t *loop, stub_fn *fn, void *arg);
/** Close everything; the handles are gone after the next turns of the loop. */
void stub_close(struct stub *s);

void stub_send(struct stub_conn *c, const void *bytes, size_t n);
/** A complete answer; @headers: whole lines with CRLF, or "". */
void stub_answer(struct stub_conn *c, int status, const char *headers,
                 const char *body);
/** RST, or FIN after what was sent. */
void stub_reset(struct stub_conn *c);
void stub_end(struct stub_conn *c);

/** The value of header @name copied to @out; false when absent. */
bool stub_header(const struct stub_request *rq, const char *name, char *out,
                 size_t size);

/** Turn the loop until *flag, or fail after @timeout_ms. */
void stub_run_until(uv_loop_t *loop, const bool *flag, unsigned timeout_ms);
/** Turn the loop for @ms. */
void stub_run_for(uv_loop_t *loop, unsigned ms);

#endif
