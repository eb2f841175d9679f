/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel reports a ring as readable as long as there is anything in it, which
 * would make a reader that comes by a timer spin. So it waits for an inner epoll
 * that reports edges: what a program asked to be woken for, nothing else.
 */
#include "bpf/ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#define WAKE_SHARE 4       /* RING_POLLED: wake when 1 / so much is full */
#define QUIET_TIMERS 3u    /* then RING_WAKE */
#define CLOSE_NS 10000000u /* wake-ups closer than this: RING_POLLED */
#define FEW 16u            /* records of a wake-up that do not count as load */

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static int map_all(struct ring *r)
{
    size_t page = page_bytes();
    void *p;

    p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, r->ring_fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    r->consumer = p;
    p = mmap(NULL, page + 2 * (size_t)r->n_bytes, PROT_READ, MAP_SHARED,
             r->ring_fd, (off_t)page);
    if (p == MAP_FAILED)
        return -errno;
    r->producer = p;
    r->data = (const unsigned char *)p + page;
    p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, r->control_fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    r->control = p;
    r->control->wake_at_bytes = r->n_bytes / WAKE_SHARE;
    return 0;
}

static int make_wait(struct ring *r)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET};

    r->wait_fd = epoll_create1(EPOLL_CLOEXEC);
    if (r->wait_fd < 0 ||
        epoll_ctl(r->wait_fd, EPOLL_CTL_ADD, r->ring_fd, &ev) != 0)
        return -errno;
    return 0;
}

static void unmap(struct ring *r)
{
    size_t page = page_bytes();

    if (r->consumer != NULL)
        (void)munmap(r->consumer, page);
    if (r->producer != NULL)
        (void)munmap((void *)r->producer, page + 2 * (size_t)r->n_bytes);
    if (r->control != NULL)
        (void)munmap(r->control, page);
    if (r->wait_fd >= 0)
        (void)close(r->wait_fd);
}

int ring_open(struct ring *r, int ring_fd, int control_fd)
{
    struct ring made = {.ring_fd = ring_fd,
                        .control_fd = control_fd,
                        .wait_fd = -1};
    int rc = ring_check(ring_fd, control_fd, &made.n_bytes);

    if (rc == 0)
        rc = map_all(&made);
    if (rc == 0)
        rc = make_wait(&made);
    if (rc != 0) {
        unmap(&made);
        return rc;
    }
    *r = made;
    return 0;
}

int ring_create(struct ring *r, uint32_t n_bytes, struct loader_cause *cause)
{
    int ring_fd, control_fd;
    int rc = ring_make(&ring_fd, &control_fd, n_bytes, cause);

    if (rc != 0)
        return rc;
    rc = ring_open(r, ring_fd, control_fd);
    if (rc != 0) {
        (void)close(ring_fd);
        (void)close(control_fd);
    }
    return rc;
}

void ring_close(struct ring *r, bool keep_maps)
{
    unmap(r);
    if (!keep_maps) {
        if (r->ring_fd >= 0)
            (void)close(r->ring_fd);
        if (r->control_fd >= 0)
            (void)close(r->control_fd);
    }
    *r = (struct ring){.ring_fd = -1, .control_fd = -1, .wait_fd = -1};
}

/* ---- Records ------------------------------------------------------------ */

uint64_t ring_begin(const struct ring *r)
{
    return __atomic_load_n(r->consumer, __ATOMIC_RELAXED);
}

void ring_consumed(struct ring *r, uint64_t pos)
{
    __atomic_store_n(r->consumer, pos, __ATOMIC_RELEASE);
}

/* ---- Waiting ------------------------------------------------------------ */

void ring_awake(struct ring *r)
{
    struct epoll_event ev;

    (void)epoll_wait(r->wait_fd, &ev, 1, 0);
}

void ring_alive(struct ring *r, uint64_t now_ns, bool asleep)
{
    __atomic_store_n(&r->control->alive_until_ns,
                     asleep ? 0 : now_ns + RING_ALIVE_NS, __ATOMIC_RELAXED);
}

static void set_mode(struct ring *r, enum ring_mode mode)
{
    __atomic_store_n(&r->control->mode, mode, __ATOMIC_RELAXED);
}

/* A record that is still being written wakes us when it is whole. */
static bool has_record(const struct ring *r)
{
    const void *record;
    uint64_t next;
    uint32_t n;

    return ring_at(r, ring_begin(r), &record, &n, &next) == RING_RECORD;
}

enum ring_wait ring_rest(struct ring *r, uint64_t n, bool woken,
                         uint64_t now_ns)
{
    struct ring_control *c = r->control;
    bool polled = c->mode == RING_POLLED;

    if (!polled && woken) {
        bool close = now_ns - r->woke_ns < CLOSE_NS || n > FEW;

        r->woke_ns = now_ns;
        if (close && n > 0) {
            set_mode(r, RING_POLLED);
            r->n_quiet = 0;
            r->settling = false;
            polled = true;
        }
    } else if (polled) {
        r->n_quiet = n > 0 ? 0 : r->n_quiet + 1;
        if (r->n_quiet >= QUIET_TIMERS) {
            set_mode(r, RING_WAKE);
            r->settling = true;
        }
    } else if (n == 0) {
        r->settling = false;
    }
    /* Behind the drain: cleared before it, a program would set it again during
     * the drain, and nobody would be woken until the timer. */
    __atomic_store_n(&c->woken, 0, __ATOMIC_RELAXED);
    atomic_thread_fence(memory_order_seq_cst);
    if (c->mode == RING_POLLED)
        return RING_TIMER;
    if (has_record(r))
        return RING_AGAIN;
    /* Something that is still being written: its program may have read the old
     * mode long ago, and records behind it wake nobody before it does. */
    return r->settling || ring_end(r) != ring_begin(r) ? RING_TIMER
                                                       : RING_SLEEP;
}
