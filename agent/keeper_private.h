/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's parts: start and end (keeper.c), signals and time
 * (keeper_watch.c), the worker's process (keeper_worker.c, keeper_fork.c), the
 * last receipt (keeper_receipt.c), memory that is damaged (keeper_salvage.c).
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
void fd_set_add(struct fd_set_of *s, int fd);
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

/** A region for a worker to begin with. Returns 0 or -errno. */
int keeper_make_ingest(const struct keeper *k, struct region *r);
/** The ingest region's journal may name the landing zone. */
void keeper_allow_landing(struct keeper *k);

/** A worker with that wait status ended by a fault of its own, not by somebody's
 *  kill. */
bool keeper_is_fault(int status);

/* ---- keeper_salvage.c --------------------------------------------------- */

/** A worker died with that wait status: true when it was one fault too many. */
bool keeper_is_faulty(struct keeper *k, int status);
/** Save what can be read and make fresh memory, in a process apart; a worker
 *  starts when that has ended. */
void keeper_salvage_begin(struct keeper *k);
/** A child ended. Returns true when it was that process. */
bool keeper_salvage_reaped(struct keeper *k, pid_t pid, int status);
/** Time passed. */
void keeper_salvage_look(struct keeper *k);
/** No worker will follow: end that process. */
void keeper_salvage_abort(struct keeper *k);

/** The loop: returns when everything is over. */
void keeper_watch(struct keeper *k);

#endif
