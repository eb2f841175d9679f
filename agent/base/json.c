/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/base/json.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/contract.h"

void json_init(struct json *j, struct buf *out)
{
    *j = (struct json){.out = out};
}

int json_finish(struct json *j)
{
    REQUIRE(j->depth == 0 && !j->after_key);
    return j->out->failed ? -ENOMEM : 0;
}

/* What stands between this value and the one before. */
static void begin_value(struct json *j)
{
    uint64_t bit = UINT64_C(1) << j->depth;

    if (j->after_key) {
        j->after_key = false;
        return;
    }
    REQUIRE((j->is_object & bit) == 0); /* a member needs its key */
    if (j->depth > 0 && (j->has_member & bit) != 0)
        (void)buf_putc(j->out, ',');
    j->has_member |= bit;
}

static void open_level(struct json *j, bool object)
{
    uint64_t bit;

    begin_value(j);
    REQUIRE(j->depth < JSON_MAX_DEPTH);
    j->depth++;
    bit = UINT64_C(1) << j->depth;
    j->has_member &= ~bit;
    j->is_object = object ? j->is_object | bit : j->is_object & ~bit;
    (void)buf_putc(j->out, object ? '{' : '[');
}

void json_object(struct json *j)
{
    open_level(j, true);
}

void json_array(struct json *j)
{
    open_level(j, false);
}

void json_end(struct json *j)
{
    REQUIRE(j->depth > 0 && !j->after_key);
    (void)buf_putc(j->out, (j->is_object >> j->depth & 1) != 0 ? '}' : ']');
    j->depth--;
}

void json_key(struct json *j, const char *key)
{
    uint64_t bit = UINT64_C(1) << j->depth;

    REQUIRE((j->is_object & bit) != 0 && !j->after_key);
    if ((j->has_member & bit) != 0)
        (void)buf_putc(j->out, ',');
    j->has_member |= bit;
    json_quote(j->out, key, strlen(key));
    (void)buf_putc(j->out, ':');
    j->after_key = true;
}

/* Length of the well-formed UTF-8 sequence at @p (Unicode 15, table 3-7), 0 when
 * there is none. */
static size_t utf8_length(const unsigned char *p, size_t n)
{
    size_t len;
    unsigned char lo = 0x80;
    unsigned char hi = 0xbf;

    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        len = 2;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        len = 3;
        lo = p[0] == 0xe0 ? 0xa0 : 0x80; /* no overlong form */
        hi = p[0] == 0xed ? 0x9f : 0xbf; /* no surrogate */
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        len = 4;
        lo = p[0] == 0xf0 ? 0x90 : 0x80;
        hi = p[0] == 0xf4 ? 0x8f : 0xbf;
    } else {
        return 0;
    }
    if (n < len || p[1] < lo || p[1] > hi)
        return 0;
    for (size_t i = 2; i < len; i++) {
        if (p[i] < 0x80 || p[i] > 0xbf)
            return 0;
    }
    return len;
}

static void put_escaped(struct buf *out, unsigned char c)
{
    switch (c) {
    case '"':
        (void)buf_puts(out, "\\\"");
        break;
    case '\\':
        (void)buf_puts(out, "\\\\");
        break;
    case '\n':
        (void)buf_puts(out, "\\n");
        break;
    case '\r':
        (void)buf_puts(out, "\\r");
        break;
    case '\t':
        (void)buf_puts(out, "\\t");
        break;
    default:
        (void)buf_printf(out, "\\u%04x", c);
    }
}

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

void json_quote(struct buf *out, const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text;
    const unsigned char *end = p + n;

    (void)buf_putc(out, '"');
    while (p < end) {
        const unsigned char *run = p;
        size_t len;

        while (p < end && is_plain(*p))
            p++;
        if (p > run)
            (void)buf_append(out, run, (size_t)(p - run));
        if (p == end)
            break;
        len = utf8_length(p, (size_t)(end - p));
        if (len == 0) {
            (void)buf_puts(out, "\xef\xbf\xbd");
            p++;
        } else if (len == 1) {
            put_escaped(out, *p++);
        } else {
            (void)buf_append(out, p, len);
            p += len;
        }
    }
    (void)buf_putc(out, '"');
}

void json_strn(struct json *j, const char *p, size_t n)
{
    begin_value(j);
    json_quote(j->out, p, n);
}

void json_str(struct json *j, const char *s)
{
    json_strn(j, s, strlen(s));
}

void json_i64(struct json *j, int64_t v)
{
    begin_value(j);
    (void)buf_printf(j->out, "%" PRId64, v);
}

void json_u64(struct json *j, uint64_t v)
{
    begin_value(j);
    (void)buf_printf(j->out, "%" PRIu64, v);
}

void json_double(struct json *j, double v)
{
    char text[32];

    if (!isfinite(v)) {
        json_null(j);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    begin_value(j);
    (void)buf_puts(j->out, text);
}

void json_raw(struct json *j, const char *p, size_t n)
{
    begin_value(j);
    (void)buf_append(j->out, p, n);
}

void json_bool(struct json *j, bool v)
{
    begin_value(j);
    (void)buf_puts(j->out, v ? "true" : "false");
}

void json_null(struct json *j)
{
    begin_value(j);
    (void)buf_puts(j->out, "null");
}

void json_member_str(struct json *j, const char *key, const char *s)
{
    json_key(j, key);
    json_str(j, s);
}

void json_member_u64(struct json *j, const char *key, uint64_t v)
{
    json_key(j, key);
    json_u64(j, v);
}

void json_member_i64(struct json *j, const char *key, int64_t v)
{
    json_key(j, key);
    json_i64(j, v);
}

void json_member_double(struct json *j, const char *key, double v)
{
    json_key(j, key);
    json_double(j, v);
}

void json_member_bool(struct json *j, const char *key, bool v)
{
    json_key(j, key);
    json_bool(j, v);
}
