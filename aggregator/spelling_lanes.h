/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hash of a spelling, by what the compiler may use: with wide AES instructions
 * (DSD_AHEAD_AVX512) a fifth of the instructions of the other one. Private to
 * dsd_ahead.c, which is compiled once per form.
 *
 * Wide: 64 bytes at a time go into four lanes of 16, each keyed by itself, with
 * three rounds of AES between one absorption and the next (after two, a byte has
 * reached all others of its lane; Go's runtime has three in its hash of strings, too).
 * Lengths, class and seed make a fifth lane, with the rounds of the first; the hash is
 * the sum of all, so that what differs in these alone differs always. Bytes behind an
 * end count as zeros: there, the lengths make the difference.
 *
 * Narrow: two lanes of the folded multiplication of wyhash (Wang Yi, public domain,
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

#include "aggregator/spelling.h"

#define LANES_INLINE                                                           \
    static inline __attribute__((always_inline)) /* lanes in registers */

LANES_INLINE uint64_t lanes_read64(const char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

#if defined(DSD_AHEAD_AVX512)

#include <immintrin.h>

/** A key in registers. */
struct lanes {
    __m512i start, rounds[3];
    __m128i seed;
};

LANES_INLINE struct lanes lanes_of(const struct spelling_key *key)
{
    return (struct lanes){
        .start = _mm512_loadu_si512(key->lanes[0]),
        .rounds = {_mm512_loadu_si512(key->lanes[1]),
                   _mm512_loadu_si512(key->lanes[2]),
                   _mm512_loadu_si512(key->lanes[3])},
        .seed = _mm_loadu_si128((const void *)key->seed),
    };
}

/** The first @n bytes at @p, and zeros; no byte behind them is touched. */
LANES_INLINE __m512i lanes_load(const char *p, size_t n)
{
    __mmask64 there = n < 64 ? _bzhi_u64(~0ULL, (unsigned)n) : ~0ULL;

    return _mm512_maskz_loadu_epi8(there, p);
}

LANES_INLINE __m512i lanes_absorb(const struct lanes *k, __m512i x,
                                  struct view v)
{
    for (;;) {
        x = _mm512_xor_si512(x, lanes_load(v.p, v.n));
        for (int i = 0; i < 3; i++)
            x = _mm512_aesenc_epi128(x, k->rounds[i]);
        if (__builtin_expect(v.n <= 64, 1))
            return x;
        v.p += 64;
        v.n -= 64;
    }
}

LANES_INLINE struct hash128 lanes_hash(const struct lanes *k, struct view name,
                                       struct view tags, unsigned class)
{
    __m128i rest =
        _mm_xor_si128(k->seed,
                      _mm_set_epi64x(class, (long long)((uint64_t)name.n << 32 |
                                                        tags.n)));
    __m512i x = lanes_absorb(k, k->start, name);
    struct hash128 h;
    __m256i half;
    __m128i sum;

    if (tags.n > 0)
        x = lanes_absorb(k, x, tags);
    for (int i = 0; i < 3; i++)
        rest = _mm_aesenc_si128(rest, _mm512_castsi512_si128(k->rounds[i]));
    half = _mm256_xor_si256(_mm512_castsi512_si256(x),
                            _mm512_extracti64x4_epi64(x, 1));
    sum = _mm_xor_si128(_mm256_castsi256_si128(half),
                        _mm256_extracti128_si256(half, 1));
    sum = _mm_xor_si128(sum, rest);
    memcpy(&h, &sum, sizeof(h));
    return h;
}

#else

struct lanes {
    uint64_t lo, hi;
    uint64_t key_lo, key_hi;
};

LANES_INLINE struct lanes lanes_of(const struct spelling_key *key)
{
    return (struct lanes){
        .lo = key->seed[0],
        .hi = key->seed[1],
        .key_lo = key->seed[1] ^ 0xa0761d6478bd642fULL,
        .key_hi = key->seed[0] ^ 0xe7037ed1a0b428dbULL,
    };
}

LANES_INLINE uint64_t lanes_fold(uint64_t x, uint64_t y)
{
    unsigned __int128 product = (unsigned __int128)x * y;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

LANES_INLINE uint64_t lanes_read32(const char *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
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
static __attribute__((noinline, unused)) struct hash128 lanes_hash(
    const struct lanes *key, struct view name, struct view tags, unsigned class)
{
    struct lanes l = *key;

    l.lo += class * 0x9e3779b97f4a7c15ULL;
    l.hi ^= class * 0xc2b2ae3d27d4eb4fULL;
    lanes_absorb(&l, name);
    if (tags.n > 0)
        lanes_absorb(&l, tags);
    return (struct hash128){l.lo, l.hi};
}

#endif

#endif
