/* SPDX-License-Identifier: Apache-2.0 */
/* Drains, and ends in odd moments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>

#include "agent/base/log.h"
#include "tests/support/forwarder_rig.h"

/* ---- the stop ------------------------------------------------------------------ */

static void a_drain_ends_when_the_last_payload_is_settled(void **state)
{
    struct rig *f = *state;

    rig_start(f);
    for (int i = 0; i < 100; i++)
        rig_put(f, 'a');
    rig_drain_for(f, 60000);
    stub_run_until(&f->loop, &f->idle, 10000);
    assert_int_equal(store_counts(f->s)->delivered, 1000);
    assert_int_equal(f->n_idle, 1);
}

static void an_empty_drain_ends_from_the_loop(void **state)
{
    struct rig *f = *state;

    rig_start(f);
    rig_drain_for(f, 60000);
    stub_run_until(&f->loop, &f->idle, 5000);
    rig_put(f, 'l'); /* late, but before the deadline */
    forwarder_kick(f->f);
    rig_wait_settled(f);
    assert_int_equal(f->n_idle, 1);
}

/* With everything on disk there is no use in trying until the deadline. */
static void a_safe_drain_ends_with_the_first_failure(void **state)
{
    struct rig *f = *state;

    f->status = 503;
    rig_start(f);
    for (int i = 0; i < 50; i++)
        rig_put(f, 'a');
    rig_drain_for(f, 60000);
    forwarder_set_safe(f->f);
    stub_run_until(&f->loop, &f->idle, 10000);
    assert_int_equal(store_counts(f->s)->delivered, 0);
    /* The next drain is not safe by itself, and delivers. */
    f->idle = false;
    f->status = 202;
    rig_drain_for(f, 60000);
    stub_run_until(&f->loop, &f->idle, 10000);
    assert_int_equal(store_counts(f->s)->delivered, 500);
    /* A safe one delivers as long as the intake takes it. */
    f->idle = false;
    for (int i = 0; i < 50; i++)
        rig_put(f, 'a');
    rig_drain_for(f, 60000);
    forwarder_set_safe(f->f);
    stub_run_until(&f->loop, &f->idle, 10000);
    assert_int_equal(store_counts(f->s)->delivered, 1000);
}

/* No descriptor was free when it was to be loaded; the stop frees some. */
static void a_drain_tries_a_module_that_failed_again(void **state)
{
    struct rig *f = *state;

    rig_start_without_module(f);
    rig_drain_for(f, 60000);
    stub_run_for(&f->loop, 20); /* it fails again, at once */
    assert_false(f->idle);
    rig_mend_module(f);
    stub_run_until(&f->loop, &f->idle, 900); /* not the second of other times */
    assert_int_equal(store_counts(f->s)->delivered, 10);
}

static void a_drain_waits_for_what_is_in_flight(void **state)
{
    struct rig *f = *state;
    struct stub_conn *c;

    f->mode = RIG_STALL;
    f->status = 500;
    rig_start(f);
    rig_put(f, 'a');
    rig_wait_posts(f, 1);
    rig_drain_for(f, 60000);
    stub_run_for(&f->loop, 100);
    assert_false(f->idle);
    for (c = f->stub.conns; c != NULL; c = NULL)
        stub_answer(c, 202, "", "");
    f->mode = RIG_ANSWER;
    f->status = 202;
    stub_run_until(&f->loop, &f->idle, 10000);
    assert_int_equal(store_counts(f->s)->delivered, 10);
}

static void a_drain_at_its_deadline_leaves_the_stalled_in_the_store(
    void **state)
{
    struct rig *f = *state;
    uint64_t began;

    f->mode = RIG_STALL;
    f->status = 500;
    rig_start(f);
    for (int i = 0; i < 5; i++)
        rig_put(f, 'a');
    rig_wait_posts(f, 1);
    began = uv_hrtime();
    rig_drain_for(f, 300);
    stub_run_until(&f->loop, &f->idle, 5000);
    assert_in_range((uv_hrtime() - began) / RIG_MS, 300, 600);
    assert_int_equal(rig_n_held(f), 5);
    store_drop_rest(f->s, DROP_DEADLINE); /* as the stop does, then closes */
    rig_close_forwarder(f);
    assert_int_equal(store_counts(f->s)->dropped[DROP_DEADLINE], 50);
}

