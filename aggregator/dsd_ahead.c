/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One look gives all delimiters as bits (scan.h); the '|' are then taken from
 * them one by one. What dsd_parse() decides by a chain of comparisons is decided here
 * once more, for the usual forms only.
 */
#include "aggregator/dsd_ahead.h"

#include <string.h>

#include "aggregator/number.h"

#define PAGE_BYTES 4096u /* or a multiple of it */

/* A sanitizer would take it for a fault. */
#if defined(__SANITIZE_ADDRESS__) || defined(__clang__)
#define MAY_PASS false
#else
#define MAY_PASS true
#endif

/* The '|' of a line that are not taken yet. */
struct bars {
    uint64_t low, high;
    uint32_t end; /* of the line */
};

/* Where the next one is, or the end; it is taken. */
static inline uint32_t next_bar(struct bars *b)
{
    uint32_t at;

    if (b->low != 0) {
        at = (uint32_t)__builtin_ctzll(b->low);
        b->low &= b->low - 1;
        return at;
    }
    if (b->high != 0) {
        at = 64 + (uint32_t)__builtin_ctzll(b->high);
        b->high &= b->high - 1;
        return at;
    }
    return b->end;
}

static inline uint64_t first_bits(uint32_t n)
{
    return n < 64 ? ((uint64_t)1 << n) - 1 : UINT64_MAX;
}

static inline struct bars bars_of(const struct scan *bits, uint32_t n)
{
    return (struct bars){bits->bar[0] & first_bits(n),
                         n > 64 ? bits->bar[1] & first_bits(n - 64) : 0, n};
}

static inline struct view view_of(const char *p, uint32_t n)
{
    return (struct view){.p = p, .n = n};
}

static __attribute__((noinline)) void look_at_copy(const struct dsd_parser *p,
                                                   struct scan *bits,
                                                   const char *at, size_t n)
{
    char copy[SCAN_BYTES] = {0};

    memcpy(copy, at, n);
    p->scan(bits, copy);
}

/* Of what lies behind the end the bits mean nothing. */
static inline void look(const struct dsd_parser *p, struct scan *bits,
                        const char *at, size_t left)
{
    if (__builtin_expect(left >= SCAN_BYTES, 1) ||
        (MAY_PASS && (uintptr_t)at % PAGE_BYTES <= PAGE_BYTES - SCAN_BYTES))
        p->scan(bits, at);
    else
        look_at_copy(p, bits, at, left);
}

/* Its bytes without the LF; SCAN_BYTES or more: too long. */
static inline uint32_t line_bytes(const struct scan *bits, size_t left)
{
    uint32_t n = scan_next(bits->lf, 0);

    return n < left ? n : left < SCAN_BYTES ? (uint32_t)left : SCAN_BYTES;
}

/* Which type comes next is the one thing about a line that no branch predictor can
 * know: hence a table. Two letters are "ms" and nothing else. */
static inline bool take_type(struct dsd_ahead *d, const char *p, uint32_t n)
{
    static const uint8_t types[256] = {
        ['c'] = 1 + METRIC_COUNTER,      ['g'] = 1 + METRIC_GAUGE,
        ['h'] = 1 + METRIC_HISTOGRAM,    ['s'] = 1 + METRIC_SET,
        ['d'] = 1 + METRIC_DISTRIBUTION,
    };
    uint8_t t = types[(unsigned char)p[0]];

    if (n == 2 && p[0] == 'm' && p[1] == 's')
        t = 1 + METRIC_TIMING;
    else if (n != 1)
        return false;
    d->type = (uint8_t)(t - 1);
    return t != 0;
}

/* One to 15 digits: the usual value, exact. */
static inline bool short_int(double *out, const char *p, const char *end)
{
    int64_t m = 0;

    if (end - p > 15)
        return false;
    do {
        unsigned digit = (unsigned)(unsigned char)*p - '0';

        if (digit > 9)
            return false;
        m = m * 10 + digit;
    } while (++p < end);
    *out = (double)m;
    return true;
}

static inline bool take_value(struct dsd_ahead *d, const char *p,
                              const char *end)
{
    if (d->type == METRIC_SET) {
        d->member = view_of(p, (uint32_t)(end - p));
        return true;
    }
    return short_int(&d->value, p, end) ||
           (number_parse_next(&d->value, &p, end) == NUMBER_OK && p == end);
}

static bool take_field(const struct dsd_parser *p, struct dsd_ahead *d,
                       const char *at, uint32_t n)
{
    if (n == 0)
        return true;
    switch (at[0]) {
    case '#':
        d->tags = view_of(at + 1, n - 1);
        return true;
    case '@':
        return dsd_parse_rate(&d->rate, &d->bad_rate, view_of(at + 1, n - 1));
    case 'T':
        return !p->opts.no_aggregation;
    case 'c':
    case 'e':
        return !p->opts.origin_client;
    default:
        return true;
    }
}

/* Name, value and type: "a:1|c". Returns where the fields begin; 0: not usual. */
static inline uint32_t take_head(struct dsd_ahead *d, struct bars *bars,
                                 uint64_t colons, const char *at)
{
    uint32_t colon = colons != 0 ? (uint32_t)__builtin_ctzll(colons) : 0;
    uint32_t value_end = next_bar(bars);
    uint32_t type_end = next_bar(bars);

    if (value_end + 1 >= type_end || colon == 0 || colon + 1 >= value_end ||
        at[0] == '_' ||
        !take_type(d, at + value_end + 1, type_end - value_end - 1) ||
        !take_value(d, at + colon + 1, at + value_end))
        return 0;
    d->name = view_of(at, colon);
    return type_end + 1;
}

bool dsd_ahead(const struct dsd_parser *p, struct dsd_ahead *d, const char *at,
               const char *end)
{
    size_t left = (size_t)(end - at);
    struct scan bits;
    struct bars bars;
    uint32_t n, i;

    if (left == 0)
        return false;
    look(p, &bits, at, left);
    n = line_bytes(&bits, left);
    if (n == 0 || n == SCAN_BYTES)
        return false;
    d->has_lf = n < left;
    d->n_bytes = n + d->has_lf;
    n -= at[n - 1] == '\r';
    bars = bars_of(&bits, n);
    i = take_head(d, &bars, bits.colon, at);
    if (i == 0)
        return false;
    d->tags = view_of(NULL, 0);
    d->rate = 1;
    d->bad_rate = false;
    while (i < n) {
        uint32_t stop = next_bar(&bars);

        if (!take_field(p, d, at + i, stop - i))
            return false;
        i = stop + 1;
    }
    return true;
}
