/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waits for a CPU without kernel programs: the scheduler's own sums, read from
 * /proc, of the processes in the agent's container.
 *
 *   runq.wait            count, ms
 *   runq.latency.avg     gauge, us: wait per turn on a CPU
 *   runq.throttled.time, runq.throttled.periods, runq.pressure.time
 *
 * Thread:  the helper thread.
 * Memory:  24 bytes for each of at most SCHEDSTAT_MAX_TASKS tasks.
 * Promise: needs no privilege. A task that ends between two readings takes what it
 *          waited since the first with it.
 */
#ifndef RETRIEVER_BPF_SCHEDSTAT_H
#define RETRIEVER_BPF_SCHEDSTAT_H

#include "bpf/cgroup.h"
#include "bpf/lines.h"

#define SCHEDSTAT_MAX_TASKS 8192u

struct schedstat; /* opaque */

/** @cgroups is borrowed until close. Returns 0, -ENOENT (the kernel keeps no such
 *  sums) or -errno. */
int schedstat_open(struct schedstat **out, struct cgroups *cgroups);
void schedstat_close(struct schedstat *s);

/** Write what was added since the last call, or the opening. */
void schedstat_collect(struct schedstat *s, struct lines *out);

#endif
