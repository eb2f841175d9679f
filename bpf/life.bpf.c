/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Births and deaths of processes, and what they become: a record for each exec,
 * and for fork and the end of those that somebody watches.
 *
 * Watching is inherited here, in the kernel: a child that lives for a millisecond
 * is watched before it runs. And the end of a process is told by whoever of its
 * threads removes it from the map, which is one, although several may find
 * themselves the last.
 */
#include "bpf/events.bpf.h"
#include "bpf/task.bpf.h"

#include <bpf/bpf_tracing.h>

#define SIGNAL_GROUP_EXIT 4 /* signal->flags: group_exit_code counts */

volatile const struct life_config life_config;

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1 << 14);
    __type(key, __u32);
    __type(value, struct life_watch);
} life_watched SEC(".maps");

static __always_inline void fill_process(struct event_process *e,
                                         struct task_struct *t,
                                         const struct life_watch *w)
{
    struct task_struct *leader = BPF_CORE_READ(t, group_leader);

    e->hdr.tgid = BPF_CORE_READ(t, tgid);
    e->hdr.tid = BPF_CORE_READ(t, pid);
    e->hdr.cgid = task_cgroup(t, life_config.subsys);
    e->ppid = BPF_CORE_READ(t, real_parent, tgid);
    e->family = w ? w->family : 0;
    e->ns_tgid = task_ns_tgid(leader, life_config.pidns_inode);
    e->pad = 0;
    e->start_ns = task_start_ns(leader);
    BPF_CORE_READ_INTO(&e->comm, t, comm);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(life_fork, struct task_struct *parent, struct task_struct *child)
{
    __u32 ptgid = parent->tgid, tgid = child->tgid;
    struct life_watch *w, mine;
    struct event_process *e;

    if (child->pid != child->tgid)
        return 0; /* a thread */
    w = bpf_map_lookup_elem(&life_watched, &ptgid);
    if (!w && !life_config.all)
        return 0;
    if (w) {
        mine.family = w->family;
        mine.flags = 0;
        bpf_map_update_elem(&life_watched, &tgid, &mine, BPF_ANY);
    }
    e = event_reserve(EVENT_FORK, sizeof(*e));
    if (!e)
        return 0;
    fill_process(e, child, w);
    event_submit(e, 0);
    return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(life_exec, struct task_struct *t)
{
    __u32 tgid = t->tgid;
    struct event_process *e;

    if (tgid == life_config.own_tgid)
        return 0;
    e = event_reserve(EVENT_EXEC, sizeof(*e));
    if (!e)
        return 0;
    fill_process(e, t, bpf_map_lookup_elem(&life_watched, &tgid));
    event_submit(e, 1); /* it may begin a family, and fork at once */
    return 0;
}

/* wait(2) looks at the same places. */
static __always_inline __u16 exit_code_of(struct task_struct *leader)
{
    struct signal_struct *s = BPF_CORE_READ(leader, signal);

    if (BPF_CORE_READ(s, flags) & SIGNAL_GROUP_EXIT)
        return BPF_CORE_READ(s, group_exit_code);
    return BPF_CORE_READ(leader, exit_code);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(life_exit, struct task_struct *t)
{
    struct task_struct *leader = t->group_leader;
    __u32 tgid = t->tgid;
    struct life_watch *w, was = {};
    struct event_exit *e;

    if (t->signal->live.counter != 0)
        return 0; /* other threads go on */
    w = bpf_map_lookup_elem(&life_watched, &tgid);
    if (w) {
        was = *w;
        if (bpf_map_delete_elem(&life_watched, &tgid) != 0)
            return 0; /* told by another thread */
    } else if (!life_config.all) {
        return 0;
    }
    e = event_reserve(EVENT_EXIT, sizeof(*e));
    if (!e)
        return 0;
    e->hdr.tgid = tgid;
    e->hdr.tid = t->pid;
    e->hdr.cgid = task_cgroup(t, life_config.subsys);
    e->ppid = BPF_CORE_READ(leader, real_parent, tgid);
    e->family = was.family;
    e->exit_code = exit_code_of(leader);
    e->flags = was.flags;
    e->ns_tgid = task_ns_tgid(leader, life_config.pidns_inode);
    e->start_ns = task_start_ns(leader);
    e->run_ns = bpf_ktime_get_boot_ns() - e->start_ns;
    BPF_CORE_READ_INTO(&e->comm, leader, comm);
    event_submit(e, w != NULL);
    return 0;
}

static __always_inline void note_victim(__u32 tgid)
{
    struct life_watch *w = bpf_map_lookup_elem(&life_watched, &tgid);

    if (w)
        w->flags |= EXIT_OOM_KILLED;
}

SEC("tp_btf/mark_victim")
int BPF_PROG(life_victim, struct task_struct *t)
{
    note_victim(t->tgid);
    return 0;
}

/* Before 6.8 the tracepoint gives the id alone, that of a leader. */
SEC("tp_btf/mark_victim")
int BPF_PROG(life_victim_pid, int pid)
{
    note_victim(pid);
    return 0;
}

char license_text[] SEC("license") = "GPL";
