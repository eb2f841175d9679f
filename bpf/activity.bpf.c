/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Whether a family of processes works or waits. A family is active as long as one
 * of its tasks can run; it was idle if none could for a threshold. That is decided
 * here, at the moment when it wakes, from the instant at which it fell asleep: no
 * timer, no event per switch, no time that depends on who reads when.
 *
 * Membership is kept with the task: inherited at fork before the child runs, gone
 * with the task. A task that was never in a family has no storage of ours (and
 * mostly none at all), which is one load and one branch.
 *
 * The kernel orders a task's switch to sleep before its next wake-up, so only the
 * walk over all tasks meets the hooks at the same task; `counted` is exchanged, so
 * whoever changes it, once, counts.
 */
#include "bpf/activity_bucket.h"
#include "bpf/common.bpf.h"
#include "bpf/core_types.h"
#include "bpf/task.bpf.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define PF_EXITING 4
#define TRIES 16

volatile const struct activity_config activity_config;

struct member {
    __u32 family; /* 0 = none */
    __u32 counted;
    __u32 exited; /* the thread */
    __u32 gone;   /* the process; in its leader's */
    __u64 on_ns;  /* on a CPU since; 0 = not */
    __u64 n_switches;
};

struct {
    __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct member);
} members SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, ACTIVITY_MAX_FAMILIES);
    __type(key, __u32);
    __type(value, struct activity_family);
} families SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1 << 14);
    __type(key, __u32);
    __type(value, struct life_watch);
} life_watched SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct activity_walk);
} walk SEC(".maps");

static __always_inline __u64 ticks_of(__u64 ns)
{
    return (ns >> ACTIVITY_TICK_SHIFT) & ACTIVITY_TICKS_MASK;
}

static __always_inline struct member *member_of(struct task_struct *t)
{
    struct member *m = bpf_task_storage_get(&members, t, NULL, 0);

    return m && m->family ? m : NULL;
}

/* For the scheduler's hooks: fast for the many that are in no family. Each load of a
 * pointer costs the verifier a millisecond (sched.bpf.c), so the others do without. */
static __always_inline struct member *member_with(struct task_struct *t,
                                                  const void *storage)
{
    return storage ? member_of(t) : NULL;
}

static __always_inline struct activity_family *family_of(struct member *m)
{
    return bpf_map_lookup_elem(&families, &m->family);
}

/* ---- The state machine --------------------------------------------------- */

static __always_inline void count(__u32 *buckets, __u64 ticks)
{
    __u32 i = activity_bucket(ticks);

    barrier_var(i); /* or the compiler drops the test that the verifier needs */
    if (i < ACTIVITY_BUCKETS)
        __sync_fetch_and_add(&buckets[i], 1);
}

static __always_inline void up(struct member *m, struct activity_family *f,
                               __u64 now_ns)
{
    __u64 now = ticks_of(now_ns), old, slept, idle, burst;

    if (__sync_lock_test_and_set(&m->counted, 1))
        return;
    old = __sync_fetch_and_add(&f->word, 1);
    if (old & ACTIVITY_COUNT_MASK)
        return;
    slept = old >> ACTIVITY_COUNT_BITS;
    idle = (now - slept) & ACTIVITY_TICKS_MASK;
    if (idle < activity_config.threshold_ticks || idle > 1ULL << 43)
        return;
    /* Nobody else comes here before the family has slept for a threshold. */
    burst = (slept - f->active_since_ticks) & ACTIVITY_TICKS_MASK;
    f->active_since_ticks = now;
    __sync_fetch_and_add(&f->active_ticks, burst);
    __sync_fetch_and_add(&f->idle_ticks, idle);
    count(f->bursts, burst);
    count(f->idles, idle);
    __sync_fetch_and_add(&f->n_idle, 1);
}

static __always_inline void down(struct member *m, struct activity_family *f,
                                 __u64 now_ns)
{
    if (!__sync_lock_test_and_set(&m->counted, 0))
        return;
    for (int i = 0; i < TRIES; i++) {
        __u64 old = *(volatile __u64 *)&f->word, next;

        next = (old & ACTIVITY_COUNT_MASK) == 1
                   ? ticks_of(now_ns) << ACTIVITY_COUNT_BITS
                   : old - 1;
        if (__sync_val_compare_and_swap(&f->word, old, next) == old)
            return;
    }
    /* Others change it all the time, so it is not we who are the last. */
    __sync_fetch_and_add(&f->word, -1ULL);
}

