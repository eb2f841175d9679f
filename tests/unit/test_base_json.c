/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/base/json.h"

static void nesting_places_commas(void **state)
{
    struct buf b;
    struct json j;

    (void)state;
    buf_init(&b, 1000);
    json_init(&j, &b);
    json_object(&j);
    json_member_u64(&j, "u", UINT64_MAX);
    json_member_i64(&j, "i", INT64_MIN);
    json_key(&j, "a");
    json_array(&j);
    json_null(&j);
    json_object(&j);
    json_end(&j);
    json_array(&j);
    json_end(&j);
    json_raw(&j, "{\"x\":1}", 7);
    json_end(&j);
    json_member_bool(&j, "t", true);
    json_member_bool(&j, "f", false);
    json_member_str(&j, "s", "v");
    json_end(&j);
    assert_int_equal(json_finish(&j), 0);
    assert_string_equal(
        buf_cstr(&b),
        "{\"u\":18446744073709551615,\"i\":-9223372036854775808,"
        "\"a\":[null,{},[],{\"x\":1}],\"t\":true,\"f\":false,\"s\":\"v\"}");
    buf_fini(&b);
}

static void doubles_are_short_and_exact(void **state)
{
    static const struct {
        double v;
        const char *text;
    } rows[] = {
        {0.1, "0.1"},
        {1, "1"},
        {-0.0, "-0"},
        {1e300, "1e+300"},
        {0.1 + 0.2, "0.30000000000000004"},
        {5e-324, "4.94065645841247e-324"},
        {INFINITY, "null"},
        {-INFINITY, "null"},
        {NAN, "null"},
    };
    struct buf b;

    (void)state;
    buf_init(&b, 100);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct json j;

        buf_clear(&b);
        json_init(&j, &b);
        json_double(&j, rows[i].v);
        assert_int_equal(json_finish(&j), 0);
        assert_string_equal(buf_cstr(&b), rows[i].text);
    }
    buf_fini(&b);
}

static void strings_are_escaped_and_made_valid(void **state)
{
#define BAD "\xef\xbf\xbd"
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"a\"b\\c/\n\r\t\b\x7f", "\"a\\\"b\\\\c/\\n\\r\\t\\u0008\\u007f\""},
        {"gr\xc3\xbc\xc3\x9f", "\"gr\xc3\xbc\xc3\x9f\""},
        {"\xe2\x82\xac\xf0\x9f\x90\x95", "\"\xe2\x82\xac\xf0\x9f\x90\x95\""},
        {"\xc3", "\"" BAD "\""},
        {"\xc0\xaf", "\"" BAD BAD "\""},                 /* overlong slash */
        {"\xed\xa0\x80", "\"" BAD BAD BAD "\""},         /* surrogate */
        {"\xf4\x90\x80\x80", "\"" BAD BAD BAD BAD "\""}, /* > U+10FFFF */
        {"\xe2\x82x", "\"" BAD BAD "x\""},               /* cut short */
        {"\xff\xfe", "\"" BAD BAD "\""},
    };
    struct buf b;

    (void)state;
    buf_init(&b, 100);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        buf_clear(&b);
        json_quote(&b, rows[i].in, strlen(rows[i].in));
        assert_string_equal(buf_cstr(&b), rows[i].out);
    }
    buf_clear(&b);
    json_quote(&b, "a\0b", 3);
    assert_string_equal(buf_cstr(&b), "\"a\\u0000b\"");
    buf_fini(&b);
}

static void full_buffer_is_reported_at_the_end(void **state)
{
    struct buf b;
    struct json j;

    (void)state;
    buf_init(&b, 10);
    json_init(&j, &b);
    json_array(&j);
    json_str(&j, "far too long for it");
    json_end(&j);
    assert_int_equal(json_finish(&j), -ENOMEM);
    buf_fini(&b);
}

static void deepest_allowed_nesting_works(void **state)
{
    struct buf b;
    struct json j;

    (void)state;
    buf_init(&b, 1000);
    json_init(&j, &b);
    for (int i = 0; i < JSON_MAX_DEPTH; i++)
        json_array(&j);
    json_u64(&j, 1);
    for (int i = 0; i < JSON_MAX_DEPTH; i++)
        json_end(&j);
    assert_int_equal(json_finish(&j), 0);
    assert_int_equal(b.n, 2 * JSON_MAX_DEPTH + 1);
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nesting_places_commas),
        cmocka_unit_test(doubles_are_short_and_exact),
        cmocka_unit_test(strings_are_escaped_and_made_valid),
        cmocka_unit_test(full_buffer_is_reported_at_the_end),
        cmocka_unit_test(deepest_allowed_nesting_works),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
