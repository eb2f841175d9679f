/* SPDX-License-Identifier: Apache-2.0 */
/* The region: pages within the budget, and that a kill at any moment leaves the
 * last committed state. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/region.h"

#define N_WORDS 512

struct fixture {
    struct region r;
    uint64_t *words; /* range 0 */
};

static int set_up(void **state)
{
    static const size_t reserve[] = {1 << 20, 1 << 20};
    const struct region_opts opts = {.name = "test",
                                     .budget_bytes = 512 * 1024,
                                     .reserve = reserve,
                                     .n_ranges = 2};
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_int_equal(region_create(&f->r, &opts), 0);
    assert_int_equal(region_grow(&f->r, 0, N_WORDS * sizeof(uint64_t)), 0);
    f->words = region_base(&f->r, 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    region_close(&f->r);
    free(f);
    return 0;
}

static void pages_come_within_the_budget_and_go(void **state)
{
    struct fixture *f = *state;
    unsigned char *p = region_base(&f->r, 1);

    assert_int_equal(region_grow(&f->r, 1, 2 << 20), REGION_FULL);
    assert_int_equal(region_grow(&f->r, 1, 512 * 1024), REGION_FULL);
    assert_int_equal(region_grow(&f->r, 1, 300 * 1024), 0);
    assert_true(region_committed(&f->r, 1) >= 300 * 1024);
    assert_true(f->r.head->committed_bytes <= 512 * 1024);
    p[300 * 1024 - 1] = 7;
    region_shrink(&f->r, 1, 1);
    assert_int_equal(region_grow(&f->r, 1, 300 * 1024), 0);
    assert_int_equal(p[300 * 1024 - 1], 0); /* new pages are zero */
}

static void rollback_restores_the_oldest_value(void **state)
{
    struct fixture *f = *state;

    region_set(&f->r, f->words[3], 1);
    region_commit(&f->r);
    region_set(&f->r, f->words[3], 2);
    region_set(&f->r, f->words[3], 3);
    region_set(&f->r, f->words[4], 4);
    assert_false(region_clean(&f->r));
    assert_int_equal(region_rollback(&f->r), 0);
    assert_true(region_clean(&f->r));
    assert_int_equal(f->words[3], 1);
    assert_int_equal(f->words[4], 0);
    assert_int_equal(region_rollback(&f->r), 0); /* nothing to do */
}

/* Moves units between two words, for ever: each committed state adds up. */
/* A kill may come in the middle of a save: nothing behind what is known of it counts. */
static void saves_in_a_row_are_rolled_back_as_others(void **state)
{
    struct fixture *f = *state;
    struct region_journal *j = &f->r.head->journal;
    struct region_saves s;

    memset(f->words, 7, 8 * sizeof(uint64_t));
    s = region_saves_of(&f->r, 3, 16);
    for (int i = 0; i < 3; i++) {
        region_save_next(&s, f->words + i, 16); /* they overlap */
        f->words[i] = 1;
        f->words[i + 1] = 2;
    }
    region_set(&f->r, f->words[7], 3);
    memset(j->bytes + j->n_bytes, 0xff, 64);
    assert_int_equal(region_rollback(&f->r), 0);
    for (int i = 0; i < 8; i++)
        assert_int_equal(f->words[i], 0x0707070707070707);
}

static void saves_in_a_row_have_room_for_all(void **state)
{
    struct fixture *f = *state;
    size_t n = region_room(&f->r) / (16 + 16);
    struct region_saves s = region_saves_of(&f->r, n, 16);

    for (size_t i = 0; i < n; i++)
        region_save_next(&s, f->words, 16);
    assert_in_range(region_room(&f->r), 0, 31);
    assert_int_equal(region_rollback(&f->r), 0);
}

_Noreturn static void move_units(struct fixture *f)
{
    for (uint64_t i = 0;; i++) {
        uint64_t *from = &f->words[i % N_WORDS];
        uint64_t *to = &f->words[(i * 7 + 1) % N_WORDS];

        region_set(&f->r, *from, *from - 5);
        region_set(&f->r, *to, *to + 5);
        region_commit(&f->r);
    }
}

static void a_kill_leaves_the_last_commit(void **state)
{
    struct fixture *f = *state;
    unsigned seed = (unsigned)time(NULL);
    unsigned n_open = 0;

    for (size_t i = 0; i < N_WORDS; i++)
        f->words[i] = 1000;
    for (int i = 0; i < 200; i++) {
        struct timespec pause = {.tv_nsec = rand_r(&seed) % 2000000};
        pid_t pid = fork();
        uint64_t sum = 0;

        if (pid == 0)
            move_units(f);
        (void)ppoll(NULL, 0, &pause, NULL); /* the random instant */
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        n_open += !region_clean(&f->r);
        assert_int_equal(region_rollback(&f->r), 0);
        for (size_t k = 0; k < N_WORDS; k++)
            sum += f->words[k];
        assert_int_equal(sum, 1000 * N_WORDS);
    }
    assert_true(n_open > 0); /* some kills came inside a transaction */
}

static void a_scribbled_journal_writes_nothing_outside(void **state)
{
    struct fixture *f = *state;
    struct region_journal *j = &f->r.head->journal;
    uint64_t inside_too = 1, outside = 2;
    uint64_t tail[2];

    region_allow(&f->r, &inside_too, sizeof(inside_too));
    region_set(&f->r, inside_too, 5);
    region_set(&f->r, f->words[0], 6);
    assert_int_equal(region_rollback(&f->r), 0);
    assert_int_equal(inside_too, 1);
    assert_int_equal(f->words[0], 0);

    region_set(&f->r, f->words[1], 7);
    region_set(&f->r, f->words[2], 8);
    tail[0] = (uint64_t)(uintptr_t)&outside; /* the older save's address */
    tail[1] = sizeof(outside);
    memcpy(j->bytes + 8, tail, sizeof(tail));
    assert_int_equal(region_rollback(&f->r), -EBADMSG);
    assert_true(region_clean(&f->r));
    assert_int_equal(f->words[2], 0); /* the newer one was undone */
    assert_int_equal(outside, 2);

    atomic_store(&j->n_bytes, REGION_JOURNAL_BYTES + 8);
    assert_int_equal(region_rollback(&f->r), -EBADMSG);
    atomic_store(&j->n_bytes, 7);
    assert_int_equal(region_rollback(&f->r), -EBADMSG);
    memset(j->bytes, 0xff, 64);
    atomic_store(&j->n_bytes, 64);
    assert_int_equal(region_rollback(&f->r), -EBADMSG);
    assert_true(region_clean(&f->r));
}

/* How the proof ends a child that commits what @change did. */
static int proof_of(struct fixture *f, void (*change)(struct fixture *f))
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        (void)!freopen("/dev/null", "w", stderr);
        region_prove(&f->r);
        change(f);
        region_commit(&f->r);
        region_close(&f->r);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void save_all(struct fixture *f)
{
    region_set(&f->r, f->words[5], 1);
    region_fresh(&f->r, &f->words[6], sizeof(f->words[6]));
    f->words[6] = 2;
}

static void forget_one(struct fixture *f)
{
    region_set(&f->r, f->words[5], 3);
    f->words[7] = 4;
}

static void the_proof_finds_a_forgotten_save(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(proof_of(f, save_all), 0);
    assert_int_not_equal(proof_of(f, forget_one), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pages_come_within_the_budget_and_go,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(rollback_restores_the_oldest_value,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            saves_in_a_row_are_rolled_back_as_others, set_up, tear_down),
        cmocka_unit_test_setup_teardown(saves_in_a_row_have_room_for_all,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_kill_leaves_the_last_commit, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            a_scribbled_journal_writes_nothing_outside, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_proof_finds_a_forgotten_save,
                                        set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
