/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP module against a scripted server on loopback: what an answer may look
 * like, and that each request has exactly one end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "forwarder/http_module.h"
#include "tests/support/http_stub.h"

struct result {
    int n_done, n_sending;
    bool done, in_start;
    enum http_error error;
    int status;
    uint32_t retry_after_ms;
    bool body_sent;
    char body[HTTP_BODY_MAX];
};

struct fixture {
    uv_loop_t loop;
    struct stub stub;
    const struct http_ops *ops;
    struct http_config cfg;
    struct http *http;
    bool closed;
    /* what the server does */
    const char *answer;
    size_t n_answer;
    bool stall, reset, end;
    char seen[4096];
    char seen_body[64];
    size_t n_seen_body;
};

static const struct http_ops *load(void)
{
    static const struct http_ops *ops;
    char error[HTTP_MODULE_ERROR_MAX] = "";
    int fd;

    if (ops != NULL)
        return ops;
    fd = open(HTTP_MODULE_PATH, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ops = http_module_open(fd, "", error);
    if (ops == NULL)
        fail_msg("%s", error);
    close(fd);
    return ops;
}

static void on_request(struct stub *s, struct stub_conn *c,
                       const struct stub_request *rq)
{
    struct fixture *f = s->arg;

    snprintf(f->seen, sizeof(f->seen), "%s", rq->head);
    f->n_seen_body = rq->n_body;
    memcpy(f->seen_body, rq->body, rq->n_body < 64 ? rq->n_body : 64);
    if (f->reset)
        stub_reset(c);
    else if (f->answer != NULL)
        stub_send(c, f->answer, f->n_answer);
    else if (!f->stall)
        stub_answer(c, 202, "", "{\"errors\":[]}");
    if (f->end)
        stub_end(c);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    stub_open(&f->stub, &f->loop, on_request, f);
    f->ops = load();
    f->cfg = (struct http_config){
        .user_agent = "retriever/test",
        .ca_file = "",
        .min_tls = "tlsv1.2",
        .timeout_ms = 5000,
        .tls_timeout_ms = 5000,
        .max_connections = 8,
        .proxy_http = "",
        .proxy_https = "",
        .no_proxy = "",
        .key_log_file = "",
    };
    assert_int_equal(f->ops->create(&f->http, &f->loop, &f->cfg), 0);
    *state = f;
    return 0;
}

static void set_flag(void *arg)
{
    *(bool *)arg = true;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (f->http != NULL) {
        f->ops->close(f->http, set_flag, &f->closed);
        stub_run_until(&f->loop, &f->closed, 5000);
    }
    stub_close(&f->stub);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    free(f);
    return 0;
}

static void on_done(void *arg, const struct http_result *r)
{
    struct result *to = arg;

    assert_false(to->in_start);
    to->n_done++;
    to->done = true;
    to->error = r->error;
    to->status = r->status;
    to->retry_after_ms = r->retry_after_ms;
    to->body_sent = r->body_sent;
    assert_non_null(r->message);
    snprintf(to->body, sizeof(to->body), "%s", r->body);
}

static void on_sending(void *arg)
{
    struct result *to = arg;

    assert_int_equal(to->n_done, 0);
    to->n_sending++;
}

static struct http_request request(const char *url, const void *body, size_t n,
                                   struct result *r)
{
    return (struct http_request){
        .method = "POST",
        .url = url,
        .body = body,
        .n_body = n,
        .sending = on_sending,
        .done = on_done,
        .arg = r,
    };
}

static void begin(struct fixture *f, const struct http_request *rq,
                  struct result *r)
{
    memset(r, 0, sizeof(*r));
    r->in_start = true;
    assert_int_equal(f->ops->start(f->http, rq), 0);
    r->in_start = false;
}

static struct result post(struct fixture *f, const char *body)
{
    struct result r;
    struct http_request rq = request(f->stub.url, body, strlen(body), &r);

    begin(f, &rq, &r);
    stub_run_until(&f->loop, &r.done, 10000);
    assert_int_equal(r.n_done, 1);
    return r;
}

static struct result answered(struct fixture *f, const char *answer)
{
    f->answer = answer;
    f->n_answer = strlen(answer);
    f->end = true;
    return post(f, "x");
}

static void a_post_carries_its_headers_and_body_and_nothing_else(void **state)
{
    static const char *const headers[] = {"DD-API-KEY: k", "X-A: b", NULL};
    struct fixture *f = *state;
    struct result r;
    struct http_request rq = request(f->stub.url, "hello", 5, &r);

    rq.headers = headers;
    begin(f, &rq, &r);
    stub_run_until(&f->loop, &r.done, 5000);
    assert_int_equal(r.error, HTTP_OK);
    assert_int_equal(r.status, 202);
    assert_string_equal(r.body, "{\"errors\":[]}");
    assert_true(r.body_sent);
    assert_int_equal(r.n_sending, 1);
    assert_int_equal(f->n_seen_body, 5);
    assert_memory_equal(f->seen_body, "hello", 5);
    assert_non_null(strstr(f->seen, "DD-API-KEY: k\r\n"));
    assert_non_null(strstr(f->seen, "X-A: b\r\n"));
    assert_non_null(strstr(f->seen, "User-Agent: retriever/test\r\n"));
    assert_non_null(strstr(f->seen, "Content-Length: 5\r\n"));
    assert_null(strcasestr(f->seen, "Expect"));
    assert_null(strcasestr(f->seen, "Accept-Encoding"));
    assert_null(strcasestr(f->seen, "Transfer-Encoding"));
}

static void connections_are_kept_and_reused(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 5; i++)
        assert_int_equal(post(f, "x").status, 202);
    assert_int_equal(f->stub.n_connections, 1);
    assert_int_equal(f->stub.n_requests, 5);
}

