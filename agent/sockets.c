/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/base/num.h"
#include "agent/sockets_private.h"

#define LISTEN_FDS_FIRST 3

struct opening {
    struct sockets *s;
    const struct config *cfg;
    unsigned n_failed;
    bool full;
};

static struct socket_entry *fresh_entry(struct opening *o,
                                        enum socket_kind kind)
{
    static const enum transport transports[] = {
        [SOCKET_UDP] = TRANSPORT_UDP,
        [SOCKET_UNIXGRAM] = TRANSPORT_UDS,
        [SOCKET_UNIXSTREAM] = TRANSPORT_UDS_STREAM,
        [SOCKET_CONTROL] = TRANSPORT_N,
    };
    struct socket_entry *e;

    if (o->s->n == SOCKETS_MAX) {
        o->full = true;
        return NULL;
    }
    e = &o->s->entries[o->s->n];
    *e = (struct socket_entry){.fd = -1,
                               .kind = kind,
                               .transport = transports[kind]};
    return e;
}

/* A socket unit may have handed the same address over already. */
static bool held_already(const struct opening *o, enum socket_kind kind,
                         const char *path, uint16_t port)
{
    for (uint32_t i = 0; i < o->s->n; i++) {
        const struct socket_entry *e = &o->s->entries[i];

        if (!e->shared_outside || e->kind != kind)
            continue;
        if (kind == SOCKET_UDP ? port != 0 && e->port == port
                               : strcmp(e->name, path) == 0)
            return true;
    }
    return false;
}

static void count_result(struct opening *o, int rc, bool optional)
{
    if (rc == 0) {
        log_info("sockets", "listening socket=%s", o->s->entries[o->s->n].name);
        o->s->n++;
    } else if (!optional) {
        o->n_failed++;
    }
}

static void open_udp(struct opening *o, const char *host, uint16_t port)
{
    struct socket_entry *e;

    if (held_already(o, SOCKET_UDP, NULL, port))
        return;
    e = fresh_entry(o, SOCKET_UDP);
    if (e != NULL)
        count_result(o, sockets_bind_udp(e, o->cfg, host, port), false);
}

static void open_unix(struct opening *o, enum socket_kind kind,
                      const char *path, bool is_default)
{
    const struct config *c = o->cfg;
    const struct unix_opts opts = {
        .path = path,
        .mode = kind == SOCKET_CONTROL ? 0600 : c->dogstatsd_socket_mode,
        .owner = kind == SOCKET_CONTROL ? "" : c->dogstatsd_socket_owner,
        .group = kind == SOCKET_CONTROL ? "" : c->dogstatsd_socket_group,
        .make_folder = is_default,
        .optional = is_default,
    };
    struct socket_entry *e;

    if (path[0] == '\0' || held_already(o, kind, path, 0))
        return;
    e = fresh_entry(o, kind);
    if (e != NULL)
        count_result(o, sockets_bind_unix(e, c, &opts), is_default);
}

/* "udp://HOST:PORT", "udp://[V6]:PORT" */
static int open_udp_url(struct opening *o, const char *rest)
{
    const char *colon = strrchr(rest, ':');
    char host[256];
    char *end;
    unsigned long port;
    size_t n;

    if (colon == NULL)
        return -EINVAL;
    port = strtoul(colon + 1, &end, 10);
    if (end == colon + 1 || *end != '\0' || port > 65535)
        return -EINVAL;
    n = (size_t)(colon - rest);
    if (n >= 2 && rest[0] == '[' && rest[n - 1] == ']') {
        rest++;
        n -= 2;
    }
    if (n >= sizeof(host))
        return -EINVAL;
    memcpy(host, rest, n);
    host[n] = '\0';
    open_udp(o, host, (uint16_t)port);
    return 0;
}

static const char *after(const char *text, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncmp(text, prefix, n) == 0 ? text + n : NULL;
}

static void open_url(struct opening *o, const char *url)
{
    const char *rest;
    int rc = 0;

    if ((rest = after(url, "udp://")) != NULL)
        rc = open_udp_url(o, rest);
    else if ((rest = after(url, "unixgram://")) != NULL)
        open_unix(o, SOCKET_UNIXGRAM, rest, false);
    else if ((rest = after(url, "unixstream://")) != NULL)
        open_unix(o, SOCKET_UNIXSTREAM, rest, false);
    else
        rc = -EINVAL;
    if (rc != 0) {
        log_error("sockets",
                  "dogstatsd_sockets: not a listener: expected "
                  "udp://HOST:PORT, unixgram://PATH or unixstream://PATH "
                  "url=%s",
                  url);
        o->n_failed++;
    }
}

