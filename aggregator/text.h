/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events and service checks of the open part.
 *
 * Thread:  the reader.
 * Memory:  blocks of the open part, at most 16 MiB of text in one part.
 * Promise: stored whole, as valid UTF-8, or refused.
 */
#ifndef RETRIEVER_AGGREGATOR_TEXT_H
#define RETRIEVER_AGGREGATOR_TEXT_H

#include "aggregator/layout.h"

/** false: no room; nothing was stored. */
bool text_event(struct agg *a, const struct event *e);
bool text_check(struct agg *a, const struct check *c);

#endif