static void sending_comes_before_the_last_byte_leaves(void **state)
{
    struct fixture *f = *state;
    size_t n = 900 * 1024;
    char *body = malloc(n);
    struct result r;
    struct http_request rq;

    assert_non_null(body);
    memset(body, 'z', n);
    rq = request(f->stub.url, body, n, &r);
    begin(f, &rq, &r);
    while (r.n_sending == 0) {
        assert_int_equal(f->stub.n_requests, 0); /* never whole before */
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    }
    stub_run_until(&f->loop, &r.done, 5000);
    assert_int_equal(r.status, 202);
    assert_int_equal(f->n_seen_body, n);
    free(body);
}

static void retry_after_is_read_as_seconds_and_as_date(void **state)
{
    struct fixture *f = *state;
    time_t at = time(NULL) + 3600;
    char text[256], date[64];
    struct tm tm;
    struct result r;

    r = answered(f, "HTTP/1.1 429 Slow\r\nRetry-After: 7\r\n"
                    "Content-Length: 0\r\n\r\n");
    assert_int_equal(r.status, 429);
    assert_int_equal(r.retry_after_ms, 7000);
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT",
             gmtime_r(&at, &tm));
    snprintf(text, sizeof(text),
             "HTTP/1.1 503 X\r\nretry-after:  %s \r\nContent-Length: 0\r\n\r\n",
             date);
    r = answered(f, text);
    assert_int_equal(r.status, 503);
    assert_in_range(r.retry_after_ms, 3590000, 3600000);
}

static void the_answer_counts_once_its_head_is_whole(void **state)
{
    struct fixture *f = *state;
    struct result r;

    f->cfg.timeout_ms = 300;
    /* the body never comes: timeout */
    f->answer = "HTTP/1.1 202 X\r\nContent-Length: 10\r\n\r\nab";
    f->n_answer = strlen(f->answer);
    r = post(f, "x");
    assert_int_equal(r.error, HTTP_OK);
    assert_int_equal(r.status, 202);
    assert_string_equal(r.body, "ab");
    /* it ends early */
    r = answered(f, "HTTP/1.1 400 X\r\nContent-Length: 10\r\n\r\nab");
    assert_int_equal(r.error, HTTP_OK);
    assert_int_equal(r.status, 400);
    /* the head itself is cut */
    r = answered(f, "HTTP/1.1 202 X\r\nContent-Len");
    assert_int_not_equal(r.error, HTTP_OK);
    assert_int_equal(r.status, 0);
}

