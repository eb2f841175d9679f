/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who sends: from the process number that came with a datagram to the tags that its
 * metrics get. What others find out about processes lies in bpf/proctags.h, and what
 * the kernel has seen of those that nobody has found out about yet in bpf/env_table.h;
 * this is the reader's memory of both, so that a sender's next datagram costs two
 * comparisons.
 *
 * Thread:  the reader.
 * Memory:  ORIGIN_ENTRIES processes, made by origin_init(); none without a table.
 * Promise: tags are never those of another process, and never older than the last
 *          change of either table. No lock, no system call.
 */
#ifndef RETRIEVER_AGENT_ORIGIN_H
#define RETRIEVER_AGENT_ORIGIN_H

#include "aggregator/sample.h"
#include "bpf/proctags.h"

#define ORIGIN_ENTRIES 128u

struct origin_entry;

struct origin {
    struct proctags *table; /* NULL = processes have no tags */
    struct origin_entry *entries;
    bool asked; /* somebody new sends: the table's writer should be told */
};

/** @table may be NULL and is borrowed. Returns 0 or -ENOMEM. */
int origin_init(struct origin *o, struct proctags *table);
void origin_fini(struct origin *o);

/** Tags "a:b,c:d" of that process, n = 0 for none; valid until the next look-up of
 *  another process. */
struct view origin_tags(struct origin *o, enum proctags_space space,
                        uint32_t number);

#endif
