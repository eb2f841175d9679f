/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Syntax against what Go's strconv.ParseFloat accepts (each row was run through
 * it), values bit by bit against Python's float().
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "aggregator/number.h"

#define PYTHON "/usr/bin/python3"
#define SEED 20240229
#define N_RANDOM 300000

/* In memory of the exact size: a sanitizer sees a read past the end. */
static enum number_rc parse(double *out, const char *text, size_t n)
{
    char *copy = malloc(n > 0 ? n : 1);
    enum number_rc rc;

    assert_non_null(copy);
    memcpy(copy, text, n);
    rc = number_parse(out, copy, n);
    free(copy);
    return rc;
}

static uint64_t bits_of(double v)
{
    uint64_t u;

    memcpy(&u, &v, sizeof(u));
    return u;
}

static void numbers_of_the_syntax_are_read(void **state)
{
    static const struct {
        const char *text;
        double want;
    } rows[] = {
        {"1", 1},
        {"+1", 1},
        {"-1", -1},
        {"1.", 1},
        {".5", 0.5},
        {"-.5", -0.5},
        {"00012", 12},
        {"1e3", 1000},
        {"1E3", 1000},
        {"1e0005", 1e5},
        {"1e00000000005", 1e5},
        {"1e-400", 0},
        {"-1e-400", -0.0},
        {"4.9e-324", 0x1p-1074},
        {"2e-324", 0},
        {"2.4703282292062327208e-324", 0},
        {"2.4703282292062327209e-324", 0x1p-1074},
        {"0", 0},
        {"-0", -0.0},
        {"0e999999999999", 0},
        {"-0.0e5000", -0.0},
        {"0.1", 0.1},
        {"1e-07", 1e-7},
        {"1e+21", 1e21},
        {"1e22", 1e22},
        {"1e23", 1e23},
        {"9007199254740993", 9007199254740992.0},
        {"9007199254740993.0000000000000000000001", 9007199254740994.0},
        {"9999999999999999999", 1e19},
        {"99999999999999999999", 1e20},
        {"18446744073709551616", 0x1p64},
        {"1000000000000000000000000000000e-30", 1},
        {"0000000000000000000000000000000000001", 1},
        {"0.00000000000000000000000000000000000001e38", 1},
        {"1.7976931348623157e308", 0x1.fffffffffffffp1023},
        {"179769313486231580793e288", 0x1.fffffffffffffp1023},
        {"1_000", 1000},
        {"1_23.50_0e+1_2", 123.5e12},
        {"0x1p4", 16},
        {"0X1P-2", 0.25},
        {"0x1.8p1", 3},
        {"0x_1p4", 16},
        {"-0xAp0", -10},
        {"0x.8p0", 0.5},
        {"0x1.fffffffffffff8p0", 2},
        {"0x1.fffffffffffff7ffffffffffffffffffffffffffp0", 0x1.fffffffffffffp0},
        {"0x1.00000000000008p0", 1},
        {"0x1.000000000000080000000000000000000000000000000000000001p0",
         0x1.0000000000001p0},
        {"0x1p-1074", 0x1p-1074},
        {"0x1p-2000", 0},
        {"0x100000000000000000000000000000000000000000p-160", 1.0 * 0x10},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        double got = 42;
        enum number_rc rc = parse(&got, rows[i].text, strlen(rows[i].text));

        if (rc != NUMBER_OK || bits_of(got) != bits_of(rows[i].want))
            fail_msg("%s: %d, %a, not %a", rows[i].text, (int)rc, got,
                     rows[i].want);
    }
}

static void all_else_is_no_number(void **state)
{
    static const char *const rows[] = {
        "",
        ".",
        "1e",
        "1e+",
        "--1",
        "+-1",
        "1.2.3",
        "1f",
        "1__0",
        "_1",
        "1_",
        "1_.5",
        "1._5",
        "1e_5",
        "1e5_",
        "1_e5",
        "0x10",
        "0x1.8",
        "0x",
        "0x.p1",
        "0b1",
        "0o7",
        "0x1p",
        "0x1p_1",
        "0x1p1f",
        "0x__1p4",
        "0_x1p4",
        "+nan",
        "-nan",
        "nan(1)",
        "Infinit",
        "infinityx",
        "in",
        "i",
        "1e400",
        "-1e400",
        "1.7976931348623159e308",
        "0x1p1024",
        "1e99999999999",
        " 1",
        "1 ",
        "\t1",
        "1\n",
        "1,5",
        "+",
        "-",
        "e5",
        ".e5",
        "1e5.0",
        "1ee5",
        "\xd9\xa1",
        "\xe2\x88\x9e",
        "True",
        "undefined",
        "1:2",
        ":",
    };
    double v = 42;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (parse(&v, rows[i], strlen(rows[i])) != NUMBER_BAD)
            fail_msg("\"%s\" was taken for a number", rows[i]);
    }
    assert_int_equal(parse(&v, "1\0", 2), NUMBER_BAD);
    assert_true(v == 42);
}