static void an_interim_answer_is_not_the_answer(void **state)
{
    struct fixture *f = *state;
    struct result r;

    r = answered(f, "HTTP/1.1 100 Continue\r\nRetry-After: 9\r\n\r\n"
                    "HTTP/1.1 202 X\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(r.status, 202);
    assert_int_equal(r.retry_after_ms, 0);
}

static void bodies_and_heads_without_end_are_bounded(void **state)
{
    struct fixture *f = *state;
    size_t n = 1024 * 1024;
    char *text = malloc(n);
    struct result r;
    int head;

    assert_non_null(text);
    memset(text, 'b', n);
    head = snprintf(text, n,
                    "HTTP/1.1 202 X\r\nContent-Length: 99999999\r\n"
                    "\r\n");
    text[head] = 'b';
    f->answer = text;
    f->n_answer = n;
    r = post(f, "x"); /* the connection stays open: only the bound ends it */
    assert_int_equal(r.error, HTTP_OK);
    assert_int_equal(r.status, 202);
    assert_int_equal(strlen(r.body), HTTP_BODY_MAX - 1);
    head = snprintf(text, n, "HTTP/1.1 202 X\r\n");
    for (size_t at = (size_t)head; at + 1000 < n; at += 1000) {
        memcpy(text + at, "X-Pad: ", 7);
        memset(text + at + 7, 'h', 991);
        memcpy(text + at + 998, "\r\n", 2);
    }
    r = post(f, "x");
    assert_int_not_equal(r.error, HTTP_OK);
    free(text);
}

static void redirects_are_not_followed(void **state)
{
    struct fixture *f = *state;
    struct result r;

    r = answered(f, "HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\n"
                    "Content-Length: 0\r\n\r\n");
    assert_int_equal(r.error, HTTP_OK);
    assert_int_equal(r.status, 302);
    assert_int_equal(f->stub.n_requests, 1);
}

static void failures_have_their_names(void **state)
{
    struct fixture *f = *state;
    struct result r;
    struct http_request rq;

    f->reset = true;
    r = post(f, "x");
    assert_int_equal(r.error, HTTP_RESET);
    assert_true(r.body_sent);
    f->reset = false;
    f->stall = true;
    f->cfg.timeout_ms = 150;
    r = post(f, "x");
    assert_int_equal(r.error, HTTP_TIMEOUT);
    assert_int_equal(answered(f, "SSH-2.0-OpenSSH\r\n").status, 0);
    assert_int_equal(answered(f, "HTTP/1.1 999 X\r\n\r\n").error, HTTP_OTHER);
    rq = request("http://127.0.0.1:1", "x", 1, &r);
    begin(f, &rq, &r);
    stub_run_until(&f->loop, &r.done, 5000);
    assert_int_equal(r.error, HTTP_CONNECT);
    assert_false(r.body_sent);
    assert_int_equal(r.n_sending, 0);
    rq = request("file:///etc/passwd", "x", 1, &r);
    begin(f, &rq, &r);
    stub_run_until(&f->loop, &r.done, 5000);
    assert_int_equal(r.error, HTTP_OTHER);
    assert_string_equal(r.body, "");
}

static void after_a_timeout_no_old_connection_is_used(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(post(f, "x").status, 202);
    assert_int_equal(post(f, "x").status, 202);
    assert_int_equal(f->stub.n_connections, 1);
    f->stall = true;
    f->cfg.timeout_ms = 150;
    assert_int_equal(post(f, "x").error, HTTP_TIMEOUT);
    f->stall = false;
    assert_int_equal(post(f, "x").status, 202);
    assert_int_equal(post(f, "x").status, 202);
    assert_int_equal(f->stub.n_connections, 2);
}

/* The server closed a kept connection: libcurl tries once more by itself. */
static void a_closed_idle_connection_costs_nothing(void **state)
{
    struct fixture *f = *state;
    struct result r;

    assert_int_equal(post(f, "x").status, 202);
    assert_non_null(f->stub.conns);
    stub_end(f->stub.conns);
    stub_run_for(&f->loop, 20);
    r = post(f, "again");
    assert_int_equal(r.status, 202);
    assert_int_equal(r.n_sending, 1);
    assert_int_equal(f->n_seen_body, 5);
}

static void on_request_end_second(struct stub *s, struct stub_conn *c,
                                  const struct stub_request *rq)
{
    (void)rq;
    if (s->n_requests == 2)
        stub_end(c); /* took the body, said nothing */
    else
        stub_answer(c, 202, "", "");
}

/* Otherwise a sketch would arrive twice and nobody would have counted it. */
static void a_body_given_away_is_not_sent_again_in_silence(void **state)
{
    struct fixture *f = *state;
    struct result r;

    f->stub.on_request = on_request_end_second;
    assert_int_equal(post(f, "x").status, 202);
    r = post(f, "x");
    assert_int_equal(r.error, HTTP_RESET);
    assert_true(r.body_sent);
    assert_int_equal(f->stub.n_requests, 2);
    assert_int_equal(post(f, "x").status, 202);
}

static void a_proxy_gets_what_no_proxy_does_not_name(void **state)
{
    struct fixture *f = *state;
    struct result r;
    struct http_request rq = request("http://intake.test/x", "p", 1, &r);

    f->cfg.proxy_http = f->stub.url; /* read at each start() */
    begin(f, &rq, &r);
    stub_run_until(&f->loop, &r.done, 5000);
    assert_int_equal(r.status, 202);
    assert_non_null(strstr(f->seen, "POST http://intake.test/x HTTP/1.1"));
    f->ops->close(f->http, set_flag, &f->closed);
    stub_run_until(&f->loop, &f->closed, 5000);
    f->closed = false;
    f->http = NULL;
    f->cfg.no_proxy = "other.test 127.0.0.1";
    f->cfg.proxy_http = "http://127.0.0.1:1"; /* nobody is there */
    assert_int_equal(f->ops->create(&f->http, &f->loop, &f->cfg), 0);
    assert_int_equal(post(f, "x").status, 202);
    assert_non_null(strstr(f->seen, "POST / HTTP/1.1"));
}

struct chain {
    struct fixture *f;
    struct result r;
    int n_left;
    bool over;
};

static void on_chained(void *arg, const struct http_result *r)
{
    struct chain *c = arg;
    struct http_request rq = {
        .method = "POST",
        .url = c->f->stub.url,
        .body = "y",
        .n_body = 1,
        .done = on_chained,
        .arg = c,
    };

    assert_int_equal(r->status, 202);
    if (c->n_left-- > 0)
        assert_int_equal(c->f->ops->start(c->f->http, &rq), 0);
    else
        c->over = true;
}

static void a_request_may_start_in_the_callback_of_another(void **state)
{
    struct fixture *f = *state;
    struct chain c = {.f = f, .n_left = 20};
    struct http_request rq = request(f->stub.url, "x", 1, &c.r);

    rq.done = on_chained;
    rq.sending = NULL;
    rq.arg = &c;
    assert_int_equal(f->ops->start(f->http, &rq), 0);
    stub_run_until(&f->loop, &c.over, 5000);
    assert_int_equal(f->stub.n_requests, 21);
}

static void closing_cancels_what_is_in_flight(void **state)
{
    struct fixture *f = *state;
    struct result r[6];
    struct http_request rq;

    f->stall = true;
    for (int i = 0; i < 6; i++) {
        rq = request(f->stub.url, "x", 1, &r[i]);
        begin(f, &rq, &r[i]);
        if (i == 2)
            stub_run_for(&f->loop, 50); /* some wait, some did not begin */
    }
    f->ops->close(f->http, set_flag, &f->closed);
    assert_int_equal(f->ops->start(f->http, &rq), -ECANCELED);
    for (int i = 0; i < 6; i++)
        assert_int_equal(r[i].n_done, 0); /* not from inside close() */
    stub_run_until(&f->loop, &f->closed, 5000);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(r[i].n_done, 1);
        assert_int_equal(r[i].error, HTTP_CANCELLED);
        assert_int_equal(r[i].body_sent, i < 3);
    }
    f->http = NULL;
}

