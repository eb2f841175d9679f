/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One look at 128 bytes gives the delimiters of a line as bits, from which they are
 * taken one by one; all lines are hashed behind that. What dsd_parse() decides by
 * comparing bytes is decided here once more, for the usual forms only. Here each
 * instruction counts.
 *
 * Compiled once per form (dsd_ahead_form.c): the flags, and DSD_AHEAD_AVX512, say
 * which vectors there are, DSD_AHEAD how the form is called.
 */
#include "aggregator/dsd_ahead.h"

#include <string.h>

#include "aggregator/number.h"
#include "aggregator/spelling_lanes.h"

#define LOOK_BYTES 64u
#define SIGHT_BYTES (2 * LOOK_BYTES)
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

static inline uint64_t mark_bits(struct block b)
{
    return bits(b, '|') | bits(b, '\n');
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

static inline __m256i equal(__m256i v, char c)
{
    return _mm256_cmpeq_epi8(v, _mm256_set1_epi8(c));
}

static inline uint64_t tops(__m256i low, __m256i high)
{
    return (uint32_t)_mm256_movemask_epi8(low) |
           (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32;
}

static inline uint64_t bits(struct block b, char c)
{
    return tops(equal(b.v[0], c), equal(b.v[1], c));
}

/* The low nibble chooses the one byte with it that it may be. */
static inline __m256i mark(__m256i v)
{
    const __m256i may_be = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, '\n', -1, '|', -1,
                      -1, -1));

    return _mm256_cmpeq_epi8(_mm256_shuffle_epi8(may_be, v), v);
}

