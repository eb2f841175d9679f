/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON half of the intake's decoder: series v1 and v2, checks, events. */
#include <errno.h>
#include <string.h>

#include "agent/intake_scratch.h"
#include "agent/jsonread.h"

/* An absent or null member is @field's default; anything but text is refused. */
static int read_text(struct intake_decoder *d, const struct jsonread_node *v,
                     struct intake_view *field, const char *what)
{
    if (v == NULL || v->type == JSONREAD_NULL)
        return 0;
    if (v->type != JSONREAD_STRING)
        return scratch_bad(d, "%s is not a string", what);
    field->p = v->text;
    field->n = v->n;
    return 0;
}

static int read_int(struct intake_decoder *d, const struct jsonread_node *v,
                    int64_t *out, const char *what)
{
    if (v == NULL || v->type == JSONREAD_NULL)
        return 0;
    if (jsonread_int(v, out) != 0)
        return scratch_bad(d, "%s is not an integer", what);
    return 0;
}

static int read_tags(struct intake_decoder *d, const struct jsonread *j,
                     const struct jsonread_node *v)
{
    if (v == NULL || v->type == JSONREAD_NULL)
        return 0;
    if (v->type != JSONREAD_ARRAY)
        return scratch_bad(d, "tags are not a list");
    for (v = jsonread_child(j, v); v != NULL; v = jsonread_next(j, v)) {
        int rc;

        if (v->type != JSONREAD_STRING)
            return scratch_bad(d, "a tag is not a string");
        rc = scratch_tag(d, v->text, v->n);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int read_resources(struct intake_decoder *d, const struct jsonread *j,
                          const struct jsonread_node *v)
{
    if (v == NULL || v->type == JSONREAD_NULL)
        return 0;
    if (v->type != JSONREAD_ARRAY)
        return scratch_bad(d, "resources are not a list");
    for (v = jsonread_child(j, v); v != NULL; v = jsonread_next(j, v)) {
        struct intake_view type = {"", 0};
        struct intake_view name = {"", 0};
        int rc =
            read_text(d, jsonread_get(j, v, "type"), &type, "resource type");

        if (rc == 0)
            rc = read_text(d, jsonread_get(j, v, "name"), &name,
                           "resource name");
        if (rc == 0)
            rc = scratch_resource(d, type, name);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* v1: [seconds, value]; v2: {"timestamp": seconds, "value": value}. */
static int read_point(struct intake_decoder *d, const struct jsonread *j,
                      const struct jsonread_node *v, int v1)
{
    const struct jsonread_node *ts;
    const struct jsonread_node *value;
    struct intake_point *p;
    int rc;

    if (v1) {
        if (v->type != JSONREAD_ARRAY || v->n != 2)
            return scratch_bad(d, "a point is not [time, value]");
        ts = jsonread_child(j, v);
        value = jsonread_next(j, ts);
    } else {
        ts = jsonread_get(j, v, "timestamp");
        value = jsonread_get(j, v, "value");
    }
    if (ts == NULL || value == NULL || value->type != JSONREAD_NUMBER)
        return scratch_bad(d, "a point without time or value");
    rc = scratch_point(d, &p);
    if (rc == 0)
        rc = read_int(d, ts, &p->ts_s, "a point's time");
    if (rc == 0)
        p->value = value->number;
    return rc;
}

static int read_type_v1(struct intake_decoder *d, const struct jsonread_node *v)
{
    if (v == NULL || v->type == JSONREAD_NULL || jsonread_is(v, "gauge"))
        d->s.type = INTAKE_GAUGE;
    else if (jsonread_is(v, "rate"))
        d->s.type = INTAKE_RATE;
    else if (jsonread_is(v, "count"))
        d->s.type = INTAKE_COUNT;
    else
        return scratch_bad(d, "unknown metric type");
    return 0;
}

static int read_type_v2(struct intake_decoder *d, const struct jsonread_node *v)
{
    int64_t type = 0;
    int rc = read_int(d, v, &type, "type");

    if (rc == 0 && (type < 0 || type > INTAKE_GAUGE))
        rc = scratch_bad(d, "unknown metric type");
    if (rc == 0)
        d->s.type = type == 0 ? INTAKE_GAUGE : (enum intake_type)type;
    return rc;
}

/* In v1 the host and the device are members of the series itself. */
static int read_where_v1(struct intake_decoder *d, const struct jsonread *j,
                         const struct jsonread_node *v)
{
    static const struct intake_view device_type = {"device", 6};
    struct intake_view device = {"", 0};
    int rc = read_text(d, jsonread_get(j, v, "host"), &d->s.host, "host");

    if (rc == 0)
        rc = read_text(d, jsonread_get(j, v, "device"), &device, "device");
    if (rc == 0 && device.n > 0)
        rc = scratch_resource(d, device_type, device);
    return rc;
}

static int read_points(struct intake_decoder *d, const struct jsonread *j,
                       const struct jsonread_node *v, int v1)
{
    if (v == NULL || v->type != JSONREAD_ARRAY)
        return scratch_bad(d, "points are not a list");
    for (v = jsonread_child(j, v); v != NULL; v = jsonread_next(j, v)) {
        int rc = read_point(d, j, v, v1);

        if (rc != 0)
            return rc;
    }
    return 0;
}

static int read_series(struct intake_decoder *d, const struct jsonread *j,
                       const struct jsonread_node *v, int v1)
{
    int rc;

    if (v->type != JSONREAD_OBJECT)
        return scratch_bad(d, "a series is not an object");
    scratch_begin(d, INTAKE_GAUGE);
    rc = read_text(d, jsonread_get(j, v, "metric"), &d->s.name, "metric");
    if (rc == 0)
        rc = read_tags(d, j, jsonread_get(j, v, "tags"));
    if (rc == 0)
        rc = v1 ? read_where_v1(d, j, v)
                : read_resources(d, j, jsonread_get(j, v, "resources"));
    if (rc == 0)
        rc = v1 ? read_type_v1(d, jsonread_get(j, v, "type"))
                : read_type_v2(d, jsonread_get(j, v, "type"));
    if (rc == 0)
        rc = read_int(d, jsonread_get(j, v, "interval"), &d->s.interval_s,
                      "interval");
    if (rc == 0)
        rc = read_points(d, j, jsonread_get(j, v, "points"), v1);
    return rc != 0 ? rc : scratch_emit(d);
}

static int read_all_series(struct intake_decoder *d, const struct jsonread *j,
                           int v1)
{
    const struct jsonread_node *v = jsonread_get(j, jsonread_root(j), "series");

    if (v == NULL || v->type != JSONREAD_ARRAY)
        return scratch_bad(d, "no list \"series\"");
    for (v = jsonread_child(j, v); v != NULL; v = jsonread_next(j, v)) {
        int rc = read_series(d, j, v, v1);

        if (rc != 0)
            return rc;
    }
    return 0;
}

static int emit_item(struct intake_decoder *d, const struct jsonread *j,
                     const struct jsonread_node *v)
{
    struct intake_item item = {.json = {j->text + v->raw, v->n_raw}};

    return d->item(d->arg, &item);
}

/* The members that checks and events share, judged and not kept. */
static int judge_common(struct intake_decoder *d, const struct jsonread *j,
                        const struct jsonread_node *v, const char *host)
{
    struct intake_view text = {"", 0};
    int64_t ts = 0;
    int rc;

    scratch_begin(d, INTAKE_GAUGE); /* for its tag counter */
    rc = read_text(d, jsonread_get(j, v, host), &text, host);
    if (rc == 0 && text.n > 255)
        rc = scratch_bad(d, "%s longer than 255 bytes", host);
    if (rc == 0)
        rc = read_int(d, jsonread_get(j, v, "timestamp"), &ts, "timestamp");
    if (rc == 0)
        rc = read_tags(d, j, jsonread_get(j, v, "tags"));
    return rc;
}

static int read_check(struct intake_decoder *d, const struct jsonread *j,
                      const struct jsonread_node *v)
{
    struct intake_view name = {"", 0};
    struct intake_view message = {"", 0};
    int64_t status = -1;
    int rc;

    if (v->type != JSONREAD_OBJECT)
        return scratch_bad(d, "a check is not an object");
    rc = read_text(d, jsonread_get(j, v, "check"), &name, "check");
    if (rc == 0 && name.n == 0)
        rc = scratch_bad(d, "a check without a name");
    if (rc == 0)
        rc = read_int(d, jsonread_get(j, v, "status"), &status, "status");
    if (rc == 0 && (status < 0 || status > 3))
        rc = scratch_bad(d, "a check's status is not 0 to 3");
    if (rc == 0)
        rc = read_text(d, jsonread_get(j, v, "message"), &message, "message");
    if (rc == 0)
        rc = judge_common(d, j, v, "host_name");
    return rc != 0 ? rc : emit_item(d, j, v);
}

/* The route takes a list, and one check alone as well. */
static int read_checks(struct intake_decoder *d, const struct jsonread *j)
{
    const struct jsonread_node *v = jsonread_root(j);

    if (v->type != JSONREAD_ARRAY)
        return read_check(d, j, v);
    for (v = jsonread_child(j, v); v != NULL; v = jsonread_next(j, v)) {
        int rc = read_check(d, j, v);

        if (rc != 0)
            return rc;
    }
    return 0;
}

static int read_choice(struct intake_decoder *d, const struct jsonread_node *v,
                       const char *const *words, const char *what)
{
    if (v == NULL)
        return 0;
    for (; *words != NULL; words++) {
        if (jsonread_is(v, *words))
            return 0;
    }
    return scratch_bad(d, "unknown %s of an event", what);
}

static int read_event(struct intake_decoder *d, const struct jsonread *j,
                      const struct jsonread_node *v)
{
    static const char *const priorities[] = {"normal", "low", NULL};
    static const char *const alerts[] = {"info", "success", "warning", "error",
                                         NULL};
    static const char *const texts[] = {"msg_text", "aggregation_key",
                                        "source_type_name", "event_type"};
    struct intake_view text = {"", 0};
    int rc;

    if (v->type != JSONREAD_OBJECT)
        return scratch_bad(d, "an event is not an object");
    rc = read_text(d, jsonread_get(j, v, "msg_title"), &text, "msg_title");
    if (rc == 0 && text.n == 0)
        rc = scratch_bad(d, "an event without a title");
    for (size_t i = 0; rc == 0 && i < sizeof(texts) / sizeof(texts[0]); i++)
        rc = read_text(d, jsonread_get(j, v, texts[i]), &text, texts[i]);
    if (rc == 0)
        rc = read_choice(d, jsonread_get(j, v, "priority"), priorities,
                         "priority");
    if (rc == 0)
        rc = read_choice(d, jsonread_get(j, v, "alert_type"), alerts,
                         "alert_type");
    if (rc == 0)
        rc = judge_common(d, j, v, "host");
    return rc != 0 ? rc : emit_item(d, j, v);
}

/* {"events": {"<source>": [event, ...], ...}, ...} */
static int read_events(struct intake_decoder *d, const struct jsonread *j)
{
    const struct jsonread_node *source =
        jsonread_get(j, jsonread_root(j), "events");

    if (source == NULL || source->type != JSONREAD_OBJECT)
        return scratch_bad(d, "no object \"events\"");
    source = jsonread_child(j, source);
    for (; source != NULL; source = jsonread_next(j, source)) {
        const struct jsonread_node *v = jsonread_child(j, source);

        if (source->type != JSONREAD_ARRAY)
            return scratch_bad(d, "events of a source are not a list");
        for (; v != NULL; v = jsonread_next(j, v)) {
            int rc = read_event(d, j, v);

            if (rc != 0)
                return rc;
        }
    }
    return 0;
}

int intake_decode_json(struct intake_decoder *d, enum intake_kind kind,
                       const void *body, size_t n)
{
    struct jsonread j;
    int rc = jsonread_parse(&j, body, n, INTAKE_JSON_VALUES_MAX);

    if (rc == JSONREAD_BAD)
        rc = scratch_bad(d, "JSON at byte %zu: %s", j.at, j.error);
    else if (rc == 0 && kind == INTAKE_CHECKS)
        rc = read_checks(d, &j);
    else if (rc == 0 && kind == INTAKE_EVENTS)
        rc = read_events(d, &j);
    else if (rc == 0)
        rc = read_all_series(d, &j, kind == INTAKE_SERIES_V1);
    jsonread_fini(&j);
    return rc;
}