static void a_drain_tries_blocked_routes_again_at_once(void **state)
{
    struct rig *f = *state;
    uint64_t began;

    f->cfg.backoff_base_ms = 20000;
    f->cfg.backoff_max_ms = 60000;
    f->status = 503;
    f->headers = "Retry-After: 600\r\n";
    rig_start(f);
    rig_put(f, 'a');
    rig_wait_posts(f, 1);
    while (rig_stats(f).retry_in_ms == 0)
        stub_run_for(&f->loop, 5);
    assert_true(rig_stats(f).retry_in_ms > 500000);
    f->status = 202;
    began = uv_hrtime();
    rig_drain_for(f, 9000);
    stub_run_until(&f->loop, &f->idle, 9500);
    assert_true(uv_hrtime() - began < 2000 * RIG_MS);
    assert_int_equal(store_counts(f->s)->delivered, 10);
}

static void a_drain_retries_until_the_intake_recovers(void **state)
{
    struct rig *f = *state;

    f->cfg.backoff_base_ms = 100;
    f->mode = RIG_RESET;
    f->status = 500;
    rig_start(f);
    for (int i = 0; i < 30; i++)
        rig_put(f, 'a');
    rig_drain_for(f, 9000);
    stub_run_for(&f->loop, 400);
    assert_false(f->idle);
    assert_true(f->n_posts >= 2);
    f->status = 202;
    stub_run_until(&f->loop, &f->idle, 9000);
    assert_int_equal(store_counts(f->s)->delivered, 300);
}

static void a_drain_with_a_refused_key_tries_each_payload_once(void **state)
{
    struct rig *f = *state;

    f->good_key = "another";
    f->validate_status = 403;
    for (int i = 0; i < 30; i++)
        rig_put(f, 'a');
    rig_start(f);
    rig_drain_for(f, 60000);
    stub_run_until(&f->loop, &f->idle, 10000);
    assert_int_equal(f->n_posts, 30);
    assert_int_equal(rig_n_held(f), 30);
    forwarder_resume(f->f);
    f->good_key = NULL;
    forwarder_set_key(f->f, RIG_KEY);
    rig_wait_settled(f);
    assert_int_equal(store_counts(f->s)->delivered, 300);
}

static void what_a_refused_key_leaves_is_dropped_for_its_status(void **state)
{
    struct rig *f = *state;

    f->good_key = "another";
    for (int i = 0; i < 3; i++)
        rig_put(f, 'a');
    rig_start(f);
    rig_drain_for(f, 60000);
    stub_run_until(&f->loop, &f->idle, 10000);
    rig_put(f, 'b'); /* never tried */
    forwarder_drop_refused(f->f);
    store_drop_rest(f->s, DROP_DEADLINE);
    assert_int_equal(store_counts(f->s)->dropped_http[403 - 100], 30);
    assert_int_equal(store_counts(f->s)->dropped[DROP_DEADLINE], 10);
    forwarder_drop_refused(f->f); /* nothing left */
    assert_int_equal(store_counts(f->s)->dropped[DROP_HTTP], 30);
}

static void after_a_resume_the_usual_rules_hold(void **state)
{
    struct rig *f = *state;

    f->status = 500;
    rig_start(f);
    rig_put(f, 'a');
    rig_drain_for(f, 200);
    stub_run_until(&f->loop, &f->idle, 5000);
    forwarder_resume(f->f);
    f->status = 202;
    rig_wait_settled(f);
    rig_put(f, 'b');
    f->idle = false;
    rig_drain_for(f, 5000); /* the second stop */
    stub_run_until(&f->loop, &f->idle, 5000);
    assert_int_equal(f->n_idle, 2);
    assert_int_equal(store_counts(f->s)->delivered, 20);
}

