/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tap beside the loop: loading it takes milliseconds and ending it for good a
 * grace period of the kernel, so both happen on a short-lived thread, and the
 * reader gets what comes of it.
 *
 * Thread:  the loop, for every call and callback.
 * Memory:  one thread at a time.
 * Promise: nothing waits for it. Where it cannot be loaded the sockets are read in
 *          the usual way, and one line says what would change that.
 */
#ifndef RETRIEVER_AGENT_TAPPING_H
#define RETRIEVER_AGENT_TAPPING_H

#include <pthread.h>

#include "agent/reader.h"

enum tapping_state {
    TAPPING_OFF, /* by configuration, or it cannot be: cause.why says which */
    TAPPING_LOADING,
    TAPPING_ON
};

struct tapping {
    uv_loop_t *loop;
    struct reader *reader;
    struct landing *landing;
    struct tap_source sources[SOCKETS_MAX];
    uint32_t n_sources;
    uint32_t max_bytes;
    enum tapping_state state;
    struct loader_cause cause;

    pthread_t thread;
    bool running;
    bool grace; /* what the thread does: wait, not load */
    bool wants_grace;
    int rc;
    struct tap *made;
    const struct ring_control *control; /* in the reader's mapping */
    uv_async_t done;
    bool has_done;
    bool stopping;
    void (*settled)(void *arg);
    void *settled_arg;
    void (*closed)(void *arg);
    void *closed_arg;
};

struct tapping_opts {
    uv_loop_t *loop;
    struct reader *reader;
    const struct sockets *sockets;
    struct landing *landing;
    uint32_t max_bytes; /* dogstatsd_buffer_size */
    bool ring_held;     /* sockets that others hold may be tapped, too */
    const struct loader_cause *off; /* NULL, or why it is not to be */
};

/** Begin to load. */
void tapping_start(struct tapping *t, const struct tapping_opts *opts);

/** READER_TAPPED came. */
void tapping_tapped(struct tapping *t, uint64_t n);

/** Detach, and have no program running any more; then @settled, once, from the loop
 *  or at once. Reading goes on meanwhile. READER_RESUME attaches again. */
void tapping_settle(struct tapping *t, void (*settled)(void *arg), void *arg);

/** READER_UNTAPPED came. */
void tapping_untapped(struct tapping *t);

/** No @settled any more. */
void tapping_unsettle(struct tapping *t);

/** Call @closed once the thread has ended, from the loop or at once. */
void tapping_stop(struct tapping *t, void (*closed)(void *arg), void *arg);

/** Datagrams that went to their sockets though these are tapped. */
struct tapping_counts {
    uint64_t n_full;   /* the ring was full */
    uint64_t n_bypass; /* the reader was late */
};
void tapping_counts(const struct tapping *t, struct tapping_counts *out);

/** "on", "loading", "off". */
const char *tapping_state_name(enum tapping_state s);

#endif
