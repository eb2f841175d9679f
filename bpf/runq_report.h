/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waits of cgroups, added up by container and written as metrics.
 *
 *   runq.latency            distribution, us
 *   runq.wait               count, ms; cause:
 *   sched.switch.out        count; cause:
 *   sched.switch.voluntary  count
 *   runq.neighbor.wait      count, ms; neighbor:
 *   runq.throttled.time     count, ms
 *   runq.throttled.periods  count
 *
 * Thread:  the helper thread.
 * Memory:  one group per container and one entry per pair that was added since the
 *          last report, both bounded (RUNQ_MAX_GROUPS, RUNQ_MAX_PAIRS).
 * Promise: what was added is written once: where there are too many containers, as
 *          a part of container:other.
 */
#ifndef RETRIEVER_BPF_RUNQ_REPORT_H
#define RETRIEVER_BPF_RUNQ_REPORT_H

#include "bpf/cgroup.h"
#include "bpf/lines.h"
#include "bpf/runq.h"
#include "bpf/sched.h"

#define RUNQ_MAX_GROUPS 4096u
#define RUNQ_MAX_PAIRS 4096u

struct runq_report; /* opaque */

/** @opts and @cgroups are borrowed until close. */
int runq_report_create(struct runq_report **out, const struct runq_opts *opts,
                       struct cgroups *cgroups);
void runq_report_close(struct runq_report *r);

/** It is reported, by kind and globs. */
bool runq_report_wants(const struct runq_report *r,
                       const struct cgroup_info *info);

/** It is there before anything is added: its quota counts from now on. */
void runq_report_begin(struct runq_report *r, const struct cgroup_info *info);

/** @delta: since the last time, of this cgroup. */
void runq_report_add(struct runq_report *r, uint64_t cgid,
                     const struct sched_hist *delta);

void runq_report_add_pair(struct runq_report *r, const struct sched_pair *pair,
                          const struct sched_wait *delta);

/** A record of stream mode: waits of one class. */
void runq_report_event(struct runq_report *r, const struct event_runq *ev);

/** Write all, and begin anew. */
void runq_report_write(struct runq_report *r, struct lines *out);

/** Microseconds that stand for a class of waits. */
double runq_report_class_us(uint32_t class);

#endif
