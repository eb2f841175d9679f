/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's parts: start and end (keeper.c), signals and time
 * (keeper_watch.c), the worker's process (keeper_worker.c, keeper_fork.c), the
 * last receipt (keeper_receipt.c).
 *
 * Thread:  the keeper's.
 * Memory:  none of its own.
 */
#ifndef RETRIEVER_AGENT_KEEPER_PRIVATE_H
#define RETRIEVER_AGENT_KEEPER_PRIVATE_H

#include "agent/base/clock.h"
#include "agent/keeper.h"

#define MS_NS UINT64_C(1000000)
/** A worker may overrun the deadline by this before it is killed. */
#define KEEPER_GRACE_NS (200 * MS_NS)

static inline uint64_t keeper_now_ns(void)
{
    return clock_mono_ns(&clock_real);
}

/** Remember all open descriptors. Returns 0 or -errno. */
int fd_set_snapshot(struct fd_set_of *s);
void fd_set_fini(struct fd_set_of *s);

/** Close every open descriptor that is not in @s (in the job's process). */
void fd_set_close_others(const struct fd_set_of *s);

/** fork(), sharing the table of descriptors where that is possible
 *  (k->shares_table). */
pid_t keeper_fork(struct keeper *k);

/** Fork a worker. Returns 0 or -errno. */
int keeper_start_worker(struct keeper *k);

/** The worker is gone with that wait status, no other lives: roll back what it
 *  left open, adopt its connections, close the rest of its descriptors. */
void keeper_after_worker(struct keeper *k, int status);

/** No worker will do it: count what is left and write the receipt. Returns the
 *  exit status it means. */
int keeper_last_receipt(struct keeper *k);

/** The loop: returns when everything is over. */
void keeper_watch(struct keeper *k);

#endif
