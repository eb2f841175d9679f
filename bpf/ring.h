/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading side of a BPF ring buffer, and when to be woken by it.
 *
 * Positions are bytes since the ring was made. The owner walks the records from its
 * own position on, as far as it likes, and gives the room back with
 * ring_consumed(); until then nothing of them is overwritten, so what lies between
 * is a landing zone: a successor that maps the same ring finds it there.
 *
 * Waking. Under load the reader comes by a timer and is woken only, once, when the
 * ring fills faster than that (RING_POLLED). With little to do it is woken by each
 * record, and sleeps without a timer (RING_WAKE). When it changes from the first to
 * the second it comes by once more, since a program that read the old mode wakes
 * nobody.
 *
 * Format: linux/kernel/bpf/ringbuf.c (the uapi constants name it): 8 bytes of header
 * before each record, of which the first 4 are its length and two flags, positions
 * rounded up to 8.
 *
 * Thread:  one reader, for every call but ring_create().
 * Memory:  the ring's, in the kernel; mapped twice, as its pages wrap around.
 * Promise: what a map contains is not trusted with more than its length: a record
 *          never reaches outside the ring.
 */
#ifndef RETRIEVER_BPF_RING_H
#define RETRIEVER_BPF_RING_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/events.h"
#include "bpf/loader.h"

struct ring {
    int ring_fd, control_fd; /* -1 = none */
    int wait_fd;             /* readable when somebody woke us; level-triggered
                                until ring_awake() */
    struct ring_control *control;
    uint64_t *consumer;
    const uint64_t *producer;
    const unsigned char *data;
    uint32_t n_bytes; /* power of two */
    uint32_t n_quiet; /* timers in a row that found nothing */
    uint64_t woke_ns; /* last wake-up in RING_WAKE */
    bool settling;    /* the mode has just changed to RING_WAKE */
};

/** Make the two maps of a ring with @n_bytes, a power of two and at least a page.
 *  Whoever holds these holds the ring and all that lies in it. Returns 0,
 *  LOADER_REFUSED (@cause filled) or -errno. */
int ring_make(int *ring_fd, int *control_fd, uint32_t n_bytes,
              struct loader_cause *cause);

/** Are these two maps a ring? They may come from outside of this process. Returns 0
 *  (*n_bytes is set), -EINVAL or -errno. */
int ring_check(int ring_fd, int control_fd, uint32_t *n_bytes);

/** Map a ring that exists; the descriptors become @r's. Returns 0, -EINVAL when
 *  they are something else, or -errno (they stay the caller's then). */
int ring_open(struct ring *r, int ring_fd, int control_fd);

/** Both at once. */
int ring_create(struct ring *r, uint32_t n_bytes, struct loader_cause *cause);

/** Unmap; descriptors are closed unless @keep_maps. */
void ring_close(struct ring *r, bool keep_maps);

enum ring_rc {
    RING_RECORD,
    RING_EMPTY,
    RING_BUSY /* a program is still writing it */
};

/** Bytes at r->data, all of which can be read: the ring, twice. */
static inline size_t ring_memory_bytes(const struct ring *r)
{
    return 2 * (size_t)r->n_bytes;
}

/** As far as records are reserved. Each call may have to fetch what another CPU
 *  writes with each record. */
static inline uint64_t ring_end(const struct ring *r)
{
    return __atomic_load_n(r->producer, __ATOMIC_ACQUIRE);
}

/** The record at @pos, of those before @end, which ring_end() gave. RING_RECORD:
 *  *record, *n; *next is the position behind it. RING_BUSY: *next is set, too.
 *  Records that a program withdrew are stepped over. */
static inline enum ring_rc ring_before(const struct ring *r, uint64_t end,
                                       uint64_t pos, const void **record,
                                       uint32_t *n, uint64_t *next)
{
    while (pos < end) {
        const unsigned char *at = r->data + (pos & (r->n_bytes - 1));
        uint32_t word = __atomic_load_n((const uint32_t *)(const void *)at,
                                        __ATOMIC_ACQUIRE);
        uint32_t bytes =
            word & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT);
        uint64_t behind =
            pos + ((uint64_t)bytes + BPF_RINGBUF_HDR_SZ + 7) / 8 * 8;

        if (behind > end) /* no program writes such a thing */
            break;
        *next = behind;
        if (__builtin_expect(word == bytes, 1)) {
            *record = at + BPF_RINGBUF_HDR_SZ;
            *n = bytes;
            return RING_RECORD;
        }
        if ((word & BPF_RINGBUF_BUSY_BIT) != 0)
            return RING_BUSY;
        pos = behind;
    }
    *next = pos;
    return RING_EMPTY;
}

/** The same, of all that there are. */
static inline enum ring_rc ring_at(const struct ring *r, uint64_t pos,
                                   const void **record, uint32_t *n,
                                   uint64_t *next)
{
    return ring_before(r, ring_end(r), pos, record, n, next);
}

/** Everything before @pos may be overwritten. */
void ring_consumed(struct ring *r, uint64_t pos);

/** So far ring_consumed() has got. */
uint64_t ring_begin(const struct ring *r);

/** wait_fd was readable: make it quiet again. */
void ring_awake(struct ring *r);

/** Behind a drain that applied @n records: choose how to wait. Returns
 *  RING_AGAIN (something came meanwhile, drain again), RING_SLEEP (wait for
 *  wait_fd: there is nothing in the ring, not even in the making), or RING_TIMER
 *  (for wait_fd, or until the reader's timer).
 *  @woken: wait_fd was readable, and not the timer's end. */
enum ring_wait { RING_AGAIN, RING_SLEEP, RING_TIMER };
enum ring_wait ring_rest(struct ring *r, uint64_t n, bool woken,
                         uint64_t now_ns);

/** The reader lives, and will be back before RING_ALIVE_NS from @now_ns; @asleep:
 *  when it is woken. */
void ring_alive(struct ring *r, uint64_t now_ns, bool asleep);

#endif
