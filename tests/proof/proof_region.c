/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The region killed behind each instruction of growing, shrinking, saving and
 * rolling back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "agent/base/region.h"
#include "tests/support/stepper.h"

#define RANGE_BYTES (64u * 1024)
#define N_WORDS 40

struct fixture {
    struct region r;
    struct stepper stepper;
};

static int set_up(void **state)
{
    static const size_t reserve[] = {1 << 20, 1 << 20};
    const struct region_opts opts = {.name = "proof",
                                     .budget_bytes = 512 * 1024,
                                     .reserve = reserve,
                                     .n_ranges = 2};
    static struct fixture f;

    f = (struct fixture){0};
    assert_int_equal(region_create(&f.r, &opts), 0);
    assert_int_equal(region_grow(&f.r, 0, 4096), 0);
    f.stepper = (struct stepper){.maps = {{f.r.head, f.r.map_bytes, f.r.fd}},
                                 .n_maps = 1,
                                 .arg = &f,
                                 .every = 1,
                                 .rng = 1};
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    region_close(&f->r);
    return 0;
}

static void run(struct fixture *f, void (*work)(void *arg),
                bool (*judge)(void *arg, char *why, size_t room))
{
    struct stepper_result done;
    int rc;

    f->stepper.work = work;
    f->stepper.judge = judge;
    rc = stepper_run(&f->stepper, &done);
    if (rc == STEPPER_REFUSED) {
        print_message("ptrace is refused here\n");
        skip();
    }
    assert_int_equal(rc, 0);
    print_message("%lu instructions\n", (unsigned long)done.n_instructions);
    assert_true(done.n_judged == done.n_instructions && done.n_judged > 100);
}

/* ---- Shrinking --------------------------------------------------------- */

static void shrink(void *arg)
{
    struct fixture *f = arg;

    region_shrink(&f->r, 1, 0);
}

/* As the next growth of a table does. */
static bool grows_zeroed(void *arg, char *why, size_t room)
{
    struct fixture *f = arg;
    const unsigned char *p = region_base(&f->r, 1);

    region_shrink(&f->r, 1, 0);
    if (region_grow(&f->r, 1, RANGE_BYTES) != 0) {
        (void)snprintf(why, room, "the range did not grow again");
        return false;
    }
    for (size_t i = 0; i < RANGE_BYTES; i++) {
        if (p[i] == 0)
            continue;
        (void)snprintf(why, room, "byte %zu of a new page is not zero", i);
        return false;
    }
    return true;
}

static void a_shrunk_range_reads_as_zero_when_it_grows_again(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(region_grow(&f->r, 1, RANGE_BYTES), 0);
    memset(region_base(&f->r, 1), 0xa5, RANGE_BYTES);
    run(f, shrink, grows_zeroed);
}

/* ---- Growing ----------------------------------------------------------- */

static void grow(void *arg)
{
    struct fixture *f = arg;

    (void)region_grow(&f->r, 0, 3 * RANGE_BYTES);
}

static bool grows_within_the_budget(void *arg, char *why, size_t room)
{
    struct fixture *f = arg;
    struct region *r = &f->r;

    (void)region_rollback(r);
    if (region_grow(r, 0, 3 * RANGE_BYTES) != 0 ||
        region_grow(r, 1, RANGE_BYTES) != 0 ||
        r->head->committed_bytes !=
            region_committed(r, 0) + region_committed(r, 1) ||
        region_grow(r, 1, 512 * 1024) != REGION_FULL) {
        (void)snprintf(why, room, "committed %zu, in ranges %zu and %zu",
                       r->head->committed_bytes, region_committed(r, 0),
                       region_committed(r, 1));
        return false;
    }
    return true;
}

static void a_cut_growth_is_done_again_within_the_budget(void **state)
{
    run(*state, grow, grows_within_the_budget);
}

/* ---- Transactions ------------------------------------------------------ */

/* Two transactions on overlapping words, and a roll-back in the middle of a
 * third: the words all are 1, 2 or 3, or of the state before. */
static void change(void *arg)
{
    struct fixture *f = arg;
    uint64_t *words = region_base(&f->r, 0);

    for (uint64_t value = 1; value <= 3; value++) {
        for (unsigned i = 0; i < N_WORDS; i++) {
            region_save(&f->r, &words[i], 2 * sizeof(*words));
            words[i] = value;
            words[i + 1] = value;
        }
        if (value == 3)
            (void)region_rollback(&f->r);
        else
            region_commit(&f->r);
    }
}

static bool is_whole(void *arg, char *why, size_t room)
{
    struct fixture *f = arg;
    const uint64_t *words = region_base(&f->r, 0);

    if (region_rollback(&f->r) != 0) {
        (void)snprintf(why, room, "the journal does not check");
        return false;
    }
    for (unsigned i = 0; i <= N_WORDS; i++) {
        if (words[i] == words[0] && words[i] <= 2)
            continue;
        (void)snprintf(why, room, "word %u is %lu, word 0 is %lu", i,
                       (unsigned long)words[i], (unsigned long)words[0]);
        return false;
    }
    return true;
}

static void a_transaction_is_there_as_a_whole_or_not_at_all(void **state)
{
    run(*state, change, is_whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            a_shrunk_range_reads_as_zero_when_it_grows_again, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(
            a_cut_growth_is_done_again_within_the_budget, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            a_transaction_is_there_as_a_whole_or_not_at_all, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
