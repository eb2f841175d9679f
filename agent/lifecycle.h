/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stop: one named state machine under one monotonic deadline.
 *
 *   linger -> drain -> kernel -> close -> encode -> deliver -> save -> receipt
 *   -> done
 *
 * Each stage ends by its event or at its latest instant. The machine is pure: it
 * is told facts and the time, and says which stage to enter next; the worker does
 * what entering a stage means and calls again when anything changed or the
 * instant named here has come. Nothing polls and nothing sleeps.
 *
 * Thread:  the loop.
 * Memory:  one embedded struct.
 * Promise: whatever the facts, the last stage is entered no later than the
 *          deadline minus LIFECYCLE_RECEIPT_NS, provided the worker calls when
 *          told to.
 */
#ifndef RETRIEVER_AGENT_LIFECYCLE_H
#define RETRIEVER_AGENT_LIFECYCLE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/supervision.h"

/** Kept at the end of the deadline for the receipt and the exit. */
#define LIFECYCLE_RECEIPT_NS UINT64_C(100000000)
/** Longest drain of sockets whose senders do not stop. */
#define LIFECYCLE_DRAIN_NS UINT64_C(1000000000)

/** Longest wait for the last values of the kernel side. */
#define LIFECYCLE_KERNEL_NS UINT64_C(250000000)

struct lifecycle_config {
    uint64_t quiet_ns;   /* so long without data ends the linger; 0 = never */
    uint64_t linger_ns;  /* longest linger */
    uint64_t reserve_ns; /* kept for delivery: at most half of the budget */
    uint64_t encode_cap_ns;  /* of close and of encode, each; 0 = no cap */
    uint64_t deliver_cap_ns; /* 0 = no cap */
    bool exec; /* a job was wrapped: its end, not quiet, is the sign */
};

/** What the worker knows. Instants are CLOCK_MONOTONIC ns. */
struct lifecycle_facts {
    uint64_t now_ns;
    uint64_t last_data_ns;  /* last datagram or frame taken; 0 = none */
    uint32_t n_descendants; /* exec: processes of the job that still live, or
                               DESCENDANTS_UNKNOWN */
    bool hurry;             /* second SIGINT */
    bool drained;           /* sockets empty and shut (end of drain) */
    bool collected;         /* last kernel values are with the reader */
    bool closed;            /* all parts closed (end of close) */
    bool encoded;           /* all payloads frozen (end of encode) */
    bool delivered;         /* store empty, nothing in flight */
    bool unsynced; /* what cannot be delivered is being synced to disk */
};

struct lifecycle {
    struct lifecycle_config cfg;
    enum stop_stage stage;
    uint64_t stop_at_ns;
    uint64_t deadline_ns;
    uint64_t entered_ns;
    uint32_t stage_ms[STAGE_DONE]; /* time spent, per stage */
};

void lifecycle_init(struct lifecycle *l, const struct lifecycle_config *cfg);

/** The stop begins (or goes on in a successor: @from is the stage that the
 *  dead worker had reached; all stages from drain on are done again). */
void lifecycle_begin(struct lifecycle *l, enum stop_stage from,
                     uint64_t stop_at_ns, uint64_t deadline_ns,
                     uint64_t now_ns);

/** One step at most. Returns true when l->stage is a new stage that the caller
 *  must now enter (then call again). Otherwise *next_ns is the instant to call
 *  at if no event comes first (UINT64_MAX: none). */
bool lifecycle_advance(struct lifecycle *l, const struct lifecycle_facts *f,
                       uint64_t *next_ns);

/** Latest instant of the present stage. */
uint64_t lifecycle_stage_end_ns(const struct lifecycle *l);

#endif
