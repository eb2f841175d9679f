/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Socket filter on our own datagram sockets: copies each payload into the ring and
 * tells the kernel to drop the packet. The sender's CPU does the copying, nothing
 * is queued, nobody is woken.
 *
 * Whatever is not simple goes the usual way, into the socket: a full ring, a
 * datagram that is empty or long, a reader that is dead, stalled or told us to
 * stop.
 *
 * A record has one of a few lengths that the compiler knows, since only such can be
 * reserved and filled in place; at most a third of it is unused.
 */
#include "bpf/common.bpf.h"

#define KEEP 0xffffffffu /* all of it, for the socket */
#define TAKEN 0u

volatile const struct tap_config tap_config;

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 22);
} tap_ring SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct ring_control);
} tap_control SEC(".maps");

/* Nobody reads, as far as can be told. */
static __always_inline int is_dead(struct ring_control *c)
{
    __u64 until_ns = c->alive_until_ns;
    __u64 now_ns = bpf_ktime_get_coarse_ns();

    if (until_ns == 0) {
        c->alive_until_ns = now_ns + RING_ALIVE_NS;
        return 0;
    }
    return now_ns > until_ns;
}

static __always_inline __u32 take(struct __sk_buff *skb, struct ring_control *c,
                                  __u32 n, const __u32 record_bytes)
{
    struct tap_record *r;

    r = bpf_ringbuf_reserve(&tap_ring, record_bytes, 0);
    if (!r) {
        __sync_fetch_and_add(&c->n_full, 1);
        return KEEP;
    }
    if (bpf_skb_load_bytes(skb, tap_config.header_bytes, r + 1, n) != 0) {
        /* As any other record: who comes next is told from its position. */
        bpf_ringbuf_discard(r, ring_wake_flags(&tap_ring, c));
        return KEEP;
    }
    r->n_bytes = n;
    r->socket = tap_config.socket;
    r->tgid = 0;
    r->pad = 0;
    if (tap_config.want_tgid)
        r->tgid = bpf_get_current_pid_tgid() >> 32;
    bpf_ringbuf_submit(r, ring_wake_flags(&tap_ring, c));
    return TAKEN;
}

#define TAKE_UP_TO(record_bytes)                                               \
    if (n <= (record_bytes) - sizeof(struct tap_record))                       \
    return take(skb, c, n, (record_bytes))

SEC("socket")
int tap(struct __sk_buff *skb)
{
    struct ring_control *c;
    __u32 zero = 0;
    __u32 n = skb->len - tap_config.header_bytes;

    c = bpf_map_lookup_elem(&tap_control, &zero);
    if (!c || c->off || n == 0 || n > tap_config.max_bytes || n > TAP_MAX_BYTES)
        return KEEP;
    if (is_dead(c)) {
        __sync_fetch_and_add(&c->n_bypass, 1);
        return KEEP;
    }
    TAKE_UP_TO(56);
    TAKE_UP_TO(88);
    TAKE_UP_TO(120);
    TAKE_UP_TO(152);
    TAKE_UP_TO(184);
    TAKE_UP_TO(248);
    TAKE_UP_TO(376);
    TAKE_UP_TO(504);
    TAKE_UP_TO(760);
    TAKE_UP_TO(1016);
    TAKE_UP_TO(1464);
    TAKE_UP_TO(2040);
    TAKE_UP_TO(3064);
    TAKE_UP_TO(4088);
    TAKE_UP_TO(6136);
    TAKE_UP_TO(TAP_MAX_BYTES + sizeof(struct tap_record));
    return KEEP;
}

char license_text[] SEC("license") = "GPL";
