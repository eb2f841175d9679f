/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A keeper, and lives of workers on its memory, for proofs: each life does what
 * is left of one script, from sockets to an intake, and may be killed anywhere.
 *
 * A life receives what waits in the tap's ring, on UDP, on Unix datagrams and on a
 * Unix stream whose last frame is not complete, closes the part, encodes, commits,
 * releases and sends; then the rest of the stream comes, and more of the ring, and
 * all of that once more, but that nothing unfinished is waited for. It is the
 * code of the worker in one thread and under a clock that stands still, but for
 * one leap at that gate. What comes out must be the same whoever did it.
 *
 * Thread:  one per process; one struct lives per program.
 * Memory:  a few MiB of shared memory.
 * Promise: lives_outcome() depends on nothing but the script.
 */
#ifndef RETRIEVER_TESTS_SUPPORT_LIVES_H
#define RETRIEVER_TESTS_SUPPORT_LIVES_H

#include <stdint.h>
#include <sys/types.h>

#include "agent/keeper.h"
#include "tests/support/lives_ring.h"
#include "tests/support/stepper.h"

#define LIVES_MAX_DATAGRAMS 8

struct lives_script {
    const char *udp[LIVES_MAX_DATAGRAMS];  /* up to NULL */
    const char *gram[LIVES_MAX_DATAGRAMS]; /* up to NULL */
    const char *frames[LIVES_MAX_DATAGRAMS];
    const struct lives_record *ring;       /* up to a kind of 0; NULL = none */
    const struct lives_record *ring_later; /* the same, behind the gate */
    size_t n_first_bytes; /* of the frames: what comes before the gate */
    unsigned n_contexts;  /* known before the script begins */
    bool copy_histograms; /* as distributions, too */
    unsigned later_s;     /* so much later is it behind the gate */
};

/* Words that all processes share. */
struct lives_shared {
    _Atomic unsigned at_gate;     /* a life waits for the rest of the stream */
    _Atomic unsigned gate_passed; /* the rest was sent */
    _Atomic uint64_t n_sent;      /* bytes of the intake that were sent whole */
};

struct lives {
    const struct lives_script *script;
    struct keeper k;
    struct lives_shared *shared;
    int intake;    /* memfd: what was sent, in order */
    int client[3]; /* UDP, Unix datagram, stream */
    struct lives_ring ring;
    uint64_t base_seq;
    uint64_t n_parts;      /* closed by the whole script; 0 = not known yet */
    unsigned char *stream; /* all frames */
    size_t n_stream;
    /* A judge's own deliveries, behind those of the intake. */
    bool in_copy;
    unsigned char *sent;
    size_t n_sent;
};

/** Memory, sockets, what the script sends before the gate. False: printed. */
bool lives_open(struct lives *v, const struct lives_script *script);
void lives_close(struct lives *v);

/** Everything that is not done yet. @arg: struct lives. */
void lives_live(void *arg);

/** The test's side: the rest of the stream comes once a life waits for it. */
void lives_between(void *arg);

/** As the keeper's own; @arg: struct lives. */
pid_t lives_fork(void *arg);

/** Monotonic time that does not stand still. */
uint64_t lives_real_ns(void);

/** As the keeper does when the worker was killed. */
void lives_after_kill(struct lives *v);

/** In a judge: sockets of its own, with what the real ones still hold. */
bool lives_enter_copy(struct lives *v);

/** The maps of @v. */
void lives_maps(const struct lives *v, struct stepper *s);

/** After the last life: what the intake holds and the ledger says, as lines of
 *  text (malloc). Each thing that may not be, such as a doubled point, is a line
 *  that begins with "BAD". */
char *lives_outcome(struct lives *v);

#endif
