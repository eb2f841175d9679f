/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "aggregator/normalise.h"

typedef size_t normalise_fn(char *out, const char *in, size_t n);

/* Input and output in memory of the exact size, for the sanitizers. */
static void expect(normalise_fn *fn, size_t max, const char *in, size_t n,
                   const char *want)
{
    char *copy = malloc(n > 0 ? n : 1);
    char *out = malloc(max);
    size_t got;

    assert_true(copy != NULL && out != NULL);
    memcpy(copy, in, n);
    got = fn(out, copy, n);
    if (got != strlen(want) || memcmp(out, want, got) != 0)
        fail_msg("\"%.*s\" became \"%.*s\", not \"%s\"", (int)n, in, (int)got,
                 out, want);
    free(copy);
    free(out);
}

static void expect_name(const char *in, const char *want)
{
    expect(normalise_name, NORMALISE_NAME_MAX, in, strlen(in), want);
}

static void expect_tag(const char *in, const char *want)
{
    expect(normalise_tag, NORMALISE_TAG_MAX, in, strlen(in), want);
}

static void names_keep_letters_digits_dots_and_underscores(void **state)
{
    (void)state;
    expect_name("app.requests_2", "app.requests_2");
    expect_name("App.Requests", "App.Requests");
    expect_name("app-requests total", "app_requests_total");
    expect_name("1.2_app", "app");
    expect_name("___", "");
    expect_name("", "");
    expect_name("42", "");
    expect_name("a__b", "a_b");
    expect_name("a--b", "a_b");
    expect_name("a_.b", "a.b");
    expect_name("a._b", "a.b");
    expect_name("a_._b", "a.b");
    expect_name("a-.-b", "a.b");
    expect_name("a..b", "a..b");
    expect_name("a_", "a_");
    expect_name("caf\xc3\xa9.x", "caf.x");
    expect_name("caf\xc3\xa9x", "caf_x");
    expect(normalise_name, NORMALISE_NAME_MAX, "a\0b", 3, "a_b");
}

static void long_names_are_cut(void **state)
{
    char in[1000];
    char want[NORMALISE_NAME_MAX + 1];

    (void)state;
    memset(in, 'x', sizeof(in));
    memset(want, 'x', sizeof(want));
    want[NORMALISE_NAME_MAX] = '\0';
    expect(normalise_name, NORMALISE_NAME_MAX, in, sizeof(in), want);
    expect(normalise_name, NORMALISE_NAME_MAX, in, NORMALISE_NAME_MAX, want);
}

static void tags_are_lower_case_and_clean(void **state)
{
    (void)state;
    expect_tag("Env:Prod", "env:prod");
    expect_tag("path:/a/b-c.d_e", "path:/a/b-c.d_e");
    expect_tag("a b", "a_b");
    expect_tag("a  b", "a__b");
    expect_tag("a,=b", "a__b");
    expect_tag("trailing_ _", "trailing");
    expect_tag("___", "");
    expect_tag("", "");
    expect_tag("1st:2", "1st:2");
    expect(normalise_tag, NORMALISE_TAG_MAX, "a\0b", 3, "a_b");
}

static void tags_keep_letters_beyond_ascii(void **state)
{
    (void)state;
    expect_tag("caf\xc3\xa9:\xe5\xbc\x82", "caf\xc3\xa9:\xe5\xbc\x82");
    /* One character, one underscore, however many bytes. */
    expect_tag("a\xe2\x80\x94"
               "b",
               "a_b"); /* em dash */
    expect_tag("a\xc2\xa0"
               "b",
               "a_b"); /* no-break space */
    expect_tag("a\xf0\x9f\x90\x95"
               "b",
               "a_b"); /* dog */
    expect_tag("a\xef\xbf\xbd"
               "b",
               "a_b"); /* U+FFFD */
    expect_tag("a\xff"
               "b",
               "a_b");
    expect_tag("a\xe2\x82", "a");
    expect_tag("\xc2\xaa\xc2\xb5\xc2\xba", "\xc2\xaa\xc2\xb5\xc2\xba");
}

