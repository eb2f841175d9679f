/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One grace period of the kernel (RCU): behind it no sender is left that was inside
 * a socket's receiving side, or a program on it, when the period began. It takes
 * some 10 ms, and seconds on a machine whose CPUs are taken by others; the call
 * cannot be interrupted. So a thread makes it, and whoever waits has a limit.
 *
 * Thread:  one, for every call.
 * Memory:  one embedded struct; one thread while a period lasts.
 * Promise: grace_await() returns by its latest instant.
 */
#ifndef RETRIEVER_AGENT_GRACE_H
#define RETRIEVER_AGENT_GRACE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct grace {
    pthread_t thread;
    int done; /* eventfd; 0 = none */
    int rc;   /* of the thread, before done is readable */
    bool running;
};

enum grace_rc {
    GRACE_LATE = 1, /* not over yet */
    GRACE_REFUSED /* a sandbox forbids the call: nothing tells when it is over */
};

/** Begin one. @g is all zero before the first. */
void grace_begin(struct grace *g);

/** Wait for its end, until @latest_ns (CLOCK_MONOTONIC) at most. Returns 0 or
 *  enum grace_rc. */
int grace_await(struct grace *g, uint64_t latest_ns);

/** Joins the thread, however long the kernel takes. */
void grace_fini(struct grace *g);

#endif
