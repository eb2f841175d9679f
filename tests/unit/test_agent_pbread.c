/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/pbread.h"

static int first(const void *bytes, size_t n, struct pbread_field *f)
{
    struct pbread r;

    pbread_init(&r, bytes, n);
    return pbread_next(&r, f);
}

static void reads_each_wire_type(void **state)
{
    static const uint8_t bytes[] = {0x08, 0x96, 0x01,      /* 1: 150 */
                                    0x12, 0x02, 'h',  'i', /* 2: "hi" */
                                    0x19, 0,    0,    0,   0, 0, 0,
                                    0xf8, 0x3f, 0x25, 1,   2, 3, 4};
    struct pbread r;
    struct pbread_field f;

    (void)state;
    pbread_init(&r, bytes, sizeof(bytes));
    assert_int_equal(pbread_next(&r, &f), 0);
    assert_int_equal(f.number, 1);
    assert_int_equal(f.value, 150);
    assert_int_equal(pbread_next(&r, &f), 0);
    assert_int_equal(f.n_bytes, 2);
    assert_memory_equal(f.bytes, "hi", 2);
    assert_int_equal(pbread_next(&r, &f), 0);
    assert_true(pbread_double(f.value) == 1.5);
    assert_int_equal(pbread_next(&r, &f), 0);
    assert_int_equal(f.wire, PBREAD_FIXED32);
    assert_int_equal(f.value, 0x04030201);
    assert_int_equal(pbread_next(&r, &f), PBREAD_END);
}

static void refuses_what_is_cut_short(void **state)
{
    static const uint8_t bytes[] = {0x12, 0x03, 'a', 'b',  'c',  0x19, 0,    0,
                                    0,    0,    0,   0,    0xf8, 0x3f, 0x25, 1,
                                    2,    3,    4,   0x08, 0x96, 0x01};
    static const size_t ends[] = {5, 14, 19, 22};
    size_t at = 0;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        for (size_t n = at + 1; n < ends[i]; n++) {
            struct pbread_field f = {.number = 77};

            assert_int_equal(first(bytes + at, n - at, &f), PBREAD_BAD);
            assert_int_equal(f.number, 77); /* untouched */
        }
        at = ends[i];
    }
}

static void refuses_lengths_beyond_the_end(void **state)
{
    static const uint8_t huge[] = {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff,
                                   0xff, 0xff, 0xff, 0xff, 0x01};
    static const uint8_t one[] = {0x0a, 0x01};
    struct pbread_field f;

    (void)state;
    assert_int_equal(first(huge, sizeof(huge), &f), PBREAD_BAD);
    assert_int_equal(first(one, sizeof(one), &f), PBREAD_BAD);
}

static void refuses_groups_field_zero_and_large_numbers(void **state)
{
    static const uint8_t group[] = {0x0b, 0x0c};
    static const uint8_t zero[] = {0x00, 0x01};
    static const uint8_t wire6[] = {0x0e, 0x01};
    static const uint8_t large[] = {0x80, 0x80, 0x80, 0x80, 0x10, 0x01};
    struct pbread_field f;

    (void)state;
    assert_int_equal(first(group, sizeof(group), &f), PBREAD_BAD);
    assert_int_equal(first(zero, sizeof(zero), &f), PBREAD_BAD);
    assert_int_equal(first(wire6, sizeof(wire6), &f), PBREAD_BAD);
    assert_int_equal(first(large, sizeof(large), &f), PBREAD_BAD);
}

static void takes_varints_of_64_bits_and_not_one_more(void **state)
{
    uint8_t bytes[12];
    struct pbread r;
    uint64_t v;

    (void)state;
    memset(bytes, 0xff, sizeof(bytes));
    bytes[9] = 0x01;
    pbread_init(&r, bytes, 10);
    assert_int_equal(pbread_varint(&r, &v), 0);
    assert_true(v == UINT64_MAX);
    assert_int_equal(pbread_varint(&r, &v), PBREAD_END);
    bytes[9] = 0x02;
    pbread_init(&r, bytes, 10);
    assert_int_equal(pbread_varint(&r, &v), PBREAD_BAD);
    bytes[9] = 0x81;
    pbread_init(&r, bytes, 12);
    assert_int_equal(pbread_varint(&r, &v), PBREAD_BAD);
}

static void undoes_zigzag(void **state)
{
    (void)state;
    assert_int_equal(pbread_zigzag(0), 0);
    assert_int_equal(pbread_zigzag(1), -1);
    assert_int_equal(pbread_zigzag(2), 1);
    assert_true(pbread_zigzag(UINT64_MAX) == INT64_MIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_each_wire_type),
        cmocka_unit_test(refuses_what_is_cut_short),
        cmocka_unit_test(refuses_lengths_beyond_the_end),
        cmocka_unit_test(refuses_groups_field_zero_and_large_numbers),
        cmocka_unit_test(takes_varints_of_64_bits_and_not_one_more),
        cmocka_unit_test(undoes_zigzag),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
