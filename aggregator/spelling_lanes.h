/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hash of a spelling, by what the compiler may use: with AES instructions, the wider
 * the better, or without. Private to dsd_ahead.c, which is compiled once per form.
 *
 * AES: 64 bytes at a time go into four lanes of 16, each keyed by itself, with
 * three rounds of AES between one absorption and the next (after two, a byte has
 * reached all others of its lane; Go's runtime has three in its hash of strings, too).
 * Lengths, class and seed make a fifth lane, with the rounds of the first; the hash is
 * the sum of all, so that what differs in these alone differs always. Bytes behind an
 * end count as zeros: there, the lengths make the difference. The four lanes are
 * one, two or four registers: the hash is the same.
 *
 * Without: two lanes of the folded multiplication of wyhash (Wang Yi, public domain,
 * final version 4), each keyed by its own half of the seed and fed with the halves
 * of each 16 bytes the other way round. Name and tags go through in one run, which
 * takes half the instructions of two XXH3 hashes and their mix.
 *
 * Thread:  pure functions.
 * Memory:  none.
 * Promise: as of spelling.h.
 */
#ifndef RETRIEVER_AGGREGATOR_SPELLING_LANES_H
#define RETRIEVER_AGGREGATOR_SPELLING_LANES_H

#include "aggregator/dsd_ahead.h"

#define LANES_INLINE                                                           \
    static inline __attribute__((always_inline)) /* lanes in registers */

LANES_INLINE uint64_t lanes_read64(const char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

LANES_INLINE uint32_t lanes_read32(const char *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* Bytes that share a page with ours may be looked at; a sanitizer would take it for
 * a fault. */
#if defined(__SANITIZE_ADDRESS__)
#define LANES_MAY_PASS false
#elif defined(__has_feature)
#define LANES_MAY_PASS (!__has_feature(address_sanitizer))
#else
#define LANES_MAY_PASS true
#endif

#define LANES_PAGE_BYTES 4096u /* or a multiple of it */

/** May all @n bytes at @p be looked at, since the first one may? */
LANES_INLINE bool lanes_share_page(const char *p, size_t n)
{
    return LANES_MAY_PASS &&
           (uintptr_t)p % LANES_PAGE_BYTES <= LANES_PAGE_BYTES - n;
}

#if defined(__AES__) && !defined(DSD_AHEAD_SCALAR)

#include <immintrin.h>

/* ---- 64 bytes of four lanes, in as few registers as there can be --------- */

#if defined(DSD_AHEAD_AVX512)

struct lanes64 {
    __m512i v;
};

LANES_INLINE struct lanes64 lanes_load(const void *p)
{
    return (struct lanes64){_mm512_loadu_si512(p)};
}

LANES_INLINE struct lanes64 lanes_xor(struct lanes64 x, struct lanes64 y)
{
    return (struct lanes64){_mm512_xor_si512(x.v, y.v)};
}

LANES_INLINE struct lanes64 lanes_round(struct lanes64 x, struct lanes64 key)
{
    return (struct lanes64){_mm512_aesenc_epi128(x.v, key.v)};
}

LANES_INLINE __m128i lanes_a(struct lanes64 x)
{
    return _mm512_castsi512_si128(x.v);
}

LANES_INLINE __m128i lanes_sum(struct lanes64 x)
{
    __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(x.v),
                                    _mm512_extracti64x4_epi64(x.v, 1));

    return _mm_xor_si128(_mm256_castsi256_si128(half),
                         _mm256_extracti128_si256(half, 1));
}

#elif defined(__VAES__)

struct lanes64 {
    __m256i ab, cd;
};

LANES_INLINE struct lanes64 lanes_load(const void *p)
{
    const __m256i *at = p;

    return (struct lanes64){_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}

LANES_INLINE struct lanes64 lanes_xor(struct lanes64 x, struct lanes64 y)
{
    return (struct lanes64){x.ab ^ y.ab, x.cd ^ y.cd};
}

LANES_INLINE struct lanes64 lanes_and(struct lanes64 x, struct lanes64 y)
{
    return (struct lanes64){x.ab & y.ab, x.cd & y.cd};
}

LANES_INLINE struct lanes64 lanes_round(struct lanes64 x, struct lanes64 key)
{
    return (struct lanes64){_mm256_aesenc_epi128(x.ab, key.ab),
                            _mm256_aesenc_epi128(x.cd, key.cd)};
}

LANES_INLINE __m128i lanes_a(struct lanes64 x)
{
    return _mm256_castsi256_si128(x.ab);
}

LANES_INLINE __m128i lanes_sum(struct lanes64 x)
{
    __m256i half = x.ab ^ x.cd;

    return _mm256_castsi256_si128(half) ^ _mm256_extracti128_si256(half, 1);
}

#else

struct lanes64 {
    __m128i a, b, c, d;
};

LANES_INLINE struct lanes64 lanes_load(const void *p)
{
    const __m128i *at = p;

    return (struct lanes64){_mm_loadu_si128(at), _mm_loadu_si128(at + 1),
                            _mm_loadu_si128(at + 2), _mm_loadu_si128(at + 3)};
}

LANES_INLINE struct lanes64 lanes_xor(struct lanes64 x, struct lanes64 y)
{
    return (struct lanes64){x.a ^ y.a, x.b ^ y.b, x.c ^ y.c, x.d ^ y.d};
}

LANES_INLINE struct lanes64 lanes_and(struct lanes64 x, struct lanes64 y)
{
    return (struct lanes64){x.a & y.a, x.b & y.b, x.c & y.c, x.d & y.d};
}

LANES_INLINE struct lanes64 lanes_round(struct lanes64 x, struct lanes64 key)
{
    return (struct lanes64){_mm_aesenc_si128(x.a, key.a),
                            _mm_aesenc_si128(x.b, key.b),
                            _mm_aesenc_si128(x.c, key.c),
                            _mm_aesenc_si128(x.d, key.d)};
}

LANES_INLINE __m128i lanes_a(struct lanes64 x)
{
    return x.a;
}

LANES_INLINE __m128i lanes_sum(struct lanes64 x)
{
    return (x.a ^ x.b) ^ (x.c ^ x.d);
}

#endif

/* ---- The first bytes of 64 ----------------------------------------------- */

#if defined(DSD_AHEAD_AVX512)

#define LANES_PASS_BYTES 0u

/** The first @n bytes at @p, at most 64, and zeros; no byte behind them is touched. */
LANES_INLINE struct lanes64 lanes_first(const char *p, size_t n, bool may_pass)
{
    __mmask64 there = n < 64 ? _bzhi_u64(~0ULL, (unsigned)n) : ~0ULL;

    (void)may_pass;
    return (struct lanes64){_mm512_maskz_loadu_epi8(there, p)};
}

#else

#define LANES_PASS_BYTES 63u

/** The first @n bytes at @p, at most 64, and zeros. All 64 are read if we @may_pass, or
 *  if they share a page. */
LANES_INLINE struct lanes64 lanes_first(const char *p, size_t n, bool may_pass)
{
    static const unsigned char there[128] = {
#define LANES_8(x) x, x, x, x, x, x, x, x
        LANES_8(0xff), LANES_8(0xff), LANES_8(0xff), LANES_8(0xff),
        LANES_8(0xff), LANES_8(0xff), LANES_8(0xff), LANES_8(0xff)};
#undef LANES_8
    char copy[64] = {0};

    if (may_pass || lanes_share_page(p, sizeof(copy)))
        return lanes_and(lanes_load(p), lanes_load(there + 64 - n));
    memcpy(copy, p, n);
    return lanes_load(copy);
}

#endif

/* ---- The hash ------------------------------------------------------------ */

/** A key, in registers as far as there are some. */
struct lanes {
    struct lanes64 start, rounds[3];
    __m128i seed;
};

/* What the fifth lane takes in. */
LANES_INLINE __m128i lanes_rest(uint32_t n_name, uint32_t n_tags,
                                unsigned class)
{
    return _mm_set_epi32(0, (int)class, (int)n_name, (int)n_tags);
}

/** For spellings of @class, or of that and a type. */
LANES_INLINE struct lanes lanes_of(const struct spelling_key *key,
                                   unsigned class)
{
    return (struct lanes){
        .start = lanes_load(key->lanes[0]),
        .rounds = {lanes_load(key->lanes[1]), lanes_load(key->lanes[2]),
                   lanes_load(key->lanes[3])},
        .seed = _mm_xor_si128(_mm_loadu_si128((const void *)key->seed),
                              lanes_rest(0, 0, class)),
    };
}

LANES_INLINE struct lanes64 lanes_mix(const struct lanes *k, struct lanes64 x,
                                      struct lanes64 in)
{
    x = lanes_xor(x, in);
    x = lanes_round(x, k->rounds[0]);
    x = lanes_round(x, k->rounds[1]);
    return lanes_round(x, k->rounds[2]);
}

LANES_INLINE struct lanes64 lanes_absorb(const struct lanes *k,
                                         struct lanes64 x, struct view v,
                                         bool may_pass)
{
    for (; __builtin_expect(v.n > 64, 0); v.p += 64, v.n -= 64)
        x = lanes_mix(k, x, lanes_load(v.p));
    return lanes_mix(k, x, lanes_first(v.p, v.n, may_pass));
}

LANES_INLINE struct hash128 lanes_end(const struct lanes *k, struct lanes64 x,
                                      __m128i rest)
{
    struct hash128 h;
    __m128i sum;

    rest = _mm_xor_si128(rest, k->seed);
    for (int i = 0; i < 3; i++)
        rest = _mm_aesenc_si128(rest, lanes_a(k->rounds[i]));
    sum = _mm_xor_si128(lanes_sum(x), rest);
    memcpy(&h, &sum, sizeof(h));
    return h;
}

LANES_INLINE struct hash128 lanes_hash(const struct lanes *k, struct view name,
                                       struct view tags)
{
    struct lanes64 x = lanes_absorb(k, k->start, name, false);

    if (tags.n > 0)
        x = lanes_absorb(k, x, tags, false);
    return lanes_end(k, x, lanes_rest(name.n, tags.n, 0));
}

/** The same of a line, and its type. @may_pass: LANES_PASS_BYTES behind its name and
 *  tags can be read. */
LANES_INLINE struct hash128 lanes_hash_line(const struct lanes *k,
                                            const struct dsd_ahead *d,
                                            bool may_pass)
{
    struct lanes64 x =
        lanes_mix(k, k->start, lanes_first(d->name, d->n_name, may_pass));

    if (d->n_tags > 0)
        x = lanes_absorb(k, x, dsd_ahead_tags(d), may_pass);
#if defined(__SSE4_1__)
    return lanes_end(k, x,
                     _mm_cvtepu8_epi32(
                         _mm_cvtsi32_si128((int)lanes_read32(d->rest))));
#else
    return lanes_end(k, x, lanes_rest(d->n_name, d->n_tags, d->type));
#endif
}

#else

#define LANES_PASS_BYTES 0u

struct lanes {
    uint64_t lo, hi;
    uint64_t key_lo, key_hi;
    unsigned class;
};

LANES_INLINE struct lanes lanes_of(const struct spelling_key *key,
                                   unsigned class)
{
    return (struct lanes){
        .lo = key->seed[0],
        .hi = key->seed[1],
        .key_lo = key->seed[1] ^ 0xa0761d6478bd642fULL,
        .key_hi = key->seed[0] ^ 0xe7037ed1a0b428dbULL,
        .class = class,
    };
}

LANES_INLINE uint64_t lanes_fold(uint64_t x, uint64_t y)
{
    unsigned __int128 product = (unsigned __int128)x * y;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

LANES_INLINE void lanes_step(struct lanes *l, uint64_t x, uint64_t y)
{
    l->lo = lanes_fold(x ^ l->key_lo, y ^ l->lo);
    l->hi = lanes_fold(y ^ l->key_hi, x ^ l->hi);
}

/* The length goes in first: what is read twice below cannot look like more. */
LANES_INLINE void lanes_absorb(struct lanes *l, struct view v)
{
    const char *p = v.p;
    const char *end = p + v.n;

    l->lo ^= v.n;
    l->hi += v.n;
    if (__builtin_expect(v.n >= 16, 1)) {
        for (; end - p > 16; p += 16)
            lanes_step(l, lanes_read64(p), lanes_read64(p + 8));
        lanes_step(l, lanes_read64(end - 16), lanes_read64(end - 8));
    } else if (v.n >= 8) {
        lanes_step(l, lanes_read64(p), lanes_read64(end - 8));
    } else if (v.n >= 4) {
        lanes_step(l, lanes_read32(p), lanes_read32(end - 4));
    } else if (v.n > 0) {
        lanes_step(l, (unsigned char)p[0],
                   (uint64_t)(unsigned char)p[v.n / 2] << 8 |
                       (unsigned char)end[-1]);
    }
}

/* Not inlined: there are not registers enough for it and its caller. */
static __attribute__((noinline, unused)) struct hash128 lanes_hash_typed(
    const struct lanes *key, struct view name, struct view tags, unsigned type)
{
    struct lanes l = *key;

    l.lo += (l.class | type) * 0x9e3779b97f4a7c15ULL;
    l.hi ^= (l.class | type) * 0xc2b2ae3d27d4eb4fULL;
    lanes_absorb(&l, name);
    if (tags.n > 0)
        lanes_absorb(&l, tags);
    return (struct hash128){l.lo, l.hi};
}

LANES_INLINE struct hash128 lanes_hash(const struct lanes *k, struct view name,
                                       struct view tags)
{
    return lanes_hash_typed(k, name, tags, 0);
}

LANES_INLINE struct hash128 lanes_hash_line(const struct lanes *k,
                                            const struct dsd_ahead *d,
                                            bool may_pass)
{
    (void)may_pass;
    return lanes_hash_typed(k, dsd_ahead_name(d), dsd_ahead_tags(d), d->type);
}

#endif

#endif
