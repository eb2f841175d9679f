/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of payloads, routes and keys while the agent runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "tests/support/forwarder_rig.h"

/* ---- the usual way ----------------------------------------------------------- */

static void payloads_are_delivered_freshest_first(void **state)
{
    struct rig *f = *state;

    f->cfg.max_concurrent = 1;
    for (char c = 'a'; c <= 'j'; c++)
        rig_put(f, c);
    rig_start(f);
    rig_wait_settled(f);
    assert_string_equal(f->seen, "jihgfedcba");
    assert_int_equal(store_counts(f->s)->delivered, 100);
    assert_int_equal(store_counts(f->s)->payloads_sent, 10);
    assert_int_equal(store_counts(f->s)->payloads_retried, 0);
    assert_string_equal(f->last_key, RIG_KEY);
    assert_int_equal(rig_n_held(f), 0);
}

static void each_kind_has_its_route(void **state)
{
    struct rig *f = *state;

    rig_start(f);
    for (int k = 0; k < PAYLOAD_N_KINDS; k++)
        rig_put_kind(f, (enum payload_kind)k, (char)('a' + k));
    forwarder_kick(f->f);
    rig_wait_settled(f);
    assert_int_equal(f->n_posts, PAYLOAD_N_KINDS);
}

static void nothing_is_sent_without_a_key(void **state)
{
    struct rig *f = *state;

    rig_put(f, 'a');
    assert_int_equal(forwarder_create(&f->f, &f->loop, f->s, &f->cfg,
                                      f->module),
                     0);
    forwarder_set_key(f->f, "");
    forwarder_kick(f->f);
    stub_run_for(&f->loop, 50);
    assert_int_equal(f->stub.n_requests, 0);
    assert_int_equal(rig_stats(f).key_state, KEY_MISSING);
    forwarder_set_key(f->f, "bad key\r\n");
    stub_run_for(&f->loop, 50);
    assert_int_equal(rig_stats(f).key_state, KEY_MISSING);
    rig_drain_for(f, 60000); /* nothing can come of waiting */
    stub_run_until(&f->loop, &f->idle, 5000);
    forwarder_resume(f->f);
    forwarder_set_key(f->f, RIG_KEY);
    rig_wait_settled(f);
    assert_int_equal(rig_stats(f).key_state, KEY_VALID);
}

/* Paused with a request in flight: that ends as it would, no other begins. */
static void a_pause_lets_requests_end_and_begins_none(void **state)
{
    struct rig *f = *state;

    f->mode = RIG_STALL; /* until its time is over */
    f->status = 500;
    f->cfg.http.timeout_ms = 300;
    rig_start(f);
    rig_put(f, 'a');
    forwarder_kick(f->f);
    rig_wait_posts(f, 1);
    forwarder_pause(f->f, rig_on_idle, f);
    rig_put(f, 'b');
    forwarder_kick(f->f);
    stub_run_for(&f->loop, 20);
    assert_false(f->idle);
    stub_run_until(&f->loop, &f->idle, 5000);
    assert_int_equal(f->n_posts, 1);
    assert_int_equal(rig_n_held(f), 2);
    assert_int_equal(rig_stats(f).n_in_flight, 0);
    f->mode = RIG_ANSWER;
    f->status = 202;
    forwarder_resume(f->f);
    rig_wait_settled(f);
    assert_int_equal(f->n_idle, 1);
}

static void a_missing_module_is_said_and_keeps_payloads(void **state)
{
    struct rig *f = *state;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    rig_put(f, 'a');
    close(f->module);
    /* Another number: the dynamic linker knows loaded files by their path. */
    f->module = fcntl(fd, F_DUPFD_CLOEXEC, 500);
    close(fd);
    rig_start(f);
    rig_drain_for(f, 60000);
    stub_run_until(&f->loop, &f->idle, 5000);
    assert_true(rig_stats(f).failing);
    assert_non_null(strstr(rig_stats(f).last_error, "retriever-http.so"));
    assert_int_equal(rig_n_held(f), 1);
}

/* What is short for a moment when the module is loaded is not short for good. */
static void a_module_that_could_not_be_loaded_is_tried_again(void **state)
{
    struct rig *f = *state;

    rig_start_without_module(f);
    rig_mend_module(f);
    rig_wait_settled(f);
    assert_false(rig_stats(f).failing);
    assert_string_equal(f->seen, "a");
}

static void bad_addresses_are_refused(void **state)
{
    struct rig *f = *state;

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
    struct rig *f = *state;

    rig_start(f);
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        unsigned before = f->n_posts;

        f->status = codes[i];
        rig_put(f, (char)('a' + i));
        forwarder_kick(f->f);
        rig_wait_posts(f, before + 3);
        assert_true(rig_stats(f).failing);
        assert_int_equal(rig_n_held(f), 1);
        f->status = 202;
        rig_wait_settled(f);
        assert_false(rig_stats(f).failing);
    }
    assert_int_equal(store_counts(f->s)->delivered, 60);
    assert_int_equal(store_counts(f->s)->payloads_ambiguous, 0); /* series */
    assert_true(store_counts(f->s)->payloads_retried >= 12);
}

