/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UDP: how to stop it without losing what was accepted, and what the kernel had
 * to drop.
 *
 * connect() to a port where nobody is: datagrams of other peers no longer match
 * this socket and meet a closed port, of which connected senders are told
 * (ECONNREFUSED). What is queued stays readable. Closing would throw the queue
 * away; shutdown(SHUT_RD) does not stop a UDP socket from receiving.
 */
#include "agent/ingress.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>

#include "agent/sockets_private.h"

/* In a container IPv6 is often switched off behind a socket of both families:
 * there is no ::1 then, and the other family's loopback does the same. */
static int connect_v6(int fd)
{
    struct sockaddr_in6 to = {.sin6_family = AF_INET6,
                              .sin6_port = htons(1),
                              .sin6_addr = in6addr_loopback};
    const struct sockaddr *any = (const struct sockaddr *)&to;

    if (connect(fd, any, sizeof(to)) == 0)
        return 0;
    to.sin6_addr.s6_addr[10] = to.sin6_addr.s6_addr[11] = 0xff;
    to.sin6_addr.s6_addr[12] = 127;
    return connect(fd, any, sizeof(to)) == 0 ? 0 : -errno;
}

int ingress_udp_stop(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } to = {.any.sa_family = AF_UNSPEC};
    socklen_t n = sizeof(to);

    if (getsockname(fd, &to.any, &n) != 0)
        return -errno;
    if (to.any.sa_family == AF_INET6)
        return connect_v6(fd);
    to.v4 = (struct sockaddr_in){.sin_family = AF_INET,
                                 .sin_port = htons(1),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return connect(fd, &to.any, sizeof(to.v4)) == 0 ? 0 : -errno;
}

static bool meminfo(int fd, uint32_t mem[SK_MEMINFO_VARS])
{
    socklen_t n = SK_MEMINFO_VARS * sizeof(*mem);

    return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, mem, &n) == 0 &&
           n >= (SK_MEMINFO_DROPS + 1) * sizeof(*mem);
}

uint32_t ingress_dropped(int fd)
{
    uint32_t mem[SK_MEMINFO_VARS];

    return meminfo(fd, mem) ? mem[SK_MEMINFO_DROPS] : 0;
}

static void count_drops(struct ingress *g, uint32_t source, uint32_t dropped)
{
    enum transport t = g->sockets->entries[source].transport;
    uint32_t *seen = &g->landing->head->drops_seen[source];
    /* The kernel may not have counted all yet that the ring held. Both wrap. */
    uint32_t lost = dropped - g->landing->head->tap.taken[source];
    int32_t more = (int32_t)(lost - *seen);

    if (more <= 0)
        return;
    region_set(g->region, *seen, lost);
    region_set(g->region, g->counts->kernel_drops[t],
               g->counts->kernel_drops[t] + (uint32_t)more);
    region_commit(g->region);
    ingress_note(g, NOTE_KERNEL_DROPS, source, more);
}

void ingress_udp_drops(struct ingress *g)
{
    const struct sockets *s = g->sockets;
    uint32_t dropped[SOCKETS_MAX];
    bool known[SOCKETS_MAX] = {false};
    uint64_t end;

    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t mem[SK_MEMINFO_VARS];

        if (s->entries[i].kind != SOCKET_UDP || !meminfo(s->entries[i].fd, mem))
            continue;
        dropped[i] = mem[SK_MEMINFO_DROPS];
        known[i] = true;
    }
    if (g->landing->has_ring) {
        end = ring_end(&g->landing->ring);
        (void)ingress_tap(g, end);
        if (!ingress_tap_is_done(g, end))
            return; /* a sender is not through yet: next time */
    }
    for (uint32_t i = 0; i < s->n; i++) {
        if (known[i])
            count_drops(g, i, dropped[i]);
    }
}

uint32_t ingress_queued_bytes(int fd)
{
    uint32_t mem[SK_MEMINFO_VARS];

    return meminfo(fd, mem) ? mem[SK_MEMINFO_RMEM_ALLOC] : 0;
}

/* An estimate: the kernel counts bytes. */
uint64_t ingress_left(const struct sockets *s)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < s->n; i++) {
        if (s->entries[i].kind == SOCKET_UDP ||
            s->entries[i].kind == SOCKET_UNIXGRAM)
            n += (ingress_queued_bytes(s->entries[i].fd) +
                  SOCKETS_DATAGRAM_BYTES - 1) /
                 SOCKETS_DATAGRAM_BYTES;
    }
    return n;
}
