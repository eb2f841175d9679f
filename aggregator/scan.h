/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the delimiters of a line are: one look at its first 128 bytes, as bits.
 * Calls of memchr() for each field over the same bytes cost several times as
 * much.
 *
 * Thread:  pure functions.
 * Memory:  none.
 * Promise: all forms give the same bits and read exactly SCAN_BYTES.
 */
#ifndef RETRIEVER_AGGREGATOR_SCAN_H
#define RETRIEVER_AGGREGATOR_SCAN_H

#include <stdint.h>

#define SCAN_BYTES 128u

/** Bit i of word i / 64: byte i is that delimiter. */
struct scan {
    uint64_t lf[2];
    uint64_t bar[2];
    uint64_t colon; /* of the first 64 bytes */
};

/** All SCAN_BYTES at @p must be readable. */
typedef void scan_fn(struct scan *s, const char *p);

/** The form without vectors: what the others are compared with. */
scan_fn scan_scalar;

/** Form @i that this processor can run, the best one first; NULL behind the
 *  last, which is scan_scalar. */
scan_fn *scan_form(unsigned i);

/** First bit at or behind @from, or SCAN_BYTES. */
static inline uint32_t scan_next(const uint64_t bits[2], uint32_t from)
{
    uint64_t w;

    if (from < 64) {
        w = bits[0] >> from;
        if (w != 0)
            return from + (uint32_t)__builtin_ctzll(w);
        from = 64;
    }
    if (from >= SCAN_BYTES)
        return SCAN_BYTES;
    w = bits[1] >> (from - 64);
    return w != 0 ? from + (uint32_t)__builtin_ctzll(w) : SCAN_BYTES;
}

#endif
