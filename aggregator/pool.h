/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growable arrays of fixed-size records with a free list.
 *
 * Thread:  the reader.
 * Memory:  the record's range of the region.
 * Promise: taking and giving are part of the open transaction.
 */
#ifndef RETRIEVER_AGGREGATOR_POOL_H
#define RETRIEVER_AGGREGATOR_POOL_H

#include "aggregator/layout.h"

/** Index of a record to fill; 0 = no room. @link_at: where a free record keeps
 *  the index of the next free one. */
uint32_t pool_take(struct agg *a, struct pool *p, unsigned range,
                   size_t record_bytes, size_t link_at);

/** Give record @i back; @link: its word for the free list, any value. */
void pool_give(struct agg *a, struct pool *p, uint32_t i, uint32_t *link);

/** Records that could be taken without growing. */
uint32_t pool_room(const struct agg *a, const struct pool *p, unsigned range,
                   size_t record_bytes);

#endif
