/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets that are there already: those that the service manager holds, of a socket
 * unit, or ours that it keeps from one life to the next; and those that another
 * image of this program held in this very process (an upgrade).
 *
 * The manager's come the same way (LISTEN_FDS); ours are known by the name that they were
 * given to keep. It is made from the address, which the socket itself tells
 * again, and from the inode of the path: nothing but the name can tell later
 * whether the path still leads to this socket.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/base/num.h"
#include "agent/ingress.h"
#include "agent/sockets_private.h"

#define MODULE "sockets"
#define LISTEN_FDS_FIRST 3
#define OUR_PREFIX "retriever-"
#define HASH_DIGITS 16
#define KEPT_NAME_BYTES 224 /* the manager takes 255 characters */

/* ---- The name under which a socket is kept ------------------------------ */

static const char *kind_word(enum socket_kind kind)
{
    static const char *const words[] = {
        [SOCKET_UDP] = "udp",
        [SOCKET_UNIXGRAM] = "unixgram",
        [SOCKET_UNIXSTREAM] = "unixstream",
        [SOCKET_CONTROL] = "control",
    };

    return words[kind];
}

static uint64_t hash_more(uint64_t h, const void *p, size_t n)
{
    const unsigned char *c = p;

    while (n-- > 0)
        h = (h ^ *c++) * UINT64_C(1099511628211); /* FNV-1a */
    return h;
}

/* retriever-KIND-ADDRESS-HASH. The address is there for people (in it _ stands for
 * what a name may not have), the hash for us. */
static void kept_name(const struct socket_entry *e, char *out, size_t n)
{
    const char *address = e->kind == SOCKET_UDP ? e->name + 4 : e->name;
    uint64_t inode = e->path[0] != '\0' ? e->inode : 0;
    uint64_t device = e->path[0] != '\0' ? e->device : 0;
    uint64_t h = UINT64_C(14695981039346656037);

    h = hash_more(h, address, strlen(address) + 1);
    h = hash_more(h, &inode, sizeof(inode));
    h = hash_more(h, &device, sizeof(device));
    (void)snprintf(out, n, OUR_PREFIX "%s-%s-%0*" PRIx64, kind_word(e->kind),
                   address, HASH_DIGITS, h);
    for (char *c = out; *c != '\0'; c++) {
        if (*c < ' ' || *c > '~' || *c == ':')
            *c = '_';
    }
}

/* ---- Taking over -------------------------------------------------------- */

static int kind_of(int fd, enum socket_kind *kind)
{
    int type = 0;
    int family = 0;
    int listening = 0;
    socklen_t n = sizeof(int);

    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &n) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) != 0)
        return -errno;
    if (family == AF_UNIX && type == SOCK_DGRAM)
        *kind = SOCKET_UNIXGRAM;
    else if (family == AF_UNIX && type == SOCK_STREAM && listening != 0)
        *kind = SOCKET_UNIXSTREAM;
    else if ((family == AF_INET || family == AF_INET6) && type == SOCK_DGRAM)
        *kind = SOCKET_UDP;
    else
        return -EPROTONOSUPPORT;
    return 0;
}

static void name_unix(struct socket_entry *e)
{
    struct sockaddr_storage ss = {0};
    const struct sockaddr_un *un = (const struct sockaddr_un *)&ss;
    socklen_t n = sizeof(ss) - 1; /* a path of 108 bytes has no terminator */

    if (getsockname(e->fd, (struct sockaddr *)&ss, &n) != 0)
        return;
    if (un->sun_path[0] == '\0')
        (void)snprintf(e->name, sizeof(e->name), "@%.107s", un->sun_path + 1);
    else
        (void)snprintf(e->name, sizeof(e->name), "%.108s", un->sun_path);
}

static void find_path(struct socket_entry *e)
{
    struct stat st;

    if (e->kind == SOCKET_UDP || e->name[0] == '@' || lstat(e->name, &st) != 0)
        return;
    e->device = st.st_dev;
    e->inode = st.st_ino;
    (void)snprintf(e->path, sizeof(e->path), "%.108s", e->name);
}

/* @name is one that we gave to a socket of this address. */
static bool is_ours(const char *name, const char *would_be)
{
    size_t n = strlen(would_be);

    return strlen(name) == n && strncmp(name, would_be, n - HASH_DIGITS) == 0;
}

