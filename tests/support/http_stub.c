/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/http_stub.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

struct stub_conn {
    struct stub_conn *prev, *next;
    struct stub *s;
    uv_tcp_t tcp;
    bool closing;
    char *in;
    size_t n_in;
};

struct stub_write {
    uv_write_t rq;
    char bytes[];
};

static void on_conn_closed(uv_handle_t *h)
{
    struct stub_conn *c = h->data;

    free(c->in);
    free(c);
}

static void conn_unlink(struct stub_conn *c)
{
    c->closing = true;
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        c->s->conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
}

static void conn_close(struct stub_conn *c)
{
    if (c->closing)
        return;
    conn_unlink(c);
    uv_close((uv_handle_t *)&c->tcp, on_conn_closed);
}

static void on_written(uv_write_t *rq, int status)
{
    (void)status;
    free(rq);
}

void stub_send(struct stub_conn *c, const void *bytes, size_t n)
{
    struct stub_write *w = malloc(sizeof(*w) + n);
    uv_buf_t b;

    assert_non_null(w);
    memcpy(w->bytes, bytes, n);
    b = uv_buf_init(w->bytes, (unsigned)n);
    if (c->closing ||
        uv_write(&w->rq, (uv_stream_t *)&c->tcp, &b, 1, on_written) != 0)
        free(w);
}

void stub_answer(struct stub_conn *c, int status, const char *headers,
                 const char *body)
{
    char *text = NULL;
    int n = asprintf(&text, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n%s\r\n%s",
                     status, strlen(body), headers, body);

    assert_true(n > 0);
    stub_send(c, text, (size_t)n);
    free(text);
}

void stub_reset(struct stub_conn *c)
{
    if (c->closing)
        return;
    conn_unlink(c);
    if (uv_tcp_close_reset(&c->tcp, on_conn_closed) != 0)
        uv_close((uv_handle_t *)&c->tcp, on_conn_closed);
}

static void on_shut(uv_shutdown_t *rq, int status)
{
    struct stub_conn *c = rq->data;

    (void)status;
    free(rq);
    if (!c->closing)
        conn_close(c);
}

void stub_end(struct stub_conn *c)
{
    uv_shutdown_t *rq = malloc(sizeof(*rq));

    assert_non_null(rq);
    rq->data = c;
    if (c->closing || uv_shutdown(rq, (uv_stream_t *)&c->tcp, on_shut) != 0) {
        free(rq);
        conn_close(c);
    }
}

bool stub_header(const struct stub_request *rq, const char *name, char *out,
                 size_t size)
{
    size_t n = strlen(name);

    for (const char *p = strstr(rq->head, "\r\n"); p != NULL;
         p = strstr(p, "\r\n")) {
        p += 2;
        if (strncasecmp(p, name, n) == 0 && p[n] == ':') {
            const char *v = p + n + 1;

            while (*v == ' ')
                v++;
            snprintf(out, size, "%.*s", (int)strcspn(v, "\r\n"), v);
            return true;
        }
    }
    return false;
}

/* One request at the front of the input, if it is whole. Returns its length. */
static size_t serve_one(struct stub_conn *c)
{
    char *end = memmem(c->in, c->n_in, "\r\n\r\n", 4);
    struct stub_request rq = {0};
    char method[16], path[512], number[32];
    size_t n_head;
    char *head;

    if (end == NULL)
        return 0;
    n_head = (size_t)(end - c->in) + 4;
    head = strndup(c->in, n_head);
    assert_non_null(head);
    assert_int_equal(sscanf(head, "%15s %511s", method, path), 2);
    rq.method = method;
    rq.path = path;
    rq.head = head;
    rq.body = c->in + n_head;
    if (stub_header(&rq, "Content-Length", number, sizeof(number)))
        rq.n_body = strtoul(number, NULL, 10);
    if (c->n_in - n_head < rq.n_body) {
        free(head);
        return 0;
    }
    c->s->n_requests++;
    c->s->on_request(c->s, c, &rq);
    free(head);
    return n_head + rq.n_body;
}

static void on_alloc(uv_handle_t *h, size_t n, uv_buf_t *b)
{
    struct stub_conn *c = h->data;

    (void)n;
    assert_true(c->n_in < STUB_MAX);
    *b = uv_buf_init(c->in + c->n_in, (unsigned)(STUB_MAX - c->n_in));
}

static void on_read(uv_stream_t *st, ssize_t n, const uv_buf_t *b)
{
    struct stub_conn *c = st->data;
    size_t used;

    (void)b;
    if (n < 0) {
        conn_close(c);
        return;
    }
    c->n_in += (size_t)n;
    while (!c->closing && (used = serve_one(c)) > 0) {
        memmove(c->in, c->in + used, c->n_in - used);
        c->n_in -= used;
    }
}

static void on_connection(uv_stream_t *st, int status)
{
    struct stub *s = st->data;
    struct stub_conn *c = calloc(1, sizeof(*c));

    assert_int_equal(status, 0);
    assert_non_null(c);
    c->s = s;
    c->in = malloc(STUB_MAX);
    assert_non_null(c->in);
    assert_int_equal(uv_tcp_init(s->loop, &c->tcp), 0);
    c->tcp.data = c;
    c->next = s->conns;
    if (c->next != NULL)
        c->next->prev = c;
    s->conns = c;
    s->n_connections++;
    assert_int_equal(uv_accept(st, (uv_stream_t *)&c->tcp), 0);
    assert_int_equal(uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read),
                     0);
}

void stub_open(struct stub *s, uv_loop_t *loop, stub_fn *fn, void *arg)
{
    struct sockaddr_in a;
    int n = sizeof(a);

    memset(s, 0, sizeof(*s));
    s->loop = loop;
    s->on_request = fn;
    s->arg = arg;
    assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &a), 0);
    assert_int_equal(uv_tcp_init(loop, &s->listener), 0);
    s->listener.data = s;
    assert_int_equal(uv_tcp_bind(&s->listener, (struct sockaddr *)&a, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&s->listener, 128, on_connection),
                     0);
    assert_int_equal(uv_tcp_getsockname(&s->listener, (struct sockaddr *)&a,
                                        &n),
                     0);
    snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%d", ntohs(a.sin_port));
}

void stub_close(struct stub *s)
{
    while (s->conns != NULL)
        conn_close(s->conns);
    if (!uv_is_closing((uv_handle_t *)&s->listener))
        uv_close((uv_handle_t *)&s->listener, NULL);
}

static void on_guard(uv_timer_t *t)
{
    *(bool *)t->data = true;
}

void stub_run_until(uv_loop_t *loop, const bool *flag, unsigned timeout_ms)
{
    bool late = false;
    uv_timer_t guard;

    (void)uv_timer_init(loop, &guard);
    guard.data = &late;
    uv_update_time(loop);
    (void)uv_timer_start(&guard, on_guard, timeout_ms, 0);
    while (!*flag && !late)
        (void)uv_run(loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&guard, NULL);
    (void)uv_run(loop, UV_RUN_NOWAIT);
    if (!*flag)
        fail_msg("nothing came within %u ms", timeout_ms);
}

void stub_run_for(uv_loop_t *loop, unsigned ms)
{
    bool over = false;
    uv_timer_t timer;

    (void)uv_timer_init(loop, &timer);
    timer.data = &over;
    uv_update_time(loop);
    (void)uv_timer_start(&timer, on_guard, ms, 0);
    while (!over)
        (void)uv_run(loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    (void)uv_run(loop, UV_RUN_NOWAIT);
}
