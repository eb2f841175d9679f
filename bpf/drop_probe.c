/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/drop_probe.h"

#include <bpf/btf.h>

#include "bpf/probe.h"

static uint32_t n_args(const struct btf *b, const char *tracepoint)
{
    int task_at;
    int n = probe_tracepoint(b, tracepoint, &task_at);

    return n > 0 ? (uint32_t)n : 0;
}

static uint32_t reason(const struct btf *b, const char *name)
{
    int v = probe_enum(b, "skb_drop_reason", name);

    return v >= 0 ? (uint32_t)v : DROP_NO_REASON;
}

void drop_probe(const struct btf *kernel, struct drop_kernel *out)
{
    out->n_fail_args = n_args(kernel, "udp_fail_queue_rcv_skb");
    out->n_free_args = n_args(kernel, "kfree_skb");
    out->n_length_args = n_args(kernel, "sock_send_length");
    out->reason_queue = reason(kernel, "SKB_DROP_REASON_SOCKET_RCVBUFF");
    out->reason_memory = reason(kernel, "SKB_DROP_REASON_PROTO_MEM");
    out->has_producers =
        btf__find_by_name_kind(kernel, "udp_prod_queue", BTF_KIND_STRUCT) >= 0;
}

static const char *what_is_missing(const struct drop_plan *p)
{
    if (!p->udp_lost && !p->udp_lost_total)
        return "losses over UDP are not seen";
    if (!p->udp_lost && !p->udp_lost_by)
        return "losses over UDP are counted without their senders";
    if (!p->unix_lost)
        return "losses over Unix sockets are not seen (Linux before 6.3)";
    return NULL;
}

bool drop_choose(const struct drop_kernel *k, struct drop_plan *out)
{
    *out = (struct drop_plan){
        .udp_lost = k->n_fail_args >= 3,
        .udp_lost_total = k->n_fail_args == 2,
        .unix_lost = k->n_length_args >= 2,
    };
    out->udp_lost_by = out->udp_lost_total && k->n_free_args >= 3 &&
                       k->reason_queue != DROP_NO_REASON;
    out->udp_no_memory = out->udp_lost && k->has_producers &&
                         k->n_free_args >= 4 &&
                         k->reason_memory != DROP_NO_REASON;
    out->missing = what_is_missing(out);
    return out->udp_lost || out->udp_lost_total || out->unix_lost;
}
