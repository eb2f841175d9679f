/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Kernel events out of a program. For objects that emit some; their three maps are
 * replaced by the agent's (feature_share_events()).
 *
 *   struct event_exit *e = event_reserve(EVENT_EXIT, sizeof(*e));
 *
 *   if (e) {
 *       ...
 *       event_submit(e, 1);
 *   }
 *
 * Thread:  any CPU, any context.
 * Memory:  the ring's. What finds no room is lost, and counted there and then.
 * Promise: for each type and CPU sent = lost + what the reader gets, exactly, once
 *          the ring is empty. Nothing is counted after the agent switched off.
 */
#ifndef RETRIEVER_BPF_EVENTS_BPF_H
#define RETRIEVER_BPF_EVENTS_BPF_H

#include "bpf/common.bpf.h"

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 16);
} events SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct ring_control);
} events_control SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, EVENT_N_TYPES);
    __type(key, __u32);
    __type(value, struct event_stats);
} event_stats SEC(".maps");

static __always_inline struct ring_control *event_control(void)
{
    __u32 zero = 0;

    return bpf_map_lookup_elem(&events_control, &zero);
}

/* Atomic though per CPU: a program may be interrupted by another one. */
static __always_inline void event_count(__u32 type, __u64 bytes, int lost)
{
    struct event_stats *s = bpf_map_lookup_elem(&event_stats, &type);

    if (!s)
        return;
    __sync_fetch_and_add(&s->sent, 1);
    if (lost)
        __sync_fetch_and_add(&s->lost, 1);
    else
        __sync_fetch_and_add(&s->bytes, bytes);
}

/** The header of a record of @len bytes: what is true of the present task; the
 *  caller overwrites what is another's, and sets cgid. */
static __always_inline void event_fill(struct event_hdr *h, __u16 type,
                                       __u16 len)
{
    __u64 id = bpf_get_current_pid_tgid();

    h->type = type;
    h->len = len;
    h->cpu = bpf_get_smp_processor_id();
    h->ts_ns = bpf_ktime_get_ns();
    h->tgid = id >> 32;
    h->tid = (__u32)id;
    h->cgid = 0;
}

static __always_inline __u64 event_wake_flags(struct ring_control *c,
                                              int urgent)
{
    return urgent ? BPF_RB_FORCE_WAKEUP : ring_wake_flags(&events, c);
}

/** Room for a record of @size bytes, a constant, with its header filled. NULL: there
 *  is none, which is counted, or nothing is wanted. */
static __always_inline void *event_reserve(const __u16 type, const __u32 size)
{
    struct ring_control *c = event_control();
    struct event_hdr *h;

    if (!c || c->off)
        return 0;
    h = bpf_ringbuf_reserve(&events, size, 0);
    event_count(type, size, !h);
    if (h)
        event_fill(h, type, size);
    return h;
}

/** Give away what event_reserve() gave. @urgent: the reader is woken at once, since
 *  tags must be right when the next datagram is parsed, and a family known before
 *  it forks; for records of what costs far more than to wake somebody. */
static __always_inline void event_submit(void *record, int urgent)
{
    struct ring_control *c = event_control();

    bpf_ringbuf_submit(record, c ? event_wake_flags(c, urgent) : 0);
}

/** Copy out a record whose length is known only now: event_fill() filled its
 *  header, the caller has bounded @size. */
static __always_inline void event_output(void *record, __u32 size, int urgent)
{
    struct event_hdr *h = record;
    struct ring_control *c = event_control();

    if (!c || c->off)
        return;
    event_count(h->type, size,
                bpf_ringbuf_output(&events, record, size,
                                   event_wake_flags(c, urgent)) != 0);
}

#endif
