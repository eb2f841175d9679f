/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/receipt.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/ledger.h"

void receipt_compose(struct receipt *r, const struct ledger *l,
                     const struct ledger_facts *facts)
{
    struct buf line;
    uint32_t n = 0;

    if (receipt_is_ready(r))
        return;
    buf_init(&line, sizeof(r->text));
    if (ledger_write_json(l, facts, &line) == 0 && buf_putc(&line, '\n') == 0) {
        n = (uint32_t)line.n;
        memcpy(r->text, line.data, n);
    }
    buf_fini(&line);
    atomic_store(&r->n_bytes, n);
    atomic_store(&r->exit_status, facts->exit_status);
    atomic_store(&r->state, RECEIPT_READY);
}

/* ---- Printing ----------------------------------------------------------- */

/* stderr is shared with the job and the shell, so its O_NONBLOCK is not ours to
 * set: a pipe or a terminal is opened once more, without blocking; a socket has
 * a flag per call; a file does not block. What cannot be opened again is asked
 * by poll() and may block when somebody else fills it in that moment. */
static int open_stderr(bool *is_socket)
{
    struct stat st;

    *is_socket = false;
    if (fstat(STDERR_FILENO, &st) != 0)
        return STDERR_FILENO;
    *is_socket = S_ISSOCK(st.st_mode);
    if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
        int fd = open("/proc/self/fd/2",
                      O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

        if (fd >= 0)
            return fd;
    }
    return STDERR_FILENO;
}

static uint64_t left_ns(uint64_t deadline_ns)
{
    uint64_t now_ns = clock_mono_ns(&clock_real);

    return now_ns < deadline_ns ? deadline_ns - now_ns : 0;
}

/* Somebody may read slowly: wait, but never past the deadline. */
static void write_all(const char *p, size_t n, uint64_t deadline_ns)
{
    bool is_socket;
    int fd = open_stderr(&is_socket);
    struct pollfd pfd = {.fd = fd, .events = POLLOUT};

    while (n > 0) {
        uint64_t ns = left_ns(deadline_ns);
        struct timespec wait = {.tv_sec = (time_t)(ns / CLOCK_NS_PER_S),
                                .tv_nsec = (long)(ns % CLOCK_NS_PER_S)};
        size_t some = n < PIPE_BUF ? n : PIPE_BUF;
        int ready = ppoll(&pfd, 1, &wait, NULL);
        ssize_t w;

        if (ready == 0 || (ready < 0 && errno != EINTR))
            break;
        if (ready < 0)
            continue;
        w = is_socket ? send(fd, p, some, MSG_DONTWAIT | MSG_NOSIGNAL)
                      : write(fd, p, some);
        if (w > 0) {
            p += w;
            n -= (size_t)w;
        } else if (w < 0 && errno != EINTR && errno != EAGAIN) {
            break;
        }
    }
    if (fd != STDERR_FILENO)
        close(fd);
}

/* A closed pipe must not end the process by SIGPIPE, whatever the mask of the
 * thread that writes. */
static void write_stderr(const char *p, size_t n, uint64_t deadline_ns)
{
    static const struct timespec at_once = {0};
    sigset_t pipe_set, old, pending;
    bool was_pending;

    (void)sigemptyset(&pipe_set);
    (void)sigaddset(&pipe_set, SIGPIPE);
    (void)sigpending(&pending);
    was_pending = sigismember(&pending, SIGPIPE) == 1;
    (void)pthread_sigmask(SIG_BLOCK, &pipe_set, &old);
    write_all(p, n, deadline_ns);
    if (!was_pending)
        (void)sigtimedwait(&pipe_set, NULL, &at_once);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void save(int run_dir, const char *p, size_t n)
{
    int fd;

    (void)unlinkat(run_dir, "receipt.json.new", 0);
    fd = openat(run_dir, "receipt.json.new",
                O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    if (write(fd, p, n) == (ssize_t)n)
        (void)renameat(run_dir, "receipt.json.new", run_dir, "receipt.json");
    close(fd);
}

/* All words are what a worker could have scribbled over. */
void receipt_print(struct receipt *r, int run_dir, uint64_t deadline_ns)
{
    uint32_t state = atomic_load(&r->state);
    uint32_t n = atomic_load(&r->n_bytes);

    if (state == RECEIPT_NONE || state == RECEIPT_PRINTED)
        return;
    if (n == 0 || n > sizeof(r->text)) {
        log_error("receipt", "the receipt could not be composed");
    } else {
        if (run_dir >= 0)
            save(run_dir, r->text, n);
        write_stderr(r->text, n, deadline_ns);
    }
    atomic_store(&r->state, RECEIPT_PRINTED);
}
