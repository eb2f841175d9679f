/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets to landing slots to aggregation: what the reader does each turn. One
 * file per kind of socket; the parts that all share are in ingress.c.
 *
 * Thread:  the reader, for every call.
 * Memory:  none beyond the landing zone and the arrays made by ingress_init().
 * Promise: reads are bounded per call, so that no socket starves another. What
 *          a receive call took is applied and committed before the next one.
 */
#ifndef RETRIEVER_AGENT_INGRESS_H
#define RETRIEVER_AGENT_INGRESS_H

#include "agent/base/clock.h"
#include "agent/base/spsc.h"
#include "agent/landing.h"
#include "agent/origin.h"
#include "agent/sockets.h"

/** Something worth a log line; the reader never writes logs itself. */
enum ingress_note_kind {
    NOTE_STREAM_REFUSED, /* value: the limit */
    NOTE_STREAM_LENGTH,  /* value: the length; bytes: as they came */
    NOTE_STREAM_MEMORY,  /* value: errno */
    NOTE_STREAM_PARTIAL, /* value: bytes of a frame that did not end */
    NOTE_ACCEPT_FAILED,  /* value: errno */
    NOTE_RECEIVE_FAILED, /* value: errno */
    NOTE_POISON,         /* value: bytes skipped */
    NOTE_REJECTED,       /* value: enum dsd_result; bytes: the line, cut */
    NOTE_KERNEL_DROPS,   /* value: datagrams */
    NOTE_CLOCK_STEPPED,  /* value: seconds, signed */
    NOTE_STOP_FAILED,    /* value: errno; the socket goes on receiving */
    NOTE_GRACE_LATE,     /* value: ms that the drain waited for senders */
    NOTE_TAP_FAILED      /* value: errno; this socket is not tapped */
};

/** In place of a socket: lines of our own. */
#define NOTE_OF_KERNEL SOCKETS_MAX

struct ingress_note {
    enum ingress_note_kind kind;
    uint32_t source; /* index into struct sockets, or NOTE_OF_KERNEL */
    int64_t value;
    unsigned char bytes[120];
    uint32_t n_bytes;
};

/** Told by the stream code when a connection comes or goes, so that the reader
 *  can watch its descriptor. @removed runs before the descriptor is closed and
 *  calls ingress_conn_freed(), at once or later. */
struct ingress_watch {
    void *arg;
    int (*added)(void *arg, uint32_t conn);
    void (*removed)(void *arg, uint32_t conn);
};

struct ingress {
    struct ingest ingest;
    struct region *region;
    struct ingest_counts *counts;
    struct landing *landing;
    const struct sockets *sockets;
    struct process_clock *clock;
    _Atomic uint64_t last_data_ns; /* monotonic; 0 = none yet */
    struct spsc *notes;
    struct ingress_watch watch;
    uint32_t stream_idle_s; /* 0 = never */

    struct proctags *proctags; /* NULL = processes have no tags */
    struct origin origin;
    uint32_t socket_ids[SOCKETS_MAX]; /* inodes; 0 = no datagram socket */
    uint32_t *conn_pids;              /* of the other end; 0 = not known */
    uint32_t n_alone; /* datagrams before groups of them are tried again: where
                         one has several lines, so do the next */
    uint32_t *free_conns; /* stack of free indices */
    uint32_t n_free;
    uint64_t *conn_data_ns; /* last bytes of each connection */
    uint32_t n_live;        /* connections */
    int fd_limit;           /* connections take no descriptor from here on: the
                               way to the intake needs some, too */
    bool accept_paused;     /* out of descriptors until the next tick */
};

/** What one bounded read of a source said. */
enum ingress_rc {
    INGRESS_IDLE,  /* nothing was there */
    INGRESS_SHORT, /* all that was there is taken */
    INGRESS_MORE   /* the bound was reached: there may be more */
};

/** Everything but the arrays is filled by the caller. Returns 0 or -ENOMEM. */
int ingress_init(struct ingress *g);
void ingress_fini(struct ingress *g);

/** The watch has forgotten @conn: its index may be used again. */
void ingress_conn_freed(struct ingress *g, uint32_t conn);

