/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the stand-in intake keeps: of all points of one identity (normalised
 * name, normalised tags without order and doubles, host, time) the last one
 * that came, whatever its type, as the Datadog intake does.
 *
 * Thread:  one at a time; the caller locks.
 * Memory:  everything counts against max_bytes; intake_store_room() says
 *          beforehand whether a series still fits. Overshoot: the doubling of
 *          one table. Items (checks, events) are all counted and the first
 *          INTAKE_ITEMS_MAX of each kind kept.
 * Promise: intake_store_put() after intake_store_room() stores the whole
 *          series; only a failing malloc ends the process with a line.
 */
#ifndef RETRIEVER_AGENT_INTAKE_STORE_H
#define RETRIEVER_AGENT_INTAKE_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "agent/intake_payload.h"

#define INTAKE_ITEMS_MAX 10000
#define INTAKE_SERIES_POINTS_MAX 100000 /* in one series: eleven days */

struct stored_sketch;

/* A kept point; sketch is NULL for the other types. */
struct stored_point {
    int64_t ts_s;
    double value;
    uint32_t interval_s; /* rates */
    enum intake_type type;
    struct stored_sketch *sketch;
};

struct stored_sketch {
    int64_t n_values;
    double min, max, avg;
    size_t n_bins;
    struct intake_bin bins[];
};

/* All series of one normalised name. What follows n_series is filled by
 * intake_store_sum(). */
struct stored_metric {
    char *name;
    uint64_t n_series;
    unsigned types; /* bit 1 << enum intake_type of each that occurs */
    uint64_t n_points;
    /* Counts, rates times their interval, sums of sketches; and the last gauge
     * of each series. */
    long double sum;
    int64_t n_values; /* in sketches, also min and max */
    double min, max;
};

struct stored_series {
    struct stored_metric *metric;
    struct stored_point *points; /* ascending ts_s, each once */
    size_t n_points, cap_points;
    uint64_t hash;
    uint32_t at_tags, n_tags; /* in key: the tags, joined by ',' */
    uint32_t at_host, n_host;
    uint32_t n_key;
    char key[];
};

struct stored_items {
    char **json; /* the JSON text of each */
    size_t n, cap;
    uint64_t n_seen;
};

struct intake_store {
    size_t n_bytes, max_bytes;
    struct stored_series **table; /* open addressing, a power of two */
    size_t n_series, cap_series;
    struct stored_metric **metrics; /* the same */
    size_t n_metrics, cap_metrics;
    uint64_t n_points;
    uint64_t n_replaced;
    struct stored_items checks, events;
    uint64_t seed;
};

enum intake_store_rc { INTAKE_STORE_FULL = 101 };

/** @seed keeps names that were made to collide from doing so. */
void intake_store_init(struct intake_store *s, size_t max_bytes, uint64_t seed);
void intake_store_fini(struct intake_store *s);

/** Forget everything, as after fini and init. */
void intake_store_clear(struct intake_store *s);

/** Would @series fit beside *@n_planned bytes that earlier series of the same
 *  payload need? Returns 0 with *@n_planned increased, or INTAKE_STORE_FULL. */
int intake_store_room(struct intake_store *s,
                      const struct intake_series *series, size_t *n_planned);

/** Store each point, replacing what has its identity. */
void intake_store_put(struct intake_store *s,
                      const struct intake_series *series);

/** Fill the sums of every metric. Added up anew each time: taking replaced
 *  points out of running sums would leave rounding errors. */
void intake_store_sum(struct intake_store *s);

/** Count an item, and keep its text while there is room. */
void intake_store_item(struct intake_store *s, struct stored_items *items,
                       struct intake_view json);

#endif
