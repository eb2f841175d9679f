/* SPDX-License-Identifier: Apache-2.0 */
/* Back-off, breaker and verdicts, under virtual time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "forwarder/retry.h"

#define MS UINT64_C(1000000)
#define T0 (UINT64_C(1000) * 1000 * MS)

static const struct retry_policy policy = {100, 64000, 2.0};

static void backoff_grows_by_the_factor_to_the_maximum(void **state)
{
    static const uint32_t tops[] = {100,  200,   400,   800,   1600,  3200,
                                    6400, 12800, 25600, 51200, 64000, 64000};
    struct retry_rng rng = {7};

    (void)state;
    for (uint32_t n = 1; n <= 12; n++) {
        uint32_t lowest = UINT32_MAX;
        uint32_t highest = 0;

        for (int i = 0; i < 2000; i++) {
            uint32_t ms = retry_backoff_ms(&policy, n, &rng);

            lowest = ms < lowest ? ms : lowest;
            highest = ms > highest ? ms : highest;
        }
        assert_in_range(lowest, 50, 50 + tops[n - 1] / 50);
        assert_in_range(highest, tops[n - 1] - tops[n - 1] / 50, tops[n - 1]);
    }
    assert_in_range(retry_backoff_ms(&policy, UINT32_MAX, &rng), 50, 64000);
}

static void same_seed_gives_same_waits(void **state)
{
    struct retry_rng a = {42};
    struct retry_rng b = {42};
    struct retry_rng c = {43};
    int n_other = 0;

    (void)state;
    for (uint32_t n = 1; n < 50; n++) {
        uint32_t ms = retry_backoff_ms(&policy, 8, &a);

        assert_int_equal(ms, retry_backoff_ms(&policy, 8, &b));
        n_other += ms != retry_backoff_ms(&policy, 8, &c);
    }
    assert_true(n_other > 40);
}

static void policy_out_of_bounds_becomes_the_default(void **state)
{
    struct retry_policy p =
        retry_policy_clean((struct retry_policy){0, 0, (double)NAN});

    (void)state;
    assert_int_equal(p.base_ms, 100);
    assert_int_equal(p.max_ms, 64000);
    assert_true(p.factor == 2.0);
    p = retry_policy_clean((struct retry_policy){500, 20, 1.0});
    assert_int_equal(p.max_ms, 500);
    assert_true(p.factor == 2.0);
}

static void one_probe_goes_first_after_the_block(void **state)
{
    struct breaker b = {0};
    struct retry_rng rng = {1};

    (void)state;
    assert_true(breaker_allows(&b, T0, false));
    assert_false(breaker_begin(&b, false));
    breaker_failure(&b, &policy, &rng, false, T0, 0, 0);
    assert_false(breaker_allows(&b, T0, false));
    assert_false(breaker_allows(&b, T0 + 49 * MS, false));
    assert_true(breaker_allows(&b, T0 + 100 * MS, false));
    assert_true(breaker_begin(&b, false));
    assert_false(breaker_allows(&b, T0 + 100 * MS, false)); /* the second */
    breaker_success(&b);
    assert_true(breaker_allows(&b, T0 + 100 * MS, false));
    assert_false(breaker_begin(&b, false));
}

static void failures_begun_before_the_block_are_one(void **state)
{
    struct breaker b = {0};
    struct retry_rng rng = {1};
    uint64_t until;

    (void)state;
    breaker_failure(&b, &policy, &rng, false, T0, 0, 0);
    until = b.until_ns;
    for (int i = 0; i < 9; i++)
        breaker_failure(&b, &policy, &rng, false, T0 + 1, 0, 0);
    assert_int_equal(b.n_failures, 1);
    assert_int_equal(b.until_ns, until);
    /* but what one of them was asked to wait counts */
    breaker_failure(&b, &policy, &rng, false, T0 + 2, 5000, 0);
    assert_int_equal(b.until_ns, T0 + 2 + 5000 * MS);
}

static void failed_probes_raise_the_level_and_successes_lower_it(void **state)
{
    struct breaker b = {0};
    struct retry_rng rng = {1};
    uint64_t now = T0;

    (void)state;
    breaker_failure(&b, &policy, &rng, false, now, 0, 0);
    for (uint32_t n = 2; n <= 6; n++) {
        now = b.until_ns;
        assert_true(breaker_begin(&b, false));
        breaker_failure(&b, &policy, &rng, true, now, 0, 0);
        assert_int_equal(b.n_failures, n);
        assert_in_range(b.until_ns - now, 50 * MS, (50ull << n) * MS);
    }
    breaker_success(&b);
    assert_int_equal(b.n_failures, 4);
    for (int i = 0; i < 5; i++)
        breaker_success(&b);
    assert_int_equal(b.n_failures, 0);
}

