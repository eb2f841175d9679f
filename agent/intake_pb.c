/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protobuf half of the intake's decoder. Messages and field numbers are
 * those of the agent-payload module (MetricPayload and SketchPayload), written
 * down in tests/support/payload.proto.
 *
 * Fields may come in any order and split (a tag before the name, points between
 * tags), so a series is put together in the scratch and handed on when its
 * message ends.
 */
#include <errno.h>

#include "agent/intake_scratch.h"
#include "agent/pbread.h"

typedef int field_fn(struct intake_decoder *d, const struct pbread_field *f);

/* Runs @fn over the fields of one message. */
static int each_field(struct intake_decoder *d, const void *p, size_t n,
                      const char *what, field_fn *fn)
{
    struct pbread r;
    struct pbread_field f;
    int rc;

    pbread_init(&r, p, n);
    while ((rc = pbread_next(&r, &f)) == 0) {
        rc = fn(d, &f);
        if (rc != 0)
            return rc;
    }
    return rc == PBREAD_END ? 0 : scratch_bad(d, "broken protobuf in %s", what);
}

static int wrong_wire(struct intake_decoder *d, const struct pbread_field *f,
                      const char *what)
{
    return scratch_bad(d, "field %u of %s has wire type %u", f->number, what,
                       (unsigned)f->wire);
}

static int read_text(struct intake_decoder *d, const struct pbread_field *f,
                     struct intake_view *v, const char *what)
{
    if (f->wire != PBREAD_BYTES)
        return wrong_wire(d, f, what);
    return scratch_text(d, v, f->bytes, f->n_bytes, what);
}

static int read_resource(struct intake_decoder *d, const uint8_t *p, size_t n)
{
    struct intake_view type = {"", 0};
    struct intake_view name = {"", 0};
    struct pbread r;
    struct pbread_field f;
    int rc;

    pbread_init(&r, p, n);
    while ((rc = pbread_next(&r, &f)) == 0) {
        if (f.number == 1)
            rc = read_text(d, &f, &type, "resource type");
        else if (f.number == 2)
            rc = read_text(d, &f, &name, "resource name");
        if (rc != 0)
            return rc;
    }
    if (rc != PBREAD_END)
        return scratch_bad(d, "broken protobuf in a resource");
    return scratch_resource(d, type, name);
}

static int read_metric_point(struct intake_decoder *d,
                             const struct pbread_field *f)
{
    /* The point that on_series() just opened. */
    struct intake_point *p = &d->points[d->s.n_points - 1];

    if (f->number == 1) {
        if (f->wire != PBREAD_FIXED64)
            return wrong_wire(d, f, "a point");
        p->value = pbread_double(f->value);
    } else if (f->number == 2) {
        if (f->wire != PBREAD_VARINT)
            return wrong_wire(d, f, "a point");
        p->ts_s = (int64_t)f->value;
    }
    return 0;
}

static int read_type(struct intake_decoder *d, uint64_t v)
{
    if (v > INTAKE_GAUGE)
        return scratch_bad(d, "unknown metric type %llu",
                           (unsigned long long)v);
    d->s.type = v == 0 ? INTAKE_GAUGE : (enum intake_type)v;
    return 0;
}

static int skip_field(struct intake_decoder *d, const struct pbread_field *f)
{
    (void)d;
    (void)f;
    return 0;
}

static int on_metadata_field(struct intake_decoder *d,
                             const struct pbread_field *f)
{
    if (f->number != 1 || f->wire != PBREAD_BYTES)
        return 0;
    return each_field(d, f->bytes, f->n_bytes, "an origin", skip_field);
}

/* Metadata is of no effect here, but an intake that reads it refuses a body whose
 * metadata is broken. Its texts are not looked at. */
static int read_metadata(struct intake_decoder *d, const struct pbread_field *f)
{
    return each_field(d, f->bytes, f->n_bytes, "metadata", on_metadata_field);
}

/* MetricSeries */
static int on_series_field(struct intake_decoder *d,
                           const struct pbread_field *f)
{
    struct intake_view ignored;
    struct intake_point *p;
    int rc;

    if (f->number < 1 || f->number > 9)
        return 0;
    if (f->wire !=
        (f->number == 5 || f->number == 8 ? PBREAD_VARINT : PBREAD_BYTES))
        return wrong_wire(d, f, "a series");
    switch (f->number) {
    case 1:
        return read_resource(d, f->bytes, f->n_bytes);
    case 2:
        return read_text(d, f, &d->s.name, "metric name");
    case 3:
        return scratch_tag(d, f->bytes, f->n_bytes);
    case 4:
        rc = scratch_point(d, &p);
        if (rc != 0)
            return rc;
        return each_field(d, f->bytes, f->n_bytes, "a point",
                          read_metric_point);
    case 5:
        return read_type(d, f->value);
    case 6:
        return read_text(d, f, &ignored, "unit");
    case 7:
        return read_text(d, f, &ignored, "source type");
    case 8:
        d->s.interval_s = (int64_t)f->value;
        return 0;
    default: /* 9 */
        return read_metadata(d, f);
    }
}

