/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * A record for each task switch of the machine: the heaviest stream of events that
 * there is, for a test of who reads it.
 */
#include "bpf/common.bpf.h"

#include <bpf/bpf_tracing.h>

#include "bpf/core_types.h"
#include "tests/bpf/switches.h"

volatile const struct switches_config switches_config;

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, SWITCHES_RING_BYTES);
} ring SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct ring_control);
} control SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct switches_counts);
} counts SEC(".maps");

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, int preempt, struct task_struct *prev,
             struct task_struct *next)
{
    struct ring_control *c;
    struct switches_counts *n;
    struct switches_record *r;
    __u32 zero = 0;

    (void)ctx;
    (void)preempt;
    /* The reader would feed itself. */
    if (prev->tgid == switches_config.own_tgid ||
        next->tgid == switches_config.own_tgid)
        return 0;
    c = bpf_map_lookup_elem(&control, &zero);
    n = bpf_map_lookup_elem(&counts, &zero);
    if (!c || !n)
        return 0;
    n->sent++;
    r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
    if (!r) {
        n->lost++;
        return 0;
    }
    __builtin_memset(r, 0, sizeof(*r));
    r->ts_ns = bpf_ktime_get_ns();
    r->prev = prev->pid;
    r->next = next->pid;
    bpf_ringbuf_submit(r, ring_wake_flags(&ring, c));
    return 0;
}

char license_text[] SEC("license") = "GPL";
