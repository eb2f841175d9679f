/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The turn from one bucket part to the next: zeros of live counters, expiry of
 * contexts, timestamped samples that are due, close, open.
 *
 * Thread:  the reader.
 * Memory:  none.
 * Promise: cut into transactions with a cursor in the region: a successor
 *          finishes the turn where it stood. One zero per elapsed slot and live
 *          counter, exactly once.
 */
#ifndef RETRIEVER_AGGREGATOR_TURN_H
#define RETRIEVER_AGGREGATOR_TURN_H

#include "aggregator/layout.h"

/** The open bucket is over at @now_s: close it and each slot passed since. */
void turn_to(struct agg *a, int64_t now_s);

/** Close the open part before its bucket's end, all timestamped samples with
 *  it. */
void turn_early(struct agg *a, int64_t now_s);

/** The clock stepped to @now_s: close the open part, which has data, with the
 *  present second as its stamp. */
void turn_move(struct agg *a, int64_t now_s);

/** Go on with a turn that a predecessor had begun. */
void turn_resume(struct agg *a);

#endif
