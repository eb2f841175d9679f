/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which programs of drop.bpf.c this kernel can run, read from its BTF: versions say
 * nothing about what a distribution has put into a kernel.
 *
 * Thread:  any.
 * Memory:  none.
 * Promise: what is chosen loads on a kernel whose BTF tells the truth, and counts
 *          each lost datagram once.
 */
#ifndef RETRIEVER_BPF_DROP_PROBE_H
#define RETRIEVER_BPF_DROP_PROBE_H

#include <stdbool.h>
#include <stdint.h>

struct btf;

#define DROP_NO_REASON (~UINT32_C(0))

/** What the kernel offers. */
struct drop_kernel {
    /* arguments of tracepoints; 0 = there is no such tracepoint */
    uint32_t n_fail_args;   /* udp_fail_queue_rcv_skb: rc, sk, skb */
    uint32_t n_free_args;   /* kfree_skb: skb, location, reason, sk */
    uint32_t n_length_args; /* sock_send_length: sk, ret, flags */
    uint32_t reason_queue, reason_memory; /* or DROP_NO_REASON */
    bool has_producers; /* UDP queues by way of a queue of producers */
};

/** Programs to load, by name. */
struct drop_plan {
    bool udp_lost;
    bool udp_lost_total;
    bool udp_lost_by;
    bool udp_no_memory;
    bool unix_lost;
    const char *missing; /* for people; NULL = nothing is */
};

void drop_probe(const struct btf *kernel, struct drop_kernel *out);

/** Returns false when nothing can be counted. */
bool drop_choose(const struct drop_kernel *k, struct drop_plan *out);

#endif
