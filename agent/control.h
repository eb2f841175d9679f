/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket's server side: one request line, one answer, end.
 *
 *   status | status json | ebpf | ebpf json | flush | stop | stop wait | version |
 *   upgrade N
 *
 * Answers are one line of JSON, or text for `status` and `ebpf`. A flush is answered when
 * everything received before it is delivered. `upgrade N` asks for an upgrade when
 * there were N so far: it may be repeated to whoever serves then. With the answer
 * to `stop wait` comes a descriptor (SCM_RIGHTS) that is readable once the agent has
 * ended: no connection tells that, as the sockets may stay with others.
 *
 * Thread:  the loop.
 * Memory:  one allocation with CONTROL_MAX_CLIENTS connections, further ones wait
 *          in the listener's queue; an answer is at most CONTROL_MAX_ANSWER
 *          bytes.
 * Promise: a client that reads slowly, says nothing or goes away costs its
 *          connection only, for CONTROL_IDLE_MS at most. Flushes that wait for
 *          the intake never keep status and stop from being answered.
 */
#ifndef RETRIEVER_AGENT_CONTROL_H
#define RETRIEVER_AGENT_CONTROL_H

#include <uv.h>

#include "agent/base/buf.h"

#define CONTROL_MAX_CLIENTS 16
#define CONTROL_MAX_REQUEST 64
#define CONTROL_MAX_ANSWER (256u * 1024)
#define CONTROL_MAX_WAITING 12 /* of the clients: flushes and upgrades */
#define CONTROL_IDLE_MS 10000  /* for a request to come, an answer to go */

struct control;         /* opaque */
struct control_request; /* opaque: a client, perhaps with an answer owed */

/** What the server asks of the worker. All run on the loop. */
struct control_ops {
    /** Append the status to @out, as JSON or text. */
    void (*status)(void *arg, bool json, struct buf *out);
    /** The same about the kernel side. */
    void (*ebpf)(void *arg, bool json, struct buf *out);
    /** Begin a flush; control_answer(rq, ...) follows, later, unless the client
     *  leaves before. */
    void (*flush)(void *arg, struct control_request *rq);
    /** Begin an upgrade, the @n-th; control_answer(rq, ...) follows, or the
     *  process ends without one. */
    void (*upgrade)(void *arg, struct control_request *rq, uint32_t n);
    /** A client that waits left: what it asked for goes on, @rq must not be
     *  answered any more. */
    void (*left)(void *arg, struct control_request *rq);
    /** Append the answer to `version`. */
    void (*version)(void *arg, struct buf *out);
    /** Ask for the stop of the agent. */
    void (*stop)(void *arg);
    /** A descriptor that is readable once the agent has ended, the caller's to
     *  close; < 0: there is none. */
    int (*end_fd)(void *arg);
    uint32_t idle_ms; /* 0 = CONTROL_IDLE_MS */
};

/** Serve the listening socket @fd (duplicated; stays the caller's). Returns 0 or
 *  -errno. */
int control_start(struct control **out, uv_loop_t *loop, int fd,
                  const struct control_ops *ops, void *arg);

/** Give the owed answer; @rq is gone afterwards. */
void control_answer(struct control_request *rq, const char *text, size_t n);

/** Hear nobody: who connects waits, who asks is let go without an answer (and asks
 *  again, whoever serves then); who waits for an answer goes on waiting. Or hear
 *  again. */
void control_pause(struct control *c, bool paused);

/** Stop serving. Requests still owed must be answered before. */
void control_stop(struct control *c, void (*closed)(void *arg), void *arg);

#endif