/** Apply what a dead worker had received and not committed, skip what killed
 *  two, drop connections whose descriptor is gone. */
void ingress_recover(struct ingress *g);

/** Datagrams of @source, at most @max_calls receive calls. */
enum ingress_rc ingress_datagrams(struct ingress *g, uint32_t source,
                                  unsigned max_calls);

/** Groups of datagrams are worth a try now; false: one by one. */
static inline bool ingress_may_group(struct ingress *g)
{
    if (g->n_alone == 0)
        return !landing_is_poisoned(g->landing);
    g->n_alone--;
    return false;
}

/** Put one line for the log into the ring; a full ring drops it. */
void ingress_note(struct ingress *g, enum ingress_note_kind kind,
                  uint32_t source, int64_t value);

/** The line that ingest_packet() set aside, if any, as a note. */
void ingress_note_offender(struct ingress *g, uint32_t source);

/** Wall seconds of the process clock; remembers that data came. */
int64_t ingress_now_s(struct ingress *g);
void ingress_touch(struct ingress *g);

/* ---- ingress_tap.c ------------------------------------------------------ */

/** What tap records of that socket say; 0 = it cannot be tapped. */
uint32_t ingress_socket_id(const struct socket_entry *e);

/** Datagrams from the tap's ring up to its position @end, as far as they are whole.
 *  Returns how many. */
uint64_t ingress_tap(struct ingress *g, uint64_t end);

/** Nothing that was reserved before @end is missing. */
bool ingress_tap_is_done(const struct ingress *g, uint64_t end);

/** The time is over: count each record before @end that a sender has not finished
 *  as a sample lost (ring_busy), and take what lies behind. */
void ingress_tap_give_up(struct ingress *g, uint64_t end);

/** Go on in the ring behind a worker that died. */
void ingress_tap_recover(struct ingress *g);

/* ---- ingress_udp.c, ingress_uds.c -------------------------------------- */

/** No datagram arrives after this and one RCU grace period; the queue stays
 *  readable. Never for sockets that somebody else holds. Returns 0 or -errno. */
int ingress_udp_stop(int fd);
int ingress_uds_stop(int fd);

/** The kernel's drop counters of the UDP sockets into the counts. Takes what the
 *  ring holds first, since the kernel counts that, too. */
void ingress_udp_drops(struct ingress *g);

/** Datagrams that the kernel dropped in the life of a datagram socket. */
uint32_t ingress_dropped(int fd);

/** Bytes that wait in a datagram socket's receive queue. */
uint32_t ingress_queued_bytes(int fd);

/** Estimated number of datagrams that wait in all of them. */
uint64_t ingress_left(const struct sockets *s);

/* ---- ingress_stream.c -------------------------------------------------- */

/** Accept at most @max connections of the listener @source. */
enum ingress_rc ingress_accept(struct ingress *g, uint32_t source,
                               unsigned max);

/** Bytes of connection @conn, at most @max_calls receive calls. The connection
 *  may be gone when this returns. */
enum ingress_rc ingress_stream_read(struct ingress *g, uint32_t conn,
                                    unsigned max_calls);

/** Have the descriptor of @conn watched. Returns false when that was refused:
 *  the connection is closed then, and counted as refused. */
bool ingress_stream_watch(struct ingress *g, uint32_t conn);

/** Read to the end of the frame that has begun, and not a byte further. Returns
 *  false while bytes of it are still to come; true also when the connection is
 *  gone. */
bool ingress_stream_finish(struct ingress *g, uint32_t conn);

/** Apply the complete frames that lie in the buffer of @conn. Returns false when
 *  the connection had to be closed. */
bool ingress_stream_apply(struct ingress *g, uint32_t conn);

/** New connections are refused by the kernel; those it holds stay. */
int ingress_listener_stop(int fd);

/** The peer can send no more; what it sent stays readable. */
void ingress_stream_stop(struct ingress *g, uint32_t conn);

/** Close connections without data for stream_idle_s. */
void ingress_stream_idle(struct ingress *g);

/** Close @conn: a frame that is not complete counts as rejected (truncated). */
void ingress_stream_close(struct ingress *g, uint32_t conn);

#endif