/* Eight bytes at once would pass the end. */
static void a_long_tag_is_cut_wherever_eights_begin(void **state)
{
    char in[300], out[NORMALISE_TAG_MAX];

    (void)state;
    memset(in, 'x', sizeof(in));
    for (size_t i = 0; i < 8; i++) {
        in[i] = 'A'; /* does not stay */
        assert_int_equal(normalise_tag(out, in, sizeof(in)), NORMALISE_TAG_MAX);
    }
}

static void long_tags_are_cut_between_characters(void **state)
{
    char in[300];
    char want[NORMALISE_TAG_MAX + 1] = {0};

    (void)state;
    memset(in, 'x', sizeof(in));
    memset(want, 'x', NORMALISE_TAG_MAX);
    expect(normalise_tag, NORMALISE_TAG_MAX, in, sizeof(in), want);
    memcpy(in + NORMALISE_TAG_MAX - 1, "\xc3\xa9", 2);
    want[NORMALISE_TAG_MAX - 1] = '\0';
    expect(normalise_tag, NORMALISE_TAG_MAX, in, sizeof(in), want);
    in[NORMALISE_TAG_MAX - 2] = '_';
    want[NORMALISE_TAG_MAX - 2] = '\0';
    expect(normalise_tag, NORMALISE_TAG_MAX, in, sizeof(in), want);
}

struct cleaned {
    const char *in;
    const char *want;
    unsigned n_bad;
};

#define BAD "\xef\xbf\xbd"

static const struct cleaned cleaned[] = {
    {"", "", 0},
    {"plain text of some length", "plain text of some length", 0},
    {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x95",
     "\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x95", 0},
    {"\xef\xbf\xbd", BAD, 0},
    {"a\xff"
     "b",
     "a" BAD "b", 1},
    {"\xc3", BAD, 1},
    {"\xc3(", BAD "(", 1},
    {"\xc0\xaf", BAD BAD, 2},                 /* overlong */
    {"\xe0\x80\xaf", BAD BAD BAD, 3},         /* overlong */
    {"\xed\xa0\x80", BAD BAD BAD, 3},         /* surrogate */
    {"\xf4\x90\x80\x80", BAD BAD BAD BAD, 4}, /* above U+10FFFF */
    {"\xf5", BAD, 1},
    {"\xe2\x82", BAD, 1}, /* one cut character, one mark */
    {"\xf0\x9f\x90x", BAD "x", 1},
    {"\x80\x80", BAD BAD, 2},
    {"\xf4\x8f\xbf\xbf\xed\x9f\xbf", "\xf4\x8f\xbf\xbf\xed\x9f\xbf", 0},
    {"12345678\xff"
     "12345678",
     "12345678" BAD "12345678", 1},
};

static void invalid_utf8_is_replaced(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cleaned) / sizeof(cleaned[0]); i++) {
        const struct cleaned *c = &cleaned[i];
        char out[64];
        unsigned n_bad = 7;
        int cut = 0;
        size_t n =
            utf8_clean(out, sizeof(out), c->in, strlen(c->in), &n_bad, &cut);

        assert_int_equal(n, strlen(c->want));
        assert_memory_equal(out, c->want, n);
        assert_int_equal(n_bad, 7 + c->n_bad);
        assert_int_equal(cut, 0);
        assert_int_equal(utf8_valid(c->in, strlen(c->in)), c->n_bad == 0);
        assert_true(utf8_valid(out, n));
    }
}

static void text_is_cut_between_characters(void **state)
{
    static const char in[] = "ab\xc3\xa9\xff"
                             "cdefghijk";
    static const size_t want[] = {0, 1, 2, 2, 4, 4, 4, 7, 8};

    (void)state;
    for (size_t max = 0; max < sizeof(want) / sizeof(want[0]); max++) {
        char *out = malloc(max + 1);
        unsigned n_bad = 0;
        int cut = 0;

        assert_non_null(out);
        assert_int_equal(utf8_clean(out, max, in, sizeof(in) - 1, &n_bad, &cut),
                         want[max]);
        assert_int_equal(cut, 1);
        assert_int_equal(n_bad, want[max] >= 7);
        free(out);
    }
}

