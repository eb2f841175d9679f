/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * How long tasks wait for a CPU, and who has it meanwhile. Everything is added up
 * here, for every switch: nothing is sampled, and the agent reads a few maps every
 * ten seconds. Records are made for births and deaths of cgroups only, and, in
 * stream mode, for single waits.
 *
 * A task that is woken, and one that is preempted, gets a stamp, which its next turn
 * on a CPU takes away. Preempted ones are the true victims of a neighbour: they are
 * never woken. Whether a task could go on is in its state, since with lazy
 * preemption `preempt` is not set. A stamp that is there stays: a task may be woken
 * while it waits already.
 *
 * The hooks run with interrupts off under the lock of a run queue, so one CPU's part
 * of a map has one writer, and pointers of the kernel can be followed directly.
 */
#include "bpf/sched.h"

#include "bpf/events.bpf.h"
#include "bpf/task.bpf.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

volatile const struct sched_config sched_config;

/* A cgroup as one switch needs it. */
struct side {
    __u64 cgid;
    __u64 slot;
    int is_container;
    int is_silent;
};

struct stamp {
    __u64 since_ns; /* it could run; 0 = it has, since */
    __u64 n_left;   /* see there */
    /* Its queue then, and how long a quota had held that back before. */
    __u64 queue;
    __u64 held_ns;
    /* Its cgroup, found when this much had been told. */
    struct side side;
    __u64 n_told;
};

struct {
    __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct stamp);
} task_since SEC(".maps");

/* Where storage must not be made under the lock of a run queue: before Linux 6.4. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 65536);
    __type(key, __u32);
    __type(value, struct stamp);
} task_since_lru SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 8192);
    __type(key, __u64);
    __type(value, struct sched_info);
} cg_info SEC(".maps");

/* How often the agent has changed cg_info. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} cg_n_told SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
    __uint(max_entries, 4096);
    __type(key, __u64);
    __type(value, struct sched_hist);
} cg_hist SEC(".maps");

/* What a new entry of cg_hist begins with. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct sched_hist);
} cg_hist_zero SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 4096);
    __type(key, struct sched_pair);
    __type(value, struct sched_wait);
} wait_pairs SEC(".maps");

/* Waits of the agent's own thread, and for whom. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct sched_own);
} own_waits SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, SCHED_MAX_CULPRITS);
    __type(key, struct sched_culprit);
    __type(value, struct sched_wait);
} own_culprits SEC(".maps");

/* Stream mode: time of the last record. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
    __uint(max_entries, 16384);
    __type(key, __u64);
    __type(value, __u64);
} cg_last SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct sched_stats);
} sched_stats SEC(".maps");

/* ---- Stamps -------------------------------------------------------------- */

static __always_inline struct stamp *stamp_of(struct task_struct *t, int make)
{
    __u32 tid = t->pid;
    struct stamp zero = {};
    struct stamp *v;

    if (sched_config.has_storage)
        return bpf_task_storage_get(&task_since, t, 0,
                                    make ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);
    v = bpf_map_lookup_elem(&task_since_lru, &tid);
    if (v || !make)
        return v;
    bpf_map_update_elem(&task_since_lru, &tid, &zero, BPF_NOEXIST);
    return bpf_map_lookup_elem(&task_since_lru, &tid);
}

/* NULL: this kernel has one queue per CPU, and no quotas. */
static __always_inline struct cfs_rq *queue_of(struct task_struct *t)
{
    if (!bpf_core_field_exists(t->se.cfs_rq))
        return 0;
    return t->se.cfs_rq;
}

static __always_inline __u64 held_ns(struct cfs_rq *queue)
{
    if (!queue || !bpf_core_field_exists(queue->throttled_clock_self_time))
        return 0;
    return queue->throttled_clock_self_time;
}

/* How often it has left a CPU. */
static __always_inline __u64 n_left(struct task_struct *t)
{
    return t->nvcsw + t->nivcsw;
}

/* The stamp is of now: who has left a CPU since, has been on one. So nobody need take it
 * away from a task that falls asleep, nor is one that was woken while it ran mistaken for
 * one that waits. */
static __always_inline int is_waiting(const struct stamp *s,
                                      struct task_struct *t)
{
    return s->since_ns != 0 && s->n_left == n_left(t);
}

static __always_inline void put_stamp(struct stamp *s, struct task_struct *t,
                                      __u64 now)
{
    struct cfs_rq *queue = queue_of(t);

    s->since_ns = now;
    s->n_left = n_left(t);
    s->queue = (__u64)queue;
    s->held_ns = held_ns(queue);
}

/* A quota held the task back for the better part of its wait of @ns: whoever had the
 * CPU meanwhile is not to blame. */
