/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "aggregator/scan.h"

static uint32_t next_random(uint32_t *s)
{
    *s = *s * 1664525 + 1013904223;
    return *s >> 8;
}

static void all_forms_give_the_same_bits(void **state)
{
    /* Delimiters, and bytes that differ from them in one bit. */
    static const char some[] = "\n|:\x8a\xfc\xba\x0b}{;a";
    uint32_t seed = 7;

    (void)state;
    for (int round = 0; round < 2000; round++) {
        char bytes[SCAN_BYTES];
        struct scan want;
        scan_fn *form;

        for (uint32_t i = 0; i < SCAN_BYTES; i++)
            bytes[i] = some[next_random(&seed) % (sizeof(some) - 1)];
        scan_scalar(&want, bytes);
        for (unsigned k = 0; (form = scan_form(k)) != NULL; k++) {
            struct scan got;

            memset(&got, 0xff, sizeof(got));
            form(&got, bytes);
            assert_memory_equal(&got, &want, sizeof(want));
        }
    }
}

static void bits_are_found_in_order(void **state)
{
    for (uint32_t at = 0; at < SCAN_BYTES; at++) {
        char bytes[SCAN_BYTES] = {0};
        struct scan s;

        bytes[at] = '|';
        scan_scalar(&s, bytes);
        for (uint32_t from = 0; from <= SCAN_BYTES + 1; from++)
            assert_int_equal(scan_next(s.bar, from),
                             from <= at ? at : SCAN_BYTES);
        assert_int_equal(scan_next(s.lf, 0), SCAN_BYTES);
    }
    (void)state;
}

static void the_last_form_is_the_one_without_vectors(void **state)
{
    unsigned n = 0;

    (void)state;
    while (scan_form(n) != NULL)
        n++;
    assert_true(n > 0);
    assert_ptr_equal(scan_form(n - 1), scan_scalar);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_forms_give_the_same_bits),
        cmocka_unit_test(bits_are_found_in_order),
        cmocka_unit_test(the_last_form_is_the_one_without_vectors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
