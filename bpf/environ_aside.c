/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process is a fork of a program with threads: it allocates nothing and takes no
 * lock. It gets the folder of a process and answers with one byte; the values are in
 * memory that both see, of which each such process has its own: one that was left
 * behind may still write.
 */
#include "bpf/environ_aside.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/clock.h"

#define MAX_FDS 4096

struct answer {
    int rc;
    struct environ_values values;
};

struct aside {
    const struct watch *watch;
    pid_t pid; /* 0 = none */
    int socket;
    struct answer *answer;
    pid_t left[ASIDE_MAX_LEFT];
    uint32_t n_left;
    uint64_t pause_until_ns;
};

union one_fd {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int))];
};

static struct msghdr message(struct iovec *io, char *byte, union one_fd *fd)
{
    *io = (struct iovec){.iov_base = byte, .iov_len = 1};
    memset(fd, 0, sizeof(*fd));
    return (struct msghdr){.msg_iov = io,
                           .msg_iovlen = 1,
                           .msg_control = fd->room,
                           .msg_controllen = sizeof(fd->room)};
}

/* ---- The other process -------------------------------------------------- */

/* Returns a descriptor; below 0: there is nobody to work for. */
static int take_order(int socket)
{
    struct iovec io;
    union one_fd fd;
    char byte;
    struct msghdr m = message(&io, &byte, &fd);
    int got = -1;

    if (recvmsg(socket, &m, MSG_CMSG_CLOEXEC) != 1 ||
        m.msg_controllen < sizeof(fd.header))
        return -1;
    memcpy(&got, CMSG_DATA(&fd.header), sizeof(got));
    return got;
}

/* Sockets, pipes and links must not live as long as this does. */
static void close_others(int socket)
{
    if (syscall(SYS_close_range, (unsigned)socket + 1, ~0u, 0u) == 0 &&
        (socket == 0 ||
         syscall(SYS_close_range, 0u, (unsigned)socket - 1, 0u) == 0))
        return;
    for (int fd = 0; fd < MAX_FDS; fd++) { /* before Linux 5.9 */
        if (fd != socket)
            (void)close(fd);
    }
}

static _Noreturn void serve(int socket, const struct watch *watch,
                            struct images *images, struct answer *answer)
{
    int fd;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)prctl(PR_SET_NAME, "retriever-look");
    close_others(socket);
    while ((fd = take_order(socket)) >= 0) {
        answer->rc = environ_read_live(images, fd, watch, &answer->values);
        (void)close(fd);
        if (send(socket, "", 1, MSG_NOSIGNAL) != 1)
            break;
    }
    _exit(0);
}

/* ---- Ours --------------------------------------------------------------- */

static bool has_ended(pid_t pid)
{
    return waitpid(pid, NULL, WNOHANG) != 0; /* or somebody else reaped it */
}

static void reap(struct aside *a)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < a->n_left; i++) {
        if (!has_ended(a->left[i]))
            a->left[n++] = a->left[i];
    }
    a->n_left = n;
}

static int start(struct aside *a)
{
    struct images *images = NULL;
    int pair[2], rc;
    void *shared;

    reap(a);
    if (a->n_left == ASIDE_MAX_LEFT)
        return -EBUSY;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return -errno;
    shared = mmap(NULL, sizeof(*a->answer), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    rc = shared != MAP_FAILED ? images_create(&images) : -ENOMEM;
    if (rc == 0) {
        a->pid = fork();
        if (a->pid == 0)
            serve(pair[1], a->watch, images, shared);
        rc = a->pid > 0 ? 0 : -errno;
    }
    images_close(images);
    (void)close(pair[1]);
    if (rc == 0) {
        a->socket = pair[0];
        a->answer = shared;
        return 0;
    }
    a->pid = 0;
    (void)close(pair[0]);
    if (shared != MAP_FAILED)
        (void)munmap(shared, sizeof(*a->answer));
    return rc;
}

/* Whatever it is doing; it is there for as long as the kernel makes it stay. */
static void leave(struct aside *a)
{
    if (a->pid == 0)
        return;
    (void)kill(a->pid, SIGKILL);
    (void)close(a->socket);
    (void)munmap(a->answer, sizeof(*a->answer));
    if (!has_ended(a->pid))
        a->left[a->n_left++] = a->pid; /* start() saw that there is room */
    a->pid = 0;
}

static int order(const struct aside *a, int proc_fd)
{
    struct iovec io;
    union one_fd fd;
    char byte = 0;
    struct msghdr m = message(&io, &byte, &fd);

    fd.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(proc_fd)),
                                 .cmsg_level = SOL_SOCKET,
                                 .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&fd.header), &proc_fd, sizeof(proc_fd));
    return sendmsg(a->socket, &m, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

static int take_answer(const struct aside *a)
{
    struct pollfd p = {.fd = a->socket, .events = POLLIN};
    char byte;

    if (poll(&p, 1, ASIDE_WAIT_MS) != 1)
        return -ETIMEDOUT;
    return recv(a->socket, &byte, 1, MSG_DONTWAIT) == 1 ? 0 : -EPIPE;
}

int aside_read(struct aside *a, int proc_fd, struct environ_values *out)
{
    int rc = 0;

    if (clock_mono_ns(&clock_real) < a->pause_until_ns)
        return -EBUSY;
    if (a->pid == 0)
        rc = start(a);
    if (rc != 0)
        return rc;
    rc = order(a, proc_fd);
    if (rc == 0)
        rc = take_answer(a);
    if (rc != 0) {
        leave(a);
        a->pause_until_ns = clock_mono_ns(&clock_real) +
                            ASIDE_PAUSE_MS * (uint64_t)CLOCK_NS_PER_MS;
        return rc;
    }
    *out = a->answer->values;
    return a->answer->rc;
}

int aside_create(struct aside **out, const struct watch *watch)
{
    struct aside *a = calloc(1, sizeof(*a));

    if (a == NULL)
        return -ENOMEM;
    a->watch = watch;
    *out = a;
    return 0;
}

void aside_close(struct aside *a)
{
    if (a == NULL)
        return;
    if (a->pid != 0) {
        (void)kill(a->pid, SIGKILL); /* it waits for an order, so it ends now */
        (void)waitpid(a->pid, NULL, 0);
        a->pid = 0;
        (void)close(a->socket);
        (void)munmap(a->answer, sizeof(*a->answer));
    }
    reap(a);
    free(a);
}