static __always_inline void leave_cpu(struct member *m,
                                      struct activity_family *f, __u64 now_ns,
                                      __u64 next_on_ns)
{
    __u64 on_ns = __sync_lock_test_and_set(&m->on_ns, next_on_ns);

    if (on_ns && now_ns > on_ns)
        __sync_fetch_and_add(&f->cpu_ns, now_ns - on_ns);
}

/* ---- Scheduler ----------------------------------------------------------- */

static __always_inline int on_switch(int preempt, struct task_struct *prev,
                                     struct task_struct *next)
{
    const void *prev_storage = prev->bpf_storage;
    const void *next_storage = next->bpf_storage;
    struct member *pm = member_with(prev, prev_storage);
    struct member *nm = member_with(next, next_storage);
    struct activity_family *f;
    __u64 now_ns;

    if (!pm && !nm)
        return 0;
    now_ns = bpf_ktime_get_ns();
    if (pm) {
        f = family_of(pm);
        if (f) {
            leave_cpu(pm, f, now_ns, 0);
            if (!preempt && !task_is_runnable(prev))
                down(pm, f, now_ns);
        }
    }
    if (nm) {
        f = family_of(nm);
        if (f) {
            nm->on_ns = now_ns;
            if (!nm->counted)
                up(nm, f, now_ns);
        }
    }
    return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(activity_switch, _Bool preempt, struct task_struct *prev,
             struct task_struct *next)
{
    return on_switch(preempt, prev, next);
}

/* Some kernels about 5.18 give the state before the tasks. */
SEC("tp_btf/sched_switch")
int BPF_PROG(activity_switch_state, _Bool preempt, unsigned int state,
             struct task_struct *prev, struct task_struct *next)
{
    return on_switch(preempt, prev, next);
}

static __always_inline int on_wakeup(struct task_struct *t)
{
    struct member *m = member_with(t, t->bpf_storage);
    struct activity_family *f;

    if (!m || m->counted)
        return 0;
    f = family_of(m);
    if (f)
        up(m, f, bpf_ktime_get_ns());
    return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(activity_wakeup, struct task_struct *t)
{
    return on_wakeup(t);
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(activity_wakeup_new, struct task_struct *t)
{
    return on_wakeup(t);
}

/* ---- Birth and death ----------------------------------------------------- */

static __always_inline void leave(struct member *m, struct activity_family *f)
{
    if (__sync_lock_test_and_set(&m->exited, 1) == 0)
        __sync_fetch_and_add(&f->n_threads, -1);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(activity_fork, struct task_struct *parent,
             struct task_struct *child)
{
    struct member *m = member_of(parent), *c;
    struct activity_family *f;

    if (!m)
        return 0;
    f = family_of(m);
    c = bpf_task_storage_get(&members, child, NULL,
                             BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (!f || !c)
        return 0; /* the next walk finds it */
    if (__sync_val_compare_and_swap(&c->family, 0, m->family))
        return 0; /* by the walk */
    __sync_fetch_and_add(&f->n_threads, 1);
    if (child->pid == child->tgid)
        __sync_fetch_and_add(&f->n_processes, 1);
    return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(activity_exec, struct task_struct *t)
{
    struct member *m = member_of(t);
    struct activity_family *f;

    if (!m)
        return 0;
    f = family_of(m);
    if (f)
        __sync_fetch_and_add(&f->n_execs, 1);
    return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(activity_exit, struct task_struct *t)
{
    struct member *m = member_of(t), *leader;
    struct activity_family *f;

    if (!m)
        return 0;
    f = family_of(m);
    if (!f)
        return 0;
    leave(m, f);
    if (t->signal->live.counter != 0)
        return 0;
    leader = bpf_task_storage_get(&members, t->group_leader, NULL, 0);
    if (!leader || __sync_lock_test_and_set(&leader->gone, 1))
        return 0;
    __sync_fetch_and_add(&f->n_processes, -1);
    __sync_fetch_and_add(&f->n_exits, 1);
    return 0;
}

/* ---- The walk over all tasks --------------------------------------------- */

struct bpf_iter_meta;

struct bpf_iter__task {
    struct bpf_iter_meta *meta;
    struct task_struct *task;
} __attribute__((preserve_access_index));

/* A task of a watched process that is in no family yet. A main thread that has ended
 * stands for its process as long as others go on. */
static __always_inline int join(struct task_struct *t, __u32 family,
                                __u64 now_ns)
{
    struct activity_family *f = bpf_map_lookup_elem(&families, &family);
    int is_leader = t->pid == t->tgid, has_ended = t->flags & PF_EXITING;
    struct member *m;

    if (!f || (has_ended && !(is_leader && t->signal->live.counter > 0)))
        return 0;
    m = bpf_task_storage_get(&members, t, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (!m || m->family)
        return 0;
    m->on_ns = t->on_cpu ? now_ns : 0;
    m->exited = has_ended != 0;
    /* The hook of its fork may be there at the same moment: one of the two counts. */
    if (__sync_val_compare_and_swap(&m->family, 0, family))
        return 0;
    if (!has_ended)
        __sync_fetch_and_add(&f->n_threads, 1);
    if (is_leader)
        __sync_fetch_and_add(&f->n_processes, 1);
    if (task_is_runnable(t))
        up(m, f, now_ns);
    /* If it fell asleep or ended meanwhile, the hooks did not know it yet. If it
     * only meant to, they count it again when it goes on. */
    if (!task_is_runnable(t))
        down(m, f, now_ns);
    if (t->flags & PF_EXITING)
        leave(m, f);
    return 1;
}

/* A task that counts as runnable, but cannot run, and has not for a whole interval
 * between two walks: a hook missed it. */
static __always_inline void check(struct task_struct *t, struct member *m,
                                  struct activity_family *f, __u64 now_ns)
{
    __u64 n = t->nvcsw + t->nivcsw + 1;

    if (!m->counted || task_is_runnable(t) || t->on_cpu) {
        m->n_switches = 0;
        return;
    }
    if (m->n_switches == n) {
        down(m, f, now_ns);
        __sync_fetch_and_add(&f->n_repaired, 1);
        n = 0;
    }
    m->n_switches = n;
}

static __always_inline void find(struct activity_walk *w, struct task_struct *t)
{
    if (!w->ns_tgid || t->pid != t->tgid ||
        task_ns_tgid(t, activity_config.pidns_inode) != w->ns_tgid)
        return;
    w->ppid = BPF_CORE_READ(t, real_parent, tgid);
    w->start_ns = task_start_ns(t);
    w->cgid = task_cgroup(t, activity_config.subsys);
    BPF_CORE_READ_INTO(&w->comm, t, comm);
    w->tgid = t->tgid;
}

/* Its own entry; a child of a family's process gets one. */
static __always_inline __u32 watched_family(struct task_struct *t)
{
    __u32 tgid = t->tgid, ppid;
    struct life_watch *w = bpf_map_lookup_elem(&life_watched, &tgid), mine;

    if (w && w->family)
        return w->family;
    if (t->pid != t->tgid || t->flags & PF_EXITING)
        return 0;
    ppid = BPF_CORE_READ(t, real_parent, tgid);
    w = bpf_map_lookup_elem(&life_watched, &ppid);
    if (!w || !w->family)
        return 0;
    mine.family = w->family;
    mine.flags = 0;
    bpf_map_update_elem(&life_watched, &tgid, &mine, BPF_ANY);
    return mine.family;
}

SEC("iter/task")
int activity_walk(struct bpf_iter__task *ctx)
{
    struct task_struct *t = ctx->task;
    __u32 zero = 0, family;
    struct activity_walk *w = bpf_map_lookup_elem(&walk, &zero);
    struct activity_family *f;
    struct member *m;
    __u64 now_ns;

    if (!t || !w)
        return 0;
    find(w, t);
    now_ns = bpf_ktime_get_ns();
    m = member_of(t);
    if (!m) {
        family = watched_family(t);
        if (family)
            w->n_new += join(t, family, now_ns);
        return 0;
    }
    f = family_of(m);
    if (!f)
        return 0;
    if (t->on_cpu && m->on_ns)
        leave_cpu(m, f, now_ns, now_ns);
    check(t, m, f, now_ns);
    return 0;
}

char license_text[] SEC("license") = "GPL";
