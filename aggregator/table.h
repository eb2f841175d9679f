/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open addressing in the region: 8-byte slots of hash fragment and reference.
 * The fragment alone finds the home slot, so growing and removing never look at
 * the records. Who looks up verifies the record's full key.
 *
 * Thread:  the reader.
 * Memory:  8 bytes a slot, at most 3/4 used; while it grows, both sizes.
 * Promise: inserting and removing are part of the open transaction; growth is a
 *          transaction of its own.
 */
#ifndef RETRIEVER_AGGREGATOR_TABLE_H
#define RETRIEVER_AGGREGATOR_TABLE_H

#include "aggregator/layout.h"

/** Lay out an empty table in range @range_a and its twin. 0, REGION_FULL or
 *  -errno. */
int table_init(struct agg *a, struct table *t, uint32_t range_a);

static inline struct table_slot *table_slots(const struct agg *a,
                                             const struct table *t)
{
    return region_base(a->r, t->range_a + t->side);
}

/** First slot to look at for @frag; go on with (i + 1) & mask until ref is 0. */
static inline uint32_t table_home(const struct table *t, uint32_t frag)
{
    return frag & t->mask;
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
