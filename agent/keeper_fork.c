/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a worker is forked, and what happens to the descriptors of a dead one.
 *
 * A worker is forked without exec, so that a successor is up in a millisecond and
 * all absolute pointers into the shared memory hold, and it shares the keeper's
 * table of descriptors (CLONE_FILES): connections of a dead worker stay open and
 * its successor reads on.
 *
 * A raw clone() leaves glibc's idea of the thread alone where fork() would
 * repair it: its thread id (the kernel stores the new one where
 * PR_GET_TID_ADDRESS says, as for glibc's own fork) and the list of robust
 * mutexes. The keeper has one thread, so no lock can be held. Where that is not
 * possible (a sanitizer's run-time, an old kernel, `seccomp`), fork() is used:
 * then stream connections of a dead worker are lost, and their senders told.
 *
 * Between two workers nobody else uses the table: what a dead worker left open is
 * sorted out here, before the fork, without a race.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/keeper_private.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

/* ---- Sets of descriptors ----------------------------------------------- */

/* Calls @fn for each open descriptor but the folder's own. */
static void each_fd_in(DIR *dir, void (*fn)(void *arg, int fd), void *arg)
{
    struct dirent *e;

    while ((e = readdir(dir)) != NULL) {
        int fd = (int)strtol(e->d_name, NULL, 10);

        if (e->d_name[0] != '.' && fd != dirfd(dir))
            fn(arg, fd);
    }
}

static int each_fd(void (*fn)(void *arg, int fd), void *arg)
{
    DIR *dir = opendir("/proc/self/fd");

    if (dir == NULL)
        return -errno;
    each_fd_in(dir, fn, arg);
    closedir(dir);
    return 0;
}

static bool in_set(const struct fd_set_of *s, int fd)
{
    return (size_t)fd < s->n && s->has[fd];
}

static void add_fd(void *arg, int fd)
{
    struct fd_set_of *s = arg;

    if ((size_t)fd >= s->n) {
        size_t n = (size_t)fd + 64;
        bool *has = realloc(s->has, n * sizeof(*has));

        if (has == NULL)
            return;
        memset(has + s->n, 0, (n - s->n) * sizeof(*has));
        s->has = has;
        s->n = n;
    }
    s->has[fd] = true;
}

void fd_set_add(struct fd_set_of *s, int fd)
{
    add_fd(s, fd);
}

void fd_set_remove(struct fd_set_of *s, int fd)
{
    if (in_set(s, fd))
        s->has[fd] = false;
}

int fd_set_snapshot(struct fd_set_of *s)
{
    *s = (struct fd_set_of){0};
    return each_fd(add_fd, s);
}

void fd_set_fini(struct fd_set_of *s)
{
    free(s->has);
    *s = (struct fd_set_of){0};
}

static void close_unless_in(void *arg, int fd)
{
    if (!in_set(arg, fd))
        close(fd);
}

void fd_set_close_others(const struct fd_set_of *s)
{
    (void)each_fd(close_unless_in, (void *)s);
}

/* ---- After a worker's death -------------------------------------------- */

static bool recorded_conn(const struct keeper *k, int fd)
{
    for (uint32_t i = 0; i < k->landing.n_conns; i++) {
        const struct landing_conn *c = &k->landing.conns[i];

        if (c->fd == fd)
            return sockets_is_conn_of(&k->sockets, c->listener, fd);
    }
    return false;
}

/* Accepted, and the worker died before it wrote that down: nothing was read
 * from it yet. */
bool keeper_adopt_conn(struct keeper *k, int fd)
{
    for (uint32_t s = 0; s < k->sockets.n; s++) {
        if (k->sockets.entries[s].kind != SOCKET_UNIXSTREAM ||
            !sockets_is_conn_of(&k->sockets, s, fd))
            continue;
        for (uint32_t i = 0; i < k->landing.n_conns; i++) {
            if (k->landing.conns[i].fd < 0)
                return landing_conn_open(&k->landing, i, fd, s) == 0;
        }
    }
    return false;
}

static void sort_out_fd(void *arg, int fd)
{
    struct keeper *k = arg;

    if (in_set(&k->kept, fd) || recorded_conn(k, fd) ||
        keeper_adopt_conn(k, fd))
        return;
    close(fd);
}

/* What killed two workers is kept for whoever looks into it. */
static void keep_poison(const struct keeper *k, const void *bytes, size_t n)
{
    char name[64];
    int fd;

    if (k->env.run_dir < 0)
        return;
    (void)snprintf(name, sizeof(name), "poison-%" PRIu64, keeper_now_ns());
    fd = openat(k->env.run_dir, name,
                O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    (void)!write(fd, bytes, n);
    close(fd);
}

/* A record that ends a worker does it by a fault. Killed from outside (an operator,
 * the OOM killer), twice at one place is chance, and skipping would lose data. */
bool keeper_is_fault(int status)
{
    if (!WIFSIGNALED(status))
        return true; /* it left by itself, in the middle of a record */
    switch (WTERMSIG(status)) {
    case SIGSEGV:
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
    case SIGABRT:
    case SIGTRAP:
    case SIGSYS:
        return true;
    default:
        return false;
    }
}

/* The ring is mapped to look at the record, and not longer: a successor would inherit
 * that, with a descriptor which is closed as the dead worker's. */
static void note_death(struct keeper *k)
{
    const void *bytes;
    size_t n;

    if (landing_note_death(&k->landing, &bytes, &n) == 2)
        keep_poison(k, bytes, n);
    landing_ring_unmap(&k->landing);
}

void keeper_after_worker(struct keeper *k, int status)
{
    int rc;

    atomic_store(&k->sup->serving, 0);
    rc = region_rollback(&k->ingest);
    if (region_rollback(&k->store) != 0 || rc != 0)
        log_error("keeper", "the dead worker scribbled over its journal: what "
                            "does not check is dropped and counted as damaged");
    if (keeper_is_fault(status))
        note_death(k);
    else
        landing_forget(&k->landing);
    if (atomic_exchange(&k->sup->kernel_busy, 0) != 0 &&
        keeper_is_fault(status))
        atomic_fetch_add(&k->sup->n_kernel_faults, 1);
    if (!k->shares_table)
        return;
    rewinddir(k->open_fds);
    each_fd_in(k->open_fds, sort_out_fd, k);
}

/* ---- Fork -------------------------------------------------------------- */

static pid_t clone_sharing_table(void)
{
#if defined(SANITIZED) || !defined(PR_GET_TID_ADDRESS) ||                      \
    !(defined(__x86_64__) || defined(__aarch64__))
    errno = ENOSYS;
    return -1;
#else
    const unsigned long flags =
        CLONE_FILES | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD;
    void *robust = NULL;
    size_t n_robust = 0;
    int *tid = NULL;
    long pid;

    if (prctl(PR_GET_TID_ADDRESS, &tid) != 0 || tid == NULL ||
        syscall(SYS_get_robust_list, 0, &robust, &n_robust) != 0)
        return -1;
#ifdef __x86_64__
    pid = syscall(SYS_clone, flags, NULL, NULL, tid, NULL);
#else
    pid = syscall(SYS_clone, flags, NULL, NULL, NULL, tid);
#endif
    if (pid == 0)
        (void)syscall(SYS_set_robust_list, robust, n_robust);
    return (pid_t)pid;
#endif
}

pid_t keeper_fork(struct keeper *k)
{
    pid_t pid = clone_sharing_table();

    k->shares_table = pid >= 0;
    return pid >= 0 ? pid : fork();
}
