/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/base/num.h"

#define N_ROWS(a) (sizeof(a) / sizeof((a)[0]))
#define S INT64_C(1000000000)

static void integers_are_strict(void **state)
{
    static const struct {
        const char *text;
        int rc;
        int64_t v;
    } rows[] = {
        {"0", 0, 0},
        {"-0", 0, 0},
        {"+12", 0, 12},
        {"007", 0, 7},
        {"9223372036854775807", 0, INT64_MAX},
        {"-9223372036854775808", 0, INT64_MIN},
        {"9223372036854775808", NUM_RANGE, 0},
        {"-9223372036854775809", NUM_RANGE, 0},
        {"99999999999999999999999999", NUM_RANGE, 0},
        {"", NUM_SYNTAX, 0},
        {"-", NUM_SYNTAX, 0},
        {" 1", NUM_SYNTAX, 0},
        {"1 ", NUM_SYNTAX, 0},
        {"0x10", NUM_SYNTAX, 0},
        {"1_000", NUM_SYNTAX, 0},
        {"1.0", NUM_SYNTAX, 0},
        {"--1", NUM_SYNTAX, 0},
        {"99999999999999999999x", NUM_SYNTAX, 0},
    };

    (void)state;
    for (size_t i = 0; i < N_ROWS(rows); i++) {
        int64_t v = 42;

        assert_int_equal(num_parse_i64(rows[i].text, &v), rows[i].rc);
        assert_int_equal(v, rows[i].rc == 0 ? rows[i].v : 42);
    }
}

static void unsigned_integers_have_no_sign(void **state)
{
    uint64_t v = 42;

    (void)state;
    assert_int_equal(num_parse_u64("-1", &v), NUM_SYNTAX);
    assert_int_equal(num_parse_u64("+1", &v), NUM_SYNTAX);
    assert_int_equal(num_parse_u64("18446744073709551616", &v), NUM_RANGE);
    assert_int_equal(v, 42);
    assert_int_equal(num_parse_u64("18446744073709551615", &v), 0);
    assert_true(v == UINT64_MAX);
}

static void doubles_are_finite_decimals(void **state)
{
    static const char *const bad[] = {"",    ".",    "-",   "e5",  "1e",
                                      "1e+", "nan",  "inf", "0x1", "1 ",
                                      " 1",  "1..2", "1,5", "1f"};
    double v = 42;

    (void)state;
    for (size_t i = 0; i < N_ROWS(bad); i++)
        assert_int_equal(num_parse_double(bad[i], &v), NUM_SYNTAX);
    assert_int_equal(num_parse_double("1e400", &v), NUM_RANGE);
    assert_true(v == 42);
    assert_int_equal(num_parse_double("-1.5e-3", &v), 0);
    assert_true(v == -1.5e-3);
    assert_int_equal(num_parse_double(".5", &v), 0);
    assert_true(v == 0.5);
    assert_int_equal(num_parse_double("5.", &v), 0);
    assert_true(v == 5);
}

static void bools_are_those_of_go(void **state)
{
    static const char *const yes[] = {"1", "t", "T", "TRUE", "true", "True"};
    static const char *const no[] = {"0", "f", "F", "FALSE", "false", "False"};
    static const char *const bad[] = {"", "yes", "no", "on", "tRUE", "2", "1 "};
    bool v;

    (void)state;
    for (size_t i = 0; i < N_ROWS(yes); i++) {
        v = false;
        assert_int_equal(num_parse_bool(yes[i], &v), 0);
        assert_true(v);
        assert_int_equal(num_parse_bool(no[i], &v), 0);
        assert_false(v);
    }
    for (size_t i = 0; i < N_ROWS(bad); i++)
        assert_int_equal(num_parse_bool(bad[i], &v), NUM_SYNTAX);
}

static void durations_are_those_of_go_or_seconds(void **state)
{
    static const struct {
        const char *text;
        int rc;
        int64_t ns;
    } rows[] = {
        {"9", 0, 9 * S},
        {"0", 0, 0},
        {"0.5", 0, S / 2},
        {"100ms", 0, S / 10},
        {"1m30s", 0, 90 * S},
        {"1.5h", 0, 5400 * S},
        {"-2s", 0, -2 * S},
        {"+3us", 0, 3000},
        {"3\xc2\xb5s", 0, 3000},
        {"3\xce\xbcs", 0, 3000},
        {".5s", 0, S / 2},
        {"1.s", 0, S},
        {"1h0m0.000000001s", 0, 3600 * S + 1},
        {"0.1000000000000000000000000000001s", 0, S / 10},
        {"9223372036s", 0, INT64_C(9223372036000000000)},
        {"9223372037s", NUM_RANGE, 0},
        {"99999999999999999999999s", NUM_RANGE, 0},
        {"200000000h200000000h", NUM_RANGE, 0},
        {"", NUM_SYNTAX, 0},
        {"-", NUM_SYNTAX, 0},
        {"s", NUM_SYNTAX, 0},
        {".s", NUM_SYNTAX, 0},
        {"1m30", NUM_SYNTAX, 0},
        {"1d", NUM_SYNTAX, 0},
        {"1 s", NUM_SYNTAX, 0},
        {"1s ", NUM_SYNTAX, 0},
        {"1.2.3s", NUM_SYNTAX, 0},
        {"1-s", NUM_SYNTAX, 0},
    };

    (void)state;
    for (size_t i = 0; i < N_ROWS(rows); i++) {
        int64_t v = 42;

        assert_int_equal(num_parse_duration_ns(rows[i].text, &v), rows[i].rc);
        assert_int_equal(v, rows[i].rc == 0 ? rows[i].ns : 42);
    }
}

static void sizes_count_in_steps_of_1024(void **state)
{
    static const struct {
        const char *text;
        int rc;
        uint64_t bytes;
    } rows[] = {
        {"0", 0, 0},
        {"17", 0, 17},
        {"17b", 0, 17},
        {"2k", 0, 2048},
        {"2KB", 0, 2048},
        {"2 KiB", 0, 2048},
        {"32mib", 0, UINT64_C(32) << 20},
        {"1g", 0, UINT64_C(1) << 30},
        {"16777215T", 0, UINT64_C(16777215) << 40},
        {"16777216T", NUM_RANGE, 0},
        {"99999999999999999999", NUM_RANGE, 0},
        {"", NUM_SYNTAX, 0},
        {"k", NUM_SYNTAX, 0},
        {"-1", NUM_SYNTAX, 0},
        {"1.5m", NUM_SYNTAX, 0},
        {"1 ", NUM_SYNTAX, 0},
        {"1i", NUM_SYNTAX, 0},
        {"1kk", NUM_SYNTAX, 0},
        {"1ki", NUM_SYNTAX, 0},
        {"1p", NUM_SYNTAX, 0},
    };

    (void)state;
    for (size_t i = 0; i < N_ROWS(rows); i++) {
        uint64_t v = 42;

        assert_int_equal(num_parse_size_bytes(rows[i].text, &v), rows[i].rc);
        assert_true(v == (rows[i].rc == 0 ? rows[i].bytes : 42));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_strict),
        cmocka_unit_test(unsigned_integers_have_no_sign),
        cmocka_unit_test(doubles_are_finite_decimals),
        cmocka_unit_test(bools_are_those_of_go),
        cmocka_unit_test(durations_are_those_of_go_or_seconds),
        cmocka_unit_test(sizes_count_in_steps_of_1024),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
