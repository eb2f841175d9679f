/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scheduling priority of the thread that reads: asked for by the thread itself,
 * verified, and taken away again when it does not deserve it.
 *
 * Where real time is refused the next best is taken: nice -20, nice -10, nothing.
 * Nobody is refused the start for it.
 *
 * A reader that runs on without a pause would keep others from its CPU. It pauses
 * by itself (priority_breathe()); should it hang in a loop, the kernel sends SIGXCPU
 * and it is an ordinary thread from that instant on, for the rest of its life.
 *
 * Thread:  the one that is to have the priority, unless a call says otherwise. It
 *          has SIGXCPU unblocked from then on; all others must keep it blocked.
 * Memory:  none. Locks what the caller names into memory, as far as allowed.
 * Promise: children and threads made by this thread have usual priority. No file is
 *          read and no line written: who asks for the state says what is wrong.
 */
#ifndef RETRIEVER_AGENT_PRIORITY_H
#define RETRIEVER_AGENT_PRIORITY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct priority_request {
    int policy;      /* SCHED_FIFO, SCHED_RR; SCHED_OTHER = nothing is asked */
    int rt_priority; /* 1..99 */
    int nice_fallback;  /* 0 = none */
    uint32_t rttime_ms; /* real time without a pause, at most */
};

enum priority_got { PRIORITY_USUAL, PRIORITY_NICE, PRIORITY_REALTIME };

/** What a thread has, as seen by others. */
struct priority_state {
    enum priority_got got;
    int nice;     /* as it is; 0 with real time */
    int refused;  /* errno of the refusal of real time; 0 = none */
    bool runaway; /* it had real time, and ran for too long */
    bool settled; /* false: nothing was asked, or the fallback is to come */
};

struct priority {
    struct priority_request want;
    uint64_t breathed_ns; /* last instant at which it is known to have paused */
    long n_pauses;        /* voluntary switches until then */
    bool fallen;          /* the loss is dealt with */
    _Atomic uint32_t ran_away;
    _Atomic uint32_t word; /* the rest of the state, packed */
};

/** Take the best of what @want names; @hot, @n_hot bytes, is locked into memory.
 *  Nothing happens when it asks for nothing. Once per thread. */
void priority_take(struct priority *p, const struct priority_request *want,
                   const void *hot, size_t n_hot);

/** Once a turn: pause for a moment when a real-time thread has not done so for
 *  long, and take the fallback when it has lost its priority. Returns true when the
 *  state has changed. */
bool priority_breathe(struct priority *p, uint64_t now_ns);

/** Any thread. */
struct priority_state priority_state(const struct priority *p);

/** "fifo", "rr", "none" (asked for); "fifo", "rr", "nice", "other" (had). */
const char *priority_requested_name(const struct priority_request *want);
const char *priority_effective_name(const struct priority_request *want,
                                    const struct priority_state *s);

#endif
