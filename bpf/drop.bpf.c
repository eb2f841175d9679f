/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Who loses datagrams that were meant for us. Nothing here runs while nothing is
 * lost, except one comparison per send on a socket of the host.
 *
 * UDP: the kernel found no room in the receive queue. On the loopback device the
 * packet is received in its sender's own context, so the current process is the
 * sender. Behind any other device it is whoever the interrupt met: then the
 * address is what can be said for sure. The same holds for a kernel thread that
 * took the work over, and where one CPU queues what others left for it
 * (udp_no_memory).
 *
 * Unix sockets: a sender that would not wait was told EAGAIN. Whom it was sending
 * to is known when its socket is connected.
 *
 * Totals are counted apart from senders, behind them: the table of senders may
 * be full, or lose an entry that the agent removed at that moment, and what the
 * senders do not add up to is then lost by somebody unknown, not unheard of.
 *
 * Which programs are loaded is drop_probe.c's choice:
 *     udp_lost                      kernels that show it the packet
 *     udp_lost_total, udp_lost_by   those that do not: total and sender apart
 *     udp_no_memory                 kernels with a queue of producers
 *     unix_lost                     kernels that tell the result of a send
 */
#include "bpf/common.bpf.h"
#include "bpf/task.bpf.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#define FAMILY_UNIX 1
#define FAMILY_IPV4 2
#define FAMILY_IPV6 10
#define LOOPBACK_INDEX 1 /* of the device, in every network namespace */
#define KERNEL_THREAD 0x00200000u
#define WOULD_BLOCK 11
#define COOKIE(sk) ((sk)->__sk_common.skc_cookie.counter)
#define UDP_HEADER_BYTES 8
#define IP_BYTES 24 /* as far as the source address, in both versions */

volatile const struct drop_config drop_config;

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, DROP_MAX_SENDERS);
    __type(key, struct drop_key);
    __type(value, struct drop_value);
} drop_senders SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, DROP_N_TRANSPORTS);
    __type(key, __u32);
    __type(value, struct drop_total);
} drop_totals SEC(".maps");

/* Addresses as in the packet, port in host byte order. */
struct packet {
    __u16 family, source_port, port;
    __u32 bytes;
    __u8 address[16];
};

struct udp_header {
    __be16 source, dest, len, check;
};

static __always_inline int is_ours(__u64 cookie, __u32 transport)
{
    for (__u32 i = 0; i < DROP_MAX_SOCKETS; i++) {
        if (i >= drop_config.n_sockets)
            return 0;
        if (cookie != 0 && drop_config.sockets[i].cookie == cookie &&
            drop_config.sockets[i].transport == transport)
            return 1;
    }
    return 0;
}

static __always_inline int read_packet(struct sk_buff *skb, struct packet *p)
{
    unsigned char *head = skb->head;
    struct udp_header udp;
    __u8 ip[IP_BYTES];

    if (bpf_probe_read_kernel(&udp, sizeof(udp),
                              head + skb->transport_header) != 0 ||
        bpf_probe_read_kernel(ip, sizeof(ip), head + skb->network_header) != 0)
        return 0;
    p->source_port = bpf_ntohs(udp.source);
    p->port = bpf_ntohs(udp.dest);
    p->bytes = bpf_ntohs(udp.len);
    p->bytes -= p->bytes < UDP_HEADER_BYTES ? p->bytes : UDP_HEADER_BYTES;
    if (ip[0] >> 4 == 4) {
        p->family = FAMILY_IPV4;
        __builtin_memcpy(p->address, ip + 12, 4);
    } else {
        p->family = FAMILY_IPV6;
        __builtin_memcpy(p->address, ip + 8, 16);
    }
    return 1;
}

/* ---- Counting ----------------------------------------------------------- */

static __always_inline struct drop_value *first_of(const struct drop_key *key,
                                                   struct task_struct *leader)
{
    struct drop_value v = {0};

    if (key->tgid != 0) {
        v.cgid = task_cgroup(leader, drop_config.cgroup_subsys);
        BPF_CORE_READ_STR_INTO(&v.comm, leader, comm);
    }
    bpf_map_update_elem(&drop_senders, key, &v, BPF_NOEXIST);
    return bpf_map_lookup_elem(&drop_senders, key);
}

static __always_inline void count_sender(const struct drop_key *key,
                                         struct task_struct *leader,
                                         __u32 bytes)
{
    struct drop_value *v = bpf_map_lookup_elem(&drop_senders, key);

    if (!v)
        v = first_of(key, leader);
    if (!v)
        return;
    __sync_fetch_and_add(&v->packets, 1);
    __sync_fetch_and_add(&v->bytes, bytes);
}

static __always_inline void count_total(__u32 transport, __u32 bytes)
{
    struct drop_total *total = bpf_map_lookup_elem(&drop_totals, &transport);

    if (!total)
        return;
    __sync_fetch_and_add(&total->packets, 1);
    __sync_fetch_and_add(&total->bytes, bytes);
}

