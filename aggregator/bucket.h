/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The open bucket and its parts: pieces, stamps, closing, release.
 *
 * Thread:  the reader.
 * Memory:  a ring of PARTS_MAX pieces; when it or the blocks run short, the open
 *          chain stays open and takes the next bucket's samples too.
 * Promise: no two parts have one stamp; stamps only grow (until the clock is
 *          set back, or other lives have those ahead).
 */
#ifndef RETRIEVER_AGGREGATOR_BUCKET_H
#define RETRIEVER_AGGREGATOR_BUCKET_H

#include "aggregator/layout.h"

static inline int64_t bucket_of(int64_t t_s)
{
    return t_s - t_s % AGG_BUCKET_S;
}

/** Start a new chain with one empty piece. The ring must have room. */
void bucket_open(struct agg *a, int64_t bucket_s, int64_t now_s, bool first);

/** Move the open chain, which must be empty, to @bucket_s. */
void bucket_place(struct agg *a, int64_t bucket_s, int64_t now_s, bool first);

/** The clock stepped: move the open chain to @now_s. If it has data, the shifts of
 *  its cells have to be chosen anew (stamps_move()). */
void bucket_move(struct agg *a, int64_t now_s);

/** Before the first cell of the open chain: have its stamp from other lives, or the
 *  next one that they leave. */
void bucket_claim(struct agg *a);

/** Is the second @t_s left to us, for a cell that does not take the open stamp? */
bool bucket_claims(const struct agg *a, int64_t t_s);

/** The piece that new cells go to; a further one when it is full. */
struct part *bucket_piece(struct agg *a, bool must);

/** Close all pieces of the open chain. bucket_open() must follow in the same
 *  transaction. */
void bucket_close(struct agg *a);

/** Pieces that could still be opened. */
uint32_t bucket_ring_room(const struct agg *a);

/** Was @t_s the stamp of one of the latest parts, or of an earlier life's? */
bool bucket_closed_stamp(const struct agg *a, int64_t t_s);

/** That, or is it the open part's? */
bool bucket_had_stamp(const struct agg *a, int64_t t_s);

/** The encoder is done with the pieces up to @seq. Commits. */
void bucket_release(struct agg *a, uint64_t seq);

#endif
