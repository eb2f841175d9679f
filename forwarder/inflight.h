/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that left for the intake and have no answer yet: a fixed number of
 * slots, shared fairly by the kinds of payloads.
 *
 * One kind may not take all slots, so that a route whose requests hang until
 * their timeout does not block the others: of max slots it leaves one free for
 * each other kind, as long as there are enough.
 *
 * Thread:  the loop.
 * Memory:  one allocation of max slots; no other.
 * Promise: inflight_begin() never hands out more than max slots; a slot stays at
 *          its address until inflight_end().
 */
#ifndef RETRIEVER_FORWARDER_INFLIGHT_H
#define RETRIEVER_FORWARDER_INFLIGHT_H

#include <stdbool.h>
#include <stdint.h>

#include "forwarder/store.h"

#define INFLIGHT_MAX 256u /* slots; more is of no use to one intake */

struct flight {
    struct flight *next_free;
    struct payload *payload; /* taken from the store; NULL = free slot */
    void *owner;
    uint32_t key_generation; /* of the key that went with it */
    bool probe;              /* what breaker_begin() said */
};

struct inflight {
    struct flight *slots;
    struct flight *free;
    uint32_t max;
    uint32_t n;
    uint32_t n_kind[PAYLOAD_N_KINDS];
};

/** @max slots, brought into 1..INFLIGHT_MAX. Returns 0 or -ENOMEM. */
int inflight_init(struct inflight *f, uint32_t max);
/** Nothing may be in flight. Safe on an all-zero struct. */
void inflight_fini(struct inflight *f);

/** Kinds (a set of 1u << PAYLOAD_... bits) that may begin a request now. */
unsigned inflight_room(const struct inflight *f);

/** Take a slot for @p, whose kind is in inflight_room(). */
struct flight *inflight_begin(struct inflight *f, struct payload *p);
/** Free the slot; returns its payload, the caller's again. */
struct payload *inflight_end(struct inflight *f, struct flight *fl);

#endif