/* The current process becomes the key; kernel threads send nothing. Returns the
 * thread that stands for it. */
static __always_inline struct task_struct *current_process(struct drop_key *key)
{
    struct task_struct *t = (struct task_struct *)bpf_get_current_task();
    struct task_struct *leader = BPF_CORE_READ(t, group_leader);

    if (BPF_CORE_READ(t, flags) & KERNEL_THREAD)
        return leader;
    key->tgid = bpf_get_current_pid_tgid() >> 32;
    if (key->tgid != 0)
        key->start_ns = task_start_ns(leader);
    return leader;
}

static __always_inline void count_udp_sender(struct sk_buff *skb,
                                             const struct packet *p,
                                             int in_context)
{
    int is_local = skb->skb_iif == LOOPBACK_INDEX;
    struct drop_key key = {.transport = DROP_UDP};
    struct task_struct *leader = 0;

    if (is_local && in_context)
        leader = current_process(&key);
    if (key.tgid == 0) {
        key.family = p->family;
        key.port = is_local ? p->source_port : 0;
        __builtin_memcpy(key.address, p->address, sizeof(key.address));
    }
    count_sender(&key, leader, p->bytes);
}

/* ---- UDP: (rc, sk, skb) and (skb, location, reason, sk) ------------------ */

SEC("tp_btf/udp_fail_queue_rcv_skb")
int udp_lost(__u64 *ctx)
{
    struct sock *sk = (struct sock *)ctx[1];
    struct sk_buff *skb = (struct sk_buff *)ctx[2];
    struct packet p = {0};

    if (!is_ours(COOKIE(sk), DROP_UDP))
        return 0;
    if (read_packet(skb, &p))
        count_udp_sender(skb, &p, 1);
    count_total(DROP_UDP, p.bytes);
    return 0;
}

SEC("tp_btf/udp_fail_queue_rcv_skb")
int udp_lost_total(__u64 *ctx)
{
    struct sock *sk = (struct sock *)ctx[1];

    if (is_ours(COOKIE(sk), DROP_UDP))
        count_total(DROP_UDP, 0);
    return 0;
}

/* The packet alone: its port and network stand for the socket. */
static __always_inline int is_for_us(struct sk_buff *skb,
                                     const struct packet *p)
{
    if (BPF_CORE_READ(skb, dev, nd_net.net, ns.inum) != drop_config.netns)
        return 0;
    for (__u32 i = 0; i < DROP_MAX_SOCKETS; i++) {
        if (i >= drop_config.n_sockets)
            return 0;
        if (drop_config.sockets[i].transport == DROP_UDP &&
            drop_config.sockets[i].port == p->port)
            return 1;
    }
    return 0;
}

SEC("tp_btf/kfree_skb")
int udp_lost_by(__u64 *ctx)
{
    struct sk_buff *skb = (struct sk_buff *)ctx[0];
    __u32 reason = ctx[2];
    struct packet p = {0};

    if (reason != drop_config.reason_queue &&
        reason != drop_config.reason_memory)
        return 0;
    if (read_packet(skb, &p) && is_for_us(skb, &p))
        count_udp_sender(skb, &p, 1);
    return 0;
}

/* Since they have a queue of producers, kernels drop what the memory for sockets
 * has no room for without calling the tracepoint above. */
SEC("tp_btf/kfree_skb")
int udp_no_memory(__u64 *ctx)
{
    struct sk_buff *skb;
    struct sock *sk;
    struct packet p = {0};

    if ((__u32)ctx[2] != drop_config.reason_memory)
        return 0;
    skb = (struct sk_buff *)ctx[0];
    sk = (struct sock *)ctx[3];
    if (!sk || !is_ours(COOKIE(sk), DROP_UDP))
        return 0;
    if (read_packet(skb, &p))
        count_udp_sender(skb, &p, 0);
    count_total(DROP_UDP, p.bytes);
    return 0;
}

/* ---- Unix sockets: (sk, ret, flags) -------------------------------------- */

SEC("tp_btf/sock_send_length")
int unix_lost(__u64 *ctx)
{
    struct drop_key key = {.transport = DROP_UDS};
    struct task_struct *leader;
    struct sock *sk, *peer;

    if ((int)ctx[1] != -WOULD_BLOCK)
        return 0;
    sk = (struct sock *)ctx[0];
    if (sk->__sk_common.skc_family != FAMILY_UNIX)
        return 0;
    peer = BPF_CORE_READ((struct unix_sock *)sk, peer);
    if (!peer ||
        !is_ours(BPF_CORE_READ(peer, __sk_common.skc_cookie.counter), DROP_UDS))
        return 0;
    leader = current_process(&key);
    count_sender(&key, leader, 0);
    count_total(DROP_UDS, 0);
    return 0;
}

char license_text[] SEC("license") = "GPL";
