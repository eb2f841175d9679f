/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One look at 128 bytes gives all delimiters of a line as bits, from which they are
 * taken one by one. What dsd_parse() decides by comparing bytes is decided here once
 * more, for the usual forms only. Here each instruction counts.
 *
 * AVX-512 gives no more than AVX2 here (bench_ingest), so there is no such form.
 * Compiled once per form (dsd_ahead_form.c): the flags say which vectors there
 * are, DSD_AHEAD how the function is called.
 */
#include "aggregator/dsd_ahead.h"

#include <string.h>

#include "aggregator/number.h"

#define LOOK_BYTES 64u
#define PAGE_BYTES 4096u /* or a multiple of it */

/* Bytes that share a page with ours may be looked at; a sanitizer would take it for
 * a fault. */
#if defined(__SANITIZE_ADDRESS__)
#define MAY_PASS false
#elif defined(__has_feature)
#define MAY_PASS (!__has_feature(address_sanitizer))
#else
#define MAY_PASS true
#endif

#define INLINE inline __attribute__((always_inline))

dsd_ahead_fn DSD_AHEAD;

/* ---- Which bytes of a block are this one -------------------------------- */

#if defined(__AVX2__) && !defined(DSD_AHEAD_SCALAR)
#include <immintrin.h>

struct block {
    __m256i v[2];
};

static inline struct block load(const char *p)
{
    const __m256i *at = (const void *)p;

    return (struct block){{_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)}};
}

static inline uint64_t half(__m256i v, char c)
{
    return (uint32_t)_mm256_movemask_epi8(
        _mm256_cmpeq_epi8(v, _mm256_set1_epi8(c)));
}

static inline uint64_t bits(struct block b, char c)
{
    return half(b.v[0], c) | half(b.v[1], c) << 32;
}

#elif defined(__SSE2__) && !defined(DSD_AHEAD_SCALAR)
#include <emmintrin.h>

struct block {
    __m128i v[4];
};

static inline struct block load(const char *p)
{
    struct block b;

    for (int i = 0; i < 4; i++)
        b.v[i] = _mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i));
    return b;
}

static inline uint64_t bits(struct block b, char c)
{
    uint64_t all = 0;

    for (int i = 0; i < 4; i++)
        all |= (uint64_t)(uint32_t)_mm_movemask_epi8(
                   _mm_cmpeq_epi8(b.v[i], _mm_set1_epi8(c)))
               << (16 * i);
    return all;
}

#else

struct block {
    const char *p;
};

static inline struct block load(const char *p)
{
    return (struct block){p};
}

static inline uint64_t bits(struct block b, char c)
{
    uint64_t all = 0;

    for (unsigned i = 0; i < LOOK_BYTES; i++)
        all |= (uint64_t)(b.p[i] == c) << i;
    return all;
}

#endif

/* ---- A line ------------------------------------------------------------- */

static INLINE uint32_t first_bit(uint64_t x)
{
#if defined(__BMI__)
    return (uint32_t)_tzcnt_u64(x);
#else
    return x != 0 ? (uint32_t)__builtin_ctzll(x) : 64;
#endif
}

static inline struct view view_of(const char *p, uint32_t n)
{
    return (struct view){.p = p, .n = n};
}

/* The '|' of a line that are not taken yet; of those behind its end nothing is
 * known. */
struct bars {
    uint64_t low, high;
    uint32_t end;
};

/* Where the next one is, or the end; it is taken. */
static INLINE uint32_t next_bar(struct bars *b)
{
    uint32_t at;

    if (b->low != 0) {
        at = first_bit(b->low);
        b->low &= b->low - 1;
    } else {
        at = LOOK_BYTES + first_bit(b->high);
        b->high &= b->high - 1;
    }
    return at < b->end ? at : b->end;
}

/* Which type comes next is the one thing about a line that no branch predictor can
 * know: hence a table. Two letters are "ms" and nothing else. */
static INLINE bool take_type(struct dsd_ahead *d, const char *p, uint32_t n)
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
static INLINE bool short_int(double *out, const char *p, const char *end)
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

static INLINE bool take_value(struct dsd_ahead *d, const char *p,
                              const char *end)
{
    if (d->type == METRIC_SET) {
        d->member = view_of(p, (uint32_t)(end - p));
        return true;
    }
    return short_int(&d->value, p, end) ||
           (number_parse_next(&d->value, &p, end) == NUMBER_OK && p == end);
}

