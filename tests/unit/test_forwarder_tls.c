/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP module over TLS and HTTP/2, against servers of other authors
 * (tests/support/https_server.py) with a certificate made for the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "forwarder/http_module.h"
#include "tests/support/http_stub.h"

extern char **environ;

struct server {
    char folder[64];
    pid_t pid;
    int to, from; /* its stdin and stdout */
    int port;
    char text[4096]; /* all that it printed */
    size_t n_text;
};

struct result {
    bool done;
    enum http_error error;
    int status;
    char body[64];
    char message[256];
};

struct fixture {
    uv_loop_t loop;
    struct server server;
    struct stub stub;
    struct http_config cfg;
    struct http *http;
    const struct http_ops *ops;
    char url[64], ca[96];
    bool closed;
};

/* Read what the server prints until @word has come or @ms are over. */
static bool printed(struct server *s, const char *word, int ms)
{
    struct pollfd p = {.fd = s->from, .events = POLLIN};
    ssize_t n;

    while (strstr(s->text, word) == NULL) {
        if (poll(&p, 1, ms) <= 0)
            return false;
        n = read(s->from, s->text + s->n_text, sizeof(s->text) - 1 - s->n_text);
        if (n <= 0)
            return false;
        s->n_text += (size_t)n;
        s->text[s->n_text] = '\0';
    }
    return true;
}

