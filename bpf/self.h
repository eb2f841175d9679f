/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel side about itself: what programs sent to the event ring, and what was
 * lost there. Without it a loss would be silent.
 *
 *   retriever.ebpf.events.sent, .lost, .bytes   count; type:, and cpu: on request
 *
 * Thread:  as feature.h says.
 * Memory:  two table rows per CPU.
 * Promise: a type that never sent anything is not written of.
 */
#ifndef RETRIEVER_BPF_SELF_H
#define RETRIEVER_BPF_SELF_H

#include "bpf/feature.h"

struct self_opts {
    bool per_cpu; /* a tag cpu: on each value */
};

/** Its row of `retriever ebpf status`. */
#define SELF_WHAT "what the ring of kernel events carried and lost"
extern const struct feature self_feature;

#endif
