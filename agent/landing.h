/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The landing zone: memory shared between the workers into which the kernel
 * itself writes what it hands over, lengths included. A message whose length is
 * set was received; one whose length still is LANDING_EMPTY was not. What was
 * received and is not yet committed by aggregation is applied by whoever comes
 * next.
 *
 * Thread:  the reader; between two workers, when nobody reads, the keeper.
 * Memory:  LANDING_SLOTS buffers for datagrams and one buffer pair per stream
 *          connection, all in one memfd. Datagram slots are populated before use,
 *          a connection's buffers when it is accepted and when they grow, so that
 *          no receive call sleeps in a page fault.
 * Promise: after a kill at any instruction each received byte is applied exactly
 *          once (positions move with the commit of the ingest region).
 */
#ifndef RETRIEVER_AGENT_LANDING_H
#define RETRIEVER_AGENT_LANDING_H

#include <sys/socket.h>

#include "aggregator/ingest.h"
#include "bpf/ring.h"

#define LANDING_EMPTY (~0u) /* msg_len before the kernel has set it */
#define LANDING_SLOTS 64
#define LANDING_SOURCES 32 /* datagram sockets and listeners */
/* Descriptors that connections of clients leave free, where there are enough:
 * kernel programs and their maps take some 100, requests and tools the rest. */
#define LANDING_FDS_KEPT 160u
#define LANDING_CONTROL_BYTES CMSG_SPACE(sizeof(struct ucred))

/** Datagrams of one recvmmsg call. In shared memory, as is all it points to. */
struct landing_batch {
    struct ingest_pos pos; /* record = slot */
    uint64_t seq;          /* grows with each receive call */
    uint32_t source;       /* index into struct sockets, set before receiving */
    uint32_t slot_bytes;   /* dogstatsd_buffer_size + room for a terminator */
    unsigned char *slots;  /* LANDING_SLOTS * slot_bytes */
    struct mmsghdr msgs[LANDING_SLOTS];
    struct iovec iovs[LANDING_SLOTS];
    bool wants_senders; /* their process numbers, where sockets tell them */
    _Alignas(8) unsigned char controls[LANDING_SLOTS][LANDING_CONTROL_BYTES];
};

/** One receive call of a stream connection and what lies before it in the same
 *  half of the connection's buffer. */
struct landing_recv {
    struct mmsghdr msg;
    struct iovec iov;
    struct ingest_pos pos; /* record = byte of the half where a frame begins */
    uint64_t seq;
    uint32_t half;       /* which half of the buffer */
    uint32_t base_bytes; /* in the half before this call */
};

/** One stream connection: two states, of which @cur counts. The next receive
 *  call is prepared in the other one and switched to by the store of @cur. */
struct landing_conn {
    int32_t fd; /* stored last; -1 = free */
    uint32_t listener;
    uint32_t cur;
    uint32_t closing;      /* its end is counted: only the close is missing */
    uint32_t window_bytes; /* populated bytes of each half */
    struct landing_recv states[2];
};

/** The ring that the tap writes to is a landing zone of its own: what lies in it
 *  stays until the position behind it is committed. Here is how to find it, and how
 *  far it is applied. */
struct landing_tap {
    int32_t ring_fd; /* constant; -1 = none */
    int32_t control_fd;
    struct ingest_pos pos; /* record = low 32 bits of the ring's position */
    uint32_t counted;      /* the same: taken[] holds what lies before it */
    uint32_t
        taken[LANDING_SOURCES]; /* datagrams; wraps. The kernel counts these
                                        as dropped by their sockets */
};

/** What is being applied: a crash there names the record that caused it. */
enum {
    LANDING_NOTHING,
    LANDING_BATCH,
    LANDING_TAP,
    LANDING_CONN /* + its index */
};

struct landing_place {
    uint32_t what;
    struct ingest_pos pos;
    uint64_t seq;
};

/** First pages of the memfd. */
struct landing_head {
    struct landing_batch batch;
    struct landing_tap tap;
    struct ingest_pos kernel_pos; /* in a packet of our own lines */
    uint32_t applying; /* LANDING_NOTHING, _BATCH, _TAP, _CONN + index */
    uint32_t working;  /* BATCH, TAP: the record, at or behind the position */
    uint32_t n_deaths; /* workers that died at @death in a row */
    struct landing_place death;
    /* The kernel's counter, less what the tap took, when last read. */
    uint32_t drops_seen[LANDING_SOURCES];
};

/** Process handle; plain data that fork copies. */
struct landing {
    struct landing_head *head;
    struct landing_batch *batch;
    struct landing_conn *conns;
    unsigned char *halves; /* n_conns * 2 * half_bytes */
    size_t half_bytes;
    uint32_t n_conns; /* stream_max_connections; 0 without a stream listener */
    uint32_t max_frame_bytes;
    void *map;
    size_t map_bytes;
    int fd;
    struct ring ring; /* of the tap, mapped in this process; has_ring */
    bool has_ring;
};

