/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What all programs share: waking the reader of a ring, no more often than it
 * needs.
 *
 * Thread:  any CPU, any context.
 * Memory:  none.
 * Promise: RING_WAKE loses no wake-up. RING_POLLED may, at the moment when the mode
 *          changes, which is why the reader comes by once more after it has
 *          changed it (ring.h).
 */
#ifndef RETRIEVER_BPF_COMMON_BPF_H
#define RETRIEVER_BPF_COMMON_BPF_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "bpf/events.h"

/** Flags for the submission of a record whose room is reserved already. */
static __always_inline __u64 ring_wake_flags(void *ring, struct ring_control *c)
{
    if (c->mode == RING_WAKE)
        return 0;
    if (c->woken ||
        bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) < c->wake_at_bytes)
        return BPF_RB_NO_WAKEUP;
    c->woken = 1;
    return BPF_RB_FORCE_WAKEUP;
}

#endif