static void what_is_not_finite_is_told_apart(void **state)
{
    static const char *const rows[] = {
        "inf",       "Inf",      "+Inf", "-INF", "infinity",
        "-Infinity", "INFINITY", "nan",  "NaN",  "NAN",
    };
    double v = 42;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (parse(&v, rows[i], strlen(rows[i])) != NUMBER_NOT_FINITE)
            fail_msg("%s", rows[i]);
    }
    assert_true(v == 42);
}

static void random_decimals_are_read_as_python_reads_them(void **state)
{
    char command[512];
    char *line = NULL;
    size_t room = 0;
    long n = 0;
    FILE *f;

    (void)state;
    if (access(PYTHON, X_OK) != 0) {
        print_message("skipped: no %s to compare with\n", PYTHON);
        skip();
    }
    snprintf(command, sizeof(command), "%s '%s' %d %d", PYTHON,
             TESTS_DIR "/support/decimals.py", SEED, N_RANDOM);
    f = popen(command, "r");
    assert_non_null(f);
    while (getline(&line, &room, f) > 0) {
        char *bits = strchr(line, ' ');
        double got = 42;
        enum number_rc rc;

        assert_non_null(bits);
        *bits++ = '\0';
        rc = parse(&got, line, strlen(line));
        if (strncmp(bits, "range", 5) == 0
                ? rc != NUMBER_BAD
                : rc != NUMBER_OK || bits_of(got) != strtoull(bits, NULL, 16))
            fail_msg("%s: %d, %a, not %s", line, (int)rc, got, bits);
        n++;
    }
    free(line);
    assert_int_equal(pclose(f), 0);
    assert_int_equal(n, N_RANDOM);
}

/* A decimal so long that the reader must cut it: exactly half way between 1 and
 * its successor, plus one digit far behind. */
static void a_digit_behind_the_cut_decides(void **state)
{
    static char text[20000];
    double v;
    int n = snprintf(text, sizeof(text),
                     "1.00000000000000011102230246251565404236316680908203125");

    (void)state;
    memset(text + n, '0', sizeof(text) - (size_t)n);
    assert_int_equal(parse(&v, text, sizeof(text)), NUMBER_OK);
    assert_true(v == 1);
    text[sizeof(text) - 1] = '1';
    assert_int_equal(parse(&v, text, sizeof(text)), NUMBER_OK);
    assert_true(v == 0x1.0000000000001p0);
    memset(text, '9', sizeof(text));
    assert_int_equal(parse(&v, text, 308), NUMBER_OK);
    assert_true(v == 1e308);
    assert_int_equal(parse(&v, text, sizeof(text)), NUMBER_BAD);
}

static void a_list_is_read_number_by_number(void **state)
{
    const char *text = "1:-2.5:0x1p4:1e400:7";
    const char *p = text;
    const char *end = text + strlen(text);
    double v = 0;

    (void)state;
    assert_int_equal(number_parse_next(&v, &p, end), NUMBER_OK);
    assert_true(v == 1 && p == text + 1);
    p++;
    assert_int_equal(number_parse_next(&v, &p, end), NUMBER_OK);
    assert_true(v == -2.5 && p == text + 6);
    p++;
    assert_int_equal(number_parse_next(&v, &p, end), NUMBER_OK);
    assert_true(v == 16 && p == text + 12);
    p++;
    assert_int_equal(number_parse_next(&v, &p, end), NUMBER_BAD);
    assert_true(v == 16 && p == text + 13);
    p = end - 1;
    assert_int_equal(number_parse_next(&v, &p, end), NUMBER_OK);
    assert_true(v == 7 && p == end);
}

static void integers_are_decimal_and_within_64_bits(void **state)
{
    static const struct {
        const char *text;
        int64_t want;
    } good[] = {
        {"0", 0},
        {"-0", 0},
        {"+1", 1},
        {"01", 1},
        {"-1", -1},
        {"1657100430", 1657100430},
        {"9223372036854775807", INT64_MAX},
        {"-9223372036854775808", INT64_MIN},
        {"0000000000000000000000000000005", 5},
    };
    static const char *const bad[] = {
        "",
        "+",
        "-",
        "1_0",
        "0x10",
        "1.0",
        " 1",
        "1 ",
        "1e3",
        "--1",
        "9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999999",
    };
    int64_t v = 42;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (number_parse_int(&v, bad[i], strlen(bad[i])) != NUMBER_BAD)
            fail_msg("\"%s\" was taken for an integer", bad[i]);
    }
    assert_int_equal(v, 42);
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(number_parse_int(&v, good[i].text,
                                          strlen(good[i].text)),
                         NUMBER_OK);
        assert_true(v == good[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_the_syntax_are_read),
        cmocka_unit_test(all_else_is_no_number),
        cmocka_unit_test(what_is_not_finite_is_told_apart),
        cmocka_unit_test(random_decimals_are_read_as_python_reads_them),
        cmocka_unit_test(a_digit_behind_the_cut_decides),
        cmocka_unit_test(a_list_is_read_number_by_number),
        cmocka_unit_test(integers_are_decimal_and_within_64_bits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
