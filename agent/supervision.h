/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What keeper and worker tell each other: words in shared memory and two
 * eventfd doorbells. State lies here, never in the number of rings, and it
 * outlives a worker: a successor finds the stop that its predecessor had begun.
 *
 * Thread:  each word has the one writer named beside it.
 * Memory:  one shared mapping for the life of the keeper.
 * Promise: words only move forward within one stop.
 */
#ifndef RETRIEVER_AGENT_SUPERVISION_H
#define RETRIEVER_AGENT_SUPERVISION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/base/clock.h"
#include "agent/receipt.h"

enum stop_reason {
    STOP_NONE,
    STOP_SIGTERM,
    STOP_SIGINT,
    STOP_JOB_EXIT, /* exec: the job is gone */
    STOP_COMMAND,  /* retriever stop */
    STOP_KEEPER_GONE
};
/** "SIGTERM", "SIGINT", "job_exit", "command", "keeper_gone". */
const char *stop_reason_name(enum stop_reason r);

/* In the order of a stop; STAGE_NONE = serving. */
enum stop_stage {
    STAGE_NONE,
    STAGE_LINGER,
    STAGE_DRAIN,
    STAGE_KERNEL,
    STAGE_CLOSE,
    STAGE_ENCODE,
    STAGE_DELIVER,
    STAGE_SAVE,
    STAGE_RECEIPT,
    STAGE_DONE
};

/* What the worker says to handover_order. */
enum handover_answer { HANDOVER_NOT_YET, HANDOVER_READY, HANDOVER_FAILED };

/* There may be some: quiet alone tells that they have ended. */
#define DESCENDANTS_UNKNOWN UINT32_MAX

struct supervision {
    /* keeper writes */
    _Atomic uint32_t stop_request; /* enum stop_reason */
    _Atomic uint64_t stop_at_ns;   /* CLOCK_MONOTONIC of the request */
    _Atomic uint64_t deadline_ns;  /* latest end of the process */
    _Atomic uint32_t hurry;        /* second SIGINT: end linger and retries */
    _Atomic uint32_t n_dump;       /* SIGUSR1s: status to the log */
    _Atomic uint32_t worker_deaths;
    _Atomic uint64_t worker_died_ns;    /* CLOCK_MONOTONIC of the last death */
    _Atomic uint64_t worker_started_ns; /* of the present one */
    _Atomic uint64_t job_exit_ns;   /* exec: job reaped; 0 = runs (or no job) */
    _Atomic uint32_t n_descendants; /* exec: children left after the job, or
                                       DESCENDANTS_UNKNOWN */
    _Atomic uint64_t flush_request; /* exec: SIGTERM came while the job runs:
                                       deliver what came so far; counts up */
    _Atomic uint64_t flush_deadline_ns;
    _Atomic uint32_t handover_order; /* 1: rest and write the record for another
                                        image; 0: go on */
    _Atomic uint32_t n_kernel_faults; /* workers that died inside a feature of
                                         the kernel side */
    _Atomic uint32_t n_upgrades_failed;
    char upgrade_error[160]; /* of the last one; written before the count */

    /* worker writes */
    _Atomic uint32_t serving;         /* this worker reads its sockets */
    _Atomic uint32_t command_stop;    /* `retriever stop`: asks the keeper */
    _Atomic uint32_t command_upgrade; /* `retriever upgrade` */
    _Atomic uint32_t handover;        /* enum handover_answer */
    _Atomic uint32_t kernel_busy;     /* inside a feature of the kernel side */
    _Atomic uint32_t stage;           /* enum stop_stage */
    _Atomic uint32_t stage_ms[STAGE_DONE];
    _Atomic uint64_t dropped_before_stop; /* samples; for the exit status */
    struct process_clock clock; /* re-based by the reader; a successor goes on
                                   with it and sees a step that was not */

    /* set before the first fork */
    uint64_t started_ns;
    int64_t life_start_s;
    uint32_t n_upgrades;
    uint64_t
        fell_back_ns; /* this image is the way back of an upgrade; 0 = no */
    int to_worker;    /* eventfd: the keeper rings */
    int to_keeper;    /* eventfd: the worker rings */
    int keeper_pidfd; /* readable when the keeper is gone; -1 = none */
    int32_t keeper_pid;

    struct receipt receipt; /* a worker composes, the keeper prints */
};

#endif
