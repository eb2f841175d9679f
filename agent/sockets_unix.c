/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unix sockets. A path that exists is taken over only when it is a socket and
 * nobody answers there: what another agent serves is left alone, and what is no
 * socket is never removed.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/account.h"
#include "agent/base/log.h"
#include "agent/sockets_private.h"

#define QLEN_FILE "/proc/sys/net/unix/max_dgram_qlen"
#define QLEN_WANTED 512
#define BACKLOG 1024

static long read_qlen(void)
{
    char text[32] = "";
    int fd = open(QLEN_FILE, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

    if (fd >= 0)
        close(fd);
    return n > 0 ? strtol(text, NULL, 10) : 0;
}

/* The test suite sets RETRIEVER_TEST: its runs leave the host's settings
 * alone. */
void sockets_raise_dgram_qlen(void)
{
    long had = read_qlen();
    char text[16];
    int n = snprintf(text, sizeof(text), "%d\n", QLEN_WANTED);
    bool raised = false;
    int fd = -1;

    if (had <= 0 || had >= QLEN_WANTED)
        return;
    if (getenv("RETRIEVER_TEST") == NULL)
        fd = open(QLEN_FILE, O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        raised = write(fd, text, (size_t)n) == n;
        close(fd);
    }
    if (raised)
        log_info("sockets", "net.unix.max_dgram_qlen was raised from=%ld to=%d",
                 had, QLEN_WANTED);
    else
        log_info("sockets",
                 "net.unix.max_dgram_qlen is low, Unix senders wait for the "
                 "reader more often: sysctl -w net.unix.max_dgram_qlen=%d "
                 "value=%ld",
                 QLEN_WANTED, had);
}

static int fill_address(struct sockaddr_un *a, socklen_t *n, const char *path)
{
    size_t len = strlen(path);

    memset(a, 0, sizeof(*a));
    a->sun_family = AF_UNIX;
    if (len == 0 || len >= sizeof(a->sun_path))
        return -ENAMETOOLONG;
    memcpy(a->sun_path, path, len);
    *n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    if (path[0] == '@') {
        a->sun_path[0] = '\0';
        *n -= 1; /* an abstract name has no terminator */
    }
    return 0;
}

static int type_of(const struct socket_entry *e)
{
    return e->kind == SOCKET_UNIXGRAM ? SOCK_DGRAM : SOCK_STREAM;
}

/* 0: nobody answers there and the path is gone now. */
static int remove_stale(const struct sockaddr_un *a, socklen_t n, int type)
{
    struct stat st;
    int rc = 0;
    int fd;

    if (lstat(a->sun_path, &st) != 0)
        return -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)a, n) == 0 ||
        errno != ECONNREFUSED)
        rc = -EADDRINUSE;
    else if (unlink(a->sun_path) != 0)
        rc = -errno;
    close(fd);
    return rc;
}

static void make_folder(const char *path)
{
    char copy[sizeof(((struct sockaddr_un *)NULL)->sun_path)];

    (void)snprintf(copy, sizeof(copy), "%s", path);
    (void)mkdir(dirname(copy), 0755); /* a failure shows in bind() */
}

static int set_owner(const struct unix_opts *o, const char **why)
{
    uid_t uid = (uid_t)-1;
    gid_t gid = (gid_t)-1;

    if (o->owner[0] != '\0' && !account_user(o->owner, &uid)) {
        *why = "dogstatsd_socket_owner names no user";
        return -EINVAL;
    }
    if (o->group[0] != '\0' && !account_group(o->group, &gid)) {
        *why = "dogstatsd_socket_group names no group";
        return -EINVAL;
    }
    if (uid == (uid_t)-1 && gid == (gid_t)-1)
        return 0;
    if (chown(o->path, uid, gid) == 0)
        return 0;
    *why = "this user may not give it to dogstatsd_socket_owner and "
           "dogstatsd_socket_group";
    return -errno;
}

