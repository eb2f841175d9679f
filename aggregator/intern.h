/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interned bytes: names, hosts, tags and tag sets, each held once and counted.
 *
 * Thread:  the reader.
 * Memory:  the region's blob range; freed blobs are reused by size.
 * Promise: equal bytes have equal references while anybody holds one.
 */
#ifndef RETRIEVER_AGGREGATOR_INTERN_H
#define RETRIEVER_AGGREGATOR_INTERN_H

#include "aggregator/layout.h"

#define INTERN_MAX_BYTES (BLOB_UNIT * (BLOB_CLASSES - 1) - sizeof(struct blob))

/** Reference of @n bytes, counted; 0: no room. @n <= INTERN_MAX_BYTES. */
uint32_t intern_ref(struct agg *a, enum blob_kind kind, const void *bytes,
                    uint32_t n);

/** One holder more of a blob that has one. */
static inline void intern_again(struct agg *a, uint32_t ref)
{
    struct blob *b = blob_at(a, ref);

    region_set(a->r, b->n_refs, b->n_refs + 1);
}

/** One holder less; a tag set without holders lets its tags go. 0 is nothing. */
void intern_unref(struct agg *a, uint32_t ref);

static inline struct view intern_view(const struct agg *a, uint32_t ref)
{
    const struct blob *b = blob_at(a, ref);

    if (ref == 0)
        return (struct view){"", 0};
    return (struct view){b->bytes, b->n};
}

#endif
