/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/intake_payload.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/intake_scratch.h"
#include "aggregator/normalise.h"

struct intake_decoder *intake_decoder_create(void)
{
    return calloc(1, sizeof(struct intake_decoder));
}

void intake_decoder_close(struct intake_decoder *d)
{
    if (d == NULL)
        return;
    free(d->bins);
    free(d);
}

const char *intake_decoder_why(const struct intake_decoder *d)
{
    return d->why;
}

/* Names in reasons come from outside: made printable here, once for all. */
int scratch_bad(struct intake_decoder *d, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(d->why, sizeof(d->why), fmt, ap);
    va_end(ap);
    for (char *p = d->why; *p != '\0'; p++) {
        if (*p < ' ' || *p > '~')
            *p = '?';
    }
    return INTAKE_BAD;
}

void scratch_begin(struct intake_decoder *d, enum intake_type type)
{
    memset(&d->s, 0, sizeof(d->s));
    d->s.type = type;
    d->s.tags = d->tags;
    d->s.resources = d->resources;
    d->s.points = d->points;
    d->n_bins = 0;
}

int scratch_text(struct intake_decoder *d, struct intake_view *field,
                 const void *p, size_t n, const char *what)
{
    if (!utf8_valid(p, n))
        return scratch_bad(d, "%s is not valid UTF-8", what);
    field->p = p;
    field->n = n;
    return 0;
}

int scratch_tag(struct intake_decoder *d, const void *p, size_t n)
{
    if (d->s.n_tags == INTAKE_TAGS_MAX)
        return scratch_bad(d, "more than %d tags on %.*s", INTAKE_TAGS_MAX,
                           (int)(d->s.name.n > 100 ? 100 : d->s.name.n),
                           d->s.name.n > 0 ? d->s.name.p : "");
    return scratch_text(d, &d->tags[d->s.n_tags++], p, n, "tag");
}

int scratch_resource(struct intake_decoder *d, struct intake_view type,
                     struct intake_view name)
{
    if (type.n == 4 && memcmp(type.p, "host", 4) == 0) {
        d->s.host = name;
        return 0;
    }
    if (d->s.n_resources == 2 * (size_t)INTAKE_RESOURCES_MAX)
        return scratch_bad(d, "more than %d resources", INTAKE_RESOURCES_MAX);
    d->resources[d->s.n_resources++] = type;
    d->resources[d->s.n_resources++] = name;
    return 0;
}

int scratch_point(struct intake_decoder *d, struct intake_point **p)
{
    if (d->n_points_before + d->s.n_points >= INTAKE_POINTS_MAX)
        return scratch_bad(d, "more than %d points", INTAKE_POINTS_MAX);
    d->first_bin[d->s.n_points] = d->n_bins;
    *p = &d->points[d->s.n_points++];
    memset(*p, 0, sizeof(**p));
    return 0;
}

int scratch_bin(struct intake_decoder *d, int32_t k, uint32_t n)
{
    if (d->n_bins == INTAKE_BINS_MAX)
        return scratch_bad(d, "more than %d bins", INTAKE_BINS_MAX);
    if (d->n_bins == d->cap_bins) {
        size_t cap = d->cap_bins == 0 ? 4096 : d->cap_bins * 2;
        struct intake_bin *p = realloc(d->bins, cap * sizeof(*p));

        if (p == NULL)
            return -ENOMEM;
        d->bins = p;
        d->cap_bins = cap;
    }
    d->bins[d->n_bins++] = (struct intake_bin){.k = k, .n = n};
    d->points[d->s.n_points - 1].n_bins++;
    return 0;
}

/* Bins get their address only now: the array moved while it grew. */
int scratch_emit(struct intake_decoder *d)
{
    for (size_t i = 0; i < d->s.n_points; i++) {
        if (d->points[i].n_bins > 0)
            d->points[i].bins = d->bins + d->first_bin[i];
    }
    if (d->s.type != INTAKE_SKETCH) /* their payloads have no such limit */
        d->n_points_before += d->s.n_points;
    return d->series(d->arg, &d->s);
}

int intake_decode(struct intake_decoder *d, enum intake_kind kind,
                  const void *body, size_t n_body, intake_series_fn *series,
                  intake_item_fn *item, void *arg)
{
    d->series = series;
    d->item = item;
    d->arg = arg;
    d->n_points_before = 0;
    d->why[0] = '\0';
    switch (kind) {
    case INTAKE_SERIES_V2_PB:
        return intake_decode_series_pb(d, body, n_body);
    case INTAKE_SKETCHES:
        return intake_decode_sketches_pb(d, body, n_body);
    case INTAKE_SERIES_V2_JSON:
    case INTAKE_SERIES_V1:
    case INTAKE_CHECKS:
    case INTAKE_EVENTS:
        break;
    }
    return intake_decode_json(d, kind, body, n_body);
}