/* Made with the tightest mode and opened to others only when it is complete. */
static int bind_path(struct socket_entry *e, const struct sockaddr_un *a,
                     socklen_t n, const struct unix_opts *o, const char **why)
{
    struct stat st;
    mode_t mask;
    int rc;

    if (o->make_folder)
        make_folder(o->path);
    mask = umask(0177);
    rc = bind(e->fd, (const struct sockaddr *)a, n) == 0 ? 0 : -errno;
    if (rc == -EADDRINUSE) {
        rc = remove_stale(a, n, type_of(e));
        if (rc == 0 && bind(e->fd, (const struct sockaddr *)a, n) != 0)
            rc = -errno;
    }
    (void)umask(mask);
    if (rc != 0)
        return rc;
    if (lstat(o->path, &st) == 0) {
        e->device = st.st_dev;
        e->inode = st.st_ino;
        (void)snprintf(e->path, sizeof(e->path), "%s", o->path);
    }
    rc = set_owner(o, why);
    if (rc == 0 && chmod(o->path, o->mode) != 0)
        rc = -errno;
    if (rc != 0) {
        (void)unlink(o->path);
        e->path[0] = '\0';
    }
    return rc;
}

static int bind_and_listen(struct socket_entry *e, const struct unix_opts *o,
                           const char **why)
{
    struct sockaddr_un a;
    socklen_t n;
    int rc = fill_address(&a, &n, o->path);

    if (rc != 0)
        return rc;
    e->fd = socket(AF_UNIX, type_of(e) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (e->fd < 0)
        return -errno;
    if (o->path[0] == '@')
        rc = bind(e->fd, (const struct sockaddr *)&a, n) == 0 ? 0 : -errno;
    else
        rc = bind_path(e, &a, n, o, why);
    if (rc == 0 && type_of(e) == SOCK_STREAM && listen(e->fd, BACKLOG) != 0)
        rc = -errno;
    if (rc != 0) {
        close(e->fd);
        e->fd = -1;
    }
    return rc;
}

/* What to do about @rc; @buf is for a text of several parts. */
static const char *advice(int rc, const struct unix_opts *o, char *buf,
                          size_t size)
{
    switch (rc) {
    case -EADDRINUSE:
        return "another agent serves it; stop that one or choose another path";
    case -EEXIST:
        return "the path exists and is not a socket; remove it or choose "
               "another";
    case -EMFILE:
    case -ENFILE:
        return "no descriptor is left: raise the limit of open files "
               "(ulimit -n, LimitNOFILE=)";
    default:
        break;
    }
    if (o->optional)
        return "name a path in a folder of this user, or an empty one for "
               "none";
    switch (rc) {
    case -ENOENT:
        (void)snprintf(buf, size, "make the folder %.*s",
                       (int)(strrchr(o->path, '/') - o->path), o->path);
        return buf;
    case -EACCES:
    case -EPERM:
    case -EROFS:
        return "this user must be able to write the path's folder";
    default:
        return "choose another path";
    }
}

int sockets_bind_unix(struct socket_entry *e, const struct config *cfg,
                      const struct unix_opts *opts)
{
    const char *why = NULL; /* where its errno does not say it */
    char buf[160];
    int rc;

    (void)snprintf(e->name, sizeof(e->name), "%s", opts->path);
    rc = bind_and_listen(e, opts, &why);
    if (rc != 0) {
        if (why == NULL)
            why = advice(rc, opts, buf, sizeof(buf));
        log_write(NULL, opts->optional ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR,
                  "sockets", "socket was not bound: %s socket=%s cause=%s", why,
                  e->name, strerror(-rc));
        return rc;
    }
    /* Not paced: beside max_dgram_qlen the sender's own buffer bounds the queue,
     * at some 280 small datagrams, and many clients drop what does not fit. */
    if (e->kind == SOCKET_UNIXGRAM && cfg->dogstatsd_so_rcvbuf_bytes != 0)
        sockets_set_rcvbuf(e, cfg);
    return 0;
}
