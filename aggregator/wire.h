/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wire identity: which of our series the intake would take for one.
 *
 * Thread:  the reader.
 * Memory:  one table slot for each final name of a context.
 * Promise: names (with suffixes), tags and host count in their normal form, the
 *          type does not.
 */
#ifndef RETRIEVER_AGGREGATOR_WIRE_H
#define RETRIEVER_AGGREGATOR_WIRE_H

#include "aggregator/enrich.h"
#include "aggregator/hash.h"

/** The final names of a kind: suffix @i, or NULL behind the last. */
const char *wire_suffix(const struct agg *a, enum cell_kind kind, uint32_t i);

/** Hash of a set of tags in normal form. */
struct hash128 wire_tags(const struct agg *a, const struct enriched *e);

/** Hash of one final series. */
struct hash128 wire_series(const struct agg *a, struct view name,
                           const char *suffix, struct hash128 tags,
                           struct view host);

/** The same without a seed, for lists that outlive this life. Of a context that
 *  a closed part refers to: the encoder may ask, too. */
struct used_id wire_identity(const struct agg *a, const struct context *c,
                             const char *suffix);

struct wire_match {
    struct context *same;             /* the context this one is an alias of */
    struct context *clash;            /* one of another type; NULL = none */
    uint32_t shifts_in_use;           /* bit per shift of those */
    uint32_t n_series;                /* 0 if there is the same */
    uint32_t frags[FLUSH_MAX_SERIES]; /* of each final name, for wire_enter() */
};

/** Look up each final name of @e as a series of @kind. */
void wire_find(const struct agg *a, const struct enriched *e,
               enum cell_kind kind, struct hash128 tags,
               struct wire_match *out);

/** Enter all final names of @c, which @m was found for. false: no room (none
 *  entered). */
bool wire_enter(struct agg *a, struct context *c, const struct wire_match *m);

/** Remove them. */
void wire_leave(struct agg *a, struct context *c);

#endif