static __always_inline int was_held(const struct stamp *s,
                                    struct task_struct *t, __u64 ns)
{
    struct cfs_rq *queue = queue_of(t);

    return s->queue == (__u64)queue && held_ns(queue) - s->held_ns > ns / 2;
}

/* @t waits from now on. The time is not the queue's clock, which would be cheaper to
 * read: at a switch that a wake-up asked for that still has the time of the wake-up. */
static __always_inline void begin_wait(struct task_struct *t, __u64 now)
{
    struct stamp *s = stamp_of(t, 1);

    if (s)
        put_stamp(s, t, now);
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(sched_wakeup, struct task_struct *t)
{
    struct stamp *s = stamp_of(t, 1);

    if (s && !is_waiting(s, t))
        put_stamp(s, t, bpf_ktime_get_ns());
    return 0;
}

/* A stamp that is there is of a dead task that had this number. */
SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(sched_wakeup_new, struct task_struct *t)
{
    begin_wait(t, bpf_ktime_get_ns());
    return 0;
}

/* ---- Cgroups ------------------------------------------------------------- */

/* Its id in the hierarchy that cgroups_subsys() names. */
static __always_inline __u64 cgid_of(struct task_struct *t)
{
    __s32 subsys = sched_config.subsys;

    if (subsys < 0)
        return t->cgroups->dfl_cgrp->kn->id;
    return t->cgroups->subsys[subsys & 15]->cgroup->kn->id;
}

/* Global functions are verified by themselves. In line, the branches of these two times
 * those around them took the verifier three times as long. */
__noinline int announce(__u64 cgid)
{
    struct event_cgroup *e;

    if (!sched_config.has_ring)
        return 0;
    e = event_reserve(EVENT_CGROUP, sizeof(*e));
    if (!e)
        return 0;
    e->hdr.cgid = cgid;
    e->op = CGROUP_SEEN;
    __builtin_memset(e->pad, 0, sizeof(e->pad));
    e->hierarchy = sched_config.hierarchy;
    e->id = cgid;
    e->path[0] = '\0';
    e->path[sizeof(e->path) - 1] = '\0';
    event_submit(e, 1);
    return 0;
}

static __always_inline void look(struct side *s, __u64 cgid,
                                 struct sched_stats *stats)
{
    struct sched_info *info;

    s->cgid = cgid;
    s->slot = 0;
    s->is_container = 0;
    s->is_silent = 0;
    info = bpf_map_lookup_elem(&cg_info, &s->cgid);
    if (!info) {
        struct sched_info none = {};

        if (bpf_map_update_elem(&cg_info, &s->cgid, &none, BPF_NOEXIST) == 0)
            (void)announce(s->cgid);
        stats->n_unknown++;
        return;
    }
    if (info->slot == 0)
        stats->n_unknown++;
    s->slot = info->slot;
    s->is_container = info->is_container;
    s->is_silent = info->is_silent;
}

/* The same for a task with a stamp, which remembers what it found. */
static __always_inline void look_once(struct side *out, __u64 cgid,
                                      struct stamp *s,
                                      struct sched_stats *stats)
{
    __u32 zero = 0;
    __u64 *told = bpf_map_lookup_elem(&cg_n_told, &zero);
    __u64 n_told = told ? *told : 0;

    if (s && s->side.cgid == cgid && s->n_told == n_told) {
        *out = s->side;
        return;
    }
    look(out, cgid, stats);
    if (s && out->slot != 0) {
        s->side = *out;
        s->n_told = n_told;
    }
}

/* What @other is to @self. */
static __always_inline __u32 relation(const struct side *self,
                                      const struct side *other)
{
    if (self->cgid == other->cgid ||
        (self->slot != 0 && self->slot == other->slot))
        return SCHED_BY_SAME;
    return other->is_container ? SCHED_BY_OTHER : SCHED_BY_SYSTEM;
}

static __always_inline struct sched_hist *hist_of(__u64 cgid,
                                                  struct sched_stats *stats)
{
    struct sched_hist *h = bpf_map_lookup_elem(&cg_hist, &cgid);
    struct sched_hist *fresh;
    __u32 zero = 0;

    if (h)
        return h;
    fresh = bpf_map_lookup_elem(&cg_hist_zero, &zero);
    if (fresh)
        bpf_map_update_elem(&cg_hist, &cgid, fresh, BPF_NOEXIST);
    h = bpf_map_lookup_elem(&cg_hist, &cgid);
    if (!h)
        stats->n_full++;
    return h;
}

/* ---- Adding up ------------------------------------------------------------ */

#define ADD(place, by)                                                         \
    do {                                                                       \
        if (sched_config.is_shared)                                            \
            __sync_fetch_and_add(&(place), (by));                              \
        else                                                                   \
            (place) += (by);                                                   \
    } while (0)

static __always_inline void add_out(const struct side *prev,
                                    const struct side *next,
                                    struct sched_stats *stats)
{
    struct sched_hist *h;

    if (prev->is_silent)
        return;
    h = hist_of(prev->cgid, stats);
    if (h)
        ADD(h->out[relation(prev, next) & 3], 1);
}

static __always_inline void add_voluntary(__u64 cgid, struct sched_stats *stats)
{
    struct sched_hist *h;
    struct side s;

    look(&s, cgid, stats);
    if (s.is_silent)
        return;
    h = hist_of(s.cgid, stats);
    if (h)
        ADD(h->n_voluntary, 1);
}

static __always_inline void add_pair(__u64 victim, __u64 culprit, __u64 ns)
{
    struct sched_pair key = {victim, culprit};
    struct sched_wait *w = bpf_map_lookup_elem(&wait_pairs, &key);

    if (w) {
        __sync_fetch_and_add(&w->n, 1);
        __sync_fetch_and_add(&w->ns, ns);
    } else {
        struct sched_wait first = {1, ns};

        bpf_map_update_elem(&wait_pairs, &key, &first, BPF_ANY);
    }
}

static __always_inline void add_wait(const struct side *next, __u32 cause,
                                     __u64 ns, struct sched_stats *stats)
{
    struct sched_hist *h = hist_of(next->cgid, stats);
    __u32 class = sched_class(ns);

    if (!h)
        return;
    if (class < SCHED_N_CLASSES)
        ADD(h->n_class[class], 1);
    ADD(h->n_waits, 1);
    ADD(h->sum_ns, ns);
    ADD(h->wait_ns[cause & 3], ns);
}

/* Of its present turn. */
static __always_inline __u64 had_cpu_ns(struct task_struct *t)
{
    return t->se.sum_exec_runtime - t->se.prev_sum_exec_runtime;
}

static __always_inline void blame(struct task_struct *prev, __u64 cgid,
                                  int held, __u64 ns)
{
    struct sched_culprit who = {};
    struct sched_wait first = {1, ns};
    struct sched_wait *w;

    if (!held) {
        who.cgid = cgid;
        bpf_probe_read_kernel(who.comm, sizeof(who.comm), prev->comm);
        if (had_cpu_ns(prev) < ns)
            first.ns = had_cpu_ns(prev);
    }
    w = bpf_map_lookup_elem(&own_culprits, &who);
    if (w) {
        w->n++;
        w->ns += first.ns;
    } else {
        bpf_map_update_elem(&own_culprits, &who, &first, BPF_ANY);
    }
}

/* The agent's own thread has waited: whoever had the CPU is why datagrams were lost
 * meanwhile. A thread runs on one CPU at a time, so both maps have one writer. */
static __always_inline void add_own(struct task_struct *prev, __u64 prev_cgid,
                                    struct task_struct *next, int held,
                                    __u64 ns)
{
    __u64 comm[2] = {};
    struct sched_own *own;
    __u32 zero = 0;

    bpf_probe_read_kernel(comm, sizeof(comm), next->comm);
    own = bpf_map_lookup_elem(&own_waits, &zero);
    if (!own || comm[0] != sched_config.own_comm[0] ||
        comm[1] != sched_config.own_comm[1])
        return;
    own->ns += ns;
    if (ns > own->longest_ns)
        own->longest_ns = ns;
    if (held || prev->pid != 0)
        blame(prev, prev_cgid, held, ns);
}

/* Stream mode: a record, unless this cgroup had one on this CPU just now. */
static __always_inline void stream(const struct side *prev,
                                   const struct side *next, __u32 tgid,
                                   __u32 tid, __u32 flags, __u64 ns, __u64 now)
{
    __u64 *last = bpf_map_lookup_elem(&cg_last, &next->cgid);
    struct event_runq *e;

    if (tgid == sched_config.own_tgid)
        return;
    if (last && now - *last < sched_config.min_interval_ns)
        return;
    if (last)
        *last = now;
    else
        bpf_map_update_elem(&cg_last, &next->cgid, &now, BPF_ANY);
    e = event_reserve(EVENT_RUNQ, sizeof(*e));
    if (!e)
        return;
    e->hdr.tgid = tgid;
    e->hdr.tid = tid;
    e->hdr.cgid = next->cgid;
    e->prev_cgid = prev->cgid;
    e->latency_ns = ns;
    e->flags = flags;
    e->n = 1;
    event_submit(e, 0);
}

/* ---- Switches ------------------------------------------------------------- */

/* @t comes, with stamp @s: how long it has waited; -1 = not known. */
static __always_inline __s64 arrive(struct task_struct *t, struct stamp *s,
                                    __u64 now, int *held,
                                    struct sched_stats *stats)
{
    __s64 ns;

    *held = 0;
    if (!s || !is_waiting(s, t)) {
        stats->n_missed++;
        return -1;
    }
    ns = now - s->since_ns;
    s->since_ns = 0;
    if (ns < 0) {
        stats->n_negative++;
        return -1;
    }
    *held = was_held(s, t, ns);
    return ns;
}

/* The ways from both tasks to their cgroups come before any branch. For each pointer
 * that is loaded, and again in each state in which it meets that load, the verifier
 * asks whether the pointer can be trusted, by a search through the names of all types
 * of the kernel (since Linux 6.3): a millisecond. Where they were needed first, both
 * ways were met 44 times, which took nine tenths of the time for loading. */
static __always_inline int on_switch(int preempt, struct task_struct *prev,
                                     struct task_struct *next)
{
    __u64 prev_cgid = cgid_of(prev), next_cgid = cgid_of(next);
    int from_idle = prev->pid == 0, to_idle = next->pid == 0, held;
    int preempted = !from_idle && (preempt || task_is_runnable(prev));
    __u32 zero = 0, cause = SCHED_BY_IDLE;
    __u64 now = bpf_ktime_get_ns();
    struct sched_stats *stats = bpf_map_lookup_elem(&sched_stats, &zero);
    struct side p = {}, n;
    struct stamp *s;
    __s64 ns;

    if (!stats)
        return 0;
    stats->n_switches++;
    if (preempted)
        begin_wait(prev, now);
    else if (!from_idle && sched_config.want_voluntary)
        add_voluntary(prev_cgid, stats);
    if (to_idle)
        return 0;
    s = stamp_of(next, 0);
    ns = arrive(next, s, now, &held, stats);
    if (ns > 0 && (__u32)next->tgid == sched_config.own_tgid)
        add_own(prev, prev_cgid, next, held, ns);
    if (ns < 0 && !preempted)
        return 0;

    look_once(&n, next_cgid, s, stats);
    if (n.is_silent)
        ns = -1;
    if (ns < 0 && !preempted)
        return 0;
    if (!from_idle) {
        if (prev_cgid == next_cgid)
            p = n;
        else
            look(&p, prev_cgid, stats);
        if (!held)
            cause = relation(&n, &p);
    }
    if (sched_config.is_stream) {
        if (ns >= 0)
            stream(&p, &n, next->tgid, next->pid,
                   cause | (preempted ? SCHED_PREEMPTED : 0), ns, now);
        return 0;
    }
    if (preempted)
        add_out(&p, &n, stats);
    if (ns < 0)
        return 0;
    add_wait(&n, cause, ns, stats);
    if (cause >= SCHED_BY_OTHER && (__u64)ns > sched_config.min_pair_ns)
        add_pair(n.cgid, p.cgid, ns);
    return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, int preempt, struct task_struct *prev,
             struct task_struct *next)
{
    return on_switch(preempt & 1, prev, next);
}

/* Some kernels about 5.18 have prev's state before prev. */
SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch_state_first, int preempt, unsigned int state,
             struct task_struct *prev, struct task_struct *next)
{
    return on_switch(preempt & 1, prev, next);
}

/* ---- Births and deaths of cgroups ------------------------------------------ */

static __always_inline int note(struct cgroup *cgroup, const char *path,
                                __u8 op)
{
    struct event_cgroup *e;

    if (!sched_config.has_ring ||
        cgroup->root->hierarchy_id != sched_config.hierarchy)
        return 0;
    e = event_reserve(EVENT_CGROUP, sizeof(*e));
    if (!e)
        return 0;
    e->hdr.cgid = cgroup->kn->id;
    e->op = op;
    __builtin_memset(e->pad, 0, sizeof(e->pad));
    e->hierarchy = sched_config.hierarchy;
    e->id = cgroup->kn->id;
    if (bpf_probe_read_kernel_str(e->path, sizeof(e->path), path) < 0)
        e->path[0] = '\0';
    /* Behind the text lies what was in the ring before. */
    e->path[sizeof(e->path) - 1] = '\0';
    event_submit(e, 1);
    return 0;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(cgroup_mkdir, struct cgroup *cgroup, const char *path)
{
    return note(cgroup, path, CGROUP_MADE);
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(cgroup_rmdir, struct cgroup *cgroup, const char *path)
{
    return note(cgroup, path, CGROUP_REMOVED);
}

char license_text[] SEC("license") = "GPL";