static void retry_after_is_honoured_up_to_its_bound(void **state)
{
    struct breaker b = {0};
    struct retry_rng rng = {1};

    (void)state;
    breaker_failure(&b, &policy, &rng, false, T0, 30000, 0);
    assert_int_equal(b.until_ns, T0 + 30000 * MS);
    breaker_reset(&b);
    assert_true(breaker_allows(&b, T0, false));
    breaker_failure(&b, &policy, &rng, false, T0, UINT32_MAX, 0);
    assert_int_equal(b.until_ns, T0 + (uint64_t)RETRY_AFTER_MAX_MS * MS);
}

static void no_wait_of_a_stop_passes_its_deadline(void **state)
{
    struct retry_rng rng = {1};
    uint64_t deadline = T0 + 9000 * MS;

    (void)state;
    for (uint32_t after = 0; after <= 100000; after += 2500) {
        struct breaker b = {0};
        uint64_t now = T0;
        int n = 0;

        while (now < deadline - MS && n < 1000) {
            assert_true(breaker_allows(&b, now, true));
            (void)breaker_begin(&b, true);
            breaker_failure(&b, &policy, &rng, false, now, after, deadline);
            assert_true(b.until_ns < deadline);
            now = b.until_ns + MS / 10; /* refused at once */
            n++;
        }
        assert_in_range(n, 10, 100); /* attempts, and no busy loop */
    }
}

static void while_draining_the_end_of_the_block_opens_for_all(void **state)
{
    struct breaker b = {0};
    struct retry_rng rng = {1};

    (void)state;
    breaker_failure(&b, &policy, &rng, false, T0, 0, T0 + 9000 * MS);
    assert_false(breaker_allows(&b, T0 + 1, true));
    for (int i = 0; i < 10; i++) {
        assert_true(breaker_allows(&b, T0 + 100 * MS, true));
        assert_false(breaker_begin(&b, true));
    }
}

static void each_outcome_has_its_verdict(void **state)
{
    static const struct {
        enum http_error error;
        int status;
        enum verdict v;
        bool refused;
    } t[] = {
        {HTTP_OK, 200, VERDICT_DELIVERED, false},
        {HTTP_OK, 202, VERDICT_DELIVERED, false},
        {HTTP_OK, 299, VERDICT_DELIVERED, false},
        {HTTP_OK, 301, VERDICT_RETRY, true},
        {HTTP_OK, 307, VERDICT_RETRY, true},
        {HTTP_OK, 400, VERDICT_DROP, true},
        {HTTP_OK, 401, VERDICT_KEY, true},
        {HTTP_OK, 403, VERDICT_KEY, true},
        {HTTP_OK, 404, VERDICT_RETRY, true},
        {HTTP_OK, 405, VERDICT_DROP, true},
        {HTTP_OK, 407, VERDICT_RETRY, true},
        {HTTP_OK, 408, VERDICT_RETRY, false},
        {HTTP_OK, 413, VERDICT_SPLIT, true},
        {HTTP_OK, 422, VERDICT_DROP, true},
        {HTTP_OK, 429, VERDICT_RETRY, true},
        {HTTP_OK, 499, VERDICT_DROP, true},
        {HTTP_OK, 500, VERDICT_RETRY, false},
        {HTTP_OK, 503, VERDICT_RETRY, false},
        {HTTP_OK, 599, VERDICT_RETRY, false},
        {HTTP_DNS, 0, VERDICT_RETRY, false},
        {HTTP_CONNECT, 0, VERDICT_RETRY, false},
        {HTTP_TLS, 0, VERDICT_RETRY, false},
        {HTTP_TIMEOUT, 0, VERDICT_RETRY, false},
        {HTTP_RESET, 0, VERDICT_RETRY, false},
        {HTTP_OTHER, 0, VERDICT_RETRY, false},
        {HTTP_CANCELLED, 0, VERDICT_CANCEL, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        assert_int_equal(retry_verdict(t[i].error, t[i].status), t[i].v);
        assert_int_equal(retry_was_refused(t[i].error, t[i].status),
                         t[i].refused);
    }
}

static void every_failure_says_what_to_do(void **state)
{
    (void)state;
    for (int status = 100; status <= 599; status++) {
        bool good = status >= 200 && status <= 299;

        assert_int_equal(strlen(retry_advice(HTTP_OK, status)) == 0, good);
    }
    for (enum http_error e = HTTP_DNS; e <= HTTP_OTHER; e++)
        assert_true(strlen(retry_advice(e, 0)) > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backoff_grows_by_the_factor_to_the_maximum),
        cmocka_unit_test(same_seed_gives_same_waits),
        cmocka_unit_test(policy_out_of_bounds_becomes_the_default),
        cmocka_unit_test(one_probe_goes_first_after_the_block),
        cmocka_unit_test(failures_begun_before_the_block_are_one),
        cmocka_unit_test(failed_probes_raise_the_level_and_successes_lower_it),
        cmocka_unit_test(retry_after_is_honoured_up_to_its_bound),
        cmocka_unit_test(no_wait_of_a_stop_passes_its_deadline),
        cmocka_unit_test(while_draining_the_end_of_the_block_opens_for_all),
        cmocka_unit_test(each_outcome_has_its_verdict),
        cmocka_unit_test(every_failure_says_what_to_do),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
