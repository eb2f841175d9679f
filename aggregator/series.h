/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a closed part gives to the encoder: series, sketches, events, checks.
 * The only header of this folder that forwarder/ may include.
 *
 * Thread:  the encoder, while the reader goes on with other parts: a closed part
 *          and all it points to stay unchanged until agg_release().
 * Memory:  views borrow from the region, or from the iterator's scratch until its
 *          next call. Scratch is bounded by the largest cell of the part.
 * Promise: each accepted sample of the part is counted in exactly one item.
 */
#ifndef RETRIEVER_AGGREGATOR_SERIES_H
#define RETRIEVER_AGGREGATOR_SERIES_H

#include "aggregator/sample.h"

struct agg;

enum flush_kind { FLUSH_SERIES, FLUSH_SKETCH, FLUSH_EVENT, FLUSH_CHECK };
enum series_type { SERIES_RATE = 2, SERIES_GAUGE = 3 }; /* v2 numbers */

struct flush_point {
    int64_t ts_s;
    double value;
    uint64_t n_samples; /* of timestamped contexts; else 0: see the item */
};

/** One series of an item: name is item->name followed by suffix. */
struct flush_series {
    const char *suffix; /* "" or ".max", ".95percentile", ... */
    enum series_type type;
    const char *unit; /* "" or "millisecond" */
    const struct flush_point *points;
    uint32_t n_points;
};

#define FLUSH_MAX_SERIES 24

/** One cell: everything that one context sends for one part. Goes into one
 *  payload as a whole (except many timestamped points of one series). */
struct flush_item {
    enum flush_kind kind;
    uint64_t n_samples; /* counted as delivered when this item is; 0 for zeros,
                           copies, events and checks */
    struct view name;
    struct view host;
    const struct view *tags; /* valid UTF-8, within the intake's limits, sorted,
                                unique; `device:` and dd.internal.resource: still
                                among them */
    uint32_t n_tags;
    uint32_t interval_s; /* 10 */

    /* FLUSH_SERIES */
    struct flush_series series[FLUSH_MAX_SERIES];
    uint32_t n_series;

    /* FLUSH_SKETCH: one point */
    int64_t ts_s;
    int64_t cnt;
    double min, max, avg, sum;
    const int32_t *k;
    const uint32_t *n;
    uint32_t n_bins;

    /* FLUSH_EVENT (name = title, real line feeds) and FLUSH_CHECK */
    struct view text; /* event text or check message */
    struct view aggregation_key, source_type;
    enum event_priority priority;
    enum event_alert alert;
    uint8_t status;
};

struct part_info {
    uint64_t seq;
    int64_t stamp_s;    /* its points: this second and max_shift more ... */
    uint32_t max_shift; /* ... but for those that used_walk_part() names */
    uint64_t n_items;   /* upper bound */
    uint64_t n_samples, n_events, n_checks;
};

struct part_iter;

/** Open the closed part @seq. Returns 0, -ENOENT (not closed or released) or
 *  -ENOMEM. */
int part_iter_open(struct part_iter **out, const struct agg *a, uint64_t seq);
void part_iter_info(const struct part_iter *it, struct part_info *out);

/** Next item in the order series, sketches, events (by source type), checks.
 *  Returns 1, 0 at the end, or -ENOMEM (the same item again at the next call). */
int part_iter_next(struct part_iter *it, struct flush_item *out);
void part_iter_close(struct part_iter *it);

#endif
