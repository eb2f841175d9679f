/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cells: the values of one context in the open bucket part.
 *
 * Thread:  the reader.
 * Memory:  blocks of the open part; a histogram keeps at most HIST_MAX_PAIRS
 *          values, a sketch needs at most 270 KiB, a set 32 bytes a member.
 * Promise: counts, sums and extremes are exact whatever runs short; what could
 *          not be kept in detail is counted (hist_capped).
 */
#ifndef RETRIEVER_AGGREGATOR_CELL_H
#define RETRIEVER_AGGREGATOR_CELL_H

#include "aggregator/layout.h"

/** The open cell of @c, made if need be; NULL: no memory. @data: as a sample's
 *  (false: a counter's zero, which does not keep the context alive). */
void *cell_open(struct agg *a, struct context *c, bool data);

static inline void *cell_of(struct agg *a, struct context *c)
{
    if (__builtin_expect(c->chain == a->head->open.id, 1))
        return block_at(a, c->cell);
    return cell_open(a, c, true);
}

/** Apply all values of @s; @counted: they count as samples (copies do not). */
bool cell_add(struct agg *a, struct context *c, const struct sample *s,
              bool counted);

/** Add @n samples of total @value to a counter, or to a gauge, which takes the
 *  value if it has none. */
bool cell_add_sum(struct agg *a, struct context *c, double value, uint64_t n);

/** *sum + *comp grows by @v: Knuth's two-sum, which tells what the addition lost
 *  whichever of the two is larger, without a branch (TAOCP 2, 4.2.2, theorem B). */
static inline void sum_add(double *sum, double *comp, double v)
{
    double s = *sum;
    double t = s + v;
    double grown = t - s;

    *comp += (s - (t - grown)) + (v - grown);
    *sum = t;
}

/** The total, finite whatever was added. */
double sum_total(double sum, double comp);

/** v / rate, finite. */
double rated_value(double v, double rate);

/** What cell_add_plain() needs of an aggregator, where no store can change it; to be
 *  taken anew when anything else was done. */
struct cell_plain {
    struct region_saves saves;
    unsigned char *blocks;
    uint32_t chain;
};

/** For at most @n lines. */
static inline struct cell_plain cell_plain_of(const struct agg *a, uint32_t n)
{
    return (struct cell_plain){.saves =
                                   region_saves_of(a->r, n,
                                                   sizeof(struct cell_small)),
                               .blocks = a->blocks,
                               .chain = a->head->open.id};
}

/** What cell_add() does for nearly every line: one value for a counter or gauge
 *  that has its cell. false: it is something else, nothing was done. Who calls it
 *  adds up how many were done (agg->pending_aggregated). */
static inline bool cell_add_plain(struct cell_plain *k, const struct context *c,
                                  double v)
{
    struct cell_small *cell =
        (void *)(k->blocks + (size_t)c->cell * BLOCK_REF_UNIT);

    if (c->chain != k->chain || c->kind > KIND_GAUGE ||
        (c->flags & CONTEXT_OVERFLOW) != 0)
        return false;
    region_save_next(&k->saves, cell, sizeof(*cell));
    cell->n++;
    if (c->kind == KIND_GAUGE)
        cell->value = v;
    else
        sum_add(&cell->value, &cell->comp, v);
    return true;
}

/* What the kinds have in files of their own. */
void cell_set_add(struct agg *a, struct cell_set *cell, struct view member,
                  bool counted);
void cell_hist_add(struct agg *a, struct cell_hist *cell,
                   const struct sample *s, bool counted);
void cell_dist_add(struct agg *a, struct cell_dist *cell,
                   const struct sample *s, bool counted);

/** Pair @i of a histogram cell. */
struct hist_pair *cell_hist_pair(const struct agg *a,
                                 const struct cell_hist *cell, uint32_t i);

/** Call @fn for each (key, count) of the tree of a sketch, ascending. */
typedef void cell_bin_fn(void *arg, int16_t key, uint32_t n);
void cell_dist_bins(const struct agg *a, const struct cell_dist *cell,
                    cell_bin_fn *fn, void *arg);

#endif
