/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The hooks of bpf/sched.bpf.c with nothing behind them: what the kernel takes for
 * calling a program at all, which is no program's to save.
 */
#include "bpf/common.bpf.h"

#include <bpf/bpf_tracing.h>

SEC("tp_btf/sched_wakeup")
int sched_wakeup(void *ctx)
{
    return 0;
}

SEC("tp_btf/sched_wakeup_new")
int sched_wakeup_new(void *ctx)
{
    return 0;
}

SEC("tp_btf/sched_switch")
int sched_switch(void *ctx)
{
    return 0;
}

char license_text[] SEC("license") = "GPL";
