/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of single waits (EVENT_RUNQ), added up by the reader: those of one cgroup,
 * of one cause and about as long become one.
 *
 * The kernel thread has usual priority and may get no CPU for seconds, while each
 * switch of a task is a record. The reader comes in time, so nothing is lost as long
 * as it need not hand on more than there is room for; and it can add, which takes less
 * than a copy. All other records are rare.
 *
 * Thread:  the reader.
 * Memory:  sums of KERNEL_WAITS kinds, zeroed by whoever makes it.
 * Promise: count and duration are exact, and so is the class of sched.h.
 */
#ifndef RETRIEVER_AGENT_KERNEL_WAITS_H
#define RETRIEVER_AGENT_KERNEL_WAITS_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/kernel_link.h"
#include "bpf/events.h"

#define KERNEL_WAITS 2048u /* the link has room for all of them */

/** A slot of the link. */
struct kernel_wait {
    struct event_runq
        sum; /* the first of them, with @n and @latency_ns of all */
    uint32_t class;
    uint32_t pad;
};

struct kernel_waits {
    uint32_t n;
    uint16_t at[2 * KERNEL_WAITS]; /* by hash: 1 + place in @sums; 0 = none */
    struct kernel_wait sums[KERNEL_WAITS];
};

/** False: it is of a new kind, and there is no room for one more. */
bool kernel_waits_add(struct kernel_waits *w, const struct event_runq *ev);

/** Hand all on, with the bell, and begin anew. False: there is no room; reader_bell
 *  says when to try again. */
bool kernel_waits_put(struct kernel_waits *w, struct kernel_link *l);

#endif
