/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Samples with a timestamp of the client's: one value for each (context, second).
 *
 * A stamp collects until its second's bucket is closed and one flush more, then
 * goes into the part being closed and stays known, so that a late sample of the
 * same second takes the next free one instead of replacing it at the intake.
 *
 * Thread:  the reader.
 * Memory:  at most STAMPS_MAX records of 32 bytes; beyond, the oldest that were
 *          sent are forgotten, and with none of those samples count as untimed.
 * Promise: no two points of a context have one second while they are known.
 */
#ifndef RETRIEVER_AGGREGATOR_STAMPS_H
#define RETRIEVER_AGGREGATOR_STAMPS_H

#include "aggregator/layout.h"

/** Add the values of @s to (context, s->ts_s). false: no room for it. */
bool stamps_add(struct agg *a, struct context *c, const struct sample *s);

/** The shift from the open stamp for an untimed point of @c: its own, or more. */
uint32_t stamps_shift(struct agg *a, struct context *c);

/** The open part has another stamp: choose the shift of @c's cell in it anew. */
void stamps_move(struct agg *a, struct context *c);

/** Look at record @i at the end of the open bucket: move it to the open part if
 *  it is due (@all: whatever its second), forget it if it is old. */
void stamps_turn(struct agg *a, uint32_t i, bool all);

#endif