/* ---- LISTEN_FDS -------------------------------------------------------- */

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

static void adopt(struct opening *o, int fd)
{
    struct sockaddr_storage ss = {0};
    socklen_t n = sizeof(ss);
    enum socket_kind kind = SOCKET_UDP;
    struct socket_entry *e;

    if (kind_of(fd, &kind) != 0) {
        log_warn("sockets",
                 "socket of the service manager is of no use here fd=%d", fd);
        return;
    }
    e = fresh_entry(o, kind);
    if (e == NULL || getsockname(fd, (struct sockaddr *)&ss, &n) != 0)
        return;
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    e->fd = fd;
    e->shared_outside = true;
    if (kind == SOCKET_UDP) {
        e->port = ntohs(((const struct sockaddr_in *)&ss)->sin_port);
        (void)snprintf(e->name, sizeof(e->name), "udp fd %d port %u", fd,
                       e->port);
    } else {
        const struct sockaddr_un *un = (const struct sockaddr_un *)&ss;

        if (un->sun_path[0] == '\0')
            (void)snprintf(e->name, sizeof(e->name), "@%.107s",
                           un->sun_path + 1);
        else
            (void)snprintf(e->name, sizeof(e->name), "%.108s", un->sun_path);
    }
    if (kind != SOCKET_UNIXSTREAM)
        sockets_set_rcvbuf(e, o->cfg);
    sockets_set_pace(e);
    o->s->n++;
}

static void adopt_all(struct opening *o)
{
    const char *pid = getenv("LISTEN_PID");
    const char *fds = getenv("LISTEN_FDS");
    long n_fds;

    if (pid == NULL || fds == NULL || strtol(pid, NULL, 10) != getpid())
        return;
    n_fds = strtol(fds, NULL, 10);
    for (long i = 0; i < n_fds && i < SOCKETS_MAX; i++)
        adopt(o, LISTEN_FDS_FIRST + (int)i);
}

/* ---- All --------------------------------------------------------------- */

static void open_dogstatsd(struct opening *o)
{
    const struct config *c = o->cfg;
    const char *host = c->dogstatsd_non_local_traffic ? "" : c->bind_host;

    if (c->dogstatsd_port > 0)
        open_udp(o, host, (uint16_t)c->dogstatsd_port);
    else if (c->dogstatsd_port == CONFIG_PORT_RANDOM)
        open_udp(o, host, 0);
    sockets_raise_dgram_qlen();
    open_unix(o, SOCKET_UNIXGRAM, c->dogstatsd_socket,
              !config_is_set(c, "dogstatsd_socket"));
    open_unix(o, SOCKET_UNIXSTREAM, c->dogstatsd_stream_socket, false);
    for (size_t i = 0; i < c->dogstatsd_sockets.n; i++)
        open_url(o, c->dogstatsd_sockets.items[i]);
}

int sockets_open(struct sockets *s, const struct config *cfg, bool exec_mode,
                 unsigned *n_failed)
{
    struct opening o = {.s = s, .cfg = cfg};

    s->n = 0;
    if (!exec_mode)
        adopt_all(&o);
    if (cfg->use_dogstatsd)
        open_dogstatsd(&o);
    open_unix(&o, SOCKET_CONTROL, cfg->control_socket,
              !config_is_set(cfg, "control_socket"));
    *n_failed = o.n_failed;
    return o.full ? -EMFILE : 0;
}

bool sockets_is_conn_of(const struct sockets *s, uint32_t entry, int fd)
{
    /* Longer than sockaddr_un: a path of 108 bytes comes with its end. */
    struct sockaddr_storage ours = {0};
    struct sockaddr_storage its = {0};
    socklen_t n_ours = sizeof(ours);
    socklen_t n_its = sizeof(its);
    socklen_t n = sizeof(int);
    int listening = 1;

    if (entry >= s->n ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) != 0 ||
        listening != 0 ||
        getsockname(fd, (struct sockaddr *)&its, &n_its) != 0 ||
        getsockname(s->entries[entry].fd, (struct sockaddr *)&ours, &n_ours) !=
            0)
        return false;
    return n_ours == n_its && memcmp(&ours, &its, n_ours) == 0;
}

void sockets_close(struct sockets *s)
{
    for (uint32_t i = 0; i < s->n; i++) {
        struct socket_entry *e = &s->entries[i];
        struct stat st;

        if (e->path[0] != '\0' && lstat(e->path, &st) == 0 &&
            st.st_dev == e->device && st.st_ino == e->inode)
            (void)unlink(e->path);
        close(e->fd);
    }
    s->n = 0;
}
