/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into the agent: the n-th call of a class that a worker makes fails,
 * once in all workers together.
 *
 *   FAILNTH_CLASS   alloc (malloc and its kin), or call (system calls)
 *   FAILNTH_N       1 = the first call behind the worker's fork
 *   FAILNTH_REPORT  file that gets the name of what failed; no file: n was never
 *                   reached
 *
 * The keeper is the process that loaded this; all others are workers. Each call
 * fails with the error that is its most likely one.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define OURS __attribute__((visibility("default")))

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t m);
void *__libc_realloc(void *p, size_t n);

enum class { NONE, ALLOC, CALL };

static enum class failing;
static uint64_t n_th;
static char report[256];
static long keeper;
typedef int thread_fn(pthread_t *t, const pthread_attr_t *attr,
                      void *(*run)(void *), void *arg);
static thread_fn *real_pthread_create;
static _Atomic uint64_t n_calls;
static _Atomic unsigned *fired; /* shared by all workers */

/* A worker has no exec behind it, so that all of this is there. */
__attribute__((constructor)) static void begin(void)
{
    const char *class = getenv("FAILNTH_CLASS");
    const char *n = getenv("FAILNTH_N");
    const char *to = getenv("FAILNTH_REPORT");
    long page;

    if (class == NULL || n == NULL || to == NULL ||
        strlen(to) >= sizeof(report))
        return;
    page = syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == -1)
        return;
    fired = (_Atomic unsigned *)page;
    memcpy(report, to, strlen(to) + 1);
    real_pthread_create = (thread_fn *)dlsym(RTLD_NEXT, "pthread_create");
    n_th = strtoull(n, NULL, 10);
    keeper = syscall(SYS_getpid);
    failing = strcmp(class, "alloc") == 0 ? ALLOC : CALL;
}

static void say(const char *what)
{
    int old = errno;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, report,
                          O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    if (fd >= 0) {
        (void)syscall(SYS_write, fd, what, strlen(what));
        (void)syscall(SYS_close, fd);
    }
    errno = old;
}

/* This call is the one. */
static int is_due(enum class class, const char *what)
{
    if (failing != class || syscall(SYS_getpid) == keeper ||
        atomic_fetch_add(&n_calls, 1) + 1 != n_th ||
        atomic_exchange(fired, 1) != 0)
        return 0;
    say(what);
    return 1;
}

static int fails(const char *what, int error)
{
    if (!is_due(CALL, what))
        return 0;
    errno = error;
    return 1;
}

/* ---- Memory -------------------------------------------------------------- */

OURS void *malloc(size_t n)
{
    if (is_due(ALLOC, "malloc")) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_malloc(n);
}

OURS void *calloc(size_t n, size_t m)
{
    if (is_due(ALLOC, "calloc")) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_calloc(n, m);
}

OURS void *realloc(void *p, size_t n)
{
    if (is_due(ALLOC, "realloc")) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_realloc(p, n);
}

OURS void *reallocarray(void *p, size_t n, size_t m)
{
    size_t all;

    if (__builtin_mul_overflow(n, m, &all)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(p, all);
}

/* ---- System calls -------------------------------------------------------- */

#define CALL_LONG(name, error, number, ...)                                    \
    (fails(name, error) ? -1 : syscall(number, __VA_ARGS__))
#define CALL_INT(...) ((int)CALL_LONG(__VA_ARGS__))

OURS void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
    return (void *)CALL_LONG("mmap", ENOMEM, SYS_mmap, at, n, prot, flags, fd,
                             off);
}

static mode_t mode_of(int flags, va_list ap)
{
    return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(ap, mode_t) : 0;
}

OURS int open(const char *path, int flags, ...)
{
    mode_t mode;
    va_list ap;

    va_start(ap, flags);
    mode = mode_of(flags, ap);
    va_end(ap);
    return CALL_INT("open", EMFILE, SYS_openat, AT_FDCWD, path, flags, mode);
}

OURS int openat(int dir, const char *path, int flags, ...)
{
    mode_t mode;
    va_list ap;

    va_start(ap, flags);
    mode = mode_of(flags, ap);
    va_end(ap);
    return CALL_INT("openat", EMFILE, SYS_openat, dir, path, flags, mode);
}

OURS ssize_t write(int fd, const void *p, size_t n)
{
    return CALL_LONG("write", EIO, SYS_write, fd, p, n);
}

OURS ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    return CALL_LONG("pwrite", ENOSPC, SYS_pwrite64, fd, p, n, at);
}

OURS int fallocate(int fd, int mode, off_t at, off_t n)
{
    return CALL_INT("fallocate", ENOSPC, SYS_fallocate, fd, mode, at, n);
}

OURS int fsync(int fd)
{
    return CALL_INT("fsync", EIO, SYS_fsync, fd);
}

OURS int fdatasync(int fd)
{
    return CALL_INT("fdatasync", EIO, SYS_fdatasync, fd);
}

OURS int recvmmsg(int fd, struct mmsghdr *m, unsigned n, int flags,
                  struct timespec *t)
{
    return CALL_INT("recvmmsg", ENOBUFS, SYS_recvmmsg, fd, m, n, flags, t);
}

OURS int accept4(int fd, struct sockaddr *a, socklen_t *n, int flags)
{
    return CALL_INT("accept4", EMFILE, SYS_accept4, fd, a, n, flags);
}

OURS int socket(int domain, int type, int protocol)
{
    return CALL_INT("socket", EMFILE, SYS_socket, domain, type, protocol);
}

OURS int connect(int fd, const struct sockaddr *a, socklen_t n)
{
    return CALL_INT("connect", EADDRNOTAVAIL, SYS_connect, fd, a, n);
}

OURS int shutdown(int fd, int how)
{
    return CALL_INT("shutdown", ENOTCONN, SYS_shutdown, fd, how);
}

OURS ssize_t send(int fd, const void *p, size_t n, int flags)
{
    return CALL_LONG("send", ECONNRESET, SYS_sendto, fd, p, n, flags, NULL, 0);
}

OURS ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    return CALL_LONG("sendmsg", ECONNRESET, SYS_sendmsg, fd, m, flags);
}

OURS ssize_t recv(int fd, void *p, size_t n, int flags)
{
    return CALL_LONG("recv", ECONNRESET, SYS_recvfrom, fd, p, n, flags, NULL,
                     NULL);
}

OURS int eventfd(unsigned n, int flags)
{
    return CALL_INT("eventfd", EMFILE, SYS_eventfd2, n, flags);
}

OURS int epoll_create1(int flags)
{
    return CALL_INT("epoll_create1", EMFILE, SYS_epoll_create1, flags);
}

OURS int epoll_ctl(int ep, int op, int fd, struct epoll_event *e)
{
    return CALL_INT("epoll_ctl", ENOMEM, SYS_epoll_ctl, ep, op, fd, e);
}

OURS int pthread_create(pthread_t *t, const pthread_attr_t *attr,
                        void *(*run)(void *), void *arg)
{
    if (real_pthread_create == NULL)
        real_pthread_create = (thread_fn *)dlsym(RTLD_NEXT, "pthread_create");
    return fails("pthread_create", EAGAIN)
               ? EAGAIN
               : real_pthread_create(t, attr, run, arg);
}

/* Libraries built for large files ask by these names. */
#define ALSO(name, other)                                                      \
    OURS extern __typeof__(name) other __attribute__((alias(#name)))

ALSO(open, open64);
ALSO(openat, openat64);
ALSO(pwrite, pwrite64);
ALSO(mmap, mmap64);
ALSO(fallocate, fallocate64);
