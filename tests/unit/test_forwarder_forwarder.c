/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forwarder over the real store and the real HTTP module, against a scripted
 * intake on the same loop. After each test the store's ledger must balance.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "forwarder/forwarder.h"
#include "tests/support/http_stub.h"

#define MS UINT64_C(1000000)
#define KEY "0123456789abcdef0123456789abcdef"
#define MAX_SEEN 512

/* What the intake does with a POST. */
enum mode { ANSWER, STALL, RESET };

struct fixture {
    uv_loop_t loop;
    struct stub stub;
    struct region r;
    struct store *s;
    struct forwarder_config cfg;
    struct forwarder *f;
    int module;
    uint64_t n_put; /* samples */
    bool closed, idle, settled;
    int n_idle;
    /* the intake */
    enum mode mode;
    int status;          /* of POSTs */
    int validate_status; /* of the validation */
    const char *headers;
    const char *good_key;  /* another one gets 403; NULL = any */
    char poison;           /* bodies of this letter get a 500 */
    const char *fail_path; /* this route alone fails */
    unsigned n_posts, n_validations;
    char seen[MAX_SEEN]; /* first byte of each body, in order */
    char last_key[64];
};

static int status_for(struct fixture *f, const struct stub_request *rq)
{
    if (!stub_header(rq, "DD-API-KEY", f->last_key, sizeof(f->last_key)))
        fail_msg("no key");
    if (f->good_key != NULL && strcmp(f->last_key, f->good_key) != 0)
        return 403;
    if (f->poison != 0 && rq->body[0] == f->poison)
        return 500;
    if (f->fail_path != NULL && strcmp(rq->path, f->fail_path) != 0)
        return 202;
    return f->status;
}

static void on_request(struct stub *s, struct stub_conn *c,
                       const struct stub_request *rq)
{
    struct fixture *f = s->arg;

    if (strcmp(rq->path, "/api/v1/validate") == 0) {
        assert_string_equal(rq->method, "GET");
        f->n_validations++;
        stub_answer(c, f->validate_status, "", "{\"valid\":true}");
        return;
    }
    assert_string_equal(rq->method, "POST");
    assert_true(rq->n_body > 0);
    if (f->n_posts < MAX_SEEN - 1)
        f->seen[f->n_posts] = rq->body[0];
    f->n_posts++;
    if (f->mode == RESET && status_for(f, rq) != 202)
        stub_reset(c);
    else if (f->mode != STALL || status_for(f, rq) == 202)
        stub_answer(c, status_for(f, rq), f->headers, "{}");
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    size_t reserve[STORE_N_RANGES];
    struct region_opts opts = {.name = "test",
                               .reserve = reserve,
                               .n_ranges = STORE_N_RANGES};

    assert_non_null(f);
    opts.budget_bytes = store_reserve(reserve, 4 << 20);
    assert_int_equal(region_create(&f->r, &opts), 0);
    assert_int_equal(store_open(&f->s, &f->r, &(struct store_opts){4 << 20}),
                     0);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    stub_open(&f->stub, &f->loop, on_request, f);
    f->status = 202;
    f->validate_status = 200;
    f->headers = "";
    f->module = open(HTTP_MODULE_PATH, O_RDONLY | O_CLOEXEC);
    assert_true(f->module >= 0);
    f->cfg = (struct forwarder_config){
        .http = {.user_agent = "retriever/test",
                 .ca_file = "",
                 .min_tls = "tlsv1.2",
                 .timeout_ms = 5000,
                 .tls_timeout_ms = 5000,
                 .max_connections = 10,
                 .proxy_http = "",
                 .proxy_https = "",
                 .no_proxy = "",
                 .key_log_file = ""},
        .site = "datadoghq.com",
        .dd_url = f->stub.url,
        .version = "0.1.0",
        .max_concurrent = 10,
        .backoff_base_ms = 20,
        .backoff_max_ms = 200,
        .backoff_factor = 2,
        .validate_every_s = 3600,
        .seed = 1,
    };
    *state = f;
    return 0;
}

static void start(struct fixture *f)
{
    assert_int_equal(forwarder_create(&f->f, &f->loop, f->s, &f->cfg,
                                      f->module),
                     0);
    forwarder_set_key(f->f, KEY);
}

static void set_flag(void *arg)
{
    *(bool *)arg = true;
}

