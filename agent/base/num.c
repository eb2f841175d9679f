/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/base/num.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define N_ELEMENTS(a) (sizeof(a) / sizeof((a)[0]))

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits at *s, at least one; moves *s behind them. */
static int take_u64(const char **s, uint64_t *out)
{
    const char *p = *s;
    uint64_t v = 0;
    bool over = false;

    if (!is_digit(*p))
        return NUM_SYNTAX;
    for (; is_digit(*p); p++) {
        over |= __builtin_mul_overflow(v, 10u, &v);
        over |= __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v);
    }
    *s = p;
    *out = v;
    return over ? NUM_RANGE : 0;
}

int num_parse_u64(const char *s, uint64_t *out)
{
    uint64_t v;
    int rc = take_u64(&s, &v);

    if (rc == NUM_SYNTAX || *s != '\0')
        return NUM_SYNTAX;
    if (rc == 0)
        *out = v;
    return rc;
}

int num_parse_i64(const char *s, int64_t *out)
{
    bool negative = *s == '-';
    uint64_t v;
    int rc;

    if (*s == '-' || *s == '+')
        s++;
    rc = num_parse_u64(s, &v);
    if (rc != 0)
        return rc;
    if (v > (uint64_t)INT64_MAX + (negative ? 1u : 0u))
        return NUM_RANGE;
    *out = negative ? (int64_t)(0 - v) : (int64_t)v;
    return 0;
}

static const char *skip_digits(const char *s)
{
    while (is_digit(*s))
        s++;
    return s;
}

/* Our own grammar first: strtod also takes spaces, hexadecimal, inf and nan. */
static bool is_decimal(const char *s)
{
    const char *digits;
    bool any;

    if (*s == '-' || *s == '+')
        s++;
    digits = s;
    s = skip_digits(s);
    any = s > digits;
    if (*s == '.') {
        digits = ++s;
        s = skip_digits(s);
        any = any || s > digits;
    }
    if (!any)
        return false;
    if (*s == 'e' || *s == 'E') {
        s++;
        if (*s == '-' || *s == '+')
            s++;
        if (!is_digit(*s))
            return false;
        s = skip_digits(s);
    }
    return *s == '\0';
}

int num_parse_double(const char *s, double *out)
{
    double v;

    if (!is_decimal(s))
        return NUM_SYNTAX;
    v = strtod(s, NULL);
    if (!isfinite(v))
        return NUM_RANGE;
    *out = v;
    return 0;
}

int num_parse_bool(const char *s, bool *out)
{
    static const char *const yes[] = {"1", "t", "T", "TRUE", "true", "True"};
    static const char *const no[] = {"0", "f", "F", "FALSE", "false", "False"};

    for (size_t i = 0; i < N_ELEMENTS(yes); i++) {
        if (strcmp(s, yes[i]) == 0) {
            *out = true;
            return 0;
        }
        if (strcmp(s, no[i]) == 0) {
            *out = false;
            return 0;
        }
    }
    return NUM_SYNTAX;
}

struct unit {
    const char *name;
    int64_t ns;
};

/* The longer names first: `ms` is not `m` followed by something. */
static const struct unit units[] = {
    {"ns", 1},
    {"us", 1000},
    {"\xc2\xb5s", 1000}, /* micro sign */
    {"\xce\xbcs", 1000}, /* Greek mu */
    {"ms", 1000000},
    {"s", INT64_C(1000000000)},
    {"m", INT64_C(60000000000)},
    {"h", INT64_C(3600000000000)},
};

static int64_t take_unit_ns(const char **s)
{
    if (**s == '\0')
        return units[5].ns; /* a plain number: seconds */
    for (size_t i = 0; i < N_ELEMENTS(units); i++) {
        size_t n = strlen(units[i].name);

        if (strncmp(*s, units[i].name, n) == 0) {
            *s += n;
            return units[i].ns;
        }
    }
    return 0;
}

/* One `12.5ms`; adds to *sum. */
static int take_duration_part(const char **s, int64_t *sum)
{
    bool any = is_digit(**s);
    uint64_t whole = 0;
    uint64_t fraction = 0;
    uint64_t scale = 1;
    int rc = any ? take_u64(s, &whole) : 0;
    __int128 total;
    int64_t unit;

    if (**s == '.') {
        for (++*s; is_digit(**s); ++*s) {
            any = true;
            if (scale >= UINT64_C(1000000000000000))
                continue; /* far below a nanosecond for every unit */
            fraction = fraction * 10 + (uint64_t)(**s - '0');
            scale *= 10;
        }
    }
    if (!any)
        return NUM_SYNTAX;
    unit = take_unit_ns(s);
    if (unit == 0)
        return NUM_SYNTAX;
    if (rc != 0 || whole > INT64_MAX)
        return NUM_RANGE;
    total = (__int128)whole * unit + (__int128)fraction * unit / scale + *sum;
    if (total > INT64_MAX)
        return NUM_RANGE;
    *sum = (int64_t)total;
    return 0;
}

int num_parse_duration_ns(const char *s, int64_t *out)
{
    bool negative = *s == '-';
    const char *start;
    int64_t sum = 0;
    bool over = false;

    if (*s == '-' || *s == '+')
        s++;
    start = s;
    if (*s == '\0')
        return NUM_SYNTAX;
    while (*s != '\0') {
        const char *part = s;
        int rc = take_duration_part(&s, &sum);

        if (rc == NUM_SYNTAX)
            return rc;
        /* A number without a unit stands alone: `1m30` is a mistake. */
        if (is_digit(s[-1]) || s[-1] == '.') {
            if (part != start)
                return NUM_SYNTAX;
        }
        over |= rc == NUM_RANGE;
    }
    if (over)
        return NUM_RANGE;
    *out = negative ? -sum : sum;
    return 0;
}

int num_parse_size_bytes(const char *s, uint64_t *out)
{
    static const char letters[] = "kmgt";
    unsigned shift = 0;
    uint64_t v;
    int rc = take_u64(&s, &v);

    if (rc == NUM_SYNTAX)
        return rc;
    if (*s == ' ')
        s++;
    for (unsigned i = 0; letters[i] != '\0' && *s != '\0'; i++) {
        if ((*s | 0x20) == letters[i])
            shift = 10 * (i + 1);
    }
    if (shift > 0) {
        s++;
        if (strcasecmp(s, "ib") == 0)
            s += 2;
    }
    if (*s == 'b' || *s == 'B')
        s++;
    if (*s != '\0' || s[-1] == ' ')
        return NUM_SYNTAX;
    if (rc != 0 || v > UINT64_MAX >> shift)
        return NUM_RANGE;
    *out = v << shift;
    return 0;
}
