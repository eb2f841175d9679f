/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Closed parts on their way to payloads: announced by the reader, held back until
 * the flush delay is over, encoded one after the other in sequence order,
 * committed to the store, given back to the reader.
 *
 * Thread:  the loop.
 * Memory:  fixed: sequence numbers are consecutive, so two of them are a queue.
 * Promise: parts are encoded in the order they were closed; on_encoded runs once
 *          for each, from the loop.
 */
#ifndef RETRIEVER_AGENT_PARTS_H
#define RETRIEVER_AGENT_PARTS_H

#include <uv.h>

#include "agent/reader.h"
#include "forwarder/encode.h"
#include "forwarder/store.h"

struct parts; /* opaque */

struct parts_opts {
    uv_loop_t *loop;
    struct reader *reader;
    struct store *store;
    const struct encode_config *encode;
    uint64_t delay_ns; /* between closing and encoding */
    int run_dir;       /* for the last stamp; -1 = none */
    /** Part @seq became payloads. */
    void (*on_encoded)(void *arg, uint64_t seq);
    void *arg;
};

/** Returns 0 or -errno. */
int parts_start(struct parts **out, const struct parts_opts *opts);

/** The reader closed part @seq. */
void parts_announce(struct parts *p, uint64_t seq);

/** From now on without delay (and, @stopping, with the faster compression). */
void parts_hurry(struct parts *p, bool hurried, bool stopping);

/** Last part announced so far, and last one encoded. */
uint64_t parts_announced(const struct parts *p);
uint64_t parts_encoded(const struct parts *p);

/** Ends the encoder; what is in it now is finished first. */
void parts_stop(struct parts *p, void (*closed)(void *arg), void *arg);

#endif
