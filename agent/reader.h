/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ingest thread: own uv_loop, sockets to landing zone to aggregation, run to
 * completion. The only writer of the ingest region.
 *
 * Thread:  reader_start/reader_order/reader_join by the main loop; events come
 *          back as callbacks on the main loop.
 * Memory:  two single-producer rings of fixed size; no allocation after start.
 * Promise: an order's answer comes behind all data the reader had taken before
 *          it; READER_DRAINED means: the sockets' queues are empty and what the
 *          kernel accepted is applied.
 */
#ifndef RETRIEVER_AGENT_READER_H
#define RETRIEVER_AGENT_READER_H

#include <stdatomic.h>
#include <uv.h>

#include "agent/base/clock.h"
#include "agent/landing.h"
#include "agent/priority.h"
#include "agent/priority_cause.h"
#include "agent/sockets.h"
#include "bpf/tap.h"

#define READER_THREAD "reader" /* its name, as others see it */

struct reader; /* opaque */

enum reader_order {
    READER_CLOSE_ALL, /* close every part; answer READER_CLOSED with the token */
    READER_FLUSH,     /* the same for who can wait: nothing is closed while that
                         would run ahead of the clock (agg_may_close()) */
    READER_RELEASE,   /* token = sequence number: parts up to it are encoded */
    READER_DRAIN,     /* stop the intake, drain to the end; READER_DRAINED.
                         token = latest instant, CLOCK_MONOTONIC ns */
    READER_PAUSE,     /* read no socket, close every part; READER_PAUSED. What
                         the kernel holds stays there, for whoever reads next.
                         Again: closes what found no room the first time.
                         @n_left: 1 = declined, see READER_FLUSH */
    READER_RESUME,    /* read on. READER_TAPPED, if there is a tap */
    READER_TAP,       /* token = struct tap *, on the heap, now the reader's:
                         attach it. READER_TAPPED */
    READER_UNTAP,     /* detach it, until READER_RESUME. READER_UNTAPPED: no
                         program is begun any more; those that run end within one
                         RCU grace period */
    READER_QUIT       /* end the thread; reader_join() follows */
};

enum reader_event_kind {
    READER_PART,    /* part @seq was closed: encode it */
    READER_CLOSED,  /* answer, token; all its READER_PART events came before.
                       @n_left: 1 = a flush was declined */
    READER_DRAINED, /* answer; @left_for_successor datagrams in held sockets */
    READER_PAUSED, /* answer, token; all its READER_PART events came before, and
                       until READER_RESUME nothing changes but by releases */
    READER_TAPPED, /* answer; @n_left: sockets that are tapped */
    READER_UNTAPPED /* answer */
};

struct reader_event {
    enum reader_event_kind kind;
    uint64_t seq;   /* READER_PART */
    uint64_t token; /* answers */
    uint64_t n_left;
};

typedef void reader_event_fn(void *arg, const struct reader_event *ev);

struct reader_opts {
    uv_loop_t *loop; /* where events are delivered */
    reader_event_fn *on_event;
    void *arg;
    struct landing *landing;
    struct sockets *sockets;
    struct region *ingest_region;
    const struct agg_config *agg; /* borrowed until reader_join() */
    const struct dsd_parser_opts *parser;
    bool eol_required[TRANSPORT_N];
    bool drop_series, drop_sketches, drop_events, drop_checks;
    bool quiet_rejects; /* rejected lines go to the debug log */
    struct process_clock *clock;
    struct kernel_link *kernel; /* to the kernel thread; NULL = there is none */
    uint32_t stream_idle_s;     /* 0 = never */
    struct proctags *proctags;  /* tags of senders; NULL = none */
    uint32_t n_keep_conns; /* connections of stored listeners that the drain
                                  leaves open at most, at the end of a frame */
    struct priority_request priority;
    _Atomic uint32_t *serving; /* set to 1 when the sockets are read */
};

/** Attach to the region (rolling back what a predecessor left), apply what lies
 *  in the landing zone, then serve: when this returns the sockets are read, and
 *  what is slow may begin. READER_PART events come for parts that a
 *  predecessor closed and nobody encoded (seq > @encoded_seq). Returns 0 or
 *  -errno. */
int reader_start(struct reader **out, const struct reader_opts *opts,
                 uint64_t encoded_seq);

/** Never blocks. READER_QUIT overtakes what waits, and of releases the last one
 *  counts; of the others REQUIREs room: they are few. */
void reader_order(struct reader *r, enum reader_order order, uint64_t token);

/** Monotonic ns of the last datagram or frame taken; 0 = none yet. Any thread. */
uint64_t reader_last_data_ns(const struct reader *r);

/** For part_iter_open() alone: the rest of it is the reader's. */
const struct agg *reader_agg(const struct reader *r);

/** The ingest side as it was at the end of a turn of the reader, whole: parts up
 *  to closed_seq may be read. */
struct reader_view {
    struct ingest_counts counts;
    struct agg_stats agg;
    uint64_t closed_seq; /* agg_last_closed() */
};

/** The last one published: it covers at least what the last event spoke of. Any
 *  thread; never waits for the reader. */
void reader_view(const struct reader *r, struct reader_view *out);

/** The same from the region itself, where no reader runs. */
void reader_view_of(const struct agg *agg, struct reader_view *out);

/** How the thread is scheduled, against what was asked for. */
struct reader_sched {
    const char *requested; /* "fifo", "rr", "none" */
    const char *effective; /* "fifo", "rr", "nice", "other" */
    int rt_priority;       /* requested */
    int nice;              /* effective */
    enum priority_cause cause;
};

/** Any thread. The cause may come a moment after the rest. */
void reader_sched(const struct reader *r, struct reader_sched *out);

/** After READER_QUIT: join the thread, free. The loop must run until then. */
void reader_join(struct reader *r, void (*closed)(void *arg), void *arg);

#endif
