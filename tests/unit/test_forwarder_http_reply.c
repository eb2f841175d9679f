/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <string.h>

#include "forwarder/http_reply.h"

#define T1994 784111777 /* Sun, 06 Nov 1994 08:49:37 GMT */

static uint32_t after(const char *value, int64_t now_s)
{
    return http_reply_retry_after_ms(value, strlen(value), now_s);
}

static void seconds_and_dates_give_milliseconds(void **state)
{
    (void)state;
    assert_int_equal(after("0", 0), 0);
    assert_int_equal(after("120", 0), 120000);
    assert_int_equal(after("4294967", 0), UINT32_MAX);
    assert_int_equal(after("99999999999999999999", 0), UINT32_MAX);
    assert_int_equal(after("Sun, 06 Nov 1994 08:49:37 GMT", T1994 - 5), 5000);
    assert_int_equal(after("Sun, 06 Nov 1994 08:49:37 GMT", T1994), 0);
    assert_int_equal(after("Sun, 06 Nov 1994 08:49:37 GMT", T1994 + 5), 0);
    assert_int_equal(after("Thu, 01 Jan 1970 00:00:01 GMT", 0), 1000);
    assert_int_equal(after("Thu, 29 Feb 2024 12:00:00 GMT", 1709208000 - 60),
                     60000);
    assert_int_equal(after("Fri, 31 Dec 9999 23:59:59 GMT", 0), UINT32_MAX);
}

static void other_bytes_give_nothing(void **state)
{
    static const char *const bad[] = {
        "",
        "-1",
        "1.5",
        "1 2",
        "0x10",
        "soon",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 06 Nov 1969 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(after(bad[i], 0), 0);
}

static void a_header_is_found_in_any_case(void **state)
{
    const char *v = NULL;
    size_t n = 0;

    (void)state;
    assert_true(
        http_reply_header("ReTRY-after:\t 7 \r\n", 18, "Retry-After", &v, &n));
    assert_int_equal(n, 1);
    assert_int_equal(v[0], '7');
    assert_true(http_reply_header("A:", 2, "A", &v, &n));
    assert_int_equal(n, 0);
    assert_false(http_reply_header("Retry-After", 11, "Retry-After", &v, &n));
    assert_false(
        http_reply_header("Retry-After2: 7", 15, "Retry-After", &v, &n));
}

static void an_excerpt_is_one_printable_line(void **state)
{
    char out[10];

    (void)state;
    assert_int_equal(http_reply_excerpt("a\r\nb\x1b\xff", out, sizeof(out)), 6);
    assert_string_equal(out, "a  b ?");
    assert_int_equal(http_reply_excerpt("0123456789abc", out, sizeof(out)), 9);
    assert_string_equal(out, "012345678");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seconds_and_dates_give_milliseconds),
        cmocka_unit_test(other_bytes_give_nothing),
        cmocka_unit_test(a_header_is_found_in_any_case),
        cmocka_unit_test(an_excerpt_is_one_printable_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
