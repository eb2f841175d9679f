/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/base/spsc.h"

#define N_RECORDS 8
#define N_SENT 200000u

struct record {
    uint64_t n, twice;
    unsigned char odd[5]; /* a size that is no power of two */
};

static void full_ring_refuses_and_order_holds(void **state)
{
    struct record mem[N_RECORDS];
    struct record r = {0};
    struct spsc s;

    (void)state;
    spsc_init(&s, mem, N_RECORDS, sizeof(r));
    assert_false(spsc_pop(&s, &r));
    for (uint64_t round = 0; round < 5; round++) {
        for (uint64_t i = 0; i < N_RECORDS; i++) {
            r.n = round * 100 + i;
            assert_true(spsc_push(&s, &r));
        }
        assert_false(spsc_push(&s, &r));
        assert_int_equal(spsc_n(&s), N_RECORDS);
        for (uint64_t i = 0; i < N_RECORDS; i++) {
            assert_true(spsc_pop(&s, &r));
            assert_int_equal(r.n, round * 100 + i);
        }
        assert_false(spsc_pop(&s, &r));
        assert_int_equal(spsc_n(&s), 0);
    }
}

static void positions_may_wrap_around(void **state)
{
    struct record mem[N_RECORDS];
    struct record r = {0};
    struct spsc s;

    (void)state;
    spsc_init(&s, mem, N_RECORDS, sizeof(r));
    atomic_store(&s.pushed, SIZE_MAX - 2);
    atomic_store(&s.popped, SIZE_MAX - 2);
    for (uint64_t i = 0; i < N_RECORDS; i++) {
        r.n = i;
        assert_true(spsc_push(&s, &r));
    }
    assert_false(spsc_push(&s, &r));
    for (uint64_t i = 0; i < N_RECORDS; i++) {
        assert_true(spsc_pop(&s, &r));
        assert_int_equal(r.n, i);
    }
    assert_false(spsc_pop(&s, &r));
}

static void *producer(void *arg)
{
    struct spsc *s = arg;

    for (uint64_t i = 0; i < N_SENT; i++) {
        struct record r = {.n = i, .twice = 2 * i};

        while (!spsc_push(s, &r))
            sched_yield();
    }
    return NULL;
}

static void every_record_crosses_threads_whole(void **state)
{
    struct record mem[N_RECORDS];
    struct spsc s;
    pthread_t thread;

    (void)state;
    spsc_init(&s, mem, N_RECORDS, sizeof(mem[0]));
    assert_int_equal(pthread_create(&thread, NULL, producer, &s), 0);
    for (uint64_t i = 0; i < N_SENT; i++) {
        struct record r;

        while (!spsc_pop(&s, &r))
            sched_yield();
        if (r.n != i || r.twice != 2 * i)
            fail_msg("record %llu came as %llu", (unsigned long long)i,
                     (unsigned long long)r.n);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(spsc_n(&s), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_ring_refuses_and_order_holds),
        cmocka_unit_test(positions_may_wrap_around),
        cmocka_unit_test(every_record_crosses_threads_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
