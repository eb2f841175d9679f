/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three ways to a correctly rounded double, from the usual to the rare:
 *
 * 1. Up to 19 digits give an integer m and a power of ten e. With m <= 2^53 and
 *    |e| <= 22 both m and 10^|e| are exact doubles, so one multiplication or
 *    division rounds once (W. D. Clinger, "How to Read Floating Point Numbers
 *    Accurately", 1990). Values that people measure end here.
 * 2. With |e| <= 19 the exact quotient or product fits 128-bit integers. The 17
 *    digits that a float's shortest spelling needs end here.
 * 3. All else goes to strtod() as a bounded rewrite of the validated text. The
 *    rewrite holds no radix character, so no locale can change its meaning.
 *
 * The digit loop is plain on purpose: it does not know how many digits there are,
 * nor whether eight bytes can be read. Where both is known, in dsd_ahead.c, most
 * integers are taken at once.
 */
#include "aggregator/number.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FAST_MAX_DIGITS 19 /* any 19 digits fit 64 bits */
#define FAST_MAX_EXP_DIGITS 4

/* 767 digits decide the rounding of every double; one more says whether
 * anything but zeros follows. */
#define SLOW_MAX_DIGITS 780
#define SLOW_MAX_EXP 1000000000

static const double exact_pow10[] = {
    1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
};

static const uint64_t int_pow10[] = {
    1,
    10,
    100,
    1000,
    10000,
    100000,
    1000000,
    10000000,
    100000000,
    1000000000,
    10000000000,
    100000000000,
    1000000000000,
    10000000000000,
    100000000000000,
    1000000000000000,
    10000000000000000,
    100000000000000000,
    1000000000000000000,
    10000000000000000000U,
};

#define EXACT_MAX ((int)(sizeof(exact_pow10) / sizeof(exact_pow10[0])) - 1)
#define INT_MAX_EXP ((int)(sizeof(int_pow10) / sizeof(int_pow10[0])) - 1)

/* top * 2^exp2, where @sticky says that the true value is a little larger. At
 * least 63 bits of @top are significant, so its lowest bit decides no rounding
 * but that of ties. The result is far from the ends of the range. */
static double scaled(uint64_t top, bool sticky, int exp2)
{
    return ldexp((double)(top | sticky), exp2);
}

/* m / d, both positive, d at most 10^19. */
static double quotient(uint64_t m, uint64_t d)
{
    int m_shift = __builtin_clzll(m);
    int d_shift = __builtin_clzll(d);
    unsigned __int128 num = (unsigned __int128)(m << m_shift) << 63;
    uint64_t div = d << d_shift;
    uint64_t q = (uint64_t)(num / div); /* 2^62 < q < 2^64 */

    return scaled(q, num % div != 0, d_shift - m_shift - 63);
}

/* m * f, both positive. */
static double product(uint64_t m, uint64_t f)
{
    unsigned __int128 all = (unsigned __int128)m * f;
    uint64_t high = (uint64_t)(all >> 64);
    int shift;

    if (high == 0)
        return (double)(uint64_t)all;
    shift = __builtin_clzll(high);
    all <<= shift;
    return scaled((uint64_t)(all >> 64), (uint64_t)all != 0, 64 - shift);
}

/* *v = m * 10^e by ways 1 and 2; false when neither applies. */
static inline bool scale_pow10(double *v, uint64_t m, int e)
{
    if (m <= (uint64_t)1 << 53) {
        if (e == 0) {
            *v = (double)m;
            return true;
        }
        if (e < 0 && e >= -EXACT_MAX) {
            *v = (double)m / exact_pow10[-e];
            return true;
        }
        if (e > 0 && e <= EXACT_MAX) {
            *v = (double)m * exact_pow10[e];
            return true;
        }
        if (m == 0) {
            *v = 0;
            return true;
        }
    }
    if (e < -INT_MAX_EXP || e > INT_MAX_EXP)
        return false;
    *v = e < 0 ? quotient(m, int_pow10[-e]) : product(m, int_pow10[e]);
    return true;
}

static inline unsigned digit_of(char c)
{
    return (unsigned)(unsigned char)c - '0';
}

/*
 * A plain decimal from *p to the first ':' or @end. False when it is anything
 * else, which says nothing yet about its validity. Moves *p on success.
 */
static inline __attribute__((always_inline)) bool parse_fast(double *out,
                                                             const char **at,
                                                             const char *end)
{
    const char *p = *at;
    const char *first;
    uint64_t m = 0;
    bool neg = false;
    long n_digits;
    int e = 0;
    double v;

    if (p < end && (*p == '-' || *p == '+'))
        neg = *p++ == '-';
    first = p;
    while (p < end && digit_of(*p) < 10)
        m = m * 10 + digit_of(*p++);
    n_digits = p - first;
    if (p < end && *p == '.') {
        first = ++p;
        while (p < end && digit_of(*p) < 10)
            m = m * 10 + digit_of(*p++);
        n_digits += p - first;
        if (n_digits > FAST_MAX_DIGITS)
            return false;
        e = -(int)(p - first);
    }
    if (n_digits == 0 || n_digits > FAST_MAX_DIGITS)
        return false;
    if (p < end && (*p | 0x20) == 'e') {
        bool exp_neg = false;
        int given = 0;

        p++;
        if (p < end && (*p == '-' || *p == '+'))
            exp_neg = *p++ == '-';
        first = p;
        while (p < end && p - first < FAST_MAX_EXP_DIGITS && digit_of(*p) < 10)
            given = given * 10 + (int)digit_of(*p++);
        if (p == first)
            return false;
        e += exp_neg ? -given : given;
    }
    if ((p < end && *p != ':') || !scale_pow10(&v, m, e))
        return false;
    *out = neg ? -v : v;
    *at = p;
    return true;
}

/* The text of a number of the third way, cut into what strtod() needs. */
struct literal {
    bool neg, hex;
    bool underscores;
    bool inexact;   /* something but zeros was cut off */
    unsigned n;     /* digits kept, without leading zeros */
    int64_t n_cut;  /* digits cut off before the point */
    int64_t n_frac; /* digits kept or skipped behind the point */
    int64_t exp;    /* as written */
    char digits[SLOW_MAX_DIGITS];
};

static bool is_hex_letter(char c)
{
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'f';
}

/* Underscores stand alone between two digits, or between 0x and a digit. */
static bool underscores_ok(const char *p, const char *end, bool hex)
{
    bool after_digit = hex; /* the prefix counts as one */
    bool after_underscore = false;

    for (; p < end; p++) {
        bool digit = digit_of(*p) < 10 || (hex && is_hex_letter(*p));

        if (*p == '_' ? !after_digit : (after_underscore && !digit))
            return false;
        after_underscore = *p == '_';
        after_digit = digit;
    }
    return !after_underscore;
}

static void keep_digit(struct literal *l, char c, bool behind_point)
{
    if (l->n == 0 && c == '0') { /* leading zero: only its place counts */
        l->n_frac += behind_point;
    } else if (l->n < SLOW_MAX_DIGITS) {
        l->digits[l->n++] = c;
        l->n_frac += behind_point;
    } else {
        l->inexact |= c != '0';
        l->n_cut += !behind_point;
    }
}

/* Digits, underscores and at most one point. Returns where they end; NULL when
 * there is no digit. */
static const char *read_mantissa(struct literal *l, const char *p,
                                 const char *end)
{
    bool point = false;
    bool any = false;

    for (; p < end; p++) {
        if (digit_of(*p) < 10 || (l->hex && is_hex_letter(*p))) {
            keep_digit(l, *p, point);
            any = true;
        } else if (*p == '_') {
            l->underscores = true;
        } else if (*p == '.' && !point) {
            point = true;
        } else {
            break;
        }
    }
    return any ? p : NULL;
}

/* Behind the e or p. Returns where it ends; NULL when it is malformed. */
static const char *read_exponent(struct literal *l, const char *p,
                                 const char *end)
{
    bool neg = false;

    if (p < end && (*p == '-' || *p == '+'))
        neg = *p++ == '-';
    if (p == end || digit_of(*p) >= 10)
        return NULL;
    for (; p < end && (digit_of(*p) < 10 || *p == '_'); p++) {
        if (*p == '_')
            l->underscores = true;
        else if (l->exp < SLOW_MAX_EXP)
            l->exp = l->exp * 10 + digit_of(*p);
    }
    if (neg)
        l->exp = -l->exp;
    return p;
}

static enum number_rc read_literal(struct literal *l, const char *p,
                                   const char *end)
{
    const char *start;

    if (p < end && (*p == '-' || *p == '+'))
        l->neg = *p++ == '-';
    if (end - p > 2 && p[0] == '0' && (p[1] | 0x20) == 'x') {
        l->hex = true;
        p += 2;
    }
    start = p;
    p = read_mantissa(l, p, end);
    if (p == NULL)
        return NUMBER_BAD;
    if (p < end && (*p | 0x20) == (l->hex ? 'p' : 'e')) {
        p = read_exponent(l, p + 1, end);
        if (p == NULL)
            return NUMBER_BAD;
    } else if (l->hex) {
        return NUMBER_BAD; /* the binary exponent is not optional */
    }
    if (p != end || (l->underscores && !underscores_ok(start, end, l->hex)))
        return NUMBER_BAD;
    return NUMBER_OK;
}

static char *write_int(char *p, int64_t v)
{
    char tmp[24];
    size_t n = 0;
    uint64_t rest = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;

    do {
        tmp[n++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (v < 0)
        *p++ = '-';
    while (n > 0)
        *p++ = tmp[--n];
    return p;
}

/* Way 3: digits without a point, then the exponent that makes up for it. */
static double literal_value(const struct literal *l)
{
    char text[SLOW_MAX_DIGITS + 40];
    int64_t per_digit = l->hex ? 4 : 1;
    int64_t places = l->n_cut - l->n_frac;
    char *p = text;

    if (l->n == 0)
        return 0;
    if (l->hex) {
        *p++ = '0';
        *p++ = 'x';
    }
    memcpy(p, l->digits, l->n);
    p += l->n;
    if (l->inexact) {
        *p++ = '1';
        places--;
    }
    *p++ = l->hex ? 'p' : 'e';
    p = write_int(p, l->exp + places * per_digit);
    *p = '\0';
    return strtod(text, NULL);
}

/* @word in lower case; not strcasecmp(), which asks the locale. */
static bool is_word(const char *p, size_t n, const char *word)
{
    size_t i = 0;

    while (i < n && word[i] != '\0' && (p[i] | 0x20) == word[i])
        i++;
    return i == n && word[i] == '\0';
}

static bool is_not_finite(const char *p, size_t n)
{
    if (is_word(p, n, "nan"))
        return true;
    if (n > 0 && (*p == '-' || *p == '+')) {
        p++;
        n--;
    }
    return is_word(p, n, "inf") || is_word(p, n, "infinity");
}

static __attribute__((noinline)) enum number_rc parse_slow(double *out,
                                                           const char *p,
                                                           size_t n)
{
    struct literal l;
    double v;

    if (is_not_finite(p, n))
        return NUMBER_NOT_FINITE;
    memset(&l, 0, offsetof(struct literal, digits));
    if (read_literal(&l, p, p + n) != NUMBER_OK)
        return NUMBER_BAD;
    v = literal_value(&l);
    if (isinf(v))
        return NUMBER_BAD;
    *out = l.neg ? -v : v;
    return NUMBER_OK;
}

enum number_rc number_parse_next(double *out, const char **p, const char *end)
{
    const char *stop;
    enum number_rc rc;

    if (parse_fast(out, p, end))
        return NUMBER_OK;
    stop = memchr(*p, ':', (size_t)(end - *p));
    if (stop == NULL)
        stop = end;
    rc = parse_slow(out, *p, (size_t)(stop - *p));
    if (rc == NUMBER_OK)
        *p = stop;
    return rc;
}

enum number_rc number_parse(double *out, const char *p, size_t n)
{
    const char *end = p + n;
    const char *at = p;
    double v;

    if (n > 0 && parse_fast(&v, &at, end) && at == end) {
        *out = v;
        return NUMBER_OK;
    }
    return parse_slow(out, p, n);
}

enum number_rc number_parse_int(int64_t *out, const char *p, size_t n)
{
    const char *end = p + n;
    bool neg = false;
    int64_t v = 0;

    if (p < end && (*p == '-' || *p == '+'))
        neg = *p++ == '-';
    if (p == end)
        return NUMBER_BAD;
    for (; p < end; p++) {
        int64_t d = digit_of(*p);

        /* Towards the sign, so that the least int64 is no special case. */
        if (d > 9 || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, neg ? -d : d, &v))
            return NUMBER_BAD;
    }
    *out = v;
    return NUMBER_OK;
}
