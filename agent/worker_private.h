/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's own parts: up, down and orders (worker.c), the stop and the
 * deliveries of an `exec` whose job was told to stop (worker_stop.c), what it
 * leaves for another image of the program (worker_handover.c).
 *
 * Thread:  the loop.
 * Memory:  one struct worker per process.
 * Promise: after STAGE_DONE nothing here is called but what ends the loop.
 */
#ifndef RETRIEVER_AGENT_WORKER_PRIVATE_H
#define RETRIEVER_AGENT_WORKER_PRIVATE_H

#include <stdbool.h>
#include <uv.h>

#include "agent/barrier.h"
#include "agent/base/clock.h"
#include "agent/complaints.h"
#include "agent/control.h"
#include "agent/health.h"
#include "agent/kernel.h"
#include "agent/ledger.h"
#include "agent/lifecycle.h"
#include "agent/losses.h"
#include "agent/parts.h"
#include "agent/reader.h"
#include "agent/tapping.h"
#include "agent/wiring.h"
#include "agent/worker.h"

#define MODULE "worker"
#define MS UINT64_C(1000000)

/* Of orders to close all parts; a barrier has its own. */
#define HURRIED_TOKEN 0
#define STOP_TOKEN 1

/* A worker that hands over. Each step ends by its event. */
enum handover_step {
    STEP_NONE,
    STEP_SETTLING,   /* serves; no request begins, those in flight end; the tap
                        is taken off */
    STEP_COLLECTING, /* serves; the kernel side was told to rest */
    STEP_PAUSING,    /* the reader was told to rest */
    STEP_ENCODING,   /* closed parts become payloads */
    STEP_RESTING     /* the record is written: nothing changes any more */
};

struct worker {
    const struct worker_env *env;
    uv_loop_t loop;
    struct wiring wiring;
    struct store *store;
    struct reader *reader;
    struct kernel *kernel;          /* NULL: none */
    bool demotion_told;             /* the kernel thread's */
    struct loader_cause kernel_off; /* why */
    struct losses losses;
    struct parts *parts;
    struct forwarder *forwarder;
    struct proctags *proctags; /* of senders; NULL = nobody finds out */
    struct tapping tapping;
    struct control *control;
    struct health *health;
    struct barrier barrier;
    struct complaints complaints;

    bool stopping;
    struct lifecycle life;
    struct lifecycle_facts facts;
    uint64_t n_left; /* datagrams left in sockets that others hold too */
    int exit_status;

    enum handover_step step;
    bool requests_settled; /* what STEP_SETTLING waits for */
    bool tap_settled;
    uint64_t rested_us;
    struct control_request *upgrades[CONTROL_MAX_WAITING]; /* who asked */
    uint32_t n_upgrades;
    uint32_t failures_seen;

    uint32_t dumps_seen;
    uint64_t flush_seen;    /* exec: last flush request that was taken up */
    bool hurried;           /* exec: the job was told to stop and goes on */
    bool hurried_asked;     /* a flush for it is under way */
    const char *no_api_key; /* NULL, or why nothing can be sent */
    struct config_key_stamp key_stamp;

    uv_timer_t stage_timer;   /* latest instant of the present stage */
    uv_timer_t hurried_timer; /* exec: flushes after the job's SIGTERM */
    uv_timer_t key_timer;     /* looks at api_key_file */
    uv_timer_t settle_timer;  /* longest time of a step of the hand-over */
    uv_poll_t doorbell;
    uv_poll_t keeper_gone;
    bool has_keeper_gone;
    bool keeper_is_gone;
    unsigned n_closing; /* closed callbacks that are still to come */
};

static inline uint64_t worker_now_ns(void)
{
    return clock_mono_ns(&clock_real);
}

/** The ledger as it is now. */
void worker_collect(struct worker *w, struct ledger *l);

/** There is something for the keeper in the supervision. */
void worker_ring_keeper(const struct worker *w);

/** Close everything; the loop ends when all is closed. Once. */
void worker_begin_teardown(struct worker *w);

/** The stop was ordered. Once; may run to its end at once. */
void worker_begin_stop(struct worker *w, enum stop_reason reason);

/** Move the stop on as far as the facts allow, then wait for the next event or
 *  the instant that the machine names. Nothing while no stop runs. */
void worker_advance(struct worker *w);

/** Look at the keeper's order: begin to hand over, or go on. Ends the process
 *  when another image serves already. */
void worker_handover_obey(struct worker *w);
/** READER_PAUSED came; @paused: false when the reader declined. */
void worker_handover_paused(struct worker *w, bool paused);
/** The kernel side rests. */
void worker_handover_collected(struct worker *w);
/** A part was encoded. */
void worker_handover_encoded(struct worker *w);
/** The keeper is gone: whoever gets the baton serves, once. */
void worker_handover_keeper_gone(struct worker *w);
/** What the image before left becomes this worker's, and its worker is told to
 *  end. Before the sockets are read. Returns 0 or -errno. */
int worker_handover_take(struct worker *w);

/** `retriever upgrade`: @n is the number of upgrades that the client knows of. */
void worker_upgrade_asked(struct worker *w, struct control_request *rq,
                          uint32_t n);
void worker_upgrade_forget(struct worker *w, const struct control_request *rq);
/** Nobody will upgrade any more: whoever waits is told @why. */
void worker_upgrade_abort(struct worker *w, const char *why);

/** exec: the job was told to stop and goes on. What it sent so far is delivered
 *  now, and what it still sends each second, since nobody knows how long the
 *  platform lets it. */
void worker_begin_hurried(struct worker *w);

/** A part of those was encoded. */
void worker_deliver_hurried(struct worker *w);

#endif
