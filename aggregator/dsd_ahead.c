/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One look at 128 bytes gives all delimiters of a line as bits, from which they are
 * taken one by one. What dsd_parse() decides by comparing bytes is decided here once
 * more, for the usual forms only. Here each instruction counts.
 *
 * Compiled once per form (dsd_ahead_form.c): the flags, and DSD_AHEAD_AVX512, say
 * which vectors there are, DSD_AHEAD how the form is called.
 */
#include "aggregator/dsd_ahead.h"

#include <string.h>

#include "aggregator/number.h"
#include "aggregator/spelling_lanes.h"

#define LOOK_BYTES 64u
#define INLINE inline __attribute__((always_inline))

extern const struct dsd_ahead_form DSD_AHEAD;

/* ---- Which bytes of a block are this one -------------------------------- */

#if defined(DSD_AHEAD_AVX512)

#define LOADS_WHAT_IS_LEFT true

struct block {
    __m512i v;
};

static inline struct block load(const char *p, size_t left)
{
    return (struct block){lanes_first(p, left < 64 ? left : 64, false).v};
}

static inline uint64_t bits(struct block b, char c)
{
    return _mm512_cmpeq_epi8_mask(b.v, _mm512_set1_epi8(c));
}

#elif defined(__AVX2__) && !defined(DSD_AHEAD_SCALAR)
#include <immintrin.h>

#define LOADS_WHAT_IS_LEFT false

struct block {
    __m256i v[2];
};

