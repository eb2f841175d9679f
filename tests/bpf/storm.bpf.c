/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Records of all sorts, one for each run: what a program of ours emits, as fast as
 * the test runs it. A word behind each header counts on, by CPU.
 */
#include "bpf/events.bpf.h"

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} storm_n SEC(".maps");

static __always_inline void emit_env(__u64 n)
{
    __u64 room[sizeof(struct event_env) / 8 + 8] = {0};
    struct event_env *e = (void *)room;
    __u32 bytes = n % 8 * 8;

    event_fill(&e->hdr, EVENT_ENV, sizeof(*e) + bytes);
    e->val_len = bytes;
    e->start_ns = n;
    event_output(e, sizeof(*e) + bytes, 0);
}

SEC("raw_tp")
int storm(void *ctx)
{
    struct event_process *e;
    struct event_runq *q;
    __u32 zero = 0;
    __u64 *n = bpf_map_lookup_elem(&storm_n, &zero);

    (void)ctx;
    if (!n)
        return 0;
    (*n)++;
    if (*n % 16 == 0) {
        emit_env(*n);
    } else if (*n % 4 == 0) {
        q = event_reserve(EVENT_RUNQ, sizeof(*q));
        if (q) {
            q->prev_cgid = 0;
            q->latency_ns = *n;
            q->flags = 0;
            event_submit(q, 0);
        }
    } else {
        e = event_reserve(EVENT_EXEC, sizeof(*e));
        if (e) {
            e->start_ns = *n;
            event_submit(e, *n % 1024 == 0);
        }
    }
    return 0;
}

char license_text[] SEC("license") = "GPL";
