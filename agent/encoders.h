/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The encoder thread: closed bucket parts to payloads in the store, one after the
 * other in sequence order.
 *
 * The thread encodes; the loop, as the only writer of the store's metadata,
 * commits what it made and evicts when it finds no room. For both the thread
 * rings the loop and waits for its answer, so a part under way is the only one.
 *
 * Thread:  all functions and callbacks on the loop.
 * Memory:  one encoder; the parts waiting are a pair of sequence numbers.
 * Promise: done runs once for each part, in order, after its payloads were
 *          frozen. With a run_dir the part's seconds are in its file before
 *          that,
 *          and with a store on disk the payloads are. What earlier lives left
 *          there is read in between, never while a part waits or in a stop.
 *          Memory that is short delays a part and never loses it.
 */
#ifndef RETRIEVER_AGENT_ENCODERS_H
#define RETRIEVER_AGENT_ENCODERS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "forwarder/encode.h"
#include "forwarder/store.h"

struct encoders; /* opaque */

/** Part @seq became payloads; its memory may be released. */
typedef void encoders_done_fn(void *arg, uint64_t seq);

/** What encoders_sync() asked for was tried; @rc: 0 or -errno. */
typedef void encoders_synced_fn(void *arg, int rc);

/** Everything borrowed until closed. make_room and arg of @encode are not used:
 *  they are the encoders' own. */
struct encoders_opts {
    uv_loop_t *loop;
    const struct agg *agg;
    struct store *store;
    const struct encode_config *encode;
    int run_dir; /* for the file of stamps; -1 = none */
    encoders_done_fn *done;
    void (*restored)(void *arg); /* payloads of earlier lives came; NULL = none
                                    is told */
    void *arg;
};

/** Parts up to store_encoded_seq() count as done. Returns 0 or -errno. */
int encoders_start(struct encoders **out, const struct encoders_opts *opts);

/** Parts up to @seq are closed: encode what is not yet. */
void encoders_submit(struct encoders *e, uint64_t seq);

/** An API key came (or went): from the next part on. */
void encoders_set_endpoint(struct encoders *e, bool have_endpoint);

/** From the next part on, the faster level (or not). */
void encoders_set_stopping(struct encoders *e, bool stopping);

/** While resting nothing that is on disk is read, evicted, settled or synced, and
 *  the store does not change; what the thread had begun is told the loop
 *  afterwards. For an upgrade, from before the payloads are exported: no part may
 *  be under way, and a stop needs the disk again. */
void encoders_set_resting(struct encoders *e, bool resting);

/** For a stop: when the parts wanted so far are done, what is in memory alone goes
 *  to disk, and all that is there shall outlive a power loss. @fn runs from the
 *  loop after each try, the last of which is well; not after encoders_stop(). */
void encoders_sync(struct encoders *e, encoders_synced_fn *fn, void *arg);

/** Payloads of this life are still to be found on disk, and will be: a stop waits
 *  for them. */
bool encoders_await(struct encoders *e);

/** Last part that is done. */
uint64_t encoders_done(const struct encoders *e);

/** Finish the part under way, leave the rest where it is, end the thread;
 *  @closed runs from the loop when nothing of it is left, then it is freed. */
void encoders_stop(struct encoders *e, void (*closed)(void *arg), void *arg);

#endif