static void assert_balanced(struct fixture *f)
{
    const struct delivery_counts *c = store_counts(f->s);
    struct store_stats st;
    uint64_t dropped = 0;

    store_stats(f->s, &st);
    for (int i = 0; i < DROP_N; i++)
        dropped += c->dropped[i];
    assert_int_equal(f->n_put, c->delivered + dropped + st.load.n_samples);
}

static void close_forwarder(struct fixture *f)
{
    struct store_stats st;

    forwarder_close(f->f, set_flag, &f->closed);
    assert_false(f->closed);
    stub_run_until(&f->loop, &f->closed, 5000);
    f->f = NULL;
    store_stats(f->s, &st);
    assert_int_equal(st.n_taken, 0); /* all are back */
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (f->f != NULL)
        close_forwarder(f);
    stub_close(&f->stub);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    assert_balanced(f);
    store_close(f->s);
    region_close(&f->r);
    close(f->module);
    free(f);
    return 0;
}

static void put_kind(struct fixture *f, enum payload_kind kind, char fill)
{
    struct payload_draft d = {.kind = kind,
                              .encoding = ENCODING_NONE,
                              .n_bytes = 3,
                              .n_raw_bytes = 3,
                              .load = {10, 10, 0, 0}};

    assert_int_equal(store_block_alloc(f->s, 3, &d.block), 0);
    memset(store_block_bytes(f->s, d.block), fill, 3);
    store_commit_part(f->s, store_encoded_seq(f->s) + 1, &d, 1, NULL, 0);
    f->n_put += 10;
}

static void put(struct fixture *f, char fill)
{
    put_kind(f, PAYLOAD_SERIES, fill);
}

static uint32_t n_held(struct fixture *f)
{
    struct store_stats st;

    store_stats(f->s, &st);
    return st.n_payloads;
}

static struct forwarder_stats stats(struct fixture *f)
{
    struct forwarder_stats st;

    forwarder_stats(f->f, &st);
    return st;
}

static void wait_settled(struct fixture *f)
{
    f->settled = false;
    assert_int_equal(forwarder_when_settled(f->f, set_flag, &f->settled), 0);
    assert_false(f->settled);
    stub_run_until(&f->loop, &f->settled, 10000);
}

/* Turn the loop until the intake has seen @n POSTs. */
static void wait_posts(struct fixture *f, unsigned n)
{
    uint64_t end = uv_hrtime() + 10000 * MS;

    while (f->n_posts < n) {
        if (uv_hrtime() > end)
            fail_msg("%u of %u requests", f->n_posts, n);
        stub_run_for(&f->loop, 5);
    }
}

static void on_idle(void *arg)
{
    struct fixture *f = arg;

    f->idle = true;
    f->n_idle++;
}

static void drain_for(struct fixture *f, unsigned ms)
{
    forwarder_drain(f->f, uv_hrtime() + ms * MS, on_idle, f);
    assert_false(f->idle);
}

/* ---- the usual way ----------------------------------------------------------- */

static void payloads_are_delivered_freshest_first(void **state)
{
    struct fixture *f = *state;

    f->cfg.max_concurrent = 1;
    for (char c = 'a'; c <= 'j'; c++)
        put(f, c);
    start(f);
    wait_settled(f);
    assert_string_equal(f->seen, "jihgfedcba");
    assert_int_equal(store_counts(f->s)->delivered, 100);
    assert_int_equal(store_counts(f->s)->payloads_sent, 10);
    assert_int_equal(store_counts(f->s)->payloads_retried, 0);
    assert_string_equal(f->last_key, KEY);
    assert_int_equal(n_held(f), 0);
}

static void each_kind_has_its_route(void **state)
{
    struct fixture *f = *state;

    start(f);
    for (int k = 0; k < PAYLOAD_N_KINDS; k++)
        put_kind(f, (enum payload_kind)k, (char)('a' + k));
    forwarder_kick(f->f);
    wait_settled(f);
    assert_int_equal(f->n_posts, PAYLOAD_N_KINDS);
}

static void nothing_is_sent_without_a_key(void **state)
{
    struct fixture *f = *state;

    put(f, 'a');
    assert_int_equal(forwarder_create(&f->f, &f->loop, f->s, &f->cfg,
                                      f->module),
                     0);
    forwarder_set_key(f->f, "");
    forwarder_kick(f->f);
    stub_run_for(&f->loop, 50);
    assert_int_equal(f->stub.n_requests, 0);
    assert_int_equal(stats(f).key_state, KEY_MISSING);
    forwarder_set_key(f->f, "bad key\r\n");
    stub_run_for(&f->loop, 50);
    assert_int_equal(stats(f).key_state, KEY_MISSING);
    drain_for(f, 60000); /* nothing can come of waiting */
    stub_run_until(&f->loop, &f->idle, 5000);
    forwarder_resume(f->f);
    forwarder_set_key(f->f, KEY);
    wait_settled(f);
    assert_int_equal(stats(f).key_state, KEY_VALID);
}

