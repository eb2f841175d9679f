/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The programs of sched.bpf.c in the kernel: load, attach, tell them names, read
 * what they have added up.
 *
 * Thread:  the helper thread.
 * Memory:  in the kernel at most 16 MiB of sums, 0.6 MiB of names and 0.5 MiB of
 *          pairs; here a copy of what was read last, 848 bytes per cgroup.
 * Promise: runq_kernel_read() gives each increase once. A cgroup that is gone is
 *          read to its end, then forgotten on both sides.
 */
#ifndef RETRIEVER_BPF_RUNQ_KERNEL_H
#define RETRIEVER_BPF_RUNQ_KERNEL_H

#include "bpf/cgroup.h"
#include "bpf/feature.h"
#include "bpf/runq.h"
#include "bpf/sched.h"

struct runq_kernel; /* opaque */

/** Ways to run on older or very large machines; tests ask for them. */
struct runq_kernel_force {
    bool no_storage; /* as before Linux 5.13 */
    bool shared;     /* as with more than 300 CPUs */
};

/** Load; nothing runs yet. @force may be NULL. Returns 0, LOADER_REFUSED (@cause
 *  filled) or -errno. */
int runq_kernel_open(struct runq_kernel **out, const struct runq_opts *opts,
                     const struct feature_env *env,
                     const struct runq_kernel_force *force,
                     struct loader_cause *cause);
int runq_kernel_start(struct runq_kernel *k, struct loader_cause *cause);

/** Programs end; what they have added up stays to be read. */
void runq_kernel_stop(struct runq_kernel *k);
void runq_kernel_close(struct runq_kernel *k);

/** What programs are to know of a cgroup. */
void runq_kernel_tell(struct runq_kernel *k, const struct cgroup_info *info,
                      bool is_silent);

struct runq_kernel_sink {
    void *arg;
    /* Increases since the last read. Of a cgroup's, first its pairs. */
    void (*hist)(void *arg, uint64_t cgid, const struct sched_hist *delta);
    void (*pair)(void *arg, const struct sched_pair *pair,
                 const struct sched_wait *delta);
    /* No values will come any more. */
    bool (*is_gone)(void *arg, uint64_t cgid, bool idle);
};

void runq_kernel_read(struct runq_kernel *k,
                      const struct runq_kernel_sink *sink);

/** Bring @w up to what own_thread has waited so far. */
void runq_kernel_own(struct runq_kernel *k, struct own_waits *w);

/** Since the last call. */
void runq_kernel_stats(struct runq_kernel *k, struct sched_stats *delta);

#endif
