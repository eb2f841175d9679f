/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spellings: name, tags and type as a client wrote them, and the keyed hash that
 * their context is found by. Nothing else is kept of them: it is their identity.
 *
 * Thread:  pure functions.
 * Memory:  none.
 * Promise: who does not know the seed cannot aim at a slot of a table. The hash
 *          depends on the processor's form (dsd_ahead.h): it means nothing beyond
 *          this machine, and a successor in another form enters each spelling anew.
 */
#ifndef RETRIEVER_AGGREGATOR_SPELLING_H
#define RETRIEVER_AGGREGATOR_SPELLING_H

#include "aggregator/hash.h"
#include "aggregator/sample.h"

#define SPELLING_LANES_BYTES 64u
#define SPELLING_KEYS 4u

/** What a seed is made into. Another @seed put into it afterwards gives another space
 *  of spellings, without the work of doing it all again. */
struct spelling_key {
    uint64_t seed[2];
    unsigned char lanes[SPELLING_KEYS][SPELLING_LANES_BYTES];
};

/** All of it from @seed. */
void spelling_key_init(struct spelling_key *key, const uint64_t seed[2]);

/** Of name, tags (empty and none are the same) and a small number. */
typedef struct hash128 spelling_hash_fn(const struct spelling_key *key,
                                        struct view name, struct view tags,
                                        unsigned class);

#endif
