/* SPDX-License-Identifier: Apache-2.0 */
/* What the reader waited, from readings of the kernel's sums (here: made up). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "bpf/own_waits.h"

#define MS UINT64_C(1000000)

static struct own_waits w;

static int setup(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    return 0;
}

static struct sched_culprit task(const char *comm)
{
    struct sched_culprit who = {.cgid = 7};

    (void)snprintf(who.comm, sizeof(who.comm), "%s", comm);
    return who;
}

/* The kernel has counted so much by now. */
static bool read_culprit(struct sched_culprit who, uint64_t n, uint64_t ms)
{
    struct sched_wait now = {n, ms * MS};

    return own_waits_culprit(&w, &who, &now);
}

static void read_total(uint64_t ms, uint64_t longest_ms)
{
    struct sched_own now = {.ns = ms * MS, .longest_ns = longest_ms * MS};

    own_waits_total(&w, &now);
}

static void whoever_cost_most_is_named(void **state)
{
    struct own_waits_report r;

    (void)state;
    read_total(100, 60);
    assert_true(read_culprit(task("a"), 9, 30));
    assert_true(read_culprit(task("b"), 1, 60));
    assert_true(read_culprit(task("a"), 12, 80)); /* the next reading */
    assert_false(read_culprit(task("b"), 1, 60));
    own_waits_report(&w, NULL, &r);
    assert_int_equal(r.waited_ns, 100 * MS);
    assert_int_equal(r.longest_ns, 60 * MS);
    assert_string_equal(r.because, "a");
}

static void a_culprit_that_was_removed_counts_on(void **state)
{
    struct own_waits_report r;

    (void)state;
    (void)read_culprit(task("a"), 5, 50);
    (void)read_culprit(task("b"), 5, 60);
    assert_true(read_culprit(task("a"), 2, 20)); /* from 0 again */
    own_waits_report(&w, NULL, &r);
    assert_string_equal(r.because, "a");
}

static void a_quota_is_ours(void **state)
{
    struct sched_culprit quota = {.cgid = 0};
    struct own_waits_report r;

    (void)state;
    (void)read_culprit(quota, 1, 90);
    own_waits_report(&w, NULL, &r);
    assert_string_equal(r.because, "our own CPU quota");
}

static void moments_are_nobodys_fault(void **state)
{
    struct sched_culprit a = task("a");
    struct sched_wait now = {100, MS - 1};
    struct own_waits_report r;

    (void)state;
    assert_true(own_waits_culprit(&w, &a, &now));
    own_waits_report(&w, NULL, &r);
    assert_string_equal(r.because, "");
}

static void a_line_tells_what_is_new(void **state)
{
    char line[200];

    (void)state;
    assert_string_equal(own_waits_tell(&w, NULL, line, sizeof(line)), "");
    read_total(100, 60);
    (void)read_culprit(task("a"), 5, 100);
    assert_string_equal(own_waits_tell(&w, NULL, line, sizeof(line)),
                        "the reader waited 100 ms for a CPU, most behind a");
    assert_string_equal(own_waits_tell(&w, NULL, line, sizeof(line)), "");
    read_total(140, 60);
    (void)read_culprit(task("a"), 6, 110);
    (void)read_culprit(task("b"), 1, 30);
    assert_string_equal(own_waits_tell(&w, NULL, line, sizeof(line)),
                        "the reader waited 40 ms for a CPU, most behind b");
}

static void a_name_is_one_line(void **state)
{
    struct own_waits_report r;

    (void)state;
    (void)read_culprit(task("a\nERROR \xff\x1b"), 1, 1);
    own_waits_report(&w, NULL, &r);
    assert_string_equal(r.because, "a_ERROR __");
}

static void there_is_room_for_who_costs_most(void **state)
{
    struct own_waits_report r;
    char comm[16];

    (void)state;
    (void)read_culprit(task("hog"), 1, 1000);
    for (unsigned i = 0; i < 2 * SCHED_MAX_CULPRITS; i++) {
        (void)snprintf(comm, sizeof(comm), "p%u", i);
        (void)read_culprit(task(comm), 1, 1 + i % 7);
    }
    assert_int_equal(w.n, SCHED_MAX_CULPRITS);
    own_waits_report(&w, NULL, &r);
    assert_string_equal(r.because, "hog");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(whoever_cost_most_is_named, setup),
        cmocka_unit_test_setup(a_culprit_that_was_removed_counts_on, setup),
        cmocka_unit_test_setup(a_quota_is_ours, setup),
        cmocka_unit_test_setup(moments_are_nobodys_fault, setup),
        cmocka_unit_test_setup(a_line_tells_what_is_new, setup),
        cmocka_unit_test_setup(a_name_is_one_line, setup),
        cmocka_unit_test_setup(there_is_room_for_who_costs_most, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
