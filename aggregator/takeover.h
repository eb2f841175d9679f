/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a successor does with the region it finds: check it, finish what was
 * begun.
 *
 * Thread:  the reader, before it serves.
 * Memory:  works in place.
 * Promise: after takeover() no reference of a context leads outside its range;
 *          what did is counted (damaged) and folded into an overflow series.
 */
#ifndef RETRIEVER_AGGREGATOR_TAKEOVER_H
#define RETRIEVER_AGGREGATOR_TAKEOVER_H

#include "aggregator/layout.h"

void takeover(struct agg *a);

#endif