static void a_resent_sketch_is_ambiguous_unless_it_was_refused(void **state)
{
    struct rig *f = *state;

    f->status = 429;
    rig_start(f);
    rig_put_kind(f, PAYLOAD_SKETCHES, 'a');
    rig_wait_posts(f, 3);
    f->status = 202;
    rig_wait_settled(f);
    assert_int_equal(store_counts(f->s)->payloads_ambiguous, 0);
    f->mode = RIG_RESET;
    f->status = 500;
    rig_put_kind(f, PAYLOAD_SKETCHES, 'b');
    forwarder_kick(f->f);
    rig_wait_posts(f, f->n_posts + 1);
    f->status = 202;
    rig_wait_settled(f);
    assert_true(store_counts(f->s)->payloads_ambiguous >= 1);
}

static void refused_payloads_are_dropped_under_their_code(void **state)
{
    struct rig *f = *state;

    rig_start(f);
    f->status = 400;
    rig_put(f, 'a');
    rig_wait_settled(f);
    f->status = 422;
    rig_put(f, 'b');
    forwarder_kick(f->f);
    rig_wait_settled(f);
    f->status = 413; /* three bytes cannot be split */
    rig_put(f, 'c');
    forwarder_kick(f->f);
    rig_wait_settled(f);
    assert_int_equal(store_counts(f->s)->dropped[DROP_HTTP], 30);
    assert_int_equal(store_counts(f->s)->dropped_http[400 - 100], 10);
    assert_int_equal(store_counts(f->s)->dropped_http[422 - 100], 10);
    assert_int_equal(store_counts(f->s)->dropped_http[413 - 100], 10);
    assert_int_equal(f->n_posts, 3);
    assert_non_null(strstr(rig_stats(f).last_error, "HTTP 413"));
}

static void a_payload_that_is_too_large_arrives_in_halves(void **state)
{
    struct rig *f = *state;

    f->max_body = 15;
    rig_put_items(f, "abcdefghij"); /* 21 bytes */
    rig_start(f);
    rig_wait_settled(f);
    assert_int_equal(f->n_posts, 3);
    assert_int_equal(store_counts(f->s)->delivered, 10);
    assert_int_equal(store_counts(f->s)->events_delivered, 10);
    assert_int_equal(store_counts(f->s)->payloads_sent, 2);
}

/* A proxy that takes less than a quarter: nothing is lost to it. */
static void a_half_that_is_too_large_is_split_again(void **state)
{
    struct rig *f = *state;

    f->max_body = 5; /* "[a,b]" */
    rig_put_items(f, "abcdefghij");
    rig_start(f);
    rig_wait_settled(f);
    assert_int_equal(store_counts(f->s)->events_delivered, 10);
    assert_int_equal(store_counts(f->s)->payloads_dropped, 0);
    assert_in_range(store_counts(f->s)->payloads_sent, 5, 10);
}

/* The end of all splitting: each item went alone once. */
static void an_item_that_is_too_large_alone_is_dropped(void **state)
{
    struct rig *f = *state;

    f->status = 413;
    rig_put_items(f, "abcdefghij");
    rig_start(f);
    rig_wait_settled(f);
    assert_int_equal(f->n_posts, 10 + 9); /* leaves and inner nodes */
    assert_int_equal(store_counts(f->s)->dropped_http[413 - 100], 10);
    assert_int_equal(store_counts(f->s)->events_dropped, 10);
    assert_int_equal(store_counts(f->s)->payloads_dropped, 10);
}

static void retry_after_is_waited_for(void **state)
{
    struct rig *f = *state;
    uint64_t began = uv_hrtime();

    f->status = 503;
    f->headers = "Retry-After: 1\r\n";
    rig_start(f);
    rig_put(f, 'a');
    rig_wait_posts(f, 1);
    f->status = 202;
    rig_wait_settled(f);
    assert_true(uv_hrtime() - began >= 1000 * RIG_MS);
    assert_int_equal(f->n_posts, 2);
}

/* ---- one failing route, one bad payload ---------------------------------------- */

static void a_failing_route_does_not_block_the_others(void **state)
{
    struct rig *f = *state;

    f->status = 500;
    f->fail_path = "/api/v2/series";
    rig_start(f);
    for (int i = 0; i < 20; i++) {
        rig_put(f, 'a');
        rig_put_kind(f, PAYLOAD_CHECKS, 'c');
    }
    while (store_counts(f->s)->delivered < 200)
        stub_run_for(&f->loop, 5);
    assert_int_equal(rig_n_held(f), 20);
    f->fail_path = NULL;
    f->status = 202;
    rig_wait_settled(f);
}