static void server_start(struct server *s, const char *flag, const char *value)
{
    char *argv[] = {(char *)"/usr/bin/python3",
                    (char *)TESTS_DIR "/support/https_server.py",
                    s->folder,
                    (char *)flag,
                    (char *)value,
                    NULL};
    posix_spawn_file_actions_t fa;
    int in[2], out[2];

    memset(s, 0, sizeof(*s));
    snprintf(s->folder, sizeof(s->folder), "/tmp/retriever-tls-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, in[0], 0);
    posix_spawn_file_actions_adddup2(&fa, out[1], 1);
    assert_int_equal(posix_spawn(&s->pid, argv[0], &fa, NULL, argv, environ),
                     0);
    posix_spawn_file_actions_destroy(&fa);
    close(in[0]);
    close(out[1]);
    s->to = in[1];
    s->from = out[0];
    if (printed(s, "\n", 30000) && sscanf(s->text, "ready %d", &s->port) == 1)
        return;
    if (strncmp(s->text, "skip ", 5) != 0)
        fail_msg("the server did not start");
    print_message("SKIPPED: %s", s->text + 5);
}

static void server_stop(struct server *s)
{
    char path[80];
    static const char *const files[] = {"ca.key",      "ca.pem", "key.pem",
                                        "request.pem", "ext",    "cert.pem",
                                        "ca.srl",      "intake"};

    if (s->pid == 0)
        return;
    close(s->to);
    (void)waitpid(s->pid, NULL, 0);
    close(s->from);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", s->folder, files[i]);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(s->folder), 0);
    s->pid = 0;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char error[HTTP_MODULE_ERROR_MAX] = "";
    static const struct http_ops *ops;
    int fd;

    assert_non_null(f);
    if (ops == NULL) {
        fd = open(HTTP_MODULE_PATH, O_RDONLY | O_CLOEXEC);
        ops = http_module_open(fd, "", error);
        if (ops == NULL)
            fail_msg("%s", error);
        close(fd);
    }
    f->ops = ops;
    assert_int_equal(uv_loop_init(&f->loop), 0);
    f->cfg = (struct http_config){
        .user_agent = "retriever/test",
        .ca_file = "",
        .min_tls = "tlsv1.2",
        .timeout_ms = 10000,
        .tls_timeout_ms = 10000,
        .max_connections = 4,
        .proxy_http = "",
        .proxy_https = "",
        .no_proxy = "",
        .key_log_file = "",
    };
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
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    server_stop(&f->server);
    free(f);
    return 0;
}

/* False: skipped. */
static bool serve(struct fixture *f, const char *flag, const char *value)
{
    server_start(&f->server, flag, value);
    if (f->server.port == 0)
        return false;
    snprintf(f->url, sizeof(f->url), "https://127.0.0.1:%d/intake",
             f->server.port);
    snprintf(f->ca, sizeof(f->ca), "%s/ca.pem", f->server.folder);
    f->cfg.ca_file = f->ca;
    return true;
}

static void on_done(void *arg, const struct http_result *r)
{
    struct result *to = arg;

    assert_false(to->done);
    to->done = true;
    to->error = r->error;
    to->status = r->status;
    snprintf(to->body, sizeof(to->body), "%s", r->body);
    snprintf(to->message, sizeof(to->message), "%s", r->message);
}

static void begin(struct fixture *f, struct result *r, const char *body)
{
    struct http_request rq = {.method = "POST",
                              .url = f->url,
                              .body = body,
                              .n_body = strlen(body),
                              .done = on_done,
                              .arg = r};

    if (f->http == NULL)
        assert_int_equal(f->ops->create(&f->http, &f->loop, &f->cfg), 0);
    memset(r, 0, sizeof(*r));
    assert_int_equal(f->ops->start(f->http, &rq), 0);
}

static struct result post(struct fixture *f)
{
    struct result r;

    begin(f, &r, "hello");
    stub_run_until(&f->loop, &r.done, 15000);
    return r;
}

static void a_certificate_of_our_authority_is_accepted(void **state)
{
    struct fixture *f = *state;
    struct result r;

    if (!serve(f, NULL, NULL))
        skip();
    r = post(f);
    assert_int_equal(r.error, HTTP_OK);
    assert_int_equal(r.status, 202);
    assert_string_equal(r.body, "5 TLSv1.3");
}

static void an_unknown_authority_is_refused(void **state)
{
    struct fixture *f = *state;
    struct result r;

    if (!serve(f, NULL, NULL))
        skip();
    f->cfg.ca_file = "";
    r = post(f);
    assert_int_equal(r.error, HTTP_TLS);
    assert_true(strlen(r.message) > 0);
}

static void another_name_is_refused(void **state)
{
    struct fixture *f = *state;

    if (!serve(f, "--name", "intake.example"))
        skip();
    assert_int_equal(post(f).error, HTTP_TLS);
}

static void nothing_is_verified_only_when_switched_off(void **state)
{
    struct fixture *f = *state;

    if (!serve(f, "--name", "intake.example"))
        skip();
    f->cfg.ca_file = "";
    f->cfg.skip_verify = true;
    assert_int_equal(post(f).status, 202);
}

static void a_missing_ca_file_is_a_fault_of_tls(void **state)
{
    struct fixture *f = *state;

    if (!serve(f, NULL, NULL))
        skip();
    f->cfg.ca_file = "/nonexistent/ca.pem";
    assert_int_equal(post(f).error, HTTP_TLS);
}

static void the_least_version_of_tls_is_kept(void **state)
{
    struct fixture *f = *state;

    if (!serve(f, "--max-tls1.2", NULL))
        skip();
    f->cfg.min_tls = "tlsv1.3";
    assert_int_equal(post(f).error, HTTP_TLS);
    f->ops->close(f->http, set_flag, &f->closed);
    stub_run_until(&f->loop, &f->closed, 5000);
    f->closed = false;
    f->http = NULL;
    f->cfg.min_tls = "tlsv1.2";
    assert_string_equal(post(f).body, "5 TLSv1.2");
}

static void plain_http_where_tls_is_expected_is_a_fault_of_tls(void **state)
{
    struct fixture *f = *state;

    stub_open(&f->stub, &f->loop, NULL, NULL);
    f->cfg.timeout_ms = 1000;
    snprintf(f->url, sizeof(f->url), "https%s", f->stub.url + 4);
    /* The stub waits for a head that never comes. */
    assert_int_not_equal(post(f).error, HTTP_OK);
    stub_close(&f->stub);
}

static void http2_carries_all_requests_on_one_connection(void **state)
{
    struct fixture *f = *state;
    struct result r[20];
    int n_connections = 0;
    char *big = malloc(300001);

    assert_non_null(big);
    memset(big, 'x', 300000);
    big[300000] = '\0';
    if (!serve(f, "--h2", NULL)) {
        free(big);
        skip();
    }
    for (int i = 0; i < 20; i++)
        begin(f, &r[i], big);
    for (int i = 0; i < 20; i++)
        stub_run_until(&f->loop, &r[i].done, 15000);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(r[i].error, HTTP_OK);
        assert_int_equal(r[i].status, 200);
    }
    (void)printed(&f->server, "never", 200);
    for (char *p = f->server.text; (p = strstr(p, "connection")) != NULL; p++)
        n_connections++;
    assert_int_equal(n_connections, 1);
    free(big);
}

static void http1_only_is_kept(void **state)
{
    struct fixture *f = *state;

    if (!serve(f, "--h2", NULL))
        skip();
    f->cfg.http1_only = true;
    assert_int_not_equal(post(f).error, HTTP_OK); /* it speaks HTTP/2 alone */
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_certificate_of_our_authority_is_accepted),
        TEST(an_unknown_authority_is_refused),
        TEST(another_name_is_refused),
        TEST(nothing_is_verified_only_when_switched_off),
        TEST(a_missing_ca_file_is_a_fault_of_tls),
        TEST(the_least_version_of_tls_is_kept),
        TEST(plain_http_where_tls_is_expected_is_a_fault_of_tls),
        TEST(http2_carries_all_requests_on_one_connection),
        TEST(http1_only_is_kept),
    };

    unsetenv("https_proxy");
    unsetenv("HTTPS_PROXY");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