static void on_done_close(void *arg, const struct http_result *r)
{
    struct chain *c = arg;

    c->n_left--;
    assert_true(r->status == 202 || r->error == HTTP_CANCELLED);
    if (!c->over)
        c->f->ops->close(c->f->http, set_flag, &c->f->closed);
    c->over = true;
}

static void closing_may_happen_in_a_callback(void **state)
{
    struct fixture *f = *state;
    struct chain c = {.f = f, .n_left = 4};

    for (int i = 0; i < 4; i++) {
        struct http_request rq = request(f->stub.url, "x", 1, &c.r);

        rq.done = on_done_close;
        rq.sending = NULL;
        rq.arg = &c;
        assert_int_equal(f->ops->start(f->http, &rq), 0);
    }
    stub_run_until(&f->loop, &f->closed, 5000);
    assert_int_equal(c.n_left, 0);
    f->http = NULL;
}

/* A thousand answers of random bytes, some of them with a likely beginning. */
static void any_bytes_give_exactly_one_end(void **state)
{
    static const char *const starts[] = {
        "",
        "HTTP/1.1 ",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: ",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 429 X\r\nRetry-After: ",
        "HTTP/2 200\r\n",
        "HTTP/1.1 100 \r\n\r\nHTTP/1.1 ",
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
    };
    struct fixture *f = *state;
    unsigned seed = (unsigned)time(NULL);
    char bytes[600];
    int n_ok = 0;

    print_message("seed %u\n", seed);
    srandom(seed);
    f->end = true;
    f->answer = bytes;
    for (int i = 0; i < 1000; i++) {
        const char *start = starts[(size_t)random() % 9];
        size_t n = strlen(start);
        size_t more = (size_t)random() % 500;
        struct result r;

        memcpy(bytes, start, n);
        for (size_t k = 0; k < more; k++)
            bytes[n + k] =
                (char)(random() % 4 ? random() % 256 : "\r\n:0 "[random() % 5]);
        f->n_answer = n + more;
        r = post(f, "x");
        if (r.error == HTTP_OK)
            assert_in_range(r.status, 200, 599);
        n_ok += r.error == HTTP_OK;
    }
    assert_true(n_ok > 0 && n_ok < 1000);
}

