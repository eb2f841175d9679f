/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * How a program tells the agent about something rare: a record in the ring that
 * all features share, counted whether it found room or not.
 *
 * Thread:  any CPU, any context.
 * Memory:  three maps, each made by the agent and shared by all objects.
 * Promise: sent = received + lost, per type and CPU, once the ring is empty.
 */
#ifndef RETRIEVER_BPF_EMIT_BPF_H
#define RETRIEVER_BPF_EMIT_BPF_H

#include "bpf/common.bpf.h"
#include "bpf/core_types.h"

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 18);
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

/** Room for a record of @bytes, a constant. Only type, length, CPU and time are
 *  set. NULL: none left, and counted. */
static __always_inline void *event_reserve(__u32 type, const __u32 bytes)
{
    struct event_stats *s = bpf_map_lookup_elem(&event_stats, &type);
    struct event_hdr *h = bpf_ringbuf_reserve(&events, bytes, 0);

    if (s) {
        __sync_fetch_and_add(&s->sent, 1);
        __sync_fetch_and_add(h ? &s->bytes : &s->lost, h ? bytes : 1);
    }
    if (!h)
        return NULL;
    h->type = type;
    h->len = bytes;
    h->cpu = bpf_get_smp_processor_id();
    h->ts_ns = bpf_ktime_get_ns();
    return h;
}

/** @urgent: wake the reader now. */
static __always_inline void event_submit(void *record, const int urgent)
{
    __u32 zero = 0;
    struct ring_control *c = bpf_map_lookup_elem(&events_control, &zero);

    bpf_ringbuf_submit(record, urgent ? BPF_RB_FORCE_WAKEUP
                               : c    ? ring_wake_flags(&events, c)
                                      : 0);
}

#endif
