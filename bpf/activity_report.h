/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From what the kernel counts of a family to values: what was added since the last
 * time, and what goes on now.
 *
 * The kernel books a burst and the idleness behind it when the family wakes. So
 * here the present burst counts as it grows, an idleness that has lasted for the
 * threshold counts as a transition at once, and both are not counted again when
 * the kernel books them. When the last thread has gone the last burst is over, and
 * no idleness follows.
 *
 * Thread:  one owner; pure, time is an argument.
 * Memory:  one shadow per family.
 * Promise: over the life of a family the sums are those of the kernel, whenever
 *          and how often it was asked.
 */
#ifndef RETRIEVER_BPF_ACTIVITY_REPORT_H
#define RETRIEVER_BPF_ACTIVITY_REPORT_H

#include <stdbool.h>

#include "bpf/events.h"
#include "bpf/lines.h"

/** What was told already; all 0 at first. */
struct activity_shadow {
    uint64_t n_idle, n_to_idle;
    uint64_t active_ticks, idle_ticks, cpu_ns;
    uint32_t bursts[ACTIVITY_BUCKETS];
    uint32_t idles[ACTIVITY_BUCKETS];
    /* The burst before the present idleness: told, and not yet booked. */
    bool burst_told;
    uint32_t burst_bucket;
    uint64_t burst_n_idle;
};

/** @last: no call follows; what goes on now ends here. Returns whether the family
 *  is active. */
bool activity_report(struct activity_shadow *s, const struct activity_family *f,
                     uint64_t now_ns, uint64_t threshold_ticks, bool last,
                     struct lines *out, const char *tags);

#endif
