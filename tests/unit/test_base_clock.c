/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/base/clock.h"

#define START_NS INT64_C(1700000000123456789)

static void real_clock_goes_forward(void **state)
{
    uint64_t before = clock_mono_ns(&clock_real);

    (void)state;
    assert_true(clock_mono_ns(&clock_real) >= before);
    assert_true(clock_wall_ns(&clock_real) > START_NS);
}

static void process_time_follows_the_monotonic_clock(void **state)
{
    struct test_clock t;
    struct process_clock p;

    (void)state;
    test_clock_init(&t, 5000, START_NS);
    process_clock_init(&p, &t.clock);
    assert_int_equal(process_clock_now(&p, &t.clock), START_NS);
    test_clock_advance(&t, 10);
    test_clock_step(&t, 3600 * CLOCK_NS_PER_S);
    assert_int_equal(process_clock_now(&p, &t.clock), START_NS + 10);
    assert_int_equal(process_clock_at(&p, 5000), START_NS);
}

static void step_of_more_than_a_second_is_followed_when_asked(void **state)
{
    static const int64_t steps[] = {PROCESS_CLOCK_STEP_NS + 1,
                                    -PROCESS_CLOCK_STEP_NS - 1,
                                    86400 * CLOCK_NS_PER_S,
                                    -START_NS}; /* back to 1970 */

    (void)state;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct test_clock t;
        struct process_clock p;

        test_clock_init(&t, 77, START_NS);
        process_clock_init(&p, &t.clock);
        test_clock_step(&t, steps[i]);
        assert_int_equal(process_clock_rebase_if_stepped(&p, &t.clock),
                         steps[i]);
        assert_int_equal(process_clock_now(&p, &t.clock), START_NS + steps[i]);
        assert_int_equal(process_clock_rebase_if_stepped(&p, &t.clock), 0);
    }
}

static void small_difference_is_left_alone(void **state)
{
    struct test_clock t;
    struct process_clock p;

    (void)state;
    test_clock_init(&t, 0, START_NS);
    process_clock_init(&p, &t.clock);
    test_clock_step(&t, PROCESS_CLOCK_STEP_NS);
    assert_int_equal(process_clock_rebase_if_stepped(&p, &t.clock), 0);
    test_clock_step(&t, -2 * PROCESS_CLOCK_STEP_NS);
    assert_int_equal(process_clock_rebase_if_stepped(&p, &t.clock), 0);
    assert_int_equal(process_clock_now(&p, &t.clock), START_NS);
}

static void a_wall_clock_that_lost_its_time_is_not_followed(void **state)
{
    const int64_t set_ns = (CLOCK_PLAUSIBLE_S + 1000) * CLOCK_NS_PER_S;
    struct test_clock t;
    struct process_clock p;

    (void)state;
    test_clock_init(&t, 0, set_ns);
    process_clock_init(&p, &t.clock);
    test_clock_step(&t, -set_ns);
    test_clock_advance(&t, CLOCK_NS_PER_S);
    assert_int_equal(process_clock_rebase_if_stepped(&p, &t.clock), 0);
    assert_int_equal(process_clock_now(&p, &t.clock), set_ns + CLOCK_NS_PER_S);
    /* Without a time of its own it follows. */
    process_clock_init(&p, &t.clock);
    test_clock_step(&t, 5 * CLOCK_NS_PER_S);
    assert_int_equal(process_clock_rebase_if_stepped(&p, &t.clock),
                     5 * CLOCK_NS_PER_S);
    test_clock_step(&t, set_ns);
    assert_int_equal(process_clock_rebase_if_stepped(&p, &t.clock), set_ns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_clock_goes_forward),
        cmocka_unit_test(process_time_follows_the_monotonic_clock),
        cmocka_unit_test(step_of_more_than_a_second_is_followed_when_asked),
        cmocka_unit_test(small_difference_is_left_alone),
        cmocka_unit_test(a_wall_clock_that_lost_its_time_is_not_followed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
