/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cells and records to the items of series.h. Private to series.c.
 *
 * Thread:  the encoder.
 * Memory:  scratch that grows to the largest cell of the part: a histogram's
 *          pairs (1 MiB), a sketch's bins (1 MiB), one event's text, and 24 bytes
 *          per timestamped point.
 * Promise: the formulas are those of the Datadog Agent (pkg/metrics 7.8x), with
 *          fractional weights 1/rate.
 */
#ifndef RETRIEVER_AGGREGATOR_SERIES_ITEM_H
#define RETRIEVER_AGGREGATOR_SERIES_ITEM_H

#include "aggregator/blocks.h"
#include "aggregator/enrich.h"
#include "aggregator/layout.h"
#include "aggregator/sketch.h"

struct item_bytes {
    void *p;
    size_t cap;
};

/** One event or check, and what events are ordered by. */
struct item_text_at {
    struct chain_walk walk; /* at its head */
    uint32_t index;
    uint32_t n_source;
    char source[64]; /* cut */
};

struct item_scratch {
    struct view tags[ENRICH_MAX_TAGS];
    struct flush_point points[FLUSH_MAX_SERIES]; /* one per series */
    struct item_bytes pairs, bins, merged, keys, wire_k, wire_n;
    struct item_bytes text;
    /* Timestamped points of the part, sorted by context and second. */
    struct cell_stamped *stamped;
    struct flush_point *stamped_points;
    uint32_t n_stamped, at_stamped;
    /* Where each record of the text chain begins, in the order they go out. */
    struct item_text_at *texts;
    uint32_t n_texts, at_text;
};

/** 0 or -ENOMEM; item_scratch_fini() in both cases. */
int item_scratch_init(struct item_scratch *s, const struct agg *a,
                      const struct part *p);
void item_scratch_fini(struct item_scratch *s);

void item_small(struct item_scratch *s, bool counter,
                const struct cell_small *cell, int64_t ts_s,
                struct flush_item *out);
void item_set(struct item_scratch *s, const struct cell_set *cell, int64_t ts_s,
              struct flush_item *out);

/** 1, or -ENOMEM. */
int item_hist(struct item_scratch *s, const struct agg *a, bool ms,
              const struct cell_hist *cell, int64_t ts_s,
              struct flush_item *out);
int item_dist(struct item_scratch *s, const struct agg *a,
              const struct cell_dist *cell, struct flush_item *out);

/** The next context with timestamped points; NULL: no more. */
const struct context *item_stamped(struct item_scratch *s, const struct agg *a,
                                   struct flush_item *out);

/** Begin with the records of the part's events or checks. */
void item_text_start(struct item_scratch *s, const struct agg *a,
                     const struct part *p, bool events);
int item_text(struct item_scratch *s, const struct agg *a, bool event,
              struct flush_item *out);

/** Room for @n bytes; NULL: no memory. The content is not kept. */
void *item_room(struct item_bytes *b, size_t n);

#endif
