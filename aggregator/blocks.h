/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of parts: 16 KiB blocks from one pool, linked into the chains of a part
 * and given back with it.
 *
 * Thread:  the reader; closed chains are read by the encoder.
 * Memory:  the region's budget; the last BLOCKS_RESERVED blocks are kept for
 *          cells that must exist.
 * Promise: what was allocated keeps its place until its part is released.
 */
#ifndef RETRIEVER_AGGREGATOR_BLOCKS_H
#define RETRIEVER_AGGREGATOR_BLOCKS_H

#include "aggregator/layout.h"

/** Blocks that could be taken without growing the region. */
uint32_t blocks_available(const struct agg *a);

/** Take @bytes (rounded up to 16, at most BLOCK_MAX_ALLOC) from @chain of @p.
 *  Not zeroed. Returns a reference, or 0: no memory. @must: also from the
 *  reserve. */
uint32_t chain_alloc(struct agg *a, struct part *p, enum chain_index chain,
                     uint32_t bytes, bool must);

/** Append @n bytes to a byte stream chain; false: no memory (what was appended
 *  of it stays behind the stream's end: see chain_mark()). */
bool chain_write(struct agg *a, struct part *p, enum chain_index chain,
                 const void *bytes, uint32_t n);

/** Give all blocks of @p back. */
void chains_free(struct agg *a, struct part *p);

/** Walk fixed-size cells of a closed or open chain. */
struct chain_walk {
    const struct agg *a;
    uint32_t block; /* number + 1; 0 = end */
    uint32_t last;
    uint32_t at, used;
};

void chain_walk_init(struct chain_walk *w, const struct agg *a,
                     const struct chain *c);
void *chain_walk_next(struct chain_walk *w, uint32_t bytes);

/** Read @n bytes of a byte stream into @out; false at its end. */
bool chain_read(struct chain_walk *w, void *out, uint32_t n);

#endif
