/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What the watched variables are in a new program, read where it begins, and in a
 * child, whose parent's they are. A process that lives for a millisecond can be asked
 * no more when its datagram is looked at; so this is known before it can send one.
 *
 * An environment has just been written when its program begins, so it is in memory.
 * Its strings are looked at one behind the other, those of other variables on the
 * stack alone. That takes two looks: where something is, then, if there is anything to
 * say, what.
 */
#include "bpf/env_table.bpf.h"
#include "bpf/task.bpf.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define PIECE 128u      /* of a string at once */
#define MAX_PIECES 4096 /* of an environment: a quarter of a millisecond */

volatile const struct env_exec_config env_exec_config;

/* By ns_tgid % ENV_TABLE_PLACES: the tgid. Where the agent is in another pid
 * namespace than the initial one. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, ENV_TABLE_PLACES);
    __type(key, __u32);
    __type(value, __u64);
} env_pids SEC(".maps");

struct walk {
    __u64 piece[PIECE / 8];
    __u64 values[ENV_MAX_NAMES]; /* where each begins; 0 = not found */
    __u64 at, end;
    __u32 is_within; /* a string that began in an earlier piece */
    __u32 n_found;
    __u32 is_unsure;
};

/* The first one of a name counts, as for getenv(). */
static __always_inline void find(struct walk *w)
{
    for (__u32 i = 0; i < ENV_MAX_NAMES; i++) {
        volatile const struct env_exec_config *c = &env_exec_config;

        if (i < c->n_names && w->values[i] == 0 &&
            (w->piece[0] & c->masks[i][0]) == c->prefixes[i][0] &&
            (w->piece[1] & c->masks[i][1]) == c->prefixes[i][1] &&
            (w->piece[2] & c->masks[i][2]) == c->prefixes[i][2] &&
            (w->piece[3] & c->masks[i][3]) == c->prefixes[i][3]) {
            w->values[i] = w->at + c->n_prefix[i];
            w->n_found++;
        }
    }
}

static long walk_on(__u32 i, struct walk *w)
{
    long n;

    if (w->at >= w->end)
        return 1;
    n = bpf_probe_read_user_str(w->piece, PIECE, (const void *)w->at);
    if (n <= 0) {
        w->is_unsure = 1;
        return 1;
    }
    if (!w->is_within)
        find(w);
    w->is_within = n == PIECE;
    w->at += w->is_within ? PIECE - 1 : n;
    return 0;
}

/* Of each value found, what there is room for. */
static __always_inline void copy_values(struct env_place *p, struct walk *w)
{
    __u32 at = 0;

    for (__u32 i = 0; i < ENV_MAX_NAMES; i++) {
        long n = 0;

        p->values[i].at = at;
        if (w->values[i] != 0 && at <= ENV_TABLE_LAST_AT)
            n = bpf_probe_read_user_str(&p->text[at & ENV_TABLE_LAST_AT],
                                        ENV_TABLE_VALUE,
                                        (const void *)w->values[i]);
        if (w->values[i] != 0 && (n <= 0 || n >= ENV_TABLE_VALUE))
            w->is_unsure = 1;
        n = n > 0 ? n : 0;
        p->values[i].n = n;
        at += n;
    }
    p->n_text = at;
}

static __always_inline void note_number(__u32 tgid, __u32 ns_tgid)
{
    __u32 i = ns_tgid % ENV_TABLE_PLACES;
    __u64 value = tgid;

    if (ns_tgid != 0 && ns_tgid != tgid)
        (void)bpf_map_update_elem(&env_pids, &i, &value, BPF_ANY);
}

/* Does whoever has it need it more than one that has no watched variable? */
static __always_inline int is_wanted(const struct env_place *p, __u32 tgid)
{
    if (p->tgid == tgid || (p->flags & ENV_PLACE_DEAD) != 0)
        return 0;
    return p->tgid != 0 && p->n_text > 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(env_exec, struct task_struct *t)
{
    __u32 tgid = t->tgid, ns_tgid;
    struct walk w = {};
    struct env_place *p = place_of(tgid);
    __u64 sequence;

    if (!p)
        return 0;
    w.at = BPF_CORE_READ(t, mm, env_start);
    w.end = BPF_CORE_READ(t, mm, env_end);
    (void)bpf_loop(MAX_PIECES, walk_on, &w, 0);
    if (w.at < w.end)
        w.is_unsure = 1;
    if (w.n_found == 0 && !w.is_unsure && is_wanted(p, tgid))
        return 0;
    if (!place_lock(p, &sequence)) {
        place_doubt(p, tgid);
        return 0;
    }
    ns_tgid = task_ns_tgid(t->group_leader, env_exec_config.ns_inum);
    p->tgid = tgid;
    p->ns_tgid = ns_tgid;
    p->ts_ns = bpf_ktime_get_ns();
    copy_values(p, &w);
    p->flags = w.is_unsure ? ENV_PLACE_UNSURE : 0;
    place_unlock(p, sequence);
    note_number(tgid, ns_tgid);
    return 0;
}

/* The number was another's. */
static __always_inline void forget(struct env_place *p, __u32 tgid)
{
    __u64 sequence;

    if (p->tgid != tgid || !place_lock(p, &sequence))
        return;
    p->tgid = 0;
    p->n_text = 0;
    place_unlock(p, sequence);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(env_fork, struct task_struct *parent, struct task_struct *child)
{
    __u32 ptgid = parent->tgid, tgid = child->tgid, ns_tgid;
    struct env_place *from, *p;
    __u64 before, sequence;
    __u32 n;

    if (child->pid != child->tgid)
        return 0; /* a thread */
    from = place_of(ptgid);
    p = place_of(tgid);
    if (!from || !p || from == p)
        return 0;
    before = from->sequence;
    if (from->tgid != ptgid || from->n_text == 0) {
        forget(p, tgid);
        return 0;
    }
    ns_tgid = task_ns_tgid(child, env_exec_config.ns_inum);
    if (!place_lock(p, &sequence)) {
        place_doubt(p, tgid);
        return 0;
    }
    n = from->n_text;
    if (n > ENV_TABLE_TEXT)
        n = 0;
    p->n_text = n;
    (void)bpf_probe_read_kernel(p->values, sizeof(p->values), from->values);
    (void)bpf_probe_read_kernel(p->text, n, from->text);
    p->tgid = tgid;
    p->ns_tgid = ns_tgid;
    p->ts_ns = BPF_CORE_READ(child, start_time);
    p->flags = from->flags & ENV_PLACE_UNSURE;
    if ((before & 1) != 0 || from->sequence != before)
        p->flags = ENV_PLACE_UNSURE;
    place_unlock(p, sequence);
    note_number(tgid, ns_tgid);
    return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(env_exit, struct task_struct *t)
{
    struct env_place *p;

    if (t->signal->live.counter != 0)
        return 0; /* other threads go on */
    p = place_of(t->tgid);
    if (p && p->tgid == (__u32)t->tgid)
        __sync_fetch_and_or(&p->flags, ENV_PLACE_DEAD);
    return 0;
}

char license_text[] SEC("license") = "GPL";
