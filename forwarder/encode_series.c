/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Series v2 (agent-payload's MetricPayload), in the field order of the Datadog
 * Agent, which also gives the same bytes.
 */
#include "forwarder/encode_items.h"

enum {
    PAYLOAD_FIELD_SERIES = 1,
    SERIES_FIELD_RESOURCES = 1,
    SERIES_FIELD_METRIC = 2,
    SERIES_FIELD_TAGS = 3,
    SERIES_FIELD_POINTS = 4,
    SERIES_FIELD_TYPE = 5,
    SERIES_FIELD_UNIT = 6,
    SERIES_FIELD_INTERVAL = 8,
    POINT_FIELD_VALUE = 1,
    POINT_FIELD_TIMESTAMP = 2,
    RESOURCE_FIELD_TYPE = 1,
    RESOURCE_FIELD_NAME = 2
};

/* Field 9: Metadata{Origin{product 10 (agent), category 10 (DogStatsD)}}. */
static const unsigned char origin[] = {0x4a, 0x06, 0x0a, 0x04,
                                       0x20, 0x0a, 0x28, 0x0a};

/* Bytes of a point with a value: timestamp of 5 bytes, double, two tags. */
#define POINT_BYTES 15

#define VIEW(literal) ((struct view){literal, sizeof(literal) - 1})

static bool starts_with(struct view v, struct view prefix)
{
    return v.n >= prefix.n && memcmp(v.p, prefix.p, prefix.n) == 0;
}

static struct view after(struct view v, uint32_t n)
{
    return (struct view){v.p + n, v.n - n};
}

enum tag_kind { TAG_PLAIN, TAG_DEVICE, TAG_RESOURCE };

/* *rest: what follows the prefix of the special ones. */
static enum tag_kind tag_kind(struct view tag, struct view *rest)
{
    static const struct view device = {"device:", 7};
    static const struct view resource = {"dd.internal.resource:", 21};

    if (tag.n == 0 || tag.p[0] != 'd')
        return TAG_PLAIN;
    if (starts_with(tag, device)) {
        *rest = after(tag, device.n);
        return TAG_DEVICE;
    }
    if (starts_with(tag, resource)) {
        *rest = after(tag, resource.n);
        return TAG_RESOURCE;
    }
    return TAG_PLAIN;
}

static void put_resource(struct pbwrite *w, struct view type, struct view name)
{
    struct pb_nest nest =
        pb_begin(w, SERIES_FIELD_RESOURCES, 4u + type.n + name.n);

    pb_bytes(w, RESOURCE_FIELD_TYPE, type);
    pb_bytes(w, RESOURCE_FIELD_NAME, name);
    pb_end(w, nest);
}

/* type:name; without both of them there is no resource. */
static void put_internal_resource(struct pbwrite *w, struct view v)
{
    const char *colon = v.n > 0 ? memchr(v.p, ':', v.n) : NULL;
    uint32_t n_type;

    if (colon == NULL || colon == v.p || colon == v.p + v.n - 1)
        return;
    n_type = (uint32_t)(colon - v.p);
    put_resource(w, (struct view){v.p, n_type}, after(v, n_type + 1));
}

/* The host first and always, then the last device, then the others. */
static void put_resources(struct pbwrite *w, const struct flush_item *item,
                          bool special)
{
    struct view device = {NULL, 0};
    struct view rest;

    put_resource(w, VIEW("host"), item->host);
    if (!special)
        return;
    for (uint32_t i = 0; i < item->n_tags; i++) {
        if (tag_kind(item->tags[i], &rest) == TAG_DEVICE)
            device = rest;
    }
    if (device.n > 0)
        put_resource(w, VIEW("device"), device);
    for (uint32_t i = 0; i < item->n_tags; i++) {
        if (tag_kind(item->tags[i], &rest) == TAG_RESOURCE)
            put_internal_resource(w, rest);
    }
}

static void put_name(struct pbwrite *w, struct view name, const char *suffix)
{
    size_t n_suffix = strlen(suffix);

    pb_tag(w, SERIES_FIELD_METRIC, PB_LEN);
    pb_varint(w, name.n + n_suffix);
    pb_raw(w, name.p, name.n);
    pb_raw(w, suffix, n_suffix);
}

static void put_point(struct pbwrite *w, const struct flush_point *p)
{
    struct pb_nest nest = pb_begin(w, SERIES_FIELD_POINTS, POINT_BYTES);

    pb_uint(w, POINT_FIELD_TIMESTAMP, (uint64_t)p->ts_s);
    pb_double(w, POINT_FIELD_VALUE, p->value);
    pb_end(w, nest);
}

/* @n_common: guess of the bytes that all series of the item share. */
static void put_series(struct pbwrite *w, const struct flush_item *item,
                       const struct flush_series *s, uint32_t first, uint32_t n,
                       size_t n_common, bool special)
{
    struct pb_nest nest =
        pb_begin(w, PAYLOAD_FIELD_SERIES, n_common + n * (POINT_BYTES + 2ul));
    struct view unit = {s->unit, (uint32_t)strlen(s->unit)};
    struct view rest;

    put_resources(w, item, special);
    put_name(w, item->name, s->suffix);
    for (uint32_t i = 0; i < item->n_tags; i++) {
        if (!special || tag_kind(item->tags[i], &rest) == TAG_PLAIN)
            pb_bytes_always(w, SERIES_FIELD_TAGS, item->tags[i]);
    }
    pb_uint(w, SERIES_FIELD_TYPE, (uint64_t)s->type);
    pb_uint(w, SERIES_FIELD_INTERVAL, item->interval_s);
    pb_bytes(w, SERIES_FIELD_UNIT, unit);
    for (uint32_t i = first; i < first + n; i++)
        put_point(w, &s->points[i]);
    pb_raw(w, origin, sizeof(origin));
    pb_end(w, nest);
}

void encode_series(struct pbwrite *w, const struct flush_item *item,
                   uint32_t first, uint32_t n)
{
    size_t n_common = 24u + sizeof(origin) + item->host.n + item->name.n;
    bool special = false;
    struct view rest;

    for (uint32_t i = 0; i < item->n_tags; i++) {
        n_common += 2u + item->tags[i].n;
        special = special || tag_kind(item->tags[i], &rest) != TAG_PLAIN;
    }
    for (uint32_t i = 0; i < item->n_series && !w->full; i++) {
        const struct flush_series *s = &item->series[i];
        uint32_t left = first < s->n_points ? s->n_points - first : 0;

        if (left > 0)
            put_series(w, item, s, first, left < n ? left : n, n_common,
                       special);
    }
}
