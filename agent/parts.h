/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Closed parts on their way to the encoder: announced by the reader, held back
 * until the flush delay is over, encoded in sequence order, given back to the
 * reader.
 *
 * Thread:  the loop.
 * Memory:  fixed: sequence numbers are consecutive, so a few instants are a queue.
 * Promise: on_encoded runs once for each part, in the order they were closed,
 *          and not after parts_stop().
 */
#ifndef RETRIEVER_AGENT_PARTS_H
#define RETRIEVER_AGENT_PARTS_H

#include <uv.h>

#include "agent/encoders.h"
#include "agent/reader.h"

struct parts; /* opaque */

struct parts_opts {
    struct reader *reader;
    uint64_t delay_ns; /* between closing and encoding */
    struct encoders_opts
        encoders; /* agg, done, restored and arg are set here */
    /** Part @seq became payloads. */
    void (*on_encoded)(void *arg, uint64_t seq);
    /** Payloads of earlier lives came; NULL = nobody is told. */
    void (*on_restored)(void *arg);
    void *arg;
};

/** Returns 0 or -errno. */
int parts_start(struct parts **out, const struct parts_opts *opts);

/** The reader closed part @seq. */
void parts_announce(struct parts *p, uint64_t seq);

/** Encode without delay from now on, or with it again. */
void parts_hurry(struct parts *p, bool hurried);

/** As above, with the faster compression, for good. */
void parts_set_stopping(struct parts *p);

/** See encoders_set_resting(). */
void parts_set_resting(struct parts *p, bool resting);

/** Last part announced, and last one encoded. */
uint64_t parts_announced(const struct parts *p);
uint64_t parts_encoded(const struct parts *p);

/** See encoders_await(). */
bool parts_await(struct parts *p);

/** An API key came: from the next part on there is somebody to send to. */
void parts_set_endpoint(struct parts *p, bool have_endpoint);

/** See encoders_sync(); not after parts_stop(). */
void parts_sync(struct parts *p, encoders_synced_fn *fn, void *arg);

/** Finish the part under way and end the encoder, which reads the reader's
 *  memory until @closed runs. */
void parts_stop(struct parts *p, void (*closed)(void *arg), void *arg);

#endif
