/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's part of activity (activity.bpf.c): loading, attaching, its maps and
 * the walk over all tasks.
 *
 * Thread:  the helper thread.
 * Memory:  1.2 MiB of maps in the kernel, and 40 bytes per task of a family.
 * Promise: nothing is attached before the first family begins.
 */
#ifndef RETRIEVER_BPF_ACTIVITY_KERNEL_H
#define RETRIEVER_BPF_ACTIVITY_KERNEL_H

#include "bpf/feature.h"
#include "bpf/tracepoint.h"

struct activity_kernel {
    struct bpf_object *object;
    struct tracepoint_links links;
    struct bpf_link *walk;
    int families_fd, walk_fd, watched_fd;
};

/** Returns 0, LOADER_REFUSED (@cause filled) or -errno. */
int activity_kernel_open(struct activity_kernel *k,
                         const struct feature_env *env,
                         uint64_t threshold_ticks, struct loader_cause *cause);

/** Take the number @family into use, with no tasks, active now, and attach what is
 *  not yet attached. Returns 0, LOADER_REFUSED or -errno. */
int activity_kernel_begin(struct activity_kernel *k, uint32_t family,
                          struct loader_cause *cause);

/** The family of a process; 0 = none. */
uint32_t activity_kernel_family(const struct activity_kernel *k, uint32_t tgid);

/** This process and, after the next walks, its descendants belong to @family. 0 or
 *  -errno. */
int activity_kernel_watch(const struct activity_kernel *k, uint32_t tgid,
                          uint32_t family);

/** No more; for a process that turned out to be gone. */
void activity_kernel_unwatch(const struct activity_kernel *k, uint32_t tgid);

/** Look at each task once: those of watched processes join, time on a CPU is
 *  booked, miscounts are repaired. @ns_tgid: find this process (0 = none). Returns
 *  0 or -errno. */
int activity_kernel_walk(const struct activity_kernel *k, uint32_t ns_tgid,
                         struct activity_walk *out);

/** Until all descendants have joined, at most 64 walks. */
int activity_kernel_gather(const struct activity_kernel *k);

int activity_kernel_read(const struct activity_kernel *k, uint32_t family,
                         struct activity_family *out);

/** Stop all programs. */
void activity_kernel_detach(struct activity_kernel *k);

void activity_kernel_close(struct activity_kernel *k);

#endif