/* Name, value and type: "a:1|c". Returns where the fields begin; 0: not usual. */
static INLINE uint32_t take_head(struct dsd_ahead *d, struct bars *bars,
                                 uint32_t colon, const char *at)
{
    uint32_t value_end = next_bar(bars);
    uint32_t type_end = next_bar(bars);

    if (colon == 0 || colon == LOOK_BYTES || colon + 1 >= value_end ||
        value_end + 1 >= type_end || at[0] == '_' ||
        !take_type(d, at + value_end + 1, type_end - value_end - 1) ||
        !take_value(d, at + colon + 1, at + value_end))
        return 0;
    d->name = view_of(at, colon);
    return type_end + 1;
}

static INLINE bool take_field(const struct dsd_parser_opts *o,
                              struct dsd_ahead *d, const char *at, uint32_t n)
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
        return !o->no_aggregation;
    case 'c':
    case 'e':
        return !o->origin_client;
    default:
        return true;
    }
}

/* Not inlined: there are not registers enough for both. */
static __attribute__((noinline)) struct hash128 hash_of(
    const struct dsd_ahead_opts *o, const struct dsd_ahead *d)
{
    return hash_spelling(d->name, d->tags, d->type | o->class, o->seed);
}

/* The line at @at, which is looked at @look: there, or at a copy of it. */
static INLINE bool take_line(const struct dsd_ahead_opts *o,
                             struct dsd_ahead *d, const char *at, size_t left,
                             const char *look)
{
    struct block low = load(look);
    struct block high = load(look + LOOK_BYTES);
    struct bars bars = {bits(low, '|'), bits(high, '|'), 0};
    uint32_t n = first_bit(bits(low, '\n'));
    uint32_t i;

    if (n == LOOK_BYTES)
        n += first_bit(bits(high, '\n'));
    if (n > left)
        n = (uint32_t)left;
    if (n - 1 >= DSD_AHEAD_MAX_BYTES) /* 0, too */
        return false;
    d->has_lf = n < left;
    d->n_bytes = n + d->has_lf;
    if (!d->has_lf && !o->may_end_bare)
        return false;
    n -= at[n - 1] == '\r';
    bars.end = n;
    i = take_head(d, &bars, first_bit(bits(low, ':')), at);
    if (i == 0)
        return false;
    d->tags = view_of(NULL, 0);
    d->rate = 1;
    d->bad_rate = false;
    while (i < n) {
        uint32_t stop = next_bar(&bars);

        if (!take_field(o->parser, d, at + i, stop - i))
            return false;
        i = stop + 1;
    }
    d->hash = hash_of(o, d);
    __builtin_prefetch(&o->slots[(uint32_t)d->hash.lo & o->mask]);
    return true;
}

/* ---- Packets ------------------------------------------------------------ */

static INLINE bool may_look(const char *at, size_t left)
{
    return left >= 2 * LOOK_BYTES ||
           (MAY_PASS &&
            (uintptr_t)at % PAGE_BYTES <= PAGE_BYTES - 2 * LOOK_BYTES);
}

static __attribute__((noinline)) bool take_copied_line(
    const struct dsd_ahead_opts *o, struct dsd_ahead *d, const char *at,
    size_t left)
{
    char copy[2 * LOOK_BYTES] = {0};

    memcpy(copy, at, left < sizeof(copy) ? left : sizeof(copy));
    return take_line(o, d, at, left, copy);
}

void DSD_AHEAD(const struct dsd_ahead_opts *o, struct dsd_ahead_lines *out,
               const struct dsd_packet *in, uint32_t n, uint32_t *working)
{
    struct dsd_ahead *d = out->lines;
    uint32_t n_lines = 0;
    uint32_t i;

    for (i = 0; i < n && i < DSD_AHEAD_LINES; i++) {
        const char *at = in[i].p;
        const char *end = at + in[i].n;

        *working = in[i].record;
        while (at < end && n_lines < DSD_AHEAD_LINES) {
            size_t left = (size_t)(end - at);

            if (__builtin_expect(may_look(at, left), 1)
                    ? !take_line(o, d, at, left, at)
                    : !take_copied_line(o, d, at, left))
                break;
            at += d->n_bytes;
            n_lines++;
            d++;
        }
        if (at < end)
            break;
        out->ends[i] = n_lines;
    }
    out->n = n_lines;
    out->n_packets = i;
}
