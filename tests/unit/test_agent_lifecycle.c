/* SPDX-License-Identifier: Apache-2.0 */
/* The stop machine under virtual time: what ends each stage, and that the
 * deadline holds whatever happens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "agent/lifecycle.h"

#define MS UINT64_C(1000000)
#define S (1000 * MS)

static struct lifecycle begun(bool exec, enum stop_stage from)
{
    struct lifecycle l;
    struct lifecycle_config cfg = {
        .quiet_ns = 100 * MS,
        .linger_ns = 1 * S,
        .reserve_ns = 3 * S,
        .exec = exec,
    };

    lifecycle_init(&l, &cfg);
    lifecycle_begin(&l, from, 100 * S, 109 * S, 100 * S);
    return l;
}

static void linger_ends_when_no_datagram_came_for_the_quiet_time(void **state)
{
    struct lifecycle l = begun(false, STAGE_NONE);
    struct lifecycle_facts f = {.now_ns = 100 * S, .last_data_ns = 99 * S};
    uint64_t next;

    (void)state;
    assert_false(lifecycle_advance(&l, &f, &next));
    assert_int_equal(next, 100 * S + 100 * MS);
    f.last_data_ns = 100 * S + 50 * MS; /* data: the quiet starts again */
    f.now_ns = next;
    assert_false(lifecycle_advance(&l, &f, &next));
    assert_int_equal(next, 100 * S + 150 * MS);
    f.now_ns = next;
    assert_true(lifecycle_advance(&l, &f, &next));
    assert_int_equal(l.stage, STAGE_DRAIN);
    assert_int_equal(l.stage_ms[STAGE_LINGER], 150);
}

static void linger_ends_at_its_longest_under_steady_data(void **state)
{
    struct lifecycle l = begun(false, STAGE_NONE);
    struct lifecycle_facts f = {.now_ns = 100 * S};
    uint64_t next;

    (void)state;
    for (int i = 0; i < 200; i++) {
        f.last_data_ns = f.now_ns;
        if (lifecycle_advance(&l, &f, &next))
            break;
        f.now_ns += 10 * MS;
    }
    assert_int_equal(l.stage, STAGE_DRAIN);
    assert_int_equal(f.now_ns, 101 * S);
}

static void linger_leaves_the_reserve_for_delivery(void **state)
{
    struct lifecycle l = begun(false, STAGE_NONE);

    (void)state;
    l.cfg.linger_ns = 60 * S;
    assert_int_equal(lifecycle_stage_end_ns(&l), 106 * S);
    l.cfg.reserve_ns = 60 * S; /* never more than half of the budget */
    assert_int_equal(lifecycle_stage_end_ns(&l), 104 * S + 500 * MS);
}

static void second_interrupt_ends_the_linger(void **state)
{
    struct lifecycle l = begun(false, STAGE_NONE);
    struct lifecycle_facts f = {.now_ns = 100 * S,
                                .last_data_ns = 100 * S,
                                .hurry = true};
    uint64_t next;

    (void)state;
    assert_true(lifecycle_advance(&l, &f, &next));
    assert_int_equal(l.stage, STAGE_DRAIN);
}

static void job_without_descendants_needs_no_linger(void **state)
{
    struct lifecycle l = begun(true, STAGE_NONE);
    struct lifecycle_facts f = {.now_ns = 100 * S, .last_data_ns = 100 * S};
    uint64_t next;

    (void)state;
    f.n_descendants = 1;
    assert_false(lifecycle_advance(&l, &f, &next));
    f.n_descendants = 0;
    assert_true(lifecycle_advance(&l, &f, &next));
    assert_int_equal(l.stage, STAGE_DRAIN);
}

static void descendants_that_cannot_be_counted_end_by_quiet(void **state)
{
    struct lifecycle l = begun(true, STAGE_NONE);
    struct lifecycle_facts f = {.now_ns = 100 * S,
                                .last_data_ns = 100 * S,
                                .n_descendants = DESCENDANTS_UNKNOWN};
    uint64_t next;

    (void)state;
    assert_false(lifecycle_advance(&l, &f, &next));
    f.now_ns = next;
    assert_true(next > 100 * S && next < 101 * S);
    assert_true(lifecycle_advance(&l, &f, &next));
    assert_int_equal(l.stage, STAGE_DRAIN);
}

