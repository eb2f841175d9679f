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
    if (to.any.sa_family == AF_INET6) {
        to.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6,
                                      .sin6_port = htons(1),
                                      .sin6_addr = in6addr_loopback};
        n = sizeof(to.v6);
    } else {
        to.v4 = (struct sockaddr_in){.sin_family = AF_INET,
                                     .sin_port = htons(1),
                                     .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        n = sizeof(to.v4);
    }
    return connect(fd, &to.any, n) == 0 ? 0 : -errno;
}

static bool meminfo(int fd, uint32_t mem[SK_MEMINFO_VARS])
{
    socklen_t n = SK_MEMINFO_VARS * sizeof(*mem);

    return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, mem, &n) == 0 &&
           n >= (SK_MEMINFO_DROPS + 1) * sizeof(*mem);
}

void ingress_udp_drops(struct ingress *g, uint32_t source)
{
    const struct socket_entry *e = &g->sockets->entries[source];
    uint32_t *seen = &g->landing->head->drops_seen[source];
    uint32_t mem[SK_MEMINFO_VARS];
    uint32_t more;

    if (!meminfo(e->fd, mem))
        return;
    more = mem[SK_MEMINFO_DROPS] - *seen; /* the counter wraps */
    if (more == 0)
        return;
    region_set(g->region, *seen, mem[SK_MEMINFO_DROPS]);
    region_set(g->region, g->counts->kernel_drops[e->transport],
               g->counts->kernel_drops[e->transport] + more);
    region_commit(g->region);
    ingress_note(g, NOTE_KERNEL_DROPS, source, more);
}

uint32_t ingress_queued_bytes(int fd)
{
    uint32_t mem[SK_MEMINFO_VARS];

    return meminfo(fd, mem) ? mem[SK_MEMINFO_RMEM_ALLOC] : 0;
}
