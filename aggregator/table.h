/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open addressing in the region: 8-byte slots of hash fragment and reference.
 * The fragment alone finds the home, so growing and removing never look at the
 * records. Home is a cache line of eight slots, from which an entry lies in the
 * first that was free: nearly all lie in it, and are found by one look at it. Who
 * looks up verifies the record's full key.
 *
 * Thread:  the reader.
 * Memory:  8 bytes a slot, at most 3/4 used; while it grows, both sizes.
 * Promise: inserting and removing are part of the open transaction; growth is a
 *          transaction of its own.
 */
#ifndef RETRIEVER_AGGREGATOR_TABLE_H
#define RETRIEVER_AGGREGATOR_TABLE_H

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "aggregator/layout.h"

/** Lay out an empty table in range @range_a and its twin. 0, REGION_FULL or
 *  -errno. */
int table_init(struct agg *a, struct table *t, uint32_t range_a);

static inline struct table_slot *table_slots(const struct agg *a,
                                             const struct table *t)
{
    return region_base(a->r, t->range_a + t->side);
}

#define TABLE_LINE 8u

/** First slot to look at for @frag, of a line; go on with (i + 1) & mask until ref is
 *  0. */
static inline uint32_t table_home(uint32_t mask, uint32_t frag)
{
    return frag & mask & ~(TABLE_LINE - 1);
}

/** Of the entries in @line the reference of the first that has @frag; 0: none has. In
 *  which slot it lies is what no branch predictor can know: hence none. */
static inline uint32_t table_look(const struct table_slot line[TABLE_LINE],
                                  uint32_t frag)
{
#if defined(__SSE2__)
    const float *p = (const void *)line;
    __m128i want = _mm_set1_epi32((int)frag);
    __m128i low = _mm_castps_si128(
        _mm_shuffle_ps(_mm_load_ps(p), _mm_load_ps(p + 4), 0x88));
    __m128i high = _mm_castps_si128(
        _mm_shuffle_ps(_mm_load_ps(p + 8), _mm_load_ps(p + 12), 0x88));
    __m128i found = _mm_packs_epi32(_mm_cmpeq_epi32(low, want),
                                    _mm_cmpeq_epi32(high, want));
    uint32_t bits = (uint32_t)_mm_movemask_epi8(found); /* two a slot */

    const uint32_t *words = (const void *)line;

    /* Two bits and two words a slot, the second of which is the reference. */
    return bits != 0 ? words[(unsigned)__builtin_ctz(bits) + 1] : 0;
#else
    uint32_t bits = 0;

    for (uint32_t i = 0; i < TABLE_LINE; i++)
        bits |= (uint32_t)(line[i].frag == frag) << i;
    return bits != 0 ? line[__builtin_ctz(bits)].ref : 0;
#endif
}

/** false: the table is full (nothing changed). */
bool table_insert(struct agg *a, struct table *t, uint32_t frag, uint32_t ref);

/** Remove the entry (@frag, @ref), if it is there. */
void table_remove(struct agg *a, struct table *t, uint32_t frag, uint32_t ref);

/** Replace the reference of entry (@frag, @ref) by @to. */
void table_replace(struct agg *a, struct table *t, uint32_t frag, uint32_t ref,
                   uint32_t to);

/** At most this many more entries fit. */
static inline uint32_t table_room(const struct table *t)
{
    uint32_t limit = (t->mask + 1) / 4 * 3;

    return t->n_used < limit ? limit - t->n_used : 0;
}

/** Make room for @n_more entries. Outside a transaction; commits. 0,
 *  REGION_FULL or -errno (the table is as it was). */
int table_grow(struct agg *a, struct table *t, uint32_t n_more);

#endif
