/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger's counters by name, for a record that another build reads: what it
 * does not know it leaves out, what is missing is 0.
 *
 * Thread:  any.
 * Memory:  none.
 * Promise: reading what was written gives the same numbers up to 2^53, beyond
 *          which the record is refused.
 */
#ifndef RETRIEVER_AGENT_HANDOVER_COUNTS_H
#define RETRIEVER_AGENT_HANDOVER_COUNTS_H

#include "agent/base/json.h"
#include "agent/jsonread.h"
#include "aggregator/counts.h"
#include "forwarder/store.h"

/** One object each, as the next value. */
void handover_write_ingest(struct json *j, const struct ingest_counts *c);
void handover_write_books(struct json *j, const struct store_books *b);

/** From the object @v. Return 0, or JSONREAD_BAD with *c untouched. */
int handover_read_ingest(const struct jsonread *d,
                         const struct jsonread_node *v,
                         struct ingest_counts *c);
int handover_read_books(const struct jsonread *d, const struct jsonread_node *v,
                        struct store_books *b);

#endif
