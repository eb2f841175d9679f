/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What sched.bpf.c and its reader tell each other, and the classes of waiting times,
 * which both must cut alike.
 *
 * A wait is the time from when a task could run until it did. Classes are 8 in each
 * power of two between 1.024 us and 17.2 s, one below and one above: what a class
 * stands for is at most 6.1 % from any value in it.
 *
 * Thread:  programs on any CPU write, the helper thread reads.
 * Memory:  BPF maps; layouts are equal on both sides (asserted below).
 * Promise: 8-byte alignment, no implicit padding.
 */
#ifndef RETRIEVER_BPF_SCHED_H
#define RETRIEVER_BPF_SCHED_H

#include <linux/types.h>

#define SCHED_N_CLASSES 194u
#define SCHED_MIN_LOG2 10u
#define SCHED_MAX_LOG2 34u

/* The logarithm without a branch: in the kernel each doubles what the verifier has to
 * follow, and a function of its own costs a call per wait. */
static inline __attribute__((always_inline)) __u32 sched_class(__u64 ns)
{
    __u32 v = (__u32)(ns >> SCHED_MIN_LOG2);
    __u32 log2 = 0;

    if (ns >> SCHED_MIN_LOG2 == 0)
        return 0;
    if (ns >> SCHED_MAX_LOG2 != 0)
        return SCHED_N_CLASSES - 1;
    for (__u32 step = 16; step != 0; step /= 2) {
        __u32 shift = (((1u << step) - 1 - v) >> 31) * step;

        v >>= shift;
        log2 += shift;
    }
    return 1 + log2 * 8 + ((__u32)(ns >> (SCHED_MIN_LOG2 - 3 + log2)) & 7);
}

/** Who had the CPU while a task waited for it (its last user before); and who got
 *  it from a task that would have gone on. */
enum sched_cause {
    SCHED_BY_IDLE, /* nobody: a quota, or affinity; never in out[] */
    SCHED_BY_SAME, /* the task's own container */
    SCHED_BY_OTHER,
    SCHED_BY_SYSTEM, /* what is in no container, or not known yet */
    SCHED_N_CAUSES
};

/** Value of the map cg_hist, by id of cgroup. Only ever grows (modulo 2^32). */
struct sched_hist {
    __u64 sum_ns;
    __u64 wait_ns[SCHED_N_CAUSES];
    __u32 n_waits;
    __u32 n_voluntary;
    __u32 out[SCHED_N_CAUSES];
    __u32 n_class[SCHED_N_CLASSES];
};

/** Value of the map cg_info, by id of cgroup: what programs know of names. */
struct sched_info {
    __u64 slot; /* as in struct cgroup_info; 0 = not known yet */
    __u8 is_container;
    __u8 is_silent; /* counts as a culprit, is not reported itself */
    __u8 pad[6];
};

/** Map wait_pairs: who waited for whom, ids of cgroups. */
struct sched_pair {
    __u64 victim;
    __u64 culprit;
};

struct sched_wait {
    __u64 n;
    __u64 ns;
};

/** Who had the CPU before the agent's own thread got it: key of own_culprits. Its value
 *  is how long it had it meanwhile: in a wait of many turns each counts by its own,
 *  so whoever had it for a moment is not blamed for the rest. */
#define SCHED_MAX_CULPRITS 256u

struct sched_culprit {
    __u64 cgid;    /* 0: nobody, our own quota held the thread back */
    char comm[16]; /* of the task */
};

/** Map own_waits: all of them, behind an idle CPU, too. Only ever grows. */
struct sched_own {
    __u64 ns;
    __u64 longest_ns;
};

/** Map sched_stats, per CPU. */
struct sched_stats {
    __u64 n_switches;
    __u64 n_missed; /* ran without having been seen to become runnable */
    __u64 n_full;   /* no room in cg_hist */
    __u64 n_negative;
    __u64 n_unknown; /* waits beside a cgroup without a name */
};

/** event_runq.flags: bits 0-1 are enum sched_cause of the wait. */
#define SCHED_PREEMPTED 4u /* prev would have gone on */

/** Constant. */
struct sched_config {
    __s32 subsys;    /* cgroups_subsys() */
    __s32 hierarchy; /* as in /proc/PID/cgroup */
    __u32 has_ring;
    __u32 has_storage; /* task storage, else the LRU hash */
    __u32 is_shared;   /* cg_hist is not per CPU */
    __u32 is_stream;
    __u32 want_voluntary;
    __u32 own_tgid; /* its waits make no records */
    __u64 min_interval_ns;
    __u64 min_pair_ns;
    __u64 own_comm[2]; /* of the thread of own_tgid whose waits are told */
};

#define SCHED_ASSERT(type, n)                                                  \
    _Static_assert(sizeof(struct type) == (n), "layout of " #type)
SCHED_ASSERT(sched_hist, 840);
SCHED_ASSERT(sched_info, 16);
SCHED_ASSERT(sched_pair, 16);
SCHED_ASSERT(sched_wait, 16);
SCHED_ASSERT(sched_culprit, 24);
SCHED_ASSERT(sched_own, 16);
SCHED_ASSERT(sched_stats, 40);
SCHED_ASSERT(sched_config, 64);

#endif
