/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The table of environments, as programs write it: by whoever runs exec, fork or
 * setenv(), before it can send anything.
 *
 * Thread:  any CPU, any context that does not interrupt another program of ours.
 * Memory:  two maps, which user space makes and the agent's reader has mapped.
 * Promise: nobody waits. Who finds a place being written by somebody else leaves it;
 *          when it is that of its own process, that is marked as unsure.
 */
#ifndef RETRIEVER_BPF_ENV_TABLE_BPF_H
#define RETRIEVER_BPF_ENV_TABLE_BPF_H

#include "bpf/common.bpf.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, ENV_TABLE_PLACES);
    __type(key, __u32);
    __type(value, struct env_place);
} env_table SEC(".maps");

static __always_inline struct env_place *place_of(__u32 tgid)
{
    __u32 i = tgid % ENV_TABLE_PLACES;

    return bpf_map_lookup_elem(&env_table, &i);
}

/* Full barriers, which these two are on every machine. */
static __always_inline int place_lock(struct env_place *p, __u64 *sequence)
{
    __u64 s = p->sequence;

    *sequence = s;
    return (s & 1) == 0 &&
           __sync_val_compare_and_swap(&p->sequence, s, s + 1) == s;
}

static __always_inline void place_unlock(struct env_place *p, __u64 sequence)
{
    (void)__sync_lock_test_and_set(&p->sequence, sequence + 2);
}

/* Of @tgid, if it has the place: the reader looks again, too. */
static __always_inline void place_doubt(struct env_place *p, __u32 tgid)
{
    if (p->tgid != tgid)
        return;
    __sync_fetch_and_or(&p->flags, ENV_PLACE_UNSURE);
    __sync_fetch_and_add(&p->sequence, 2);
}

#endif