static inline uint64_t mark_bits(struct block b)
{
    return tops(mark(b.v[0]), mark(b.v[1]));
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

static inline uint64_t mark_bits(struct block b)
{
    return bits(b, '|') | bits(b, '\n');
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

static inline uint64_t mark_bits(struct block b)
{
    return bits(b, '|') | bits(b, '\n');
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

/* Where fields end: each '|' and LF in sight that is not taken yet. */
struct marks {
    uint64_t low, high;
};

/* The end of the packet, @left bytes on, is the last one. */
static struct marks up_to_end(struct marks m, size_t left)
{
    uint64_t end = 1ULL << left % LOOK_BYTES;

    if (left >= SIGHT_BYTES)
        return m;
    if (left >= LOOK_BYTES)
        return (struct marks){m.low, (m.high & (end - 1)) | end};
    return (struct marks){(m.low & (end - 1)) | end, 0};
}

/* Where the next one is; it is taken. SIGHT_BYTES: there is none. */
static INLINE uint32_t next_mark(struct marks *m)
{
    uint32_t at;

    if (m->low != 0) {
        at = first_bit(m->low);
        m->low &= m->low - 1;
    } else {
        at = LOOK_BYTES + first_bit(m->high);
        m->high &= m->high - 1;
    }
    return at;
}

/* The type and 1 more; 0: none. Which type comes next is the one thing about a
 * line that no branch predictor can know: hence a table. Two letters are "ms" and
 * nothing else. */
static const uint8_t types[256] = {
    ['c'] = 1 + METRIC_COUNTER,      ['g'] = 1 + METRIC_GAUGE,
    ['h'] = 1 + METRIC_HISTOGRAM,    ['s'] = 1 + METRIC_SET,
    ['d'] = 1 + METRIC_DISTRIBUTION,
};

static INLINE unsigned type_and_1_of(const char *p, uint32_t n)
{
    if (__builtin_expect(n == 1, 1))
        return types[(unsigned char)p[0]];
    return n == 2 && p[0] == 'm' && p[1] == 's' ? 1 + METRIC_TIMING : 0;
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

/* Not inlined: what it calls would cost take_line() its registers. */
static __attribute__((noinline)) bool any_number(double *out, const char *p,
                                                 uint32_t n)
{
    const char *end = p + n;

    return n > 0 && number_parse_next(out, &p, end) == NUMBER_OK && p == end;
}

static INLINE bool take_value(double *out, const char *p, uint32_t n,
                              bool can_read)
{
    if (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ &&
        __builtin_expect(n - 1 < 8 && can_read, 1) &&
        __builtin_expect(few_digits(out, p, n), 1))
        return true;
    return any_number(out, p, n);
}

static bool take_field(const struct dsd_parser_opts *o, struct dsd_ahead *d,
                       const char *at, uint32_t n)
{
    if (n == 0)
        return true;
    switch (at[0]) {
    case '#':
        d->tags = at + 1;
        d->n_tags = (uint8_t)(n - 1);
        return true;
    case '@':
        d->is_rated = true;
        return dsd_parse_rate(&d->rate, &d->bad_rate,
                              (struct view){at + 1, n - 1});
    case 'T':
        return !o->no_aggregation;
    case 'c':
    case 'e':
        return !o->origin_client;
    default:
        return true;
    }
}

/* All fields from @i on. Returns where the line ends; 0: it is not usual. Not
 * inlined: what it calls would cost take_line() its registers. */
static __attribute__((noinline)) uint32_t take_fields(
    const struct dsd_parser_opts *o, struct dsd_ahead *d, const char *at,
    size_t left, uint32_t i, struct marks marks)
{
    uint32_t stop;

    while ((stop = next_mark(&marks)) < SIGHT_BYTES) {
        bool is_end = stop == left || at[stop] == '\n';
        uint32_t n = stop - i;

        n -= is_end && n > 0 && at[stop - 1] == '\r';
        if (!take_field(o, d, at + i, n))
            return 0;
        if (is_end)
            return stop;
        i = stop + 1;
    }
    return 0;
}

/* The line at @at, of whatever fields. Returns its bytes with its LF; 0: it is not
 * usual. */
static __attribute__((noinline)) uint32_t take_any_line(
    const struct dsd_ahead_opts *o, struct dsd_ahead *d, const char *at,
    size_t left, uint32_t colon, struct marks seen)
{
    struct marks marks = up_to_end(seen, left);
    /* Name, value and type: "a:1|c". */
    uint32_t value_end = next_mark(&marks);
    uint32_t end = next_mark(&marks);
    uint32_t n_value = value_end - colon - 1;
    uint32_t n_type = end - value_end - 1;
    const char *value = at + colon + 1;
    unsigned type;
    bool is_end;

    if (end >= SIGHT_BYTES || at[value_end] != '|' || at[0] == '_' ||
        colon - 1 >= LOOK_BYTES - 1 || n_value - 1 >= SIGHT_BYTES)
        return 0;
    is_end = end == left || at[end] == '\n';
    n_type -= is_end && n_type > 0 && at[end - 1] == '\r';
    type = type_and_1_of(at + value_end + 1, n_type);
    if (type-- == 0)
        return 0;
    if (type == METRIC_SET)
        d->member = (struct view){value, n_value};
    else if (!take_value(&d->value, value, n_value, left - colon > 8))
        return 0;
    d->type = (uint8_t)type;
    d->name = at;
    d->n_name = (uint8_t)colon;
    d->n_tags = 0;
    d->zero = 0;
    d->is_rated = false;
    if (!is_end) {
        end = take_fields(o->parser, d, at, left, end + 1, marks);
        if (end == 0)
            return 0;
    }
    if (end == left && !o->may_end_bare)
        return 0;
    d->n_bytes = (uint8_t)(end + (end < left));
    return d->n_bytes;
}

/* Four bytes as one number, as they lie in memory. */
#define FOUR(a, b, c, d)                                                       \
    ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 |                \
     (uint32_t)(d) << 24)

/* The line at @at, which is looked at @look: there, or at a copy of it. Most have a few
 * digits, a type of one letter and tags, nothing else: "a:1|c|#b". */
static INLINE uint32_t take_line(const struct dsd_ahead_opts *o,
                                 struct dsd_ahead *d, const char *at,
                                 size_t left, const char *look)
{
    struct block low = load(look, left);
    struct block high =
        load(look + LOOK_BYTES, left > LOOK_BYTES ? left - LOOK_BYTES : 0);
    struct marks marks = {mark_bits(low), mark_bits(high)};
    uint32_t colon = first_bit(bits(low, ':'));
    /* Marks beyond the first 64 bytes make the tags' length negative, and those
     * behind the packet, too. */
    uint32_t value_end = first_bit(marks.low);
    uint64_t rest = marks.low & (marks.low - 1);
    uint64_t last = rest & (rest - 1);
    uint32_t next =
        last != 0 ? first_bit(last) : LOOK_BYTES + first_bit(marks.high);
    uint32_t end = next < left ? next : (uint32_t)left;
    int32_t n_tags = (int32_t)(end - value_end - 4);
    uint32_t n_value = value_end - colon - 1;
    uint32_t type;

    if (__builtin_expect(n_tags < 0 || end >= SIGHT_BYTES, 0) ||
        __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
        goto other;
    type = lanes_read32(look + value_end);
    if (__builtin_expect((type & FOUR(255, 0, 255, 255)) !=
                             FOUR('|', 0, '|', '#'),
                         0))
        goto other;
    type = types[type >> 8 & 255];
    if (__builtin_expect(type == 0 || type == 1 + METRIC_SET, 0))
        goto other;
    if (LOADS_WHAT_IS_LEFT && left - colon <= 8)
        goto other;
    if (__builtin_expect(look[0] == '_' || colon - 1 >= LOOK_BYTES - 1 ||
                             n_value - 1 >= 8 ||
                             !few_digits(&d->value, look + colon + 1, n_value),
                         0))
        goto other;
    if (__builtin_expect(look[end - 1] == '\r', 0))
        goto other;
    d->type = (uint8_t)(type - 1);
    d->name = at;
    d->n_name = (uint8_t)colon;
    d->tags = at + value_end + 4;
    d->n_tags = (uint8_t)n_tags;
    d->zero = 0;
    d->is_rated = false;
    if (end == left) {
        if (!o->may_end_bare)
            return 0;
        d->n_bytes = (uint8_t)end;
        return end;
    }
    d->n_bytes = (uint8_t)(end + 1);
    if (__builtin_expect(look[end] == '\n', 1))
        return end + 1;
other:
    return take_any_line(o, d, at, left, colon, marks);
}

/* ---- Packets ------------------------------------------------------------ */

/* Bytes from a line's first on that are looked at. */
#define SEEN_BYTES (SIGHT_BYTES + LANES_PASS_BYTES)

static INLINE bool may_look(const struct dsd_readable *r, const char *at,
                            size_t left)
{
    return LOADS_WHAT_IS_LEFT || left >= SEEN_BYTES ||
           lanes_share_page(at, SEEN_BYTES) ||
           ((uintptr_t)at >= (uintptr_t)r->begin &&
            (uintptr_t)at + SEEN_BYTES <= (uintptr_t)r->end);
}

static __attribute__((noinline)) uint32_t take_copied_line(
    const struct dsd_ahead_opts *o, struct dsd_ahead *d, const char *at,
    size_t left)
{
    char copy[SIGHT_BYTES] = {0};

    memcpy(copy, at, left < SIGHT_BYTES ? left : SIGHT_BYTES);
    return take_line(o, d, at, left, copy);
}

/* Returns whether all may be looked at where they lie. */
static INLINE bool take_lines(const struct dsd_ahead_opts *o,
                              struct dsd_ahead_lines *out,
                              const struct dsd_packet *in, uint32_t n,
                              uint32_t *working)
{
    const struct dsd_packet *packet = in;
    const struct dsd_packet *in_end =
        in + (n < DSD_AHEAD_LINES ? n : DSD_AHEAD_LINES);
    struct dsd_ahead *d = out->lines;
    struct dsd_ahead *end = d + DSD_AHEAD_LINES;
    uint32_t *ends = out->ends;
    uint64_t n_bytes_all = 0;
    bool may_pass = true;

    for (; packet < in_end; packet++) {
        const char *at = packet->p;
        size_t left = packet->n;

        *working = packet->record;
        while (left > 0 && d < end) {
            uint32_t n_bytes;

            if (__builtin_expect(may_look(&o->readable, at, left), 1)) {
                n_bytes = take_line(o, d, at, left, at);
            } else {
                n_bytes = take_copied_line(o, d, at, left);
                may_pass = false;
            }
            if (n_bytes == 0)
                break;
            at += n_bytes;
            left -= n_bytes;
            d++;
        }
        if (left > 0)
            break;
        *ends++ = (uint32_t)(d - out->lines);
        n_bytes_all += packet->n;
    }
    out->n = (uint32_t)(d - out->lines);
    out->n_packets = (uint32_t)(packet - in);
    out->n_bytes = n_bytes_all;
    return may_pass;
}

/* By themselves: here the vectors need all registers, above the numbers did. What lies
 * behind these lines, as far as they go, is asked for: it may come from another CPU's
 * cache. */
static INLINE void hash_lines(const struct dsd_ahead_opts *o,
                              struct dsd_ahead_lines *out, bool may_pass)
{
    const struct lanes key = lanes_of(o->key, o->class);
    const struct spellings spellings = o->spellings;
    struct dsd_ahead *end = out->lines + out->n;
    uintptr_t ahead =
        out->n > 0 ? (uintptr_t)end[-1].name - (uintptr_t)out->lines[0].name
                   : 0;

    for (struct dsd_ahead *d = out->lines; d < end; d++) {
        d->hash = lanes_hash_line(&key, d, may_pass);
        __builtin_prefetch(context_line(spellings, d->hash));
        __builtin_prefetch((const void *)((uintptr_t)d->name + ahead));
        __builtin_prefetch((const void *)((uintptr_t)d->name + ahead + 64));
    }
}

static void read_packets(const struct dsd_ahead_opts *o,
                         struct dsd_ahead_lines *out,
                         const struct dsd_packet *in, uint32_t n,
                         uint32_t *working)
{
    if (take_lines(o, out, in, n, working))
        hash_lines(o, out, true);
    else
        hash_lines(o, out, false);
}

static struct hash128 hash_one(const struct spelling_key *key, struct view name,
                               struct view tags, unsigned class)
{
    const struct lanes lanes = lanes_of(key, class);

    return lanes_hash(&lanes, name, tags);
}

const struct dsd_ahead_form DSD_AHEAD = {read_packets, hash_one};
