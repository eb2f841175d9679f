/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/sockets_private.h"

#define RCVBUF_WANTED (32u * 1024 * 1024)
#define RCVBUF_POOR (4u * 1024 * 1024)
#define PACE_MAX_US 4000u

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_storage space;
};

void sockets_set_rcvbuf(struct socket_entry *e, const struct config *cfg)
{
    int want = RCVBUF_WANTED;
    int got = 0;
    socklen_t n = sizeof(got);

    if (cfg->dogstatsd_so_rcvbuf_bytes != 0)
        want = (int)cfg->dogstatsd_so_rcvbuf_bytes;
    if (setsockopt(e->fd, SOL_SOCKET, SO_RCVBUFFORCE, &want, sizeof(want)) != 0)
        (void)setsockopt(e->fd, SOL_SOCKET, SO_RCVBUF, &want, sizeof(want));
    if (getsockopt(e->fd, SOL_SOCKET, SO_RCVBUF, &got, &n) != 0)
        return;
    e->granted_rcvbuf_bytes = (uint32_t)got / 2; /* the kernel doubles it */
    if (e->kind == SOCKET_UDP && cfg->dogstatsd_so_rcvbuf_bytes == 0 &&
        e->granted_rcvbuf_bytes < RCVBUF_POOR)
        log_warn("sockets",
                 "receive buffer was limited by the kernel, bursts may be "
                 "dropped: sysctl -w net.core.rmem_max=%u socket=%s "
                 "granted_bytes=%u",
                 RCVBUF_WANTED, e->name, e->granted_rcvbuf_bytes);
}

/* An eighth of the time in which a million small datagrams a second would fill
 * the queue. */
void sockets_set_pace(struct socket_entry *e)
{
    uint64_t queue = (uint64_t)e->granted_rcvbuf_bytes * 2;
    uint64_t us = queue / SOCKETS_DATAGRAM_BYTES / 8;

    if (e->kind == SOCKET_UDP)
        e->pace_us = us > PACE_MAX_US ? PACE_MAX_US : (uint32_t)us;
}

/* "localhost" means 127.0.0.1, as clients default to, and asks no resolver.
 * Returns 0 or what gai_strerror() explains. */
static int resolve(union address *to, socklen_t *n, const char *host,
                   uint16_t port)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_DGRAM};
    struct addrinfo *list = NULL;
    int rc;

    memset(to, 0, sizeof(*to));
    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &to->v4.sin_addr) == 1) {
        to->v4.sin_family = AF_INET;
        *n = sizeof(to->v4);
    } else if (inet_pton(AF_INET6, host, &to->v6.sin6_addr) == 1) {
        to->v6.sin6_family = AF_INET6;
        *n = sizeof(to->v6);
    } else {
        rc = getaddrinfo(host, NULL, &hints, &list);
        if (rc != 0)
            return rc;
        memcpy(to, list->ai_addr, list->ai_addrlen);
        *n = list->ai_addrlen;
        freeaddrinfo(list);
    }
    if (to->any.sa_family == AF_INET6)
        to->v6.sin6_port = htons(port);
    else
        to->v4.sin_port = htons(port);
    return 0;
}

static void name_it(struct socket_entry *e, const union address *a)
{
    char text[INET6_ADDRSTRLEN] = "?";

    if (a->any.sa_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &a->v6.sin6_addr, text, sizeof(text));
        e->port = ntohs(a->v6.sin6_port);
        (void)snprintf(e->name, sizeof(e->name), "udp [%s]:%u", text, e->port);
    } else {
        (void)inet_ntop(AF_INET, &a->v4.sin_addr, text, sizeof(text));
        e->port = ntohs(a->v4.sin_port);
        (void)snprintf(e->name, sizeof(e->name), "udp %s:%u", text, e->port);
    }
}

void sockets_name_udp(struct socket_entry *e)
{
    union address a;
    socklen_t n = sizeof(a);

    if (getsockname(e->fd, &a.any, &n) == 0)
        name_it(e, &a);
}

static bool same_address(const union address *bound, const union address *asked,
                         uint16_t port)
{
    if (bound->any.sa_family != asked->any.sa_family)
        return false;
    if (bound->any.sa_family == AF_INET6)
        return memcmp(&bound->v6.sin6_addr, &asked->v6.sin6_addr,
                      sizeof(asked->v6.sin6_addr)) == 0 &&
               (port == 0 || bound->v6.sin6_port == htons(port));
    return bound->v4.sin_addr.s_addr == asked->v4.sin_addr.s_addr &&
           (port == 0 || bound->v4.sin_port == htons(port));
}

bool sockets_udp_is(const struct socket_entry *e, const char *host,
                    uint16_t port)
{
    union address bound, asked;
    socklen_t n = sizeof(bound);

    if (getsockname(e->fd, &bound.any, &n) != 0 ||
        resolve(&asked, &n, host[0] != '\0' ? host : "::", port) != 0)
        return false;
    if (same_address(&bound, &asked, port))
        return true;
    return host[0] == '\0' && resolve(&asked, &n, "0.0.0.0", port) == 0 &&
           same_address(&bound, &asked, port);
}

static int open_bound(union address *a, socklen_t n)
{
    int fd =
        socket(a->any.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int off = 0;
    int rc;

    if (fd < 0)
        return -errno;
    if (a->any.sa_family == AF_INET6 &&
        IN6_IS_ADDR_UNSPECIFIED(&a->v6.sin6_addr))
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, &a->any, n) != 0) {
        rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

static const char *bind_advice(int rc)
{
    switch (rc) {
    case -EADDRINUSE:
        return "another agent holds it; stop that one or set dogstatsd_port";
    case -EACCES:
        return "a port below 1024 needs a privilege; set dogstatsd_port";
    default:
        return "check bind_host and dogstatsd_port";
    }
}

int sockets_bind_udp(struct socket_entry *e, const struct config *cfg,
                     const char *host, uint16_t port)
{
    union address a;
    socklen_t n;
    int fd;
    int rc = resolve(&a, &n, host[0] != '\0' ? host : "::", port);

    if (rc != 0) {
        log_error("sockets", "host was not found host=%s cause=%s", host,
                  gai_strerror(rc));
        return -EADDRNOTAVAIL;
    }
    name_it(e, &a);
    fd = open_bound(&a, n);
    if (fd < 0 && host[0] == '\0' && fd != -EADDRINUSE) {
        (void)resolve(&a, &n, "0.0.0.0", port); /* a kernel without IPv6 */
        name_it(e, &a);
        fd = open_bound(&a, n);
    }
    if (fd < 0) {
        log_error("sockets", "socket was not bound: %s socket=%s cause=%s",
                  bind_advice(fd), e->name, strerror(-fd));
        return fd;
    }
    e->fd = fd;
    sockets_name_udp(e);
    sockets_set_rcvbuf(e, cfg);
    sockets_set_pace(e);
    return 0;
}
