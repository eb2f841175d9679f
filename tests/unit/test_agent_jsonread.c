/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/jsonread.h"

/* From a heap block without terminator: a read past the end is seen. */
static int parse(struct jsonread *d, const char *text, uint32_t max_nodes)
{
    static char *copy;
    size_t n = strlen(text);
    int rc;

    free(copy);
    copy = malloc(n > 0 ? n : 1);
    assert_non_null(copy);
    memcpy(copy, text, n);
    rc = jsonread_parse(d, copy, n, max_nodes);
    if (rc != 0) {
        free(copy);
        copy = NULL;
    }
    return rc;
}

static void reads_a_tree(void **state)
{
    struct jsonread d;
    const struct jsonread_node *v;
    int64_t n;

    (void)state;
    assert_int_equal(parse(&d,
                           " {\"a\" : [1,-2.5e1, true,null,\"x\"],"
                           "\"b\":{}, \"a b\":7} ",
                           100),
                     0);
    v = jsonread_child(&d, jsonread_get(&d, jsonread_root(&d), "a"));
    assert_int_equal(jsonread_int(v, &n), 0);
    assert_int_equal(n, 1);
    v = jsonread_next(&d, v);
    assert_true(v->number == -25.0);
    v = jsonread_next(&d, v);
    assert_int_equal(v->type, JSONREAD_TRUE);
    v = jsonread_next(&d, v);
    assert_int_equal(v->type, JSONREAD_NULL);
    v = jsonread_next(&d, v);
    assert_true(jsonread_is(v, "x"));
    assert_null(jsonread_next(&d, v));
    v = jsonread_get(&d, jsonread_root(&d), "b");
    assert_int_equal(v->n, 0);
    assert_null(jsonread_child(&d, v));
    assert_null(jsonread_get(&d, v, "b"));
    assert_int_equal(jsonread_root(&d)->n, 3);
    jsonread_fini(&d);
    jsonread_fini(&d);
}

static void unescapes_strings(void **state)
{
    struct jsonread d;
    const char want[] = "\" \\ / \b\f\n\r\t \xc3\xa9 \xe2\x82\xac "
                        "\xf0\x9f\x98\x80";

    (void)state;
    assert_int_equal(parse(&d,
                           "\"\\\" \\\\ \\/ \\b\\f\\n\\r\\t \\u00e9 \\u20AC "
                           "\\ud83d\\ude00\"",
                           10),
                     0);
    assert_int_equal(jsonread_root(&d)->n, sizeof(want) - 1);
    assert_memory_equal(jsonread_root(&d)->text, want, sizeof(want) - 1);
    jsonread_fini(&d);
}

static void refuses_what_is_not_json(void **state)
{
    static const char *const texts[] = {
        "",
        " ",
        "{",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "nul",
        "nulll",
        "True",
        "NaN",
        "Infinity",
        "-",
        "+1",
        "01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x10",
        "1 2",
        "\"",
        "\"\\",
        "\"\\u12\"",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\x01\"",
        "\"\xff\"",
        "\"\xc0\x80\"",
        "\"\xed\xa0\x80\"",
        "[1}",
        "{\"a\":1]",
        "/* */1",
        "'a'",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct jsonread d;

        if (parse(&d, texts[i], 100) != JSONREAD_BAD)
            fail_msg("accepted: %s", texts[i]);
        assert_non_null(d.error);
        jsonread_fini(&d);
    }
}

static void bounds_depth_and_values(void **state)
{
    char deep[2 * JSONREAD_DEPTH_MAX + 3];
    struct jsonread d;
    size_t n = JSONREAD_DEPTH_MAX;

    (void)state;
    memset(deep, '[', n);
    memset(deep + n, ']', n);
    deep[2 * n] = '\0';
    assert_int_equal(parse(&d, deep, 1000), 0);
    jsonread_fini(&d);
    memset(deep, '[', n + 1);
    memset(deep + n + 1, ']', n + 1);
    deep[2 * n + 2] = '\0';
    assert_int_equal(parse(&d, deep, 1000), JSONREAD_BAD);
    jsonread_fini(&d);

    assert_int_equal(parse(&d, "[1,2,3]", 4), 0);
    jsonread_fini(&d);
    assert_int_equal(parse(&d, "[1,2,3]", 3), JSONREAD_BAD);
    jsonread_fini(&d);
}

static void integers_are_whole_and_exact(void **state)
{
    static const char *const bad[] = {"1.5", "1e300", "1e999",
                                      "9007199254740994", "\"1\""};
    struct jsonread d;
    int64_t n = 5;

    (void)state;
    assert_int_equal(parse(&d, "-9007199254740992", 10), 0);
    assert_int_equal(jsonread_int(jsonread_root(&d), &n), 0);
    assert_true(n == -9007199254740992);
    jsonread_fini(&d);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        n = 5;
        assert_int_equal(parse(&d, bad[i], 10), 0);
        assert_int_equal(jsonread_int(jsonread_root(&d), &n), JSONREAD_BAD);
        assert_int_equal(n, 5);
        jsonread_fini(&d);
    }
    assert_int_equal(jsonread_int(NULL, &n), JSONREAD_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_tree),
        cmocka_unit_test(unescapes_strings),
        cmocka_unit_test(refuses_what_is_not_json),
        cmocka_unit_test(bounds_depth_and_values),
        cmocka_unit_test(integers_are_whole_and_exact),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
