/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts: what the intake sees as one series, found by the spelling of the
 * client. The first sight of a spelling pays for splitting, sorting and
 * interning; later ones are one probe of a table.
 *
 * Thread:  the reader.
 * Memory:  64 bytes and two table slots a context, names and tag sets shared; at
 *          most context_limit and 1/64 of it for overflow, aliases bounded too.
 * Promise: two spellings that the intake would take for one series of one type
 *          share a context; of another type they never share a second.
 */
#ifndef RETRIEVER_AGGREGATOR_CONTEXT_H
#define RETRIEVER_AGGREGATOR_CONTEXT_H

#include "aggregator/hash.h"
#include "aggregator/layout.h"
#include "aggregator/table.h"

/** How a spelling was meant: a metric_type, or one of these. */
enum spelling_class {
    SPELLING_COPY = METRIC_N_TYPES, /* distribution copy of a histogram */
    SPELLING_OVERFLOW,              /* + cell_kind */
    SPELLING_OWN = 1u << 8 /* beside those: a name of ours, without prefix */
};

enum cell_kind context_kind(unsigned spelling_class);

/** Where spellings are looked up, until one is entered. */
struct spellings {
    const struct table_slot *slots;
    uint32_t mask, homes; /* of all slots; of the first ones of lines */
};

static inline struct spellings context_spellings(const struct agg *a)
{
    const struct table *t = &a->head->spelling;

    return (struct spellings){table_slots(a, t), t->mask,
                              table_home(t->mask, UINT32_MAX)};
}

static inline const struct table_slot *context_line(struct spellings s,
                                                    struct hash128 h)
{
    return &s.slots[(uint32_t)h.lo & s.homes];
}

/** Where that of an entry is which its own line had no room for, mostly. */
static inline const struct table_slot *context_next_line(struct spellings s,
                                                         struct hash128 h)
{
    return &s.slots[((uint32_t)h.lo + TABLE_LINE) & s.homes];
}

/** What @h stands for if it was seen before, mostly: a reference to be asked for
 *  ahead of its use by context_at(). */
static inline uint32_t context_guess(struct spellings s, struct hash128 h)
{
    return table_look(context_line(s, h), (uint32_t)h.lo);
}

static inline const void *context_record(const struct context *contexts,
                                         const struct alias *aliases,
                                         uint32_t ref)
{
    if (__builtin_expect((ref & REF_ALIAS) == 0, 1))
        return &contexts[ref];
    return &aliases[ref & ~REF_ALIAS];
}

/** The context that @ref stands for, if that has this hash; else NULL. */
static inline struct context *context_at(struct context *contexts,
                                         const struct alias *aliases,
                                         uint32_t ref, struct hash128 h)
{
    struct context *c = &contexts[ref];
    const struct alias *al = &aliases[ref & ~REF_ALIAS];

    if (__builtin_expect((ref & REF_ALIAS) == 0, 1))
        return c->hash[0] == h.lo && c->hash[1] == h.hi ? c : NULL;
    return al->hash[0] == h.lo && al->hash[1] == h.hi ? &contexts[al->context]
                                                      : NULL;
}

/** The context of a spelling seen before; NULL: never seen, or not cached. */
struct context *context_find(const struct agg *a, struct hash128 h);

/** First sight of a spelling. Returns its context (which may be an overflow
 *  one), or NULL: the name is refused (DSD_NAME). */
struct context *context_make(struct agg *a, const struct sample *s,
                             unsigned class, struct hash128 h);

/** Where samples of @s go when their context can hold nothing now; never NULL. */
struct context *context_overflow(struct agg *a, const struct sample *s,
                                 enum cell_kind kind);

/** Forget an idle context with all its spellings. Saves less than 48 KiB. */
void context_free(struct agg *a, struct context *c);

/** Create the contexts that always exist: one overflow context per kind. */
int context_init(struct agg *a);

static inline uint32_t context_index(const struct agg *a,
                                     const struct context *c)
{
    return (uint32_t)(c - a->contexts);
}

/** Set a mark of @c and of its group. */
static inline void context_mark(struct agg *a, struct context *c,
                                enum context_mark mark)
{
    struct context *first = &a->contexts[c->group];

    if ((c->marks & mark) == 0)
        region_set(a->r, c->marks, (uint8_t)(c->marks | mark));
    if ((first->marks & mark) == 0)
        region_set(a->r, first->marks, (uint8_t)(first->marks | mark));
}

#endif
