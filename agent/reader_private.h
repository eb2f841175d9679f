/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader's own parts: the turn (reader.c), the tap (reader_tap.c), the drain
 * (reader_drain.c), the pause (reader_pause.c), its end of the kernel side
 * (reader_kernel.c), its priority (reader_priority.c), what others see of it
 * (reader_view.c) and the log lines that the loop writes for it (reader_notes.c).
 *
 * Thread:  fields belong to the reader's thread unless named otherwise.
 * Memory:  allocated by reader_start(), freed after reader_join().
 */
#ifndef RETRIEVER_AGENT_READER_PRIVATE_H
#define RETRIEVER_AGENT_READER_PRIVATE_H

#include <pthread.h>
#include <semaphore.h>

#include "agent/grace.h"
#include "agent/ingress.h"
#include "agent/reader.h"

#define READER_RING 64u /* records in each of the three rings */
/** READER_CLOSE_ALL takes what waits in the sockets first, so long at most. */
#define READER_CLOSE_SWEEP_NS UINT64_C(50000000)

#define READER_VIEW_WORDS (sizeof(struct reader_view) / sizeof(uint64_t))

struct kernel_packet;
struct kernel_record;
struct kernel_waits;
struct ring;

/* All unused without reader_opts.kernel. */
struct reader_kernel {
    uv_poll_t bell;
    uv_poll_t ring_poll;
    uv_timer_t timer;             /* next look at the ring */
    struct ring *ring;            /* the link's; NULL = none yet */
    struct kernel_packet *packet; /* the one under way */
    struct kernel_record *record;
    struct kernel_waits *waits; /* not handed on yet */
    bool full;                  /* the ring is not read until there is room */
    bool late;                  /* @waits are, when there is room */
    bool over; /* the stop has closed: no packet is taken any more */
};

struct reader {
    struct reader_opts opts;
    pthread_t thread;
    sem_t served;
    struct ingress g;
    struct agg *agg;

    uv_loop_t loop;
    int wake_fd;    /* eventfd: orders wait, or there is room for events */
    uv_poll_t wake; /* of it */
    uv_timer_t bucket;
    uv_timer_t tick;
    uv_poll_t polls[SOCKETS_MAX];
    bool watched[SOCKETS_MAX];
    uv_poll_t *conn_polls;
    bool *conn_watched;
    bool *conn_kept; /* drained, and the next life's */
    struct reader_kernel kernel;
    bool accept_stopped;

    struct tap tap; /* programs; has_tap */
    bool has_tap;
    bool tapped;   /* the programs are attached */
    bool untapped; /* by order: not before READER_RESUME */
    uv_poll_t ring_poll;
    uv_timer_t ring_timer;
    bool ring_watched;
    struct grace grace; /* of the drain */

    uint64_t steps_ns; /* monotonic; a second more for each step taken */
    bool got_data;     /* in this turn */
    uint32_t pace_us;  /* least that the sockets of this turn allow */
    uint64_t turn_ns;  /* end of the last turn with data */
    uint64_t sent_seq;
    struct reader_event answer;
    bool has_answer;
    bool drained;
    bool paused;
    bool quit;

    struct spsc orders, events, notes;
    void *order_mem;
    struct reader_event event_mem[READER_RING];
    struct ingress_note note_mem[READER_RING];
    _Atomic bool blocked;         /* the event ring was full */
    _Atomic uint64_t release_seq; /* parts up to it are encoded */
    uint64_t released_seq;
    _Atomic bool quit_asked;

    struct priority priority;

    /* A sequence lock around the last view: odd while it changes. */
    _Atomic uint32_t view_turn;
    _Atomic uint64_t view[READER_VIEW_WORDS];

    /* The loop's thread. */
    uv_async_t bell;
    uint32_t n_said;            /* lines about the priority */
    _Atomic int priority_cause; /* enum; of the refusal at the start */
    void (*closed)(void *arg);
    void *closed_arg;
};

/** Let others see what is committed. Before the event that speaks of it. */
void reader_publish(struct reader *r);

void reader_check_clock(struct reader *r);
void reader_unwatch_sockets(struct reader *r);

/** Read the ring, where there is one: a predecessor's programs may fill it. */
void reader_watch_ring(struct reader *r);
/** Take the loaded programs and attach them; @t is the reader's now. */
void reader_tap(struct reader *r, struct tap *t);
/** Attach and detach, as far as there is anything. */
void reader_tap_on(struct reader *r);
void reader_tap_off(struct reader *r);
/** READER_RESUME came. */
void reader_tap_resume(struct reader *r);
/** Once a turn: the ring does not wait for its timer when the turn is long. */
void reader_tap_turn(struct reader *r);
/** Take what lies in the ring now. Returns false while a sender has not finished. */
bool reader_tap_sweep(struct reader *r);
/** Wait for unfinished records until @latest_ns, then count them as lost. */
void reader_tap_finish(struct reader *r, uint64_t latest_ns);
void reader_tap_close(struct reader *r);

/** Read all sources until each was found empty once, @latest_ns at most.
 *  Returns false when the time was over first. */
bool reader_sweep(struct reader *r, uint64_t latest_ns);

/** Stop the intake and take what the kernel has accepted. Returns the estimated
 *  number of datagrams that stay in sockets. */
uint64_t reader_drain(struct reader *r, uint64_t latest_ns);

/** No socket is looked at and no timer runs until reader_resume(). Returns false
 *  when that would run ahead of the clock: nothing was done. */
bool reader_pause(struct reader *r);
void reader_resume(struct reader *r);

/** Once the loop is there; and when it is closed. 0 or -errno. */
int reader_kernel_init(struct reader *r);
void reader_kernel_fini(struct reader *r);
/** Take the packets of lines that are there. */
void reader_kernel_apply(struct reader *r);
/** Somebody new sends: have the kernel thread find out who. */
void reader_kernel_ask(struct reader *r);
/** Kernel events end: hand on those that are in the ring. */
void reader_kernel_drain(struct reader *r);

/** First thing in the thread. */
void reader_take_priority(struct reader *r);

/** Callbacks of the polls. */
void reader_on_socket(uv_poll_t *h, int status, int events);
void reader_on_conn(uv_poll_t *h, int status, int events);

/** On the loop's thread. */
void reader_say_priority(struct reader *r);
void reader_log_note(const struct sockets *s, const struct ingress_note *n,
                     bool quiet);

#endif