static void each_event_ends_its_stage_and_no_other(void **state)
{
    struct lifecycle l = begun(false, STAGE_DRAIN);
    struct lifecycle_facts f = {.now_ns = 100 * S};
    uint64_t next;

    (void)state;
    assert_int_equal(l.stage, STAGE_DRAIN); /* a successor drains again */
    f.closed = f.encoded = f.delivered = true;
    assert_false(lifecycle_advance(&l, &f, &next));
    f.drained = true;
    f.closed = f.encoded = f.delivered = false;
    assert_true(lifecycle_advance(&l, &f, &next));
    assert_int_equal(l.stage, STAGE_KERNEL);
    assert_false(lifecycle_advance(&l, &f, &next));
    assert_int_equal(next, 100 * S + 250 * MS);
    f.collected = true;
    assert_true(lifecycle_advance(&l, &f, &next));
    assert_int_equal(l.stage, STAGE_CLOSE);
    assert_false(lifecycle_advance(&l, &f, &next));
    f.closed = true;
    assert_true(lifecycle_advance(&l, &f, &next));
    assert_false(lifecycle_advance(&l, &f, &next));
    f.encoded = true;
    assert_true(lifecycle_advance(&l, &f, &next));
    assert_int_equal(l.stage, STAGE_DELIVER);
    assert_false(lifecycle_advance(&l, &f, &next));
    assert_int_equal(next, 109 * S - LIFECYCLE_RECEIPT_NS);
    f.delivered = f.unsynced = true;
    assert_false(lifecycle_advance(&l, &f, &next));
    assert_int_equal(next, 109 * S - LIFECYCLE_RECEIPT_NS);
    f.unsynced = false;
    assert_true(lifecycle_advance(&l, &f, &next));
    assert_int_equal(l.stage, STAGE_SAVE);
    assert_true(lifecycle_advance(&l, &f, &next));
    assert_true(lifecycle_advance(&l, &f, &next));
    assert_int_equal(l.stage, STAGE_DONE);
    assert_false(lifecycle_advance(&l, &f, &next));
    assert_int_equal(next, UINT64_MAX);
}

static void the_kernel_side_is_not_waited_for_beyond_its_time(void **state)
{
    struct lifecycle l = begun(false, STAGE_DRAIN);
    struct lifecycle_facts f = {.now_ns = 100 * S, .drained = true};
    uint64_t next;

    (void)state;
    assert_true(lifecycle_advance(&l, &f, &next));
    f.now_ns = 100 * S + 49 * MS;
    assert_false(lifecycle_advance(&l, &f, &next));
    f.now_ns = 100 * S + 250 * MS;
    assert_true(lifecycle_advance(&l, &f, &next));
    assert_int_equal(l.stage, STAGE_CLOSE);
}

static void deadline_passes_through_all_stages_when_nothing_answers(
    void **state)
{
    struct lifecycle l = begun(false, STAGE_NONE);
    struct lifecycle_facts f = {.now_ns = 100 * S};
    uint64_t next = 0;
    int n_steps = 0;

    (void)state;
    while (l.stage != STAGE_DONE) {
        if (!lifecycle_advance(&l, &f, &next)) {
            assert_true(next > f.now_ns); /* never asked to call at once */
            f.now_ns = next;
        }
        assert_true(++n_steps < 50);
    }
    assert_int_equal(f.now_ns, 109 * S - LIFECYCLE_RECEIPT_NS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linger_ends_when_no_datagram_came_for_the_quiet_time),
        cmocka_unit_test(linger_ends_at_its_longest_under_steady_data),
        cmocka_unit_test(linger_leaves_the_reserve_for_delivery),
        cmocka_unit_test(second_interrupt_ends_the_linger),
        cmocka_unit_test(job_without_descendants_needs_no_linger),
        cmocka_unit_test(descendants_that_cannot_be_counted_end_by_quiet),
        cmocka_unit_test(each_event_ends_its_stage_and_no_other),
        cmocka_unit_test(the_kernel_side_is_not_waited_for_beyond_its_time),
        cmocka_unit_test(
            deadline_passes_through_all_stages_when_nothing_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
