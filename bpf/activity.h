/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feature `activity`: how much families of processes work and how much they wait,
 * and how their processes end. It needs the records of `life`.
 *
 * The job of `exec` is the family `workload`, by itself; rules make others
 * (family_rule.h). Where no program can be loaded the job alone is watched, from /proc
 * (activity_coarse.h).
 *
 * Thread:  the helper thread.
 * Memory:  1.2 MiB in the kernel; here at most 1023 families of 2 KiB, 8192 nodes
 *          of lineage and 150 KiB of buffers.
 * Promise: times come from the kernel's own clock at the moment of the switch, so
 *          they do not depend on when anybody reads. A process whose record found
 *          no room in the ring is counted all the same, without its status.
 */
#ifndef RETRIEVER_BPF_ACTIVITY_H
#define RETRIEVER_BPF_ACTIVITY_H

#include "bpf/family_rule.h"
#include "bpf/feature.h"

#define ACTIVITY_THRESHOLD_MS 50
#define ACTIVITY_MAX_THRESHOLD_MS 60000

struct activity_opts {
    bool off;                   /* ebpf.activity.enabled: false */
    uint32_t idle_threshold_ms; /* 1.. ACTIVITY_MAX_THRESHOLD_MS; 0 = default */
    bool pid_tags;              /* root_pid: on all metrics */
    const struct family_rule *rules; /* borrowed until close() */
    size_t n_rules;
};

extern const struct feature activity_feature;

#endif