static void text_that_fits_exactly_is_not_cut(void **state)
{
    char out[16];
    unsigned n_bad = 0;
    int cut = 0;

    (void)state;
    assert_int_equal(utf8_clean(out, 16, "0123456789abcdef", 16, &n_bad, &cut),
                     16);
    assert_int_equal(cut, 0);
    assert_int_equal(utf8_clean(out, 15, "0123456789abcdef", 16, &n_bad, &cut),
                     15);
    assert_int_equal(cut, 1);
    cut = 0;
    assert_int_equal(utf8_clean(out, 3, "a\0b", 3, &n_bad, &cut), 3);
    assert_memory_equal(out, "a\0b", 3);
    assert_int_equal(cut + (int)n_bad, 0);
}

static void replace_all(char *s, const char *two, char one)
{
    char *at;

    while ((at = strstr(s, two)) != NULL) {
        at[0] = one;
        memmove(at + 1, at + 2, strlen(at + 2) + 1);
    }
}

/* The rules once more, a rule at a time. */
static void name_by_the_rules(char *s)
{
    size_t skip = 0;

    while (s[skip] != '\0' && !isalpha((unsigned char)s[skip]))
        skip++;
    memmove(s, s + skip, strlen(s + skip) + 1);
    for (char *c = s; *c != '\0'; c++)
        *c = isalnum((unsigned char)*c) || *c == '.' ? *c : '_';
    replace_all(s, "__", '_');
    replace_all(s, "._", '.');
    replace_all(s, "_.", '.');
}

static void tag_by_the_rules(char *s)
{
    size_t n = strlen(s);

    for (char *c = s; *c != '\0'; c++) {
        *c = (char)tolower((unsigned char)*c);
        if (!isalnum((unsigned char)*c) && strchr("_:./-", *c) == NULL)
            *c = '_';
    }
    while (n > 0 && s[n - 1] == '_')
        s[--n] = '\0';
}

/* Most bytes stay, and are taken several at once: what does not stay lies between
 * them everywhere. */
static void ascii_of_any_sort_follows_the_rules(void **state)
{
    static const char some[] = "abcxyz.09.AZ_-:/, #..__";
    uint32_t x = 9;

    (void)state;
    for (int round = 0; round < 50000; round++) {
        char in[64], want[64];
        uint32_t n_kinds = round % 3 == 0 ? 10 : sizeof(some) - 1;
        size_t n = 0;

        while (n < (size_t)(round % 60)) {
            x = x * 1664525 + 1013904223;
            in[n++] = some[(x >> 10) % n_kinds];
        }
        if (n > 0)
            in[(x >> 20) % n] = some[(x >> 3) % (sizeof(some) - 1)];
        in[n] = '\0';
        memcpy(want, in, n + 1);
        name_by_the_rules(want);
        expect_name(in, want);
        memcpy(want, in, n + 1);
        tag_by_the_rules(want);
        expect_tag(in, want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_keep_letters_digits_dots_and_underscores),
        cmocka_unit_test(ascii_of_any_sort_follows_the_rules),
        cmocka_unit_test(long_names_are_cut),
        cmocka_unit_test(tags_are_lower_case_and_clean),
        cmocka_unit_test(tags_keep_letters_beyond_ascii),
        cmocka_unit_test(a_long_tag_is_cut_wherever_eights_begin),
        cmocka_unit_test(long_tags_are_cut_between_characters),
        cmocka_unit_test(invalid_utf8_is_replaced),
        cmocka_unit_test(text_is_cut_between_characters),
        cmocka_unit_test(text_that_fits_exactly_is_not_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
