/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/sockets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/base/num.h"
#include "agent/sockets_private.h"

struct opening {
    struct sockets *s;
    const struct config *cfg;
    unsigned n_failed;
    bool full;
    bool looking; /* only find out which kept sockets are asked for */
    bool taken[SOCKETS_MAX]; /* kept sockets that are */
};

struct socket_entry *sockets_fresh(struct sockets *s, enum socket_kind kind)
{
    static const enum transport transports[] = {
        [SOCKET_UDP] = TRANSPORT_UDP,
        [SOCKET_UNIXGRAM] = TRANSPORT_UDS,
        [SOCKET_UNIXSTREAM] = TRANSPORT_UDS_STREAM,
        [SOCKET_CONTROL] = TRANSPORT_N,
    };
    struct socket_entry *e;

    if (s->n == SOCKETS_MAX)
        return NULL;
    e = &s->entries[s->n];
    *e = (struct socket_entry){.fd = -1,
                               .kind = kind,
                               .transport = transports[kind]};
    return e;
}

static struct socket_entry *fresh_entry(struct opening *o,
                                        enum socket_kind kind)
{
    struct socket_entry *e = sockets_fresh(o->s, kind);

    o->full = o->full || e == NULL;
    return e;
}

/* Of our life before, or of the image before this one: ours to close. */
static bool is_ours_from_before(const struct socket_entry *e)
{
    return e->stored || (e->was > 0 && !e->shared_outside && !e->orphan);
}

/* A socket unit may have handed the same port or path over. Of our life before
 * each socket serves one listener that is asked for, at its very address. */
static bool held_already(struct opening *o, enum socket_kind kind,
                         const char *where, uint16_t port)
{
    for (uint32_t i = 0; i < o->s->n; i++) {
        const struct socket_entry *e = &o->s->entries[i];
        bool same;

        if ((!e->shared_outside && !is_ours_from_before(e)) ||
            e->kind != kind || o->taken[i])
            continue;
        if (kind != SOCKET_UDP)
            same = strcmp(e->name, where) == 0;
        else if (is_ours_from_before(e))
            same = sockets_udp_is(e, where, port);
        else
            same = port != 0 && e->port == port;
        if (!same)
            continue;
        o->taken[i] = is_ours_from_before(e);
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

    if (held_already(o, SOCKET_UDP, host, port) || o->looking)
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

    if (path[0] == '\0' || held_already(o, kind, path, 0) || o->looking)
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
    if (rc != 0 && !o->looking) {
        log_error("sockets",
                  "dogstatsd_sockets: not a listener: expected "
                  "udp://HOST:PORT, unixgram://PATH or unixstream://PATH "
                  "url=%s",
                  url);
        o->n_failed++;
    }
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
    if (!o->looking)
        sockets_raise_dgram_qlen();
    open_unix(o, SOCKET_UNIXGRAM, c->dogstatsd_socket,
              !config_is_set(c, "dogstatsd_socket"));
    open_unix(o, SOCKET_UNIXSTREAM, c->dogstatsd_stream_socket, false);
    for (size_t i = 0; i < c->dogstatsd_sockets.n; i++)
        open_url(o, c->dogstatsd_sockets.items[i]);
}

/* What was sent there is still in its queue, and nobody else will read it. New
 * clients do not find it any more. */
static bool serve_on(struct socket_entry *e)
{
    if (e->was == 0 || e->stored ||
        (e->kind != SOCKET_UNIXGRAM && e->kind != SOCKET_UNIXSTREAM))
        return false;
    if (sockets_path_is_ours(e))
        (void)unlink(e->path);
    e->path[0] = '\0';
    e->orphan = true;
    log_info(
        "sockets",
        "socket is not asked for any more: its path was removed, and who is "
        "connected is served until the next stop socket=%s",
        e->name);
    return true;
}

/* Before anything is bound: what is not asked for any more may be in the way, for
 * as long as the manager holds it. */
static void release_unwanted(const struct opening *found, struct sockets *s,
                             const struct notify *manager)
{
    uint32_t n_before = s->n;

    for (uint32_t i = s->n; i-- > 0;) {
        if (is_ours_from_before(&s->entries[i]) && !found->taken[i] &&
            !serve_on(&s->entries[i]))
            sockets_release(s, i, manager);
    }
    if (s->n < n_before && notify_barrier(manager) != 0)
        log_warn("sockets", "the service manager has not let go of a socket "
                            "yet: its port may still be taken");
}

static void open_all(struct opening *o)
{
    const struct config *c = o->cfg;

    if (c->use_dogstatsd)
        open_dogstatsd(o);
    open_unix(o, SOCKET_CONTROL, c->control_socket,
              !config_is_set(c, "control_socket"));
}

/* Behind what @s holds already. */
static int open_missing(struct sockets *s, const struct config *cfg,
                        const struct notify *manager, unsigned *n_failed)
{
    struct opening look = {.s = s, .cfg = cfg, .looking = true};
    struct opening o = {.s = s, .cfg = cfg};

    if (s->n > 0) {
        open_all(&look);
        release_unwanted(&look, s, manager);
    }
    open_all(&o);
    *n_failed = o.n_failed;
    return o.full ? -EMFILE : 0;
}

int sockets_open(struct sockets *s, const struct config *cfg,
                 const struct notify *manager, unsigned *n_failed)
{
    s->n = 0;
    if (manager != NULL)
        sockets_adopt(s, cfg, manager);
    return open_missing(s, cfg, manager, n_failed);
}

int sockets_reopen(struct sockets *s, const struct config *cfg,
                   const struct sockets *held, const struct notify *manager,
                   unsigned *n_failed)
{
    s->n = 0;
    sockets_take_over(s, cfg, held);
    return open_missing(s, cfg, manager, n_failed);
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

bool sockets_path_is_ours(const struct socket_entry *e)
{
    struct stat st;

    return e->path[0] != '\0' && lstat(e->path, &st) == 0 &&
           st.st_dev == e->device && st.st_ino == e->inode;
}

void sockets_close_entry(struct socket_entry *e)
{
    if (!e->stored && sockets_path_is_ours(e))
        (void)unlink(e->path);
    close(e->fd);
    e->fd = -1;
}

void sockets_leave(struct sockets *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        s->entries[i].path[0] = '\0';
}

void sockets_close(struct sockets *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        sockets_close_entry(&s->entries[i]);
    free(s->kept_conns);
    s->kept_conns = NULL;
    s->n_kept_conns = 0;
    s->n = 0;
}
