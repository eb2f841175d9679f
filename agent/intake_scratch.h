/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the protobuf half and the JSON half of the intake's decoder share: the
 * scratch in which one series is put together, and the ways to refuse one.
 *
 * Thread:  that of the decoder.
 * Memory:  fixed arrays of the decoder; bins grow to INTAKE_BINS_MAX.
 * Promise: each scratch_*() returns 0, INTAKE_BAD with the reason noted, or
 *          -ENOMEM.
 */
#ifndef RETRIEVER_AGENT_INTAKE_SCRATCH_H
#define RETRIEVER_AGENT_INTAKE_SCRATCH_H

#include "agent/intake_payload.h"

struct intake_decoder {
    struct intake_series s;
    struct intake_view tags[INTAKE_TAGS_MAX];
    struct intake_view resources[2 * INTAKE_RESOURCES_MAX];
    struct intake_point points[INTAKE_POINTS_MAX];
    size_t first_bin[INTAKE_POINTS_MAX]; /* of each point, in bins[] */
    struct intake_bin *bins;
    size_t n_bins, cap_bins;
    size_t n_points_before; /* of the payload's earlier series */
    intake_series_fn *series;
    intake_item_fn *item;
    void *arg;
    char why[INTAKE_WHY_MAX];
};

/** Note the reason; always INTAKE_BAD. */
int scratch_bad(struct intake_decoder *d, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/** Begin a series of @type (what is unset in the payload). */
void scratch_begin(struct intake_decoder *d, enum intake_type type);

/** Set *@field to @n bytes at @p, which must be valid UTF-8; @what names it. */
int scratch_text(struct intake_decoder *d, struct intake_view *field,
                 const void *p, size_t n, const char *what);

int scratch_tag(struct intake_decoder *d, const void *p, size_t n);

/** A resource of type "host" becomes the host, each other one is kept. */
int scratch_resource(struct intake_decoder *d, struct intake_view type,
                     struct intake_view name);

/** Room for one more point, zeroed, in *@p. */
int scratch_point(struct intake_decoder *d, struct intake_point **p);

/** Add a bin to the last point. */
int scratch_bin(struct intake_decoder *d, int32_t k, uint32_t n);

/** The series is complete: hand it to the callback. */
int scratch_emit(struct intake_decoder *d);

/** The two halves. */
int intake_decode_series_pb(struct intake_decoder *d, const void *body,
                            size_t n);
int intake_decode_sketches_pb(struct intake_decoder *d, const void *body,
                              size_t n);
int intake_decode_json(struct intake_decoder *d, enum intake_kind kind,
                       const void *body, size_t n);

#endif