static void a_hanging_route_leaves_room_for_the_others(void **state)
{
    struct rig *f = *state;

    f->mode = RIG_STALL;
    f->status = 500;
    f->fail_path = "/api/v2/series";
    rig_start(f);
    for (int i = 0; i < 20; i++)
        rig_put(f, 'a');
    rig_wait_posts(f, 7);
    rig_put_kind(f, PAYLOAD_SKETCHES, 's');
    rig_put_kind(f, PAYLOAD_EVENTS, 'e');
    forwarder_kick(f->f);
    while (store_counts(f->s)->delivered < 20)
        stub_run_for(&f->loop, 5);
    assert_int_equal(rig_stats(f).n_in_flight, 7);
}

static void a_payload_that_always_fails_does_not_hold_up_the_rest(void **state)
{
    struct rig *f = *state;

    f->cfg.max_concurrent = 1;
    f->poison = 'z';
    for (char c = 'a'; c <= 'e'; c++)
        rig_put(f, c);
    rig_put(f, 'z'); /* the freshest */
    rig_start(f);
    while (store_counts(f->s)->delivered < 50)
        stub_run_for(&f->loop, 5);
    assert_int_equal(rig_n_held(f), 1);
}

/* ---- the key ------------------------------------------------------------------- */

static void a_refused_key_keeps_everything_until_a_good_one_comes(void **state)
{
    struct rig *f = *state;

    f->good_key = "fedcba98";
    f->validate_status = 403;
    for (int i = 0; i < 30; i++)
        rig_put(f, 'a');
    rig_start(f);
    rig_wait_posts(f, 1);
    stub_run_for(&f->loop, 100);
    assert_true(f->n_posts <= 10); /* the first round, no more */
    assert_int_equal(rig_stats(f).key_state, KEY_INVALID);
    assert_int_equal(rig_n_held(f), 30);
    assert_int_equal(f->n_validations, 1);
    forwarder_set_key(f->f, "fedcba98");
    rig_wait_settled(f);
    assert_int_equal(store_counts(f->s)->delivered, 300);
    assert_int_equal(rig_stats(f).key_state, KEY_VALID);
    assert_string_equal(f->last_key, "fedcba98");
}

static void a_validation_lets_one_payload_try_again(void **state)
{
    struct rig *f = *state;

    f->cfg.validate_every_s = 1;
    f->good_key = "another";
    for (int i = 0; i < 30; i++)
        rig_put(f, 'a');
    rig_start(f);
    rig_wait_posts(f, 1);
    stub_run_for(&f->loop, 50);
    while (f->n_validations < 2)
        stub_run_for(&f->loop, 5);
    stub_run_for(&f->loop, 50);
    assert_in_range(f->n_posts, 2, 11); /* one probe more */
    f->good_key = NULL;
    rig_wait_settled(f);
    assert_int_equal(store_counts(f->s)->delivered, 300);
}

static void a_validation_that_says_nothing_counts_as_valid(void **state)
{
    struct rig *f = *state;

    f->validate_status = 404;
    rig_start(f);
    while (f->n_validations < 1)
        stub_run_for(&f->loop, 5);
    stub_run_for(&f->loop, 20);
    assert_int_equal(rig_stats(f).key_state, KEY_UNKNOWN);
    rig_put(f, 'a');
    forwarder_kick(f->f);
    rig_wait_settled(f);
    assert_int_equal(rig_stats(f).key_state, KEY_VALID);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(payloads_are_delivered_freshest_first),
        TEST(each_kind_has_its_route),
        TEST(nothing_is_sent_without_a_key),
        TEST(a_pause_lets_requests_end_and_begins_none),
        TEST(a_missing_module_is_said_and_keeps_payloads),
        TEST(a_module_that_could_not_be_loaded_is_tried_again),
        TEST(bad_addresses_are_refused),
        TEST(failures_are_retried_with_the_same_bytes),
        TEST(a_resent_sketch_is_ambiguous_unless_it_was_refused),
        TEST(refused_payloads_are_dropped_under_their_code),
        TEST(a_payload_that_is_too_large_arrives_in_halves),
        TEST(a_half_that_is_too_large_is_split_again),
        TEST(an_item_that_is_too_large_alone_is_dropped),
        TEST(retry_after_is_waited_for),
        TEST(a_failing_route_does_not_block_the_others),
        TEST(a_hanging_route_leaves_room_for_the_others),
        TEST(a_payload_that_always_fails_does_not_hold_up_the_rest),
        TEST(a_refused_key_keeps_everything_until_a_good_one_comes),
        TEST(a_validation_lets_one_payload_try_again),
        TEST(a_validation_that_says_nothing_counts_as_valid),
    };

    unsetenv("http_proxy");
    unsetenv("HTTP_PROXY");
    (void)log_init(&(struct log_opts){.level = LOG_LEVEL_OFF});
    return cmocka_run_group_tests(tests, NULL, NULL);
}
