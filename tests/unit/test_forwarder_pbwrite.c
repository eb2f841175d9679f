/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "forwarder/pbwrite.h"

static void varints_have_their_shortest_form(void **state)
{
    static const struct {
        uint64_t v;
        size_t n;
        unsigned char bytes[10];
    } rows[] = {
        {0, 1, {0}},
        {127, 1, {0x7f}},
        {128, 2, {0x80, 1}},
        {300, 2, {0xac, 2}},
        {16383, 2, {0xff, 0x7f}},
        {16384, 3, {0x80, 0x80, 1}},
        {UINT64_MAX,
         10,
         {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        unsigned char buf[10];
        struct pbwrite w;

        pb_init(&w, buf, sizeof(buf));
        pb_varint(&w, rows[i].v);
        assert_false(w.full);
        assert_int_equal(w.n, rows[i].n);
        assert_int_equal(pb_varint_size(rows[i].v), rows[i].n);
        assert_memory_equal(buf, rows[i].bytes, rows[i].n);
    }
}

static void negative_numbers_zigzag(void **state)
{
    (void)state;
    assert_int_equal(pb_zigzag(0), 0);
    assert_int_equal(pb_zigzag(-1), 1);
    assert_int_equal(pb_zigzag(1), 2);
    assert_int_equal(pb_zigzag(INT32_MIN), UINT32_MAX);
    assert_true(pb_zigzag(INT64_MIN) == UINT64_MAX);
}

static void zero_scalars_are_not_written(void **state)
{
    unsigned char buf[16];
    struct pbwrite w;

    (void)state;
    pb_init(&w, buf, sizeof(buf));
    pb_uint(&w, 1, 0);
    pb_double(&w, 2, 0.0);
    pb_double(&w, 2, -0.0);
    pb_bytes(&w, 3, (struct view){NULL, 0});
    assert_int_equal(w.n, 0);
    pb_bytes_always(&w, 3, (struct view){NULL, 0});
    assert_int_equal(w.n, 2);
    assert_memory_equal(buf, "\x1a\x00", 2);
}

/* For each true length around the varint boundaries and each guess. */
static void nested_lengths_are_right_whatever_was_guessed(void **state)
{
    static const size_t lengths[] = {0,   1,     126,   127,   128,  129,
                                     300, 16383, 16384, 16385, 40000};
    static const size_t guesses[] = {0, 127, 128, 16383, 16384, 3000000};
    static unsigned char buf[41000], content[40000];

    (void)state;
    memset(content, 'c', sizeof(content));
    for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++) {
        for (size_t g = 0; g < sizeof(guesses) / sizeof(guesses[0]); g++) {
            size_t n = lengths[l];
            size_t n_length = pb_varint_size(n);
            struct pbwrite w;
            struct pb_nest nest;

            pb_init(&w, buf, sizeof(buf));
            nest = pb_begin(&w, 1, guesses[g]);
            pb_raw(&w, content, n);
            pb_end(&w, nest);
            pb_raw(&w, "E", 1);
            assert_false(w.full);
            assert_int_equal(w.n, 1 + n_length + n + 1);
            assert_int_equal(buf[0], 0x0a);
            assert_memory_equal(buf + 1 + n_length, content, n);
            assert_int_equal(buf[w.n - 1], 'E');
        }
    }
}

/* At every size that is too small: full, and not a byte beyond the end. */
static void a_writer_that_is_full_stays_within_its_buffer(void **state)
{
    for (size_t cap = 0; cap < 160; cap++) {
        unsigned char *buf = malloc(cap + 1);
        struct pbwrite w;
        struct pb_nest outer, inner;

        (void)state;
        buf[cap] = 0xa5;
        pb_init(&w, buf, cap);
        outer = pb_begin(&w, 1, 5);
        inner = pb_begin(&w, 2, 100);
        for (int i = 0; i < 13; i++)
            pb_double(&w, 3, 1.5);
        pb_end(&w, inner);
        pb_bytes(&w, 4, (struct view){"0123456789", 10});
        pb_end(&w, outer);
        assert_true(w.n <= cap);
        assert_int_equal(buf[cap], 0xa5);
        assert_int_equal(w.full, cap < 1 + 2 + 1 + 1 + 117 + 12);
        free(buf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(varints_have_their_shortest_form),
        cmocka_unit_test(negative_numbers_zigzag),
        cmocka_unit_test(zero_scalars_are_not_written),
        cmocka_unit_test(nested_lengths_are_right_whatever_was_guessed),
        cmocka_unit_test(a_writer_that_is_full_stays_within_its_buffer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