struct landing_opts {
    uint32_t buffer_bytes; /* longest datagram */
    uint32_t n_conns;
    uint32_t max_frame_bytes;
};

/** Create and map; all datagram slots are empty and populated. Returns 0 or
 *  -errno. */
int landing_create(struct landing *l, const struct landing_opts *opts);
void landing_close(struct landing *l);

/** First call of each worker: bring the page tables of this process up, so that
 *  the kernel never faults while it hands over a message. */
void landing_populate(struct landing *l);

/* ---- Datagrams --------------------------------------------------------- */

/** Empty all slots for a receive call on @source. Everything that lay there
 *  must be applied. */
void landing_arm(struct landing *l, uint32_t source);

static inline unsigned char *landing_slot(const struct landing *l, uint32_t i)
{
    return l->batch->slots + (size_t)i * l->batch->slot_bytes;
}

/** Process number of who sent the datagram in slot @i, as this process sees it; 0 =
 *  not told. */
uint32_t landing_sender(const struct landing *l, uint32_t i);

/* ---- The tap's ring ----------------------------------------------------- */

/** Map the ring that the zone names, unless this process has. Returns 0, -ENOENT
 *  (there is none) or -errno. */
int landing_ring_map(struct landing *l);

/** Before the first worker: these two, which outlive all workers, are the zone's
 *  ring; what lies in it already is read on. Returns 0 or -errno (they stay the
 *  caller's then). */
int landing_ring_take(struct landing *l, int ring_fd, int control_fd);

/** Records of the socket @id that wait in the ring; 0 without one. */
uint32_t landing_ring_unread(struct landing *l, uint32_t id);

/** Unmap it here; the zone still names it. */
void landing_ring_unmap(struct landing *l);

/** Where the next record of the ring is, as the ring counts. */
static inline uint64_t landing_ring_pos(const struct landing *l, uint32_t low)
{
    uint64_t begin = ring_begin(&l->ring);

    return begin + (uint32_t)(low - (uint32_t)begin);
}

/* ---- Stream connections ------------------------------------------------ */

/** Take @fd into the free connection @i. Returns 0 or -errno (no memory for
 *  its buffers; @fd stays the caller's). */
int landing_conn_open(struct landing *l, uint32_t i, int fd, uint32_t listener);

/** The same with @n bytes of a frame that is not complete yet, which somebody else
 *  had received. Returns 0, -EMSGSIZE (more than a frame) or -errno. */
int landing_conn_restore(struct landing *l, uint32_t i, int fd,
                         uint32_t listener, const void *bytes, uint32_t n);

/** The descriptor is closed: give the buffers back. */
void landing_conn_free(struct landing *l, uint32_t i);

/** Prepare the next receive call of connection @i, keeping the bytes of a frame
 *  that is not complete. @need: bytes of the frame that begins at the position,
 *  its length included (4 when the length is not known). Returns the prepared
 *  state, or NULL when memory for a longer frame was refused. */
struct landing_recv *landing_conn_arm(struct landing *l, uint32_t i,
                                      uint32_t need);

static inline struct landing_recv *landing_state(struct landing_conn *c)
{
    return &c->states[c->cur];
}

/** Bytes in the current half, the last receive call included. */
static inline uint32_t landing_filled(const struct landing_recv *st)
{
    return st->base_bytes +
           (st->msg.msg_len == LANDING_EMPTY ? 0 : st->msg.msg_len);
}

/** Nothing of a frame that is not complete was taken from the connection. */
static inline bool landing_at_frame_end(const struct landing_conn *c)
{
    const struct landing_recv *st = &c->states[c->cur & 1];

    return landing_filled(st) == st->pos.record;
}

static inline unsigned char *landing_half(const struct landing *l, uint32_t i,
                                          uint32_t half)
{
    return l->halves + ((size_t)i * 2 + half) * l->half_bytes;
}

/* ---- Death and poison -------------------------------------------------- */

/** Where the next record to apply lies: LANDING_NOTHING when none is begun. */
struct landing_place landing_place(const struct landing *l);

/** Keeper, after a worker died and the ingest region was rolled back: remember
 *  the place. Returns how many workers in a row died there (0 = not while a
 *  record was applied) and where the record's bytes are; from 2 on the
 *  successor skips the record. */
uint32_t landing_note_death(struct landing *l, const void **bytes,
                            size_t *n_bytes);

/** Keeper, instead of the above: the worker was killed from outside, which says
 *  nothing about the record it was at. */
void landing_forget(struct landing *l);

/** Two workers died at @p. */
bool landing_poisoned(const struct landing *l, const struct landing_place *p);

/** Somewhere two workers died, and nothing was skipped for it yet: records are
 *  applied one by one until that is found. */
static inline bool landing_is_poisoned(const struct landing *l)
{
    return __builtin_expect(l->head->n_deaths >= 2, 0);
}

/** The record that killed them was skipped. */
void landing_skipped(struct landing *l);

#endif