static void a_missing_module_is_said_and_keeps_payloads(void **state)
{
    struct fixture *f = *state;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    put(f, 'a');
    close(f->module);
    /* Another number: the dynamic linker knows loaded files by their path. */
    f->module = fcntl(fd, F_DUPFD_CLOEXEC, 500);
    close(fd);
    start(f);
    drain_for(f, 60000);
    stub_run_until(&f->loop, &f->idle, 5000);
    assert_true(stats(f).failing);
    assert_non_null(strstr(stats(f).last_error, "retriever-http.so"));
    assert_int_equal(n_held(f), 1);
}

static void bad_addresses_are_refused(void **state)
{
    struct fixture *f = *state;

    f->cfg.dd_url = "ftp://x";
    assert_int_equal(forwarder_create(&f->f, &f->loop, f->s, &f->cfg,
                                      f->module),
                     -EINVAL);
    f->f = NULL;
}

/* ---- fates ------------------------------------------------------------------- */

static void failures_are_retried_with_the_same_bytes(void **state)
{
    static const int codes[] = {500, 503, 404, 408, 429, 301};
    struct fixture *f = *state;

    start(f);
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        unsigned before = f->n_posts;

        f->status = codes[i];
        put(f, (char)('a' + i));
        forwarder_kick(f->f);
        wait_posts(f, before + 3);
        assert_true(stats(f).failing);
        assert_int_equal(n_held(f), 1);
        f->status = 202;
        wait_settled(f);
        assert_false(stats(f).failing);
    }
    assert_int_equal(store_counts(f->s)->delivered, 60);
    assert_int_equal(store_counts(f->s)->payloads_ambiguous, 0); /* series */
    assert_true(store_counts(f->s)->payloads_retried >= 12);
}

static void a_resent_sketch_is_ambiguous_unless_it_was_refused(void **state)
{
    struct fixture *f = *state;

    f->status = 429;
    start(f);
    put_kind(f, PAYLOAD_SKETCHES, 'a');
    wait_posts(f, 3);
    f->status = 202;
    wait_settled(f);
    assert_int_equal(store_counts(f->s)->payloads_ambiguous, 0);
    f->mode = RESET;
    f->status = 500;
    put_kind(f, PAYLOAD_SKETCHES, 'b');
    forwarder_kick(f->f);
    wait_posts(f, f->n_posts + 1);
    f->status = 202;
    wait_settled(f);
    assert_true(store_counts(f->s)->payloads_ambiguous >= 1);
}

static void refused_payloads_are_dropped_under_their_code(void **state)
{
    struct fixture *f = *state;

    start(f);
    f->status = 400;
    put(f, 'a');
    wait_settled(f);
    f->status = 422;
    put(f, 'b');
    forwarder_kick(f->f);
    wait_settled(f);
    f->status = 413; /* three bytes cannot be split */
    put(f, 'c');
    forwarder_kick(f->f);
    wait_settled(f);
    assert_int_equal(store_counts(f->s)->dropped[DROP_HTTP], 30);
    assert_int_equal(store_counts(f->s)->dropped_http[400 - 100], 10);
    assert_int_equal(store_counts(f->s)->dropped_http[422 - 100], 10);
    assert_int_equal(store_counts(f->s)->dropped_http[413 - 100], 10);
    assert_int_equal(f->n_posts, 3);
    assert_non_null(strstr(stats(f).last_error, "HTTP 413"));
}

static void retry_after_is_waited_for(void **state)
{
    struct fixture *f = *state;
    uint64_t began = uv_hrtime();

    f->status = 503;
    f->headers = "Retry-After: 1\r\n";
    start(f);
    put(f, 'a');
    wait_posts(f, 1);
    f->status = 202;
    wait_settled(f);
    assert_true(uv_hrtime() - began >= 1000 * MS);
    assert_int_equal(f->n_posts, 2);
}

/* ---- one failing route, one bad payload ---------------------------------------- */