/* Somebody removed or replaced the path: new clients do not reach this socket. Its
 * queue and who is connected to it do. */
static void keep_as_orphan(struct socket_entry *e, const char *name,
                           const struct notify *manager)
{
    log_warn(MODULE,
             "the path of a kept socket was removed or replaced: it is made "
             "anew, and who is connected to the old one is served until the "
             "next stop socket=%s",
             e->name);
    (void)notify_unstore(manager, name);
    e->shared_outside = false;
    e->orphan = true;
    e->path[0] = '\0';
}

static void find_origin(struct socket_entry *e, const char *name,
                        const struct notify *manager)
{
    char would_be[KEPT_NAME_BYTES];

    e->shared_outside = true;
    find_path(e);
    kept_name(e, would_be, sizeof(would_be));
    if (!is_ours(name, would_be))
        e->path[0] = '\0'; /* the socket unit's */
    else if (strcmp(name, would_be) == 0)
        e->stored = true;
    else
        keep_as_orphan(e, name, manager);
    log_info(MODULE, "listening socket=%s from=%s", e->name,
             e->stored || e->orphan ? "kept" : "socket-unit");
}

/* The landing zone for it is made later. */
static bool take_conn(struct sockets *s, int fd)
{
    int *more = realloc(s->kept_conns, (s->n_kept_conns + 1) * sizeof(*more));

    if (more == NULL)
        return false;
    s->kept_conns = more;
    s->kept_conns[s->n_kept_conns++] = fd;
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    return true;
}

static void refuse(int fd, const char *name, const struct notify *manager)
{
    log_warn(MODULE,
             "descriptor of the service manager is of no use here: expected a "
             "datagram socket or a Unix stream listener fd=%d name=%s",
             fd, name);
    if (strncmp(name, OUR_PREFIX, strlen(OUR_PREFIX)) == 0)
        (void)notify_unstore(manager, name); /* of another version */
    close(fd);
}

/* Counted twice, what the kernel drops would be; and of what the tap takes, one of
 * them would know. */
static bool is_here(const struct sockets *s, int fd)
{
    struct stat st, other;

    if (fstat(fd, &st) != 0)
        return false;
    for (uint32_t i = 0; i < s->n; i++) {
        if (fstat(s->entries[i].fd, &other) == 0 && other.st_dev == st.st_dev &&
            other.st_ino == st.st_ino)
            return true;
    }
    return false;
}

static void set_up(struct socket_entry *e, const struct config *cfg)
{
    if (e->kind == SOCKET_UDP ||
        (e->kind == SOCKET_UNIXGRAM && cfg->dogstatsd_so_rcvbuf_bytes != 0))
        sockets_set_rcvbuf(e, cfg);
    sockets_set_pace(e);
}

static void name_it(struct socket_entry *e)
{
    if (e->kind == SOCKET_UDP)
        sockets_name_udp(e);
    else
        name_unix(e);
}

static void adopt(struct sockets *s, const struct config *cfg, int fd,
                  const char *name, const struct notify *manager)
{
    enum socket_kind kind = SOCKET_UDP;
    struct socket_entry *e = NULL;

    if (strcmp(name, SOCKETS_CONN_NAME) == 0 && take_conn(s, fd))
        return;
    if (strcmp(name, SOCKETS_RING_NAME) == 0 && s->n_kept_ring < 2) {
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
        s->kept_ring[s->n_kept_ring++] = fd;
        return;
    }
    if (is_here(s, fd)) {
        log_warn(MODULE,
                 "the service manager passed the same socket twice fd=%d "
                 "name=%s",
                 fd, name);
        close(fd);
        return;
    }
    if (kind_of(fd, &kind) == 0)
        e = sockets_fresh(s, kind);
    if (e == NULL) {
        refuse(fd, name, manager);
        return;
    }
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    e->fd = fd;
    name_it(e);
    find_origin(e, name, manager);
    set_up(e, cfg);
    s->n++;
}

/* The next of the names between colons; "" when they are over. */
static void next_name(const char **at, char *out, size_t n)
{
    size_t len = strcspn(*at, ":");

    (void)snprintf(out, n, "%.*s", (int)(len < n ? len : n - 1), *at);
    *at += len + ((*at)[len] == ':');
}

