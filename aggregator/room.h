/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room ahead of need: everything that a transaction may take from the region is
 * committed before it begins.
 *
 * Thread:  the reader, outside transactions.
 * Memory:  grows the ranges of the region, within its budget.
 * Promise: after room_make() the lines of one transaction find room, or the
 *          budget is used up.
 */
#ifndef RETRIEVER_AGGREGATOR_ROOM_H
#define RETRIEVER_AGGREGATOR_ROOM_H

#include "aggregator/layout.h"

void room_make(struct agg *a);

#endif