static void a_failing_route_does_not_block_the_others(void **state)
{
    struct fixture *f = *state;

    f->status = 500;
    f->fail_path = "/api/v2/series";
    start(f);
    for (int i = 0; i < 20; i++) {
        put(f, 'a');
        put_kind(f, PAYLOAD_CHECKS, 'c');
    }
    while (store_counts(f->s)->delivered < 200)
        stub_run_for(&f->loop, 5);
    assert_int_equal(n_held(f), 20);
    f->fail_path = NULL;
    f->status = 202;
    wait_settled(f);
}

static void a_hanging_route_leaves_room_for_the_others(void **state)
{
    struct fixture *f = *state;

    f->mode = STALL;
    f->status = 500;
    f->fail_path = "/api/v2/series";
    start(f);
    for (int i = 0; i < 20; i++)
        put(f, 'a');
    wait_posts(f, 7);
    put_kind(f, PAYLOAD_SKETCHES, 's');
    put_kind(f, PAYLOAD_EVENTS, 'e');
    forwarder_kick(f->f);
    while (store_counts(f->s)->delivered < 20)
        stub_run_for(&f->loop, 5);
    assert_int_equal(stats(f).n_in_flight, 7);
}

static void a_payload_that_always_fails_does_not_hold_up_the_rest(void **state)
{
    struct fixture *f = *state;

    f->cfg.max_concurrent = 1;
    f->poison = 'z';
    for (char c = 'a'; c <= 'e'; c++)
        put(f, c);
    put(f, 'z'); /* the freshest */
    start(f);
    while (store_counts(f->s)->delivered < 50)
        stub_run_for(&f->loop, 5);
    assert_int_equal(n_held(f), 1);
}

/* ---- the key ------------------------------------------------------------------- */

static void a_refused_key_keeps_everything_until_a_good_one_comes(void **state)
{
    struct fixture *f = *state;

    f->good_key = "fedcba98";
    f->validate_status = 403;
    for (int i = 0; i < 30; i++)
        put(f, 'a');
    start(f);
    wait_posts(f, 1);
    stub_run_for(&f->loop, 100);
    assert_true(f->n_posts <= 10); /* the first round, no more */
    assert_int_equal(stats(f).key_state, KEY_INVALID);
    assert_int_equal(n_held(f), 30);
    assert_int_equal(f->n_validations, 1);
    forwarder_set_key(f->f, "fedcba98");
    wait_settled(f);
    assert_int_equal(store_counts(f->s)->delivered, 300);
    assert_int_equal(stats(f).key_state, KEY_VALID);
    assert_string_equal(f->last_key, "fedcba98");
}

static void a_validation_lets_one_payload_try_again(void **state)
{
    struct fixture *f = *state;

    f->cfg.validate_every_s = 1;
    f->good_key = "another";
    for (int i = 0; i < 30; i++)
        put(f, 'a');
    start(f);
    wait_posts(f, 1);
    stub_run_for(&f->loop, 50);
    while (f->n_validations < 2)
        stub_run_for(&f->loop, 5);
    stub_run_for(&f->loop, 50);
    assert_in_range(f->n_posts, 2, 11); /* one probe more */
    f->good_key = NULL;
    wait_settled(f);
    assert_int_equal(store_counts(f->s)->delivered, 300);
}

static void a_validation_that_says_nothing_counts_as_valid(void **state)
{
    struct fixture *f = *state;

    f->validate_status = 404;
    start(f);
    while (f->n_validations < 1)
        stub_run_for(&f->loop, 5);
    stub_run_for(&f->loop, 20);
    assert_int_equal(stats(f).key_state, KEY_UNKNOWN);
    put(f, 'a');
    forwarder_kick(f->f);
    wait_settled(f);
    assert_int_equal(stats(f).key_state, KEY_VALID);
}

/* ---- the stop ------------------------------------------------------------------ */

static void a_drain_ends_when_the_last_payload_is_settled(void **state)
{
    struct fixture *f = *state;

    start(f);
    for (int i = 0; i < 100; i++)
        put(f, 'a');
    drain_for(f, 60000);
    stub_run_until(&f->loop, &f->idle, 10000);
    assert_int_equal(store_counts(f->s)->delivered, 1000);
    assert_int_equal(f->n_idle, 1);
}

static void an_empty_drain_ends_from_the_loop(void **state)
{
    struct fixture *f = *state;

    start(f);
    drain_for(f, 60000);
    stub_run_until(&f->loop, &f->idle, 5000);
    put(f, 'l'); /* late, but before the deadline */
    forwarder_kick(f->f);
    wait_settled(f);
    assert_int_equal(f->n_idle, 1);
}

