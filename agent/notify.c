/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One datagram for each message, assignments separated by line feeds. Descriptors
 * travel beside it and stay referenced by the message itself, so they are safe
 * from the moment the send returns.
 */
#include "agent/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "agent/base/contract.h"
#include "agent/base/num.h"

#define TEXT_BYTES 512

static int parse_address(struct notify *n, const char *text)
{
    size_t len = strlen(text);

    if ((text[0] != '/' && text[0] != '@') || len < 2 ||
        len >= sizeof(n->to.sun_path))
        return -EINVAL; /* vsock and whatever comes */
    n->to.sun_family = AF_UNIX;
    memcpy(n->to.sun_path, text, len);
    n->n_to = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    if (text[0] == '@')
        n->to.sun_path[0] = '\0';
    else
        n->n_to++; /* the terminator */
    return 0;
}

int notify_init(struct notify *n)
{
    const char *address = getenv("NOTIFY_SOCKET");
    const char *store = getenv("FDSTORE");
    uint64_t max = 0;
    int rc;

    memset(n, 0, sizeof(*n));
    if (address == NULL || address[0] == '\0')
        return 0;
    rc = parse_address(n, address);
    if (rc != 0)
        return rc;
    if (store != NULL && num_parse_u64(store, &max) == 0)
        n->store_max = max > UINT32_MAX ? UINT32_MAX : (uint32_t)max;
    return 0;
}

static int send_message(const struct notify *n, const char *text, size_t len,
                        const int *fds, unsigned n_fds, int flags)
{
    const struct timeval wait = {.tv_sec = NOTIFY_WAIT_MS / 1000,
                                 .tv_usec = NOTIFY_WAIT_MS % 1000 * 1000};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(NOTIFY_MAX_FDS * sizeof(int))];
    } control;
    struct sockaddr_un to = n->to;
    struct iovec iov = {.iov_base = (void *)text, .iov_len = len};
    struct msghdr msg = {.msg_name = &to,
                         .msg_namelen = n->n_to,
                         .msg_iov = &iov,
                         .msg_iovlen = 1};
    int rc = 0;
    int fd;

    if (n_fds > 0) {
        memset(&control, 0, sizeof(control));
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        control.align.cmsg_level = SOL_SOCKET;
        control.align.cmsg_type = SCM_RIGHTS;
        control.align.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(&control.align), fds, n_fds * sizeof(int));
    }
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    if (sendmsg(fd, &msg, flags | MSG_NOSIGNAL) != (ssize_t)len)
        rc = -errno;
    close(fd);
    return rc;
}

/* A line feed in @value would begin an assignment of its own. */
static int send_pair(const struct notify *n, const char *first,
                     const char *second, const char *value, int flags)
{
    char text[TEXT_BYTES];
    int len;

    if (n->n_to == 0)
        return 0;
    len = snprintf(text, sizeof(text), "%s\n%s=%s", first, second, value);
    if (len < 0 || len >= (int)sizeof(text) || strchr(value, '\n') != NULL)
        return -EINVAL;
    return send_message(n, text, (size_t)len, NULL, 0, flags);
}

int notify_ready(const struct notify *n, const char *status)
{
    return send_pair(n, "READY=1", "STATUS", status, 0);
}

int notify_stopping(const struct notify *n, const char *status)
{
    return send_pair(n, "STOPPING=1", "STATUS", status, MSG_DONTWAIT);
}

/* FDPOLL=0: a manager that polls drops a connection when its client ends, with
 * what the client sent last still unread. Managers before 246 ignore it. */
int notify_store(const struct notify *n, const char *name, const int *fds,
                 unsigned n_fds)
{
    char text[TEXT_BYTES];
    int len;

    REQUIRE(n_fds >= 1 && n_fds <= NOTIFY_MAX_FDS);
    if (n->n_to == 0 || n->store_max == 0)
        return -ENOTSUP;
    len = snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
    if (len < 0 || len >= (int)sizeof(text))
        return -EINVAL;
    return send_message(n, text, (size_t)len, fds, n_fds, 0);
}

int notify_unstore(const struct notify *n, const char *name)
{
    return send_pair(n, "FDSTOREREMOVE=1", "FDNAME", name, 0);
}

/* The manager closes the descriptor when it comes to the message; one that does not
 * know the word closes it as one that nobody asked it to keep. */
int notify_barrier(const struct notify *n)
{
    static const char text[] = "BARRIER=1";
    struct pollfd pfd;
    int rc = 0;
    int p[2];

    if (n->n_to == 0)
        return 0;
    if (pipe2(p, O_CLOEXEC) != 0)
        return -errno;
    rc = send_message(n, text, sizeof(text) - 1, &p[1], 1, 0);
    close(p[1]);
    pfd = (struct pollfd){.fd = p[0]};
    if (rc == 0) {
        int ready = poll(&pfd, 1, NOTIFY_WAIT_MS); /* POLLHUP */

        if (ready <= 0)
            rc = ready == 0 ? -ETIMEDOUT : -errno;
    }
    close(p[0]);
    return rc;
}