static void create_refuses_an_unknown_tls_version(void **state)
{
    struct fixture *f = *state;
    struct http *other = NULL;
    struct http_config cfg = f->cfg;

    cfg.min_tls = "sslv3";
    assert_int_equal(f->ops->create(&other, &f->loop, &cfg), -EINVAL);
    assert_null(other);
}

static void a_file_that_is_no_module_gives_a_reason(void **state)
{
    char error[HTTP_MODULE_ERROR_MAX] = "";
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    (void)state;
    assert_null(http_module_open(fd, "", error));
    assert_true(strlen(error) > 0);
    close(fd);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_post_carries_its_headers_and_body_and_nothing_else),
        TEST(connections_are_kept_and_reused),
        TEST(sending_comes_before_the_last_byte_leaves),
        TEST(retry_after_is_read_as_seconds_and_as_date),
        TEST(the_answer_counts_once_its_head_is_whole),
        TEST(an_interim_answer_is_not_the_answer),
        TEST(bodies_and_heads_without_end_are_bounded),
        TEST(redirects_are_not_followed),
        TEST(failures_have_their_names),
        TEST(after_a_timeout_no_old_connection_is_used),
        TEST(a_closed_idle_connection_costs_nothing),
        TEST(a_body_given_away_is_not_sent_again_in_silence),
        TEST(a_proxy_gets_what_no_proxy_does_not_name),
        TEST(a_request_may_start_in_the_callback_of_another),
        TEST(closing_cancels_what_is_in_flight),
        TEST(closing_may_happen_in_a_callback),
        TEST(any_bytes_give_exactly_one_end),
        TEST(create_refuses_an_unknown_tls_version),
        cmocka_unit_test(a_file_that_is_no_module_gives_a_reason),
    };

    unsetenv("http_proxy");
    unsetenv("HTTP_PROXY");
    unsetenv("no_proxy");
    unsetenv("NO_PROXY");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
