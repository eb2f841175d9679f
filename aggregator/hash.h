/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seeded 128-bit hashes, XXH3: of identities, members, interned bytes and overflow
 * series. The spellings that each line is looked up by have one of their own (spelling.h).
 *
 * Thread:  pure functions.
 * Memory:  none.
 * Promise: who does not know the seed cannot aim at a slot of a table.
 */
#ifndef RETRIEVER_AGGREGATOR_HASH_H
#define RETRIEVER_AGGREGATOR_HASH_H

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stddef.h>
#include <stdint.h>
#include <string.h>

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

static inline uint64_t hash_u64(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ULL;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ULL;
    return x ^ (x >> 32);
}

#endif
