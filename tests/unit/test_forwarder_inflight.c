/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "forwarder/inflight.h"

#define ALL ((1u << PAYLOAD_N_KINDS) - 1)

static struct payload series = {.id = 1, .kind = PAYLOAD_SERIES};
static struct payload checks = {.id = 2, .kind = PAYLOAD_CHECKS};

static void one_kind_leaves_room_for_the_others(void **state)
{
    struct inflight f;
    struct flight *fl[10];

    (void)state;
    assert_int_equal(inflight_init(&f, 10), 0);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(inflight_room(&f), ALL);
        fl[i] = inflight_begin(&f, &series);
    }
    assert_int_equal(inflight_room(&f), ALL & ~(1u << PAYLOAD_SERIES));
    for (int i = 7; i < 10; i++)
        fl[i] = inflight_begin(&f, &checks);
    assert_int_equal(inflight_room(&f), 0);
    assert_ptr_equal(inflight_end(&f, fl[8]), &checks);
    assert_int_equal(inflight_room(&f), ALL & ~(1u << PAYLOAD_SERIES));
    assert_ptr_equal(inflight_end(&f, fl[0]), &series);
    assert_int_equal(inflight_room(&f), ALL);
    for (int i = 1; i < 10; i++) {
        if (i != 8)
            (void)inflight_end(&f, fl[i]);
    }
    assert_int_equal(f.n, 0);
    inflight_fini(&f);
}

static void few_slots_are_for_any_kind(void **state)
{
    struct inflight f;
    struct flight *fl;

    (void)state;
    assert_int_equal(inflight_init(&f, 0), 0); /* means one */
    assert_int_equal(inflight_room(&f), ALL);
    fl = inflight_begin(&f, &series);
    assert_int_equal(inflight_room(&f), 0);
    (void)inflight_end(&f, fl);
    assert_int_equal(inflight_room(&f), ALL);
    inflight_fini(&f);
}

static void slots_are_bounded_and_reused(void **state)
{
    struct inflight f;

    (void)state;
    assert_int_equal(inflight_init(&f, 1u << 30), 0);
    assert_int_equal(f.max, INFLIGHT_MAX);
    for (int i = 0; i < 10000; i++) {
        struct flight *a = inflight_begin(&f, &series);
        struct flight *b = inflight_begin(&f, &checks);

        assert_ptr_not_equal(a, b);
        assert_false(a->probe);
        a->probe = true;
        (void)inflight_end(&f, a);
        (void)inflight_end(&f, b);
    }
    inflight_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_kind_leaves_room_for_the_others),
        cmocka_unit_test(few_slots_are_for_any_kind),
        cmocka_unit_test(slots_are_bounded_and_reused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