void sockets_adopt(struct sockets *s, const struct config *cfg,
                   const struct notify *manager)
{
    const char *pid = getenv("LISTEN_PID");
    const char *fds = getenv("LISTEN_FDS");
    const char *names = getenv("LISTEN_FDNAMES");
    uint64_t our_pid, n_fds;

    if (pid == NULL || fds == NULL || num_parse_u64(pid, &our_pid) != 0 ||
        our_pid != (uint64_t)getpid() || num_parse_u64(fds, &n_fds) != 0)
        return;
    if (names == NULL)
        names = "";
    for (uint64_t i = 0; i < n_fds; i++) {
        int fd = LISTEN_FDS_FIRST + (int)i;
        char name[256];

        if (i > INT32_MAX / 2 || fcntl(fd, F_GETFD) < 0)
            break; /* the number says more than there is */
        next_name(&names, name, sizeof(name));
        adopt(s, cfg, fd, name, manager);
    }
    /* Once: a program that this process becomes has its own. */
    (void)unsetenv("LISTEN_PID");
    (void)unsetenv("LISTEN_FDS");
    (void)unsetenv("LISTEN_FDNAMES");
}

/* ---- From the image before this one ------------------------------------- */

/* After a way back a number may mean nothing any more. */
static bool is_socket_of(const struct socket_entry *e)
{
    enum socket_kind kind = SOCKET_UDP;

    return kind_of(e->fd, &kind) == 0 &&
           (kind == e->kind ||
            (kind == SOCKET_UNIXSTREAM && e->kind == SOCKET_CONTROL));
}

void sockets_take_over(struct sockets *s, const struct config *cfg,
                       const struct sockets *held)
{
    for (uint32_t i = 0; i < held->n; i++) {
        const struct socket_entry *h = &held->entries[i];
        struct socket_entry *e =
            is_socket_of(h) ? sockets_fresh(s, h->kind) : NULL;

        if (e == NULL)
            continue;
        e->fd = h->fd;
        e->was = i + 1;
        e->shared_outside = h->shared_outside;
        e->stored = h->stored;
        e->orphan = h->orphan;
        e->device = h->device;
        e->inode = h->inode;
        memcpy(e->path, h->path, sizeof(e->path));
        name_it(e);
        set_up(e, cfg);
        s->n++;
    }
}

/* ---- Keeping ------------------------------------------------------------ */

void sockets_release(struct sockets *s, uint32_t i,
                     const struct notify *manager)
{
    struct socket_entry *e = &s->entries[i];
    char name[KEPT_NAME_BYTES];

    kept_name(e, name, sizeof(name));
    log_info(MODULE,
             "socket is not asked for any more and was closed socket=%s "
             "left_bytes=%u",
             e->name, ingress_queued_bytes(e->fd));
    if (e->stored)
        (void)notify_unstore(manager, name);
    e->stored = false;
    sockets_close_entry(e);
    *e = s->entries[--s->n];
}

void sockets_keep(struct sockets *s, const struct notify *manager)
{
    uint32_t n_kept = 0;
    uint32_t n_more = 0;

    for (uint32_t i = 0; i < s->n; i++)
        n_kept += s->entries[i].stored;
    for (uint32_t i = 0; i < s->n; i++) {
        struct socket_entry *e = &s->entries[i];
        char name[KEPT_NAME_BYTES];
        int rc;

        if (e->shared_outside || e->orphan || e->kind == SOCKET_CONTROL)
            continue;
        if (n_kept >= manager->store_max) {
            n_more++;
            continue;
        }
        kept_name(e, name, sizeof(name));
        rc = notify_store(manager, name, &e->fd, 1);
        if (rc == 0) {
            e->shared_outside = e->stored = true;
            n_kept++;
        } else {
            log_warn(MODULE,
                     "socket is not kept over a restart: the service manager "
                     "was not reached socket=%s cause=%s",
                     e->name, strerror(-rc));
        }
    }
    if (n_more > 0 && manager->store_max > 0)
        log_warn(MODULE,
                 "more sockets than the service manager keeps: raise "
                 "FileDescriptorStoreMax= and FDSTORE not_kept=%u max=%u",
                 n_more, manager->store_max);
}
