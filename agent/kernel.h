/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel thread: opens the features of the kernel side, gives them the records
 * of the event ring, and every ten seconds collects what they measured, as lines
 * that the reader applies like any datagram (kernel_link.h).
 *
 * Loading programs and reading maps takes milliseconds, so it is done here, at
 * normal priority, and neither the loop nor the reader waits for it.
 *
 * Thread:  all calls by the loop, where @changed runs, too.
 * Memory:  the link's rings, the event ring in the kernel, and what the features
 *          bound themselves to. None of it outlives the worker.
 * Promise: what is refused is off, with a cause; nothing here keeps the agent from
 *          starting, serving or stopping. kernel_reached(): what was collected until
 *          then is in the link, before any later order to the reader.
 */
#ifndef RETRIEVER_AGENT_KERNEL_H
#define RETRIEVER_AGENT_KERNEL_H

#include <uv.h>

#include "agent/base/clock.h"
#include "agent/kernel_link.h"
#include "bpf/features.h"

struct kernel; /* opaque */

struct kernel_opts {
    uv_loop_t *loop;
    void (*changed)(void *arg); /* a state was reached */
    /* With each collection, by the kernel thread: more lines. NULL: none. */
    void (*write)(void *arg, struct lines *out);
    void *arg;
    const struct feature *const
        *features; /* NULL ends it, FEATURES_MAX at most */
    const struct feature_opts *feature_opts;
    struct process_clock *clock;
    uint32_t ring_bytes;
    uint32_t max_delay_ms;
    uint32_t workload_pid; /* of the job of `exec`; 0 = none */
    bool required;         /* what is off is a warning */
    _Atomic uint32_t
        *busy; /* 1 while a feature runs: should it end the process,
                               whoever comes next can tell */
};

enum kernel_state {
    KERNEL_OPENING,
    KERNEL_RUNNING,
    KERNEL_PAUSED,  /* all collected so far; no more until it runs again */
    KERNEL_STOPPED, /* programs off, the last values collected */
    KERNEL_ENDED
};

/** Make the link, before the reader starts; no thread yet. Returns 0 or -errno. */
int kernel_create(struct kernel **out, const struct kernel_opts *opts);
struct kernel_link *kernel_link_of(struct kernel *k);

/** Begin. Returns 0 or -errno: there is no thread then, all features stay off. */
int kernel_start(struct kernel *k);

/** Ask for RUNNING, PAUSED or STOPPED, which is the last; never blocks. */
void kernel_want(struct kernel *k, enum kernel_state state);

/** What was asked for last is reached, or there is nothing to wait for: no thread,
 *  or one that still opens, so that nothing is measured yet. @k may be NULL. */
bool kernel_reached(const struct kernel *k);

struct kernel_feature {
    const char *name, *what;
    bool on;
    bool opening;              /* not known yet */
    struct loader_cause cause; /* on, and still a reason: it is reduced */
};

struct kernel_status {
    uint32_t n;
    struct kernel_feature features[FEATURES_MAX];
    struct event_stats events; /* sums over types and CPUs */
    uint64_t n_wrong;          /* records that were none */
};

/** The state as it is now; @events as of the last collection. @k NULL: @off says why there is none. */
void kernel_status(struct kernel *k, const struct loader_cause *off,
                   struct kernel_status *out);

/** End the thread and join it; then close the handle, and @closed runs. */
void kernel_end(struct kernel *k, void (*closed)(void *arg), void *arg);

/** Behind that, and when the reader has ended. NULL-safe. */
void kernel_free(struct kernel *k);

#endif
