/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events and service checks as JSON, with the keys and their order of the
 * Datadog Agent.
 */
#include "forwarder/encode_items.h"

#include <errno.h>

#include "agent/base/json.h"

static void put_view(struct json *j, const char *key, struct view v)
{
    json_key(j, key);
    json_strn(j, v.p, v.n);
}

static void put_optional(struct json *j, const char *key, struct view v)
{
    if (v.n > 0)
        put_view(j, key, v);
}

static void put_tags(struct json *j, const struct flush_item *item)
{
    json_array(j);
    for (uint32_t i = 0; i < item->n_tags; i++)
        json_strn(j, item->tags[i].p, item->tags[i].n);
    json_end(j);
}

/* The longest that the item can get: each byte as six of an escape. Asked for
 * ahead, so that a full heap and an item too large stay two things. */
static int reserve(struct buf *b, const struct flush_item *item)
{
    size_t n = item->name.n + item->text.n + item->host.n +
               item->aggregation_key.n + item->source_type.n;

    for (uint32_t i = 0; i < item->n_tags; i++)
        n += item->tags[i].n + 1u;
    buf_clear(b);
    n = n * 6 + 512;
    if (n > b->max_bytes)
        n = b->max_bytes;
    return buf_reserve(b, n);
}

static void take_over(struct pbwrite *w, struct json *j, const struct buf *b)
{
    if (json_finish(j) == 0)
        pb_raw(w, b->data, b->n);
    else
        w->full = true;
}

static const char *alert_name(enum event_alert a)
{
    switch (a) {
    case EVENT_INFO:
        break;
    case EVENT_ERROR:
        return "error";
    case EVENT_WARNING:
        return "warning";
    case EVENT_SUCCESS:
        return "success";
    }
    return "info";
}

int encode_event(struct pbwrite *w, struct buf *scratch,
                 const struct flush_item *item)
{
    struct json j;

    if (reserve(scratch, item) != 0)
        return -ENOMEM;
    json_init(&j, scratch);
    json_object(&j);
    put_view(&j, "msg_title", item->name);
    put_view(&j, "msg_text", item->text);
    json_member_i64(&j, "timestamp", item->ts_s);
    json_member_str(&j, "priority",
                    item->priority == EVENT_LOW ? "low" : "normal");
    put_view(&j, "host", item->host);
    if (item->n_tags > 0) {
        json_key(&j, "tags");
        put_tags(&j, item);
    }
    json_member_str(&j, "alert_type", alert_name(item->alert));
    put_optional(&j, "aggregation_key", item->aggregation_key);
    put_optional(&j, "source_type_name", item->source_type);
    json_end(&j);
    take_over(w, &j, scratch);
    return 0;
}

int encode_check(struct pbwrite *w, struct buf *scratch,
                 const struct flush_item *item)
{
    struct json j;

    if (reserve(scratch, item) != 0)
        return -ENOMEM;
    json_init(&j, scratch);
    json_object(&j);
    put_view(&j, "check", item->name);
    put_view(&j, "host_name", item->host);
    json_member_i64(&j, "timestamp", item->ts_s);
    json_member_u64(&j, "status", item->status);
    put_view(&j, "message", item->text);
    json_key(&j, "tags");
    if (item->n_tags > 0)
        put_tags(&j, item);
    else
        json_null(&j);
    json_end(&j);
    take_over(w, &j, scratch);
    return 0;
}

void encode_events_head(struct buf *out, struct view source_type)
{
    if (source_type.n == 0)
        source_type = (struct view){"api", 3};
    buf_puts(out, "{\"apiKey\":\"\",\"events\":{");
    json_quote(out, source_type.p, source_type.n);
    buf_puts(out, ":[");
}

void encode_events_tail(struct buf *out, const char *internal_hostname)
{
    buf_puts(out, "]},\"internalHostname\":");
    json_quote(out, internal_hostname, strlen(internal_hostname));
    buf_puts(out, "}");
}