/* ---- ends in odd moments --------------------------------------------------------- */

static void closing_puts_back_what_is_in_flight(void **state)
{
    struct rig *f = *state;

    f->mode = RIG_STALL;
    f->status = 500;
    rig_start(f);
    for (int i = 0; i < 20; i++)
        rig_put(f, 'a');
    rig_wait_posts(f, 7);
    assert_int_equal(rig_stats(f).n_in_flight, 7);
    rig_close_forwarder(f);
    assert_int_equal(rig_n_held(f), 20);
}

static void closing_at_once_is_possible(void **state)
{
    struct rig *f = *state;

    rig_put(f, 'a');
    rig_start(f);
    rig_close_forwarder(f); /* before the module came */
    rig_start(f);
    (void)uv_run(&f->loop, UV_RUN_NOWAIT); /* its thread runs */
    f->closed = false;
    rig_close_forwarder(f);
    assert_int_equal(rig_n_held(f), 1);
}

static void close_in_idle(void *arg)
{
    struct rig *f = arg;

    f->idle = true;
    forwarder_close(f->f, rig_set_flag, &f->closed);
    f->f = NULL;
}

static void the_idle_callback_may_close(void **state)
{
    struct rig *f = *state;

    rig_start(f);
    rig_put(f, 'a');
    forwarder_drain(f->f, uv_hrtime() + 9000 * RIG_MS, close_in_idle, f);
    stub_run_until(&f->loop, &f->closed, 5000);
    assert_int_equal(store_counts(f->s)->delivered, 10);
}

static void put_more_when_settled(void *arg)
{
    struct rig *f = arg;

    rig_put(f, 'n');
    forwarder_kick(f->f);
    assert_int_equal(forwarder_when_settled(f->f, rig_set_flag, &f->settled),
                     0);
}

static void a_settled_callback_may_wait_again_or_close(void **state)
{
    struct rig *f = *state;

    rig_start(f);
    rig_put(f, 'a');
    assert_int_equal(forwarder_when_settled(f->f, put_more_when_settled, f), 0);
    stub_run_until(&f->loop, &f->settled, 5000);
    assert_int_equal(store_counts(f->s)->delivered, 20);
    rig_put(f, 'b');
    f->idle = false;
    assert_int_equal(forwarder_when_settled(f->f, close_in_idle, f), 0);
    stub_run_until(&f->loop, &f->closed, 5000);
    assert_int_equal(store_counts(f->s)->delivered, 30);
}

static void settled_means_what_was_there_and_not_what_came_later(void **state)
{
    struct rig *f = *state;

    f->cfg.max_concurrent = 1;
    f->poison = 'z';
    rig_start(f);
    rig_put(f, 'a');
    assert_int_equal(forwarder_when_settled(f->f, rig_set_flag, &f->settled),
                     0);
    rig_put(f, 'z'); /* never delivered */
    forwarder_kick(f->f);
    stub_run_until(&f->loop, &f->settled, 5000);
    assert_int_equal(rig_n_held(f), 1);
    assert_int_equal(store_counts(f->s)->delivered, 10);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_drain_ends_when_the_last_payload_is_settled),
        TEST(an_empty_drain_ends_from_the_loop),
        TEST(a_safe_drain_ends_with_the_first_failure),
        TEST(a_drain_tries_a_module_that_failed_again),
        TEST(a_drain_waits_for_what_is_in_flight),
        TEST(a_drain_at_its_deadline_leaves_the_stalled_in_the_store),
        TEST(a_drain_tries_blocked_routes_again_at_once),
        TEST(a_drain_retries_until_the_intake_recovers),
        TEST(a_drain_with_a_refused_key_tries_each_payload_once),
        TEST(what_a_refused_key_leaves_is_dropped_for_its_status),
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