static inline struct block load(const char *p, size_t left)
{
    const __m256i *at = (const void *)p;

    (void)left;
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

#define LOADS_WHAT_IS_LEFT false

struct block {
    __m128i v[4];
};

static inline struct block load(const char *p, size_t left)
{
    struct block b;

    (void)left;
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

#define LOADS_WHAT_IS_LEFT false

struct block {
    const char *p;
};

static inline struct block load(const char *p, size_t left)
{
    (void)left;
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

/* METRIC_N_TYPES: none. Which type comes next is the one thing about a line
 * that no branch predictor can know: hence a table. Two letters are "ms" and nothing
 * else. */
static INLINE unsigned type_of(const char *p, uint32_t n)
{
    /* 1 more, as 0 is all others */
    static const uint8_t types[256] = {
        ['c'] = 1 + METRIC_COUNTER,      ['g'] = 1 + METRIC_GAUGE,
        ['h'] = 1 + METRIC_HISTOGRAM,    ['s'] = 1 + METRIC_SET,
        ['d'] = 1 + METRIC_DISTRIBUTION,
    };

    unsigned type = types[(unsigned char)p[0]];

    if (n == 1)
        return type != 0 ? type - 1 : METRIC_N_TYPES;
    return n == 2 && p[0] == 'm' && p[1] == 's' ? METRIC_TIMING
                                                : METRIC_N_TYPES;
}

/* One to eight digits at once: bytes of one word, then pairs of them, then fours.
 * Eight bytes at @p can be read. */
static INLINE bool few_digits(double *out, const char *p, uint32_t n)
{
    unsigned unused = 64 - 8 * n;
    uint64_t x = (lanes_read64(p) ^ 0x3030303030303030ULL) << unused;

    if (((x + 0x7676767676767676ULL) | x) & 0x8080808080808080ULL)
        return false;
    x = x * 10 + (x >> 8);
    x = (x & 0x000000ff000000ffULL) * 0x000f424000000064ULL +
        (x >> 16 & 0x000000ff000000ffULL) * 0x0000271000000001ULL;
    *out = (double)(uint32_t)(x >> 32);
    return true;
}

static INLINE bool take_value(double *out, const char *p, uint32_t n,
                              bool can_read)
{
    const char *end = p + n;

    if (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ &&
        __builtin_expect(n <= 8 && can_read, 1) &&
        __builtin_expect(few_digits(out, p, n), 1))
        return true;
    return number_parse_next(out, &p, end) == NUMBER_OK && p == end;
}

static bool take_field(const struct dsd_parser_opts *o, struct dsd_ahead *d,
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
        return !o->no_aggregation;
    case 'c':
    case 'e':
        return !o->origin_client;
    default:
        return true;
    }
}

/* Not inlined: what it calls would cost take_line() its registers. */
static __attribute__((noinline)) bool take_fields(
    const struct dsd_parser_opts *o, struct dsd_ahead *d, const char *at,
    uint32_t i, struct bars bars)
{
    while (i < bars.end) {
        uint32_t stop = next_bar(&bars);

        if (!take_field(o, d, at + i, stop - i))
            return false;
        i = stop + 1;
    }
    return true;
}

/* The line at @at, which is looked at @look: there, or at a copy of it. Returns its
 * bytes with its LF; 0: it is not usual. */
static INLINE uint32_t take_line(const struct dsd_ahead_opts *o,
                                 const struct lanes *key, struct dsd_ahead *d,
                                 const char *at, size_t left, const char *look)
{
    const bool may_pass = look == at;
    struct block low = load(look, left);
    struct block high =
        load(look + LOOK_BYTES, left > LOOK_BYTES ? left - LOOK_BYTES : 0);
    struct bars bars = {bits(low, '|'), bits(high, '|'), 0};
    uint32_t colon = first_bit(bits(low, ':'));
    uint32_t n = first_bit(bits(low, '\n'));
    uint32_t n_bytes, value_end, type_end, i;
    unsigned type;

    if (n == LOOK_BYTES)
        n += first_bit(bits(high, '\n'));
    if (n > left)
        n = (uint32_t)left;
    if (n - 1 >= DSD_AHEAD_MAX_BYTES) /* 0, too */
        return 0;
    if (n == left && !o->may_end_bare)
        return 0;
    n_bytes = n + (n < left);
    d->has_lf = n < left;
    d->n_bytes = n_bytes;
    n -= at[n - 1] == '\r';
    bars.end = n;
    /* Name, value and type: "a:1|c". */
    value_end = next_bar(&bars);
    type_end = next_bar(&bars);
    if (colon == 0 || colon == LOOK_BYTES || colon + 1 >= value_end ||
        value_end + 1 >= type_end || at[0] == '_')
        return 0;
    type = type_of(at + value_end + 1, type_end - value_end - 1);
    if (type == METRIC_N_TYPES)
        return 0;
    d->type = (uint8_t)type;
    if (type == METRIC_SET)
        d->member = view_of(at + colon + 1, value_end - colon - 1);
    else if (!take_value(&d->value, at + colon + 1, value_end - colon - 1,
                         left - colon > 8))
        return 0;
    d->name = view_of(at, colon);
    d->tags = view_of(NULL, 0);
    d->rate = 1;
    d->bad_rate = false;
    i = type_end + 1;
    if (i < n) {
        struct bars rest = bars;

        if (__builtin_expect(at[i] == '#' && next_bar(&rest) == n, 1))
            d->tags = view_of(at + i + 1, n - i - 1);
        else if (!take_fields(o->parser, d, at, i, bars))
            return 0;
    }
    d->hash = lanes_hash(key, d->name, d->tags, type | o->class, may_pass);
    __builtin_prefetch(context_line(o->spellings, d->hash));
    return n_bytes;
}

/* ---- Packets ------------------------------------------------------------ */

/* Bytes from a line's first on that are looked at. */
#define SEEN_BYTES (2 * LOOK_BYTES + LANES_PASS_BYTES)

static INLINE bool may_look(const struct dsd_readable *r, const char *at,
                            size_t left)
{
    return LOADS_WHAT_IS_LEFT || left >= SEEN_BYTES ||
           lanes_share_page(at, SEEN_BYTES) ||
           ((uintptr_t)at >= (uintptr_t)r->begin &&
            (uintptr_t)at + SEEN_BYTES <= (uintptr_t)r->end);
}

static __attribute__((noinline)) uint32_t take_copied_line(
    const struct dsd_ahead_opts *o, const struct lanes *key,
    struct dsd_ahead *d, const char *at, size_t left)
{
    char copy[2 * LOOK_BYTES] = {0};

    memcpy(copy, at, left < sizeof(copy) ? left : sizeof(copy));
    return take_line(o, key, d, at, left, copy);
}

static void read_packets(const struct dsd_ahead_opts *o,
                         struct dsd_ahead_lines *out,
                         const struct dsd_packet *in, uint32_t n,
                         uint32_t *working)
{
    const struct lanes key = lanes_of(o->key);
    struct dsd_ahead *d = out->lines;
    uint32_t n_lines = 0;
    uint32_t i;

    for (i = 0; i < n && i < DSD_AHEAD_LINES; i++) {
        const char *at = in[i].p;
        const char *end = at + in[i].n;

        *working = in[i].record;
        while (at < end && n_lines < DSD_AHEAD_LINES) {
            size_t left = (size_t)(end - at);
            uint32_t n_bytes =
                __builtin_expect(may_look(&o->readable, at, left), 1)
                    ? take_line(o, &key, d, at, left, at)
                    : take_copied_line(o, &key, d, at, left);

            if (n_bytes == 0)
                break;
            at += n_bytes;
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

static struct hash128 hash_one(const struct spelling_key *key, struct view name,
                               struct view tags, unsigned class)
{
    const struct lanes lanes = lanes_of(key);

    return lanes_hash(&lanes, name, tags, class, false);
}

const struct dsd_ahead_form DSD_AHEAD = {read_packets, hash_one};