static void a_drain_waits_for_what_is_in_flight(void **state)
{
    struct fixture *f = *state;
    struct stub_conn *c;

    f->mode = STALL;
    f->status = 500;
    start(f);
    put(f, 'a');
    wait_posts(f, 1);
    drain_for(f, 60000);
    stub_run_for(&f->loop, 100);
    assert_false(f->idle);
    for (c = f->stub.conns; c != NULL; c = NULL)
        stub_answer(c, 202, "", "");
    f->mode = ANSWER;
    f->status = 202;
    stub_run_until(&f->loop, &f->idle, 10000);
    assert_int_equal(store_counts(f->s)->delivered, 10);
}

static void a_drain_at_its_deadline_leaves_the_stalled_in_the_store(
    void **state)
{
    struct fixture *f = *state;
    uint64_t began;

    f->mode = STALL;
    f->status = 500;
    start(f);
    for (int i = 0; i < 5; i++)
        put(f, 'a');
    wait_posts(f, 1);
    began = uv_hrtime();
    drain_for(f, 300);
    stub_run_until(&f->loop, &f->idle, 5000);
    assert_in_range((uv_hrtime() - began) / MS, 300, 600);
    assert_int_equal(n_held(f), 5);
    store_drop_rest(f->s, DROP_DEADLINE); /* as the stop does, then closes */
    close_forwarder(f);
    assert_int_equal(store_counts(f->s)->dropped[DROP_DEADLINE], 50);
}

static void a_drain_tries_blocked_routes_again_at_once(void **state)
{
    struct fixture *f = *state;
    uint64_t began;

    f->cfg.backoff_base_ms = 20000;
    f->cfg.backoff_max_ms = 60000;
    f->status = 503;
    f->headers = "Retry-After: 600\r\n";
    start(f);
    put(f, 'a');
    wait_posts(f, 1);
    while (stats(f).retry_in_ms == 0)
        stub_run_for(&f->loop, 5);
    assert_true(stats(f).retry_in_ms > 500000);
    f->status = 202;
    began = uv_hrtime();
    drain_for(f, 9000);
    stub_run_until(&f->loop, &f->idle, 9500);
    assert_true(uv_hrtime() - began < 2000 * MS);
    assert_int_equal(store_counts(f->s)->delivered, 10);
}

static void a_drain_retries_until_the_intake_recovers(void **state)
{
    struct fixture *f = *state;

    f->cfg.backoff_base_ms = 100;
    f->mode = RESET;
    f->status = 500;
    start(f);
    for (int i = 0; i < 30; i++)
        put(f, 'a');
    drain_for(f, 9000);
    stub_run_for(&f->loop, 400);
    assert_false(f->idle);
    assert_true(f->n_posts >= 2);
    f->status = 202;
    stub_run_until(&f->loop, &f->idle, 9000);
    assert_int_equal(store_counts(f->s)->delivered, 300);
}

static void a_drain_with_a_refused_key_tries_each_payload_once(void **state)
{
    struct fixture *f = *state;

    f->good_key = "another";
    f->validate_status = 403;
    for (int i = 0; i < 30; i++)
        put(f, 'a');
    start(f);
    drain_for(f, 60000);
    stub_run_until(&f->loop, &f->idle, 10000);
    assert_int_equal(f->n_posts, 30);
    assert_int_equal(n_held(f), 30);
    forwarder_resume(f->f);
    f->good_key = NULL;
    forwarder_set_key(f->f, KEY);
    wait_settled(f);
    assert_int_equal(store_counts(f->s)->delivered, 300);
}

static void after_a_resume_the_usual_rules_hold(void **state)
{
    struct fixture *f = *state;

    f->status = 500;
    start(f);
    put(f, 'a');
    drain_for(f, 200);
    stub_run_until(&f->loop, &f->idle, 5000);
    forwarder_resume(f->f);
    f->status = 202;
    wait_settled(f);
    put(f, 'b');
    f->idle = false;
    drain_for(f, 5000); /* the second stop */
    stub_run_until(&f->loop, &f->idle, 5000);
    assert_int_equal(f->n_idle, 2);
    assert_int_equal(store_counts(f->s)->delivered, 20);
}

/* ---- ends in odd moments --------------------------------------------------------- */

static void closing_puts_back_what_is_in_flight(void **state)
{
    struct fixture *f = *state;

    f->mode = STALL;
    f->status = 500;
    start(f);
    for (int i = 0; i < 20; i++)
        put(f, 'a');
    wait_posts(f, 7);
    assert_int_equal(stats(f).n_in_flight, 7);
    close_forwarder(f);
    assert_int_equal(n_held(f), 20);
}

