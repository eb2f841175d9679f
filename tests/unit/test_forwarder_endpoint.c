/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "forwarder/endpoint.h"

static void a_site_becomes_its_api_host(void **state)
{
    struct endpoint e;
    char url[ENDPOINT_FULL_URL_MAX];

    (void)state;
    assert_int_equal(endpoint_init(&e, "datadoghq.eu", ""), 0);
    endpoint_url(&e, PAYLOAD_SERIES, url);
    assert_string_equal(url, "https://api.datadoghq.eu/api/v2/series");
    endpoint_url(&e, PAYLOAD_SKETCHES, url);
    assert_string_equal(url, "https://api.datadoghq.eu/api/beta/sketches");
    endpoint_url(&e, PAYLOAD_EVENTS, url);
    assert_string_equal(url, "https://api.datadoghq.eu/intake/");
    endpoint_url(&e, PAYLOAD_CHECKS, url);
    assert_string_equal(url, "https://api.datadoghq.eu/api/v1/check_run");
    endpoint_validate_url(&e, url);
    assert_string_equal(url, "https://api.datadoghq.eu/api/v1/validate");
}

static void dd_url_stands_as_it_was_written(void **state)
{
    struct endpoint e;
    char url[ENDPOINT_FULL_URL_MAX];

    (void)state;
    assert_int_equal(endpoint_init(&e, "datadoghq.com",
                                   "http://localhost:8080/a/b//"),
                     0);
    endpoint_url(&e, PAYLOAD_SERIES, url);
    assert_string_equal(url, "http://localhost:8080/a/b/api/v2/series");
    assert_int_equal(endpoint_init(&e, "", "https://[::1]:9"), 0);
    endpoint_url(&e, PAYLOAD_CHECKS, url);
    assert_string_equal(url, "https://[::1]:9/api/v1/check_run");
    assert_int_equal(endpoint_init(&e, "datadoghq.com", "ftp://x"), -EINVAL);
    assert_int_equal(endpoint_init(&e, "", ""), -EINVAL);
}

static void urls_are_checked_with_a_reason(void **state)
{
    static const char *const good[] = {
        "https://a",
        "HTTPS://app.datadoghq.com.",
        "http://127.0.0.1:1",
        "https://my_proxy:65535/x/y",
        "https://b\xc3\xbc"
        "cher.example",
    };
    static const char *const bad[] = {
        "",
        "datadoghq.com",
        "https:/a",
        "https://",
        "https:///x",
        "https://:80",
        "https://a:",
        "https://a:0",
        "https://a:65536",
        "https://a:99999999999",
        "https://a:8x",
        "https://a b",
        "https://a\n",
        "https://u:secret@a",
        "https://a/?q=1",
        "https://a#f",
        "https://a\\b",
        "https://-a",
        "https://.",
        "https://[::1",
        "https://[]",
        "https://[zz]",
        "https://[::1]x",
        "file:///etc/passwd",
    };
    char longest[ENDPOINT_URL_MAX + 8];
    const char *why;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(endpoint_check_url(good[i], &why));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        why = NULL;
        if (endpoint_check_url(bad[i], &why))
            fail_msg("accepted: %s", bad[i]);
        assert_non_null(why);
        assert_null(strstr(why, "secret"));
    }
    memset(longest, 'a', sizeof(longest));
    memcpy(longest, "https://h/", 10);
    longest[ENDPOINT_URL_MAX] = '\0';
    assert_false(endpoint_check_url(longest, &why));
    longest[ENDPOINT_URL_MAX - 1] = '\0';
    assert_true(endpoint_check_url(longest, &why));
}

static void sites_and_keys_are_checked(void **state)
{
    const char *why;
    char key[300];

    (void)state;
    assert_true(endpoint_check_site("us5.datadoghq.com", &why));
    assert_false(endpoint_check_site("", &why));
    assert_false(endpoint_check_site("https://datadoghq.com", &why));
    assert_false(endpoint_check_site("a/b", &why));
    assert_false(endpoint_check_site("a:80", &why));
    assert_false(endpoint_check_site("[::1]", &why));
    assert_true(endpoint_check_key("0123456789abcdef", &why));
    assert_false(endpoint_check_key("abc\r\nX-Evil: 1", &why));
    assert_false(endpoint_check_key("a b", &why));
    memset(key, 'k', sizeof(key));
    key[257] = '\0';
    assert_false(endpoint_check_key(key, &why));
    key[256] = '\0';
    assert_true(endpoint_check_key(key, &why));
}

static bool has(const struct endpoint_headers *h, const char *line)
{
    for (size_t i = 0; h->list[i] != NULL; i++) {
        if (strcmp(h->list[i], line) == 0)
            return true;
    }
    return false;
}

static size_t count(const struct endpoint_headers *h)
{
    size_t n = 0;

    while (h->list[n] != NULL)
        n++;
    return n;
}

static void each_kind_has_its_headers(void **state)
{
    struct endpoint_headers h;

    (void)state;
    endpoint_headers(&h, PAYLOAD_SERIES, ENCODING_ZSTD, "k3y", "0.1.0", true);
    assert_true(has(&h, "DD-API-KEY: k3y"));
    assert_true(has(&h, "DD-Agent-Version: 0.1.0"));
    assert_true(has(&h, "Content-Type: application/x-protobuf"));
    assert_true(has(&h, "Content-Encoding: zstd"));
    assert_true(has(&h, "Allow-Arbitrary-Tag-Value: true"));
    assert_true(has(&h, "DD-Agent-Payload: 5.0.0"));
    assert_int_equal(count(&h), 6);
    endpoint_headers(&h, PAYLOAD_EVENTS, ENCODING_DEFLATE, "k", "0.1.0", false);
    assert_true(has(&h, "Content-Type: application/json"));
    assert_true(has(&h, "Content-Encoding: deflate"));
    assert_int_equal(count(&h), 4);
    endpoint_headers(&h, PAYLOAD_CHECKS, ENCODING_NONE, "k", "0.1.0", false);
    assert_int_equal(count(&h), 3);
    endpoint_headers(&h, PAYLOAD_SKETCHES, ENCODING_GZIP, "k", "0.1.0", false);
    assert_true(has(&h, "Content-Encoding: gzip"));
    assert_true(has(&h, "Content-Type: application/x-protobuf"));
    endpoint_headers_wipe(&h);
    assert_int_equal(h.key[0], 0);
}

static void a_masked_key_shows_five_characters_at_most(void **state)
{
    char out[ENDPOINT_MASK_MAX];

    (void)state;
    endpoint_mask_key("0123456789abcdef0123456789abcdef", out);
    assert_string_equal(out, "*****bcdef");
    endpoint_mask_key("short", out);
    assert_string_equal(out, "*****t");
    endpoint_mask_key("", out);
    assert_string_equal(out, "*****");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_site_becomes_its_api_host),
        cmocka_unit_test(dd_url_stands_as_it_was_written),
        cmocka_unit_test(urls_are_checked_with_a_reason),
        cmocka_unit_test(sites_and_keys_are_checked),
        cmocka_unit_test(each_kind_has_its_headers),
        cmocka_unit_test(a_masked_key_shows_five_characters_at_most),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
