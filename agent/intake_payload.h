/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes the bodies that the Datadog intake accepts apart: series v2 (protobuf
 * and JSON), series v1 (JSON), sketches (protobuf), service checks and events
 * (JSON), item by item.
 *
 * Thread:  any, one decoder per thread.
 * Memory:  one scratch of bounded size per decoder: INTAKE_TAGS_MAX tags and
 *          INTAKE_POINTS_MAX points of the series at hand and the bins of its
 *          sketches; JSON trees are bounded by INTAKE_JSON_VALUES_MAX. Views
 *          point into the body and are valid during the callback only.
 * Promise: total for any bytes. A payload that breaks a structural rule of the
 *          intake (text is valid UTF-8, at most 100 tags, at most 10,000 points
 *          in one payload of series) gives INTAKE_BAD and the reason; what the
 *          callback saw before that is void, so callers decode twice: to check,
 *          then to store.
 */
#ifndef RETRIEVER_AGENT_INTAKE_PAYLOAD_H
#define RETRIEVER_AGENT_INTAKE_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

#define INTAKE_TAGS_MAX 100
#define INTAKE_RESOURCES_MAX 500
#define INTAKE_POINTS_MAX 10000
#define INTAKE_BINS_MAX 1000000 /* in one series of sketches */
#define INTAKE_JSON_VALUES_MAX 1000000
#define INTAKE_WHY_MAX 240

enum intake_kind {
    INTAKE_SERIES_V2_PB,
    INTAKE_SERIES_V2_JSON,
    INTAKE_SERIES_V1,
    INTAKE_SKETCHES,
    INTAKE_CHECKS,
    INTAKE_EVENTS
};

enum intake_type { INTAKE_COUNT = 1, INTAKE_RATE, INTAKE_GAUGE, INTAKE_SKETCH };

struct intake_view {
    const char *p;
    size_t n;
};

/* One bin of a sketch: @n values under key @k. */
struct intake_bin {
    int32_t k;
    uint32_t n;
};

struct intake_point {
    int64_t ts_s;
    double value; /* a sketch: the sum of its values */
    /* The rest for sketches only. */
    int64_t n_values;
    double min, max, avg;
    const struct intake_bin *bins;
    size_t n_bins;
};

struct intake_series {
    enum intake_type type;
    int64_t interval_s;
    struct intake_view name;
    struct intake_view host;
    const struct intake_view *tags;
    size_t n_tags;
    /* Pairs (type, name) other than the host: part of the identity. */
    const struct intake_view *resources;
    size_t n_resources; /* views, two for each pair */
    const struct intake_point *points;
    size_t n_points;
};

/* A service check or an event: only what is judged, and its own JSON text. */
struct intake_item {
    struct intake_view json;
};

/* Callbacks return 0, or non-zero to end the decoding with that result. */
typedef int intake_series_fn(void *arg, const struct intake_series *s);
typedef int intake_item_fn(void *arg, const struct intake_item *item);

struct intake_decoder; /* opaque */

enum intake_payload_rc { INTAKE_BAD = 1 };

/** NULL when there is no memory. */
struct intake_decoder *intake_decoder_create(void);

/** NULL-safe. */
void intake_decoder_close(struct intake_decoder *d);

/** Decode @body (borrowed): @series is called for each series or sketch, @item
 *  for each check or event. Returns 0, INTAKE_BAD, -ENOMEM, or what a callback
 *  returned. */
int intake_decode(struct intake_decoder *d, enum intake_kind kind,
                  const void *body, size_t n_body, intake_series_fn *series,
                  intake_item_fn *item, void *arg);

/** Why the last intake_decode() gave INTAKE_BAD: printable ASCII. */
const char *intake_decoder_why(const struct intake_decoder *d);

#endif
