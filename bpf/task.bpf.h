/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What programs ask about a task. But for task_is_runnable() these readers are for
 * rare events: they are safe with any pointer and cost tens of nanoseconds.
 *
 * Thread:  any CPU, any context.
 * Memory:  none.
 * Promise: a field that this kernel names otherwise is found, or 0 is returned.
 */
#ifndef RETRIEVER_BPF_TASK_BPF_H
#define RETRIEVER_BPF_TASK_BPF_H

#include "bpf/common.bpf.h"
#include "bpf/core_types.h"

#include <bpf/bpf_core_read.h>

#define TASK_MAX_PIDNS 32 /* levels of pid namespaces, in the kernel */

/* Before Linux 5.5. */
struct task_struct___real_start {
    __u64 real_start_time;
} __attribute__((preserve_access_index));

/* Before Linux 5.14. */
struct task_struct___state {
    volatile long state;
} __attribute__((preserve_access_index));

/** For tasks that tracepoints and iterators give: it reads directly. */
static __always_inline int task_is_runnable(struct task_struct *t)
{
    struct task_struct___state *old = (void *)t;

    if (bpf_core_field_exists(t->__state))
        return t->__state == 0;
    return old->state == 0;
}

/** With its tgid, the identity of a process. */
static __always_inline __u64 task_start_ns(struct task_struct *leader)
{
    struct task_struct___real_start *old = (void *)leader;

    if (bpf_core_field_exists(leader->start_boottime))
        return BPF_CORE_READ(leader, start_boottime);
    return BPF_CORE_READ(old, real_start_time);
}

/** The id that the pid namespace with this inode gives a process; 0 = none. */
static __always_inline __u32 task_ns_tgid(struct task_struct *leader,
                                          __u32 pidns_inode)
{
    struct pid *p = BPF_CORE_READ(leader, thread_pid);
    __u32 level = BPF_CORE_READ(p, level);
    void *at = (void *)p + bpf_core_field_offset(struct pid, numbers);

    for (__u32 i = 0; i <= level && i < TASK_MAX_PIDNS; i++) {
        struct upid *u = at;

        if (BPF_CORE_READ(u, ns, ns.inum) == pidns_inode)
            return BPF_CORE_READ(u, nr);
        at += bpf_core_type_size(struct upid);
    }
    return 0;
}

/** Id of its cgroup in the hierarchy @subsys (cgroups_subsys()). */
static __always_inline __u64 task_cgroup(struct task_struct *t, __s32 subsys)
{
    struct css_set *set = BPF_CORE_READ(t, cgroups);
    struct cgroup_subsys_state *css;

    if (subsys < 0)
        return BPF_CORE_READ(set, dfl_cgrp, kn, id);
    bpf_core_read(&css, sizeof(css), &set->subsys[subsys & 15]);
    return BPF_CORE_READ(css, cgroup, kn, id);
}

#endif