static void closing_at_once_is_possible(void **state)
{
    struct fixture *f = *state;

    put(f, 'a');
    start(f);
    close_forwarder(f); /* before the module came */
    start(f);
    (void)uv_run(&f->loop, UV_RUN_NOWAIT); /* its thread runs */
    f->closed = false;
    close_forwarder(f);
    assert_int_equal(n_held(f), 1);
}

static void close_in_idle(void *arg)
{
    struct fixture *f = arg;

    f->idle = true;
    forwarder_close(f->f, set_flag, &f->closed);
    f->f = NULL;
}

static void the_idle_callback_may_close(void **state)
{
    struct fixture *f = *state;

    start(f);
    put(f, 'a');
    forwarder_drain(f->f, uv_hrtime() + 9000 * MS, close_in_idle, f);
    stub_run_until(&f->loop, &f->closed, 5000);
    assert_int_equal(store_counts(f->s)->delivered, 10);
}

static void put_more_when_settled(void *arg)
{
    struct fixture *f = arg;

    put(f, 'n');
    forwarder_kick(f->f);
    assert_int_equal(forwarder_when_settled(f->f, set_flag, &f->settled), 0);
}

static void a_settled_callback_may_wait_again_or_close(void **state)
{
    struct fixture *f = *state;

    start(f);
    put(f, 'a');
    assert_int_equal(forwarder_when_settled(f->f, put_more_when_settled, f), 0);
    stub_run_until(&f->loop, &f->settled, 5000);
    assert_int_equal(store_counts(f->s)->delivered, 20);
    put(f, 'b');
    f->idle = false;
    assert_int_equal(forwarder_when_settled(f->f, close_in_idle, f), 0);
    stub_run_until(&f->loop, &f->closed, 5000);
    assert_int_equal(store_counts(f->s)->delivered, 30);
}

static void settled_means_what_was_there_and_not_what_came_later(void **state)
{
    struct fixture *f = *state;

    f->cfg.max_concurrent = 1;
    f->poison = 'z';
    start(f);
    put(f, 'a');
    assert_int_equal(forwarder_when_settled(f->f, set_flag, &f->settled), 0);
    put(f, 'z'); /* never delivered */
    forwarder_kick(f->f);
    stub_run_until(&f->loop, &f->settled, 5000);
    assert_int_equal(n_held(f), 1);
    assert_int_equal(store_counts(f->s)->delivered, 10);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(payloads_are_delivered_freshest_first),
        TEST(each_kind_has_its_route),
        TEST(nothing_is_sent_without_a_key),
        TEST(a_missing_module_is_said_and_keeps_payloads),
        TEST(bad_addresses_are_refused),
        TEST(failures_are_retried_with_the_same_bytes),
        TEST(a_resent_sketch_is_ambiguous_unless_it_was_refused),
        TEST(refused_payloads_are_dropped_under_their_code),
        TEST(retry_after_is_waited_for),
        TEST(a_failing_route_does_not_block_the_others),
        TEST(a_hanging_route_leaves_room_for_the_others),
        TEST(a_payload_that_always_fails_does_not_hold_up_the_rest),
        TEST(a_refused_key_keeps_everything_until_a_good_one_comes),
        TEST(a_validation_lets_one_payload_try_again),
        TEST(a_validation_that_says_nothing_counts_as_valid),
        TEST(a_drain_ends_when_the_last_payload_is_settled),
        TEST(an_empty_drain_ends_from_the_loop),
        TEST(a_drain_waits_for_what_is_in_flight),
        TEST(a_drain_at_its_deadline_leaves_the_stalled_in_the_store),
        TEST(a_drain_tries_blocked_routes_again_at_once),
        TEST(a_drain_retries_until_the_intake_recovers),
        TEST(a_drain_with_a_refused_key_tries_each_payload_once),
        TEST(after_a_resume_the_usual_rules_hold),
        TEST(closing_puts_back_what_is_in_flight),
        TEST(closing_at_once_is_possible),
        TEST(the_idle_callback_may_close),
        TEST(a_settled_callback_may_wait_again_or_close),
        TEST(settled_means_what_was_there_and_not_what_came_later),
    };

    unsetenv("http_proxy");
    unsetenv("HTTP_PROXY");
    (void)log_init(&(struct log_opts){.level = LOG_LEVEL_OFF});
    return cmocka_run_group_tests(tests, NULL, NULL);
}
