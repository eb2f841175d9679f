/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seeded 128-bit hashes: XXH3 for identities, members and interned bytes, and
 * one of our own for the spellings that each line is looked up by.
 *
 * Thread:  pure functions.
 * Memory:  none.
 * Promise: who does not know the seed cannot aim at a slot of a table.
 */
#ifndef RETRIEVER_AGGREGATOR_HASH_H
#define RETRIEVER_AGGREGATOR_HASH_H

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "aggregator/layout.h"

struct hash128 {
    uint64_t lo, hi;
};

static inline struct hash128 hash_bytes(const void *p, size_t n, uint64_t seed)
{
    XXH128_hash_t h = XXH3_128bits_withSeed(p, n, seed);

    return (struct hash128){h.low64, h.high64};
}

/** Two hashes to one; the order counts. */
static inline struct hash128 hash_mix(struct hash128 x, struct hash128 y)
{
    x.lo ^= (y.lo + 0x9e3779b97f4a7c15ULL) * 0xc2b2ae3d27d4eb4fULL;
    x.hi ^= (y.hi + 0x165667b19e3779f9ULL) * 0x9e3779b185ebca87ULL;
    x.lo ^= x.lo >> 32;
    return x;
}

/* ---- Spellings ---------------------------------------------------------- */

/*
 * Two lanes of the folded multiplication of wyhash (Wang Yi, public domain, final
 * version 4), each keyed by its own half of the seed and fed with the halves of
 * each 16 bytes the other way round. Name and tags go through in one run, which takes half
 * the instructions of two XXH3 hashes and their mix.
 */
#define HASH_INLINE                                                            \
    inline __attribute__((always_inline)) /* lanes in registers */

struct hash_lanes {
    uint64_t lo, hi;
    uint64_t key_lo, key_hi;
};

static inline uint64_t hash_fold(uint64_t x, uint64_t y)
{
    unsigned __int128 product = (unsigned __int128)x * y;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t hash_read64(const char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint64_t hash_read32(const char *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static inline void hash_step(struct hash_lanes *h, uint64_t x, uint64_t y)
{
    h->lo = hash_fold(x ^ h->key_lo, y ^ h->lo);
    h->hi = hash_fold(y ^ h->key_hi, x ^ h->hi);
}

/* The length goes in first: what is read twice below cannot look like more. */
static HASH_INLINE void hash_run(struct hash_lanes *h, const char *p,
                                 uint32_t n)
{
    const char *end = p + n;

    h->lo ^= n;
    h->hi += n;
    if (__builtin_expect(n >= 16, 1)) {
        for (; end - p > 16; p += 16)
            hash_step(h, hash_read64(p), hash_read64(p + 8));
        hash_step(h, hash_read64(end - 16), hash_read64(end - 8));
    } else if (n >= 8) {
        hash_step(h, hash_read64(p), hash_read64(end - 8));
    } else if (n >= 4) {
        hash_step(h, hash_read32(p), hash_read32(end - 4));
    } else if (n > 0) {
        hash_step(h, (unsigned char)p[0],
                  (uint64_t)(unsigned char)p[n / 2] << 8 |
                      (unsigned char)end[-1]);
    }
}

/** Of name, tags (empty and none are the same) and a small number. */
static inline struct hash128 hash_spelling(struct view name, struct view tags,
                                           unsigned class,
                                           const uint64_t seed[2])
{
    struct hash_lanes h = {
        .lo = seed[0] + class * 0x9e3779b97f4a7c15ULL,
        .hi = seed[1] ^ class * 0xc2b2ae3d27d4eb4fULL,
        .key_lo = seed[1] ^ 0xa0761d6478bd642fULL,
        .key_hi = seed[0] ^ 0xe7037ed1a0b428dbULL,
    };

    hash_run(&h, name.p, name.n);
    if (tags.n > 0)
        hash_run(&h, tags.p, tags.n);
    return (struct hash128){h.lo, h.hi};
}

static inline uint64_t hash_u64(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ULL;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ULL;
    return x ^ (x >> 32);
}

#endif
