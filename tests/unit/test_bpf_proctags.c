/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "bpf/proctags.h"

static int open_table(void **state)
{
    return proctags_create((struct proctags **)state);
}

static int close_table(void **state)
{
    proctags_close(*state);
    return 0;
}

static const char *get(struct proctags *t, enum proctags_space space,
                       uint32_t number)
{
    static char out[PROCTAGS_MAX_BYTES + 1];

    out[proctags_get(t, space, number, out, NULL, NULL)] = '\0';
    return out;
}

static int put(struct proctags *t, uint32_t tgid, uint32_t pid,
               const char *tags)
{
    return proctags_set(t, tgid, pid, tags, strlen(tags), 1);
}

static void the_two_numbers_are_two_spaces(void **state)
{
    assert_int_equal(put(*state, 1500, 4, "a:1"), 0);
    assert_int_equal(put(*state, 4, 0, "b:2"), 0);
    assert_string_equal(get(*state, PROCTAGS_TGID, 1500), "a:1");
    assert_string_equal(get(*state, PROCTAGS_PID, 4), "a:1");
    assert_string_equal(get(*state, PROCTAGS_TGID, 4), "b:2");
    assert_string_equal(get(*state, PROCTAGS_PID, 1500), "");
    assert_string_equal(get(*state, PROCTAGS_TGID, 0), "");
    assert_int_equal(proctags_n(*state), 2);
}

static void what_was_set_last_is_there(void **state)
{
    char big[PROCTAGS_MAX_BYTES + 100];

    assert_int_equal(put(*state, 0, 4, "a:1"), 0);
    assert_int_equal(put(*state, 1500, 4, "a:2"), 0); /* now both are known */
    assert_string_equal(get(*state, PROCTAGS_PID, 4), "a:2");
    assert_string_equal(get(*state, PROCTAGS_TGID, 1500), "a:2");
    assert_int_equal(proctags_n(*state), 1);
    assert_int_equal(put(*state, 1500, 4, ""), 0);
    assert_string_equal(get(*state, PROCTAGS_PID, 4), "");
    assert_int_equal(proctags_n(*state), 0);
    memset(big, 'x', sizeof(big));
    big[300] = ',';
    assert_int_equal(proctags_set(*state, 1500, 4, big, sizeof(big), 1), 0);
    assert_int_equal(strlen(get(*state, PROCTAGS_PID, 4)), 300);
    big[300] = 'x';
    big[PROCTAGS_MAX_BYTES] = ',';
    assert_int_equal(proctags_set(*state, 1500, 4, big, sizeof(big), 1), 0);
    assert_int_equal(strlen(get(*state, PROCTAGS_PID, 4)), PROCTAGS_MAX_BYTES);
    proctags_remove(*state, 1500, 4);
    assert_string_equal(get(*state, PROCTAGS_PID, 4), "");
    assert_string_equal(get(*state, PROCTAGS_TGID, 1500), "");
    assert_int_equal(proctags_n(*state), 0);
}

static void a_generation_changes_with_the_tags(void **state)
{
    char out[PROCTAGS_MAX_BYTES];
    uint64_t a, b, c, d;

    (void)proctags_get(*state, PROCTAGS_PID, 4, out, &a, NULL);
    assert_int_equal(put(*state, 0, 4, "a:1"), 0);
    (void)proctags_get(*state, PROCTAGS_PID, 4, out, &b, NULL);
    (void)proctags_get(*state, PROCTAGS_PID, 4, out, &c, NULL);
    assert_int_equal(put(*state, 0, 4, "a:2"), 0);
    (void)proctags_get(*state, PROCTAGS_PID, 4, out, &d, NULL);
    assert_true(a != b && b == c && c != d);
}

struct asked {
    uint32_t n;
    enum proctags_space space;
    uint32_t number;
};

static void note(void *arg, enum proctags_space space, uint32_t number)
{
    struct asked *a = arg;

    a->n++;
    a->space = space;
    a->number = number;
}

static void an_unknown_number_is_asked_for_until_it_is_known(void **state)
{
    struct asked a = {0};

    proctags_asked(*state, note, &a);
    assert_int_equal(a.n, 0);
    for (int i = 0; i < 10; i++)
        (void)get(*state, PROCTAGS_PID, 4);
    proctags_asked(*state, note, &a);
    assert_int_equal(a.n, 1);
    assert_int_equal(a.space, PROCTAGS_PID);
    assert_int_equal(a.number, 4);
    (void)get(*state, PROCTAGS_PID, 4);
    proctags_asked(*state, note, &a);
    assert_int_equal(a.n, 2);
    assert_int_equal(put(*state, 0, 4, ""), 0);
    (void)get(*state, PROCTAGS_PID, 4);
    proctags_asked(*state, note, &a);
    assert_int_equal(a.n, 2);
}

static void what_has_no_room_has_no_tags(void **state)
{
    uint32_t n = 0, i;

    for (i = 1; i <= 3 * PROCTAGS_MAX_PROCS; i++)
        n += put(*state, i, i, "a:1") == 0;
    assert_true(n > PROCTAGS_MAX_PROCS * 99 / 100);
    assert_int_equal(proctags_n(*state), n);
    for (i = 1; i <= 3 * PROCTAGS_MAX_PROCS; i++)
        proctags_remove(*state, i, i);
    assert_int_equal(proctags_n(*state), 0);
    assert_int_equal(put(*state, 1, 1, "a:1"), 0);
}

/* ---- Two threads -------------------------------------------------------- */

#define NUMBERS 16u
#define ROUNDS 40000u

struct race {
    struct proctags *t;
    _Atomic uint32_t over;
};

/* Tags of number i: "i" many times, as many as the round says. */
static void *write_all(void *arg)
{
    struct race *r = arg;
    char tags[PROCTAGS_MAX_BYTES];

    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint32_t number = 1 + i % NUMBERS;

        memset(tags, (int)('a' + number), sizeof(tags));
        if (i % 5 == 0)
            proctags_remove(r->t, number, number + 100);
        else
            (void)proctags_set(r->t, number, number + 100, tags,
                               1 + i * 7 % (sizeof(tags) - 1), 1);
    }
    atomic_store(&r->over, 1);
    return NULL;
}

static void the_reader_never_sees_a_mixture(void **state)
{
    struct race r = {.t = *state};
    char out[PROCTAGS_MAX_BYTES];
    uint32_t n_some = 0;
    pthread_t writer;

    assert_int_equal(pthread_create(&writer, NULL, write_all, &r), 0);
    for (uint32_t i = 0; n_some == 0 || atomic_load(&r.over) == 0; i++) {
        uint32_t number = 1 + i % NUMBERS;
        size_t n = proctags_get(r.t, PROCTAGS_TGID, number, out, NULL, NULL);

        for (size_t k = 0; k < n; k++)
            assert_int_equal(out[k], 'a' + number);
        n_some += n > 0;
        n = proctags_get(r.t, PROCTAGS_PID, number + 100, out, NULL, NULL);
        for (size_t k = 0; k < n; k++)
            assert_int_equal(out[k], 'a' + number);
    }
    assert_int_equal(pthread_join(writer, NULL), 0);
    assert_true(n_some > 0);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, open_table, close_table)
    const struct CMUnitTest tests[] = {
        CASE(the_two_numbers_are_two_spaces),
        CASE(what_was_set_last_is_there),
        CASE(a_generation_changes_with_the_tags),
        CASE(an_unknown_number_is_asked_for_until_it_is_known),
        CASE(what_has_no_room_has_no_tags),
        CASE(the_reader_never_sees_a_mixture),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
