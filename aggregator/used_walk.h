/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this life used, for the next one: of one closed part, or all that the
 * region remembers.
 *
 * Thread:  of a closed part: the encoder (see series.h). Of the region: whoever
 *          knows that the reader is at rest.
 * Memory:  an embedded walk, no allocation.
 * Promise: with the part's stamps (struct part_info) nothing that it sends is
 *          left out.
 */
#ifndef RETRIEVER_AGGREGATOR_USED_WALK_H
#define RETRIEVER_AGGREGATOR_USED_WALK_H

#include "aggregator/blocks.h"
#include "aggregator/used.h"

struct used_walk {
    const struct agg *a;
    const struct part *part; /* NULL: the region */
    struct chain_walk cells;
    enum chain_index chain;
    const void *cell; /* whose further series follow; NULL = none */
    uint32_t series;
    uint32_t at; /* the region: next record */
};

/** Points of the closed part @seq that its own stamps do not name. Returns 0 or
 *  -ENOENT (not closed or released). */
int used_walk_part(struct used_walk *w, const struct agg *a, uint64_t seq);

/** Points that the region remembers as sent. */
void used_walk_region(struct used_walk *w, const struct agg *a);

/** The next one; false: the end. */
bool used_walk_next(struct used_walk *w, struct used_point *out);

/** What the parts that the region remembers took, into @out (room for
 *  USED_MAX_SPANS). Returns how many. */
#define USED_MAX_SPANS 512u
size_t used_region_spans(const struct agg *a, struct used_span *out);

#endif
