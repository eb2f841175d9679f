/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The obsolete date forms of RFC 9110 are not read: no server has sent them for
 * two decades, and the back-off does without.
 */
#include "forwarder/http_reply.h"

#include <string.h>
#include <strings.h>

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

bool http_reply_header(const char *line, size_t n, const char *name,
                       const char **value, size_t *n_value)
{
    size_t n_name = strlen(name);

    if (n <= n_name || line[n_name] != ':' ||
        strncasecmp(line, name, n_name) != 0)
        return false;
    line += n_name + 1;
    n -= n_name + 1;
    while (n > 0 && is_blank(line[0])) {
        line++;
        n--;
    }
    while (n > 0 && is_blank(line[n - 1]))
        n--;
    *value = line;
    *n_value = n;
    return true;
}

/* @n digits at @s, or -1. */
static int digits(const char *s, size_t n)
{
    int v = 0;

    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return -1;
        v = v * 10 + (s[i] - '0');
    }
    return v;
}

/* Days since 1970-01-01 of a date of the Gregorian calendar. */
static int64_t days_of(int year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = y / 400;
    int64_t yoe = y - era * 400;
    int64_t doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT": 29 bytes. */
static bool parse_date(const char *s, size_t n, int64_t *at_s)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    int day, year, hour, min, sec;
    int month = 0;

    if (n != 29 || memcmp(s + 3, ", ", 2) != 0 || s[7] != ' ' || s[11] != ' ' ||
        s[16] != ' ' || s[19] != ':' || s[22] != ':' ||
        memcmp(s + 25, " GMT", 4) != 0)
        return false;
    while (month < 12 && memcmp(s + 8, months + 3 * (size_t)month, 3) != 0)
        month++;
    day = digits(s + 5, 2);
    year = digits(s + 12, 4);
    hour = digits(s + 17, 2);
    min = digits(s + 20, 2);
    sec = digits(s + 23, 2);
    if (month == 12 || day < 1 || day > 31 || year < 1970 || hour < 0 ||
        hour > 23 || min < 0 || min > 59 || sec < 0 || sec > 60)
        return false;
    *at_s =
        days_of(year, month + 1, day) * 86400 + hour * 3600 + min * 60 + sec;
    return true;
}

static uint32_t clamp_ms(uint64_t s)
{
    return s >= UINT32_MAX / 1000 ? UINT32_MAX : (uint32_t)(s * 1000);
}

uint32_t http_reply_retry_after_ms(const char *value, size_t n, int64_t now_s)
{
    uint64_t s = 0;
    int64_t at_s;

    if (parse_date(value, n, &at_s))
        return at_s > now_s && now_s >= 0 ? clamp_ms((uint64_t)(at_s - now_s))
                                          : 0;
    if (n == 0)
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (value[i] < '0' || value[i] > '9')
            return 0;
        if (s < UINT32_MAX)
            s = s * 10 + (uint64_t)(value[i] - '0');
    }
    return clamp_ms(s);
}

size_t http_reply_excerpt(const char *body, char *out, size_t size)
{
    size_t n = 0;

    while (n + 1 < size && body[n] != '\0') {
        unsigned char c = (unsigned char)body[n];

        out[n++] = c < 0x20 || c == 0x7f ? ' ' : c < 0x7f ? (char)c : '?';
    }
    if (size > 0)
        out[n] = '\0';
    return n;
}
