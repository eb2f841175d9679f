/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's parts: start and end (keeper.c), descriptors (keeper_fds.c),
 * run_path (keeper_run_path.c), signals and time (keeper_watch.c), the worker's
 * process (keeper_worker.c, keeper_fork.c), the last receipt (keeper_receipt.c),
 * memory that is damaged (keeper_salvage.c), connections over a restart
 * (keeper_conns.c), the tap's ring (keeper_ring.c), the upgrade to another image of
 * the program and its other side (keeper_upgrade.c, keeper_inherit.c).
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
/** One more, or fewer. A descriptor that the keeper opens while workers live must
 *  be in its set, or the next one's death closes it. */
void fd_set_add(struct fd_set_of *s, int fd);
void fd_set_remove(struct fd_set_of *s, int fd);
void fd_set_fini(struct fd_set_of *s);

/* identity.h: the claim that others are warned by, and its end. */
void keeper_claim_identity(struct keeper *k);
void keeper_leave_identity(struct keeper *k);

/** Have the limit of open files raised to what @n_conns connections need. Returns 0,
 *  or -EMFILE when it leaves too few to serve: both were said. Behind the job's
 *  start, which keeps the limit of its caller. */
int keeper_claim_fds(const struct keeper *k, uint32_t n_conns);

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

/** @fd is a connection of a listener of ours that nothing was read from: give it a
 *  place in the landing zone. Returns false when it is none, or there is no
 *  place. */
bool keeper_adopt_conn(struct keeper *k, int fd);

/** Before the first worker: take the connections that the service manager kept.
 *  Behind the last one: have it keep those that the worker left. */
void keeper_take_kept_conns(struct keeper *k);
void keeper_keep_conns(struct keeper *k);

/** No worker will do it: count what is left and write the receipt. Returns the
 *  exit status it means. */
int keeper_last_receipt(struct keeper *k);

/** Nobody will read the sockets: their senders are told and not kept waiting. */
void keeper_stop_intake(const struct keeper *k);

/** Tell the worker to look at its orders. */
void keeper_ring(const struct keeper *k);

/** A region for a worker to begin with. Returns 0 or -errno. */
int keeper_make_ingest(const struct keeper *k, struct region *r);
/** The ingest region's journal may name the landing zone. */
void keeper_allow_landing(struct keeper *k);

/** A worker with that wait status ended by a fault of its own, not by somebody's
 *  kill. */
bool keeper_is_fault(int status);

/** Open and lock run_path, read what it says of used seconds. What is wrong was said.
 *  Returns 0, where exec goes on without it, or -errno. */
int keeper_open_run_path(struct keeper *k);

/** Open a module of this program's build. Returns its descriptor, or -1. */
int keeper_open_module(const char *file);

/** Whether a descriptor lives on in the next image; first, none but 0 to 2 does. */
void keeper_close_all_at_exec(const struct keeper *k);
void keeper_keep_over_exec(int fd, bool keep);

/** Once, behind the landing zone: the tap's ring, or why there is none. */
void keeper_open_ring(struct keeper *k);
/** Behind the last worker: nothing is left in it. */
void keeper_close_ring(struct keeper *k);

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

/* ---- keeper_upgrade.c --------------------------------------------------- */

/* From the old image to its trial: descriptors of the answer and of run_path. */
#define KEEPER_TRIAL_VARIABLE "RETRIEVER_TRIAL"
/* What a trial that can go on says, then its version. */
#define KEEPER_TRIAL_ACCEPTED "retriever-handover 1"
_Static_assert(HANDOVER_FORMAT == 1, "the line above names the format");
/* From image to image: descriptors of the record, of the old program and of its
 * modules; "last" on the way back. */
#define KEEPER_HANDOVER_VARIABLE "RETRIEVER_HANDOVER"

/** Remember where an upgrade will find the program. At start. */
void keeper_find_program(struct keeper *k);

/** SIGUSR2, `retriever upgrade`: begin, unless one is under way. */
void keeper_upgrade_begin(struct keeper *k);
/** A stop begins. */
void keeper_upgrade_abort(struct keeper *k);
/** The trial's answer is readable. */
void keeper_upgrade_answer(struct keeper *k);
/** A child ended. Returns true when it was the trial. */
bool keeper_upgrade_reaped(struct keeper *k, pid_t pid, int status);
/** The worker answered, or time passed. Does not return when the process goes on
 *  as the new program. */
void keeper_upgrade_look(struct keeper *k);
/** The worker died: what it had offered is void. */
void keeper_upgrade_worker_died(struct keeper *k);

/* ---- keeper_inherit.c --------------------------------------------------- */

/** This process is somebody's trial. */
bool keeper_on_trial(struct keeper *k);
/** Its answer, after keeper_configure() returned @status. Returns the exit
 *  status. */
int keeper_trial(struct keeper *k, int status);

/** Read what the image before left, if any. Returns 0 or an exit status. */
int keeper_inherit(struct keeper *k);
/** The connections of the image before become the landing zone's. */
void keeper_inherit_conns(struct keeper *k);
/** What the image before knew of used seconds. */
void keeper_inherit_stamps(struct keeper *k);
/** Our worker has not taken the baton yet: the old one still can. */
bool keeper_is_offered(const struct keeper *k);
/** It will not: end it; the image before goes on, or its worker alone. */
void keeper_inherit_give_back(struct keeper *k);
/** A worker of ours ended: true when it was before it had the baton, and the image
 *  before goes on, or nobody. */
bool keeper_inherit_worker_died(struct keeper *k);
/** A child ended: true when it was the old worker. */
bool keeper_inherit_reaped(struct keeper *k, pid_t pid);
/** Time passed; and when to look next. */
void keeper_inherit_look(struct keeper *k);
uint64_t keeper_inherit_next_ns(const struct keeper *k);
/** This image cannot go on: back to the one before. Returns when there is none. */
void keeper_fall_back(struct keeper *k);

/** The loop: returns when everything is over. */
void keeper_watch(struct keeper *k);

#endif
