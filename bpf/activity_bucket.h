/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buckets of durations that both sides agree on: four for each doubling, so the
 * middle of a bucket is at most 12.5 % off.
 *
 * Thread:  none; pure functions, also of kernel programs.
 * Memory:  none.
 * Promise: a bucket begins where the one before it ends; the last takes the rest.
 */
#ifndef RETRIEVER_BPF_ACTIVITY_BUCKET_H
#define RETRIEVER_BPF_ACTIVITY_BUCKET_H

#include "bpf/events.h"

/** Of a duration in ticks. */
static inline __attribute__((always_inline)) __u32 activity_bucket(__u64 ticks)
{
    __u32 log = 0;
    __u64 v = ticks;

    if (ticks < 4)
        return (__u32)ticks;
#define ACTIVITY_HALVE(n)                                                      \
    if (v >> (n)) {                                                            \
        log += (n);                                                            \
        v >>= (n);                                                             \
    }
    ACTIVITY_HALVE(32)
    ACTIVITY_HALVE(16)
    ACTIVITY_HALVE(8)
    ACTIVITY_HALVE(4)
    ACTIVITY_HALVE(2)
    ACTIVITY_HALVE(1)
#undef ACTIVITY_HALVE
    if (log > ACTIVITY_BUCKETS / 4)
        return ACTIVITY_BUCKETS - 1;
    return (log - 1) * 4 + ((__u32)(ticks >> (log - 2)) & 3);
}

/** Where bucket @i begins; @i up to ACTIVITY_BUCKETS. */
static inline __attribute__((always_inline)) __u64 activity_bucket_at(__u32 i)
{
    return i < 4 ? i : (__u64)(4 + (i & 3)) << (i / 4 - 1);
}

#endif