static int on_series(struct intake_decoder *d, const struct pbread_field *f)
{
    int rc;

    if (f->number != 1)
        return 0;
    if (f->wire != PBREAD_BYTES)
        return wrong_wire(d, f, "the payload");
    scratch_begin(d, INTAKE_GAUGE);
    rc = each_field(d, f->bytes, f->n_bytes, "a series", on_series_field);
    return rc != 0 ? rc : scratch_emit(d);
}

int intake_decode_series_pb(struct intake_decoder *d, const void *body,
                            size_t n)
{
    return each_field(d, body, n, "the payload", on_series);
}

/* Keys and counts come as two lists that need not lie beside each other: two
 * readers walk them in step. Writers send them packed; one packed piece of each
 * is what every known writer makes, more are refused. */
struct sketch_lists {
    struct pbread keys, counts;
    int n_keys, n_counts;
};

static int read_sketch_field(struct intake_decoder *d,
                             const struct pbread_field *f,
                             struct intake_point *p, struct sketch_lists *l)
{
    static const enum pbread_wire wire[] = {
        [1] = PBREAD_VARINT,  [2] = PBREAD_VARINT,  [3] = PBREAD_FIXED64,
        [4] = PBREAD_FIXED64, [5] = PBREAD_FIXED64, [6] = PBREAD_FIXED64,
        [7] = PBREAD_BYTES,   [8] = PBREAD_BYTES};

    if (f->number > 8)
        return 0;
    if (f->wire != wire[f->number])
        return wrong_wire(d, f, "a sketch");
    switch (f->number) {
    case 1:
        p->ts_s = (int64_t)f->value;
        break;
    case 2:
        p->n_values = (int64_t)f->value;
        break;
    case 3:
        p->min = pbread_double(f->value);
        break;
    case 4:
        p->max = pbread_double(f->value);
        break;
    case 5:
        p->avg = pbread_double(f->value);
        break;
    case 6:
        p->value = pbread_double(f->value);
        break;
    case 7:
        pbread_init(&l->keys, f->bytes, f->n_bytes);
        l->n_keys++;
        break;
    default: /* 8 */
        pbread_init(&l->counts, f->bytes, f->n_bytes);
        l->n_counts++;
        break;
    }
    return 0;
}

static int read_bins(struct intake_decoder *d, struct sketch_lists *l)
{
    if (l->n_keys > 1 || l->n_counts > 1)
        return scratch_bad(d, "bins of a sketch in several pieces");
    for (;;) {
        uint64_t k = 0;
        uint64_t n = 0;
        int rc_k = pbread_varint(&l->keys, &k);
        int rc_n = pbread_varint(&l->counts, &n);
        int64_t key = pbread_zigzag(k);
        int rc;

        if (rc_k == PBREAD_END && rc_n == PBREAD_END)
            return 0;
        if (rc_k != rc_n)
            return scratch_bad(d, "a sketch with unequal keys and counts");
        if (rc_k != 0 || key < INT32_MIN || key > INT32_MAX || n > UINT32_MAX)
            return scratch_bad(d, "broken bins in a sketch");
        rc = scratch_bin(d, (int32_t)key, (uint32_t)n);
        if (rc != 0)
            return rc;
    }
}

static int read_sketch(struct intake_decoder *d, const uint8_t *bytes, size_t n)
{
    struct sketch_lists l = {.n_keys = 0};
    struct intake_point *p;
    struct pbread r;
    struct pbread_field f;
    int rc = scratch_point(d, &p);

    if (rc != 0)
        return rc;
    pbread_init(&l.keys, bytes, 0);
    pbread_init(&l.counts, bytes, 0);
    pbread_init(&r, bytes, n);
    while ((rc = pbread_next(&r, &f)) == 0) {
        rc = read_sketch_field(d, &f, p, &l);
        if (rc != 0)
            return rc;
    }
    if (rc != PBREAD_END)
        return scratch_bad(d, "broken protobuf in a sketch");
    return read_bins(d, &l);
}

/* SketchPayload.Sketch */
static int on_sketches_field(struct intake_decoder *d,
                             const struct pbread_field *f)
{
    if (f->number < 1 || f->number > 8)
        return 0;
    if (f->wire != PBREAD_BYTES)
        return wrong_wire(d, f, "a sketch series");
    switch (f->number) {
    case 1:
        return read_text(d, f, &d->s.name, "metric name");
    case 2:
        return read_text(d, f, &d->s.host, "host");
    case 4:
        return scratch_tag(d, f->bytes, f->n_bytes);
    case 7:
        return read_sketch(d, f->bytes, f->n_bytes);
    case 8:
        return read_metadata(d, f);
    default: /* 3, the older form nobody sends */
        return 0;
    }
}

static int on_sketches(struct intake_decoder *d, const struct pbread_field *f)
{
    int rc;

    if (f->number == 2 && f->wire == PBREAD_BYTES)
        return each_field(d, f->bytes, f->n_bytes, "metadata", skip_field);
    if (f->number != 1)
        return 0;
    if (f->wire != PBREAD_BYTES)
        return wrong_wire(d, f, "the payload");
    scratch_begin(d, INTAKE_SKETCH);
    rc = each_field(d, f->bytes, f->n_bytes, "a sketch series",
                    on_sketches_field);
    return rc != 0 ? rc : scratch_emit(d);
}

int intake_decode_sketches_pb(struct intake_decoder *d, const void *body,
                              size_t n)
{
    return each_field(d, body, n, "the payload", on_sketches);
}
