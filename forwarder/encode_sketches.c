/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Distribution sketches (agent-payload's SketchPayload). There are no resources
 * here: every tag stays a tag.
 */
#include "forwarder/encode_items.h"

enum {
    PAYLOAD_FIELD_SKETCHES = 1,
    SKETCH_FIELD_METRIC = 1,
    SKETCH_FIELD_HOST = 2,
    SKETCH_FIELD_TAGS = 4,
    SKETCH_FIELD_POINTS = 7,
    POINT_FIELD_TIMESTAMP = 1,
    POINT_FIELD_CNT = 2,
    POINT_FIELD_MIN = 3,
    POINT_FIELD_MAX = 4,
    POINT_FIELD_AVG = 5,
    POINT_FIELD_SUM = 6,
    POINT_FIELD_K = 7,
    POINT_FIELD_N = 8
};

/* Field 8: Metadata{Origin{product 10 (agent), category 10 (DogStatsD)}}. */
static const unsigned char origin[] = {0x42, 0x06, 0x0a, 0x04,
                                       0x20, 0x0a, 0x28, 0x0a};

static void put_bins(struct pbwrite *w, const struct flush_item *item)
{
    struct pb_nest nest;

    if (item->n_bins == 0)
        return;
    nest = pb_begin(w, POINT_FIELD_K, 2ul * item->n_bins);
    for (uint32_t i = 0; i < item->n_bins; i++)
        pb_varint(w, pb_zigzag(item->k[i]));
    pb_end(w, nest);
    nest = pb_begin(w, POINT_FIELD_N, item->n_bins);
    for (uint32_t i = 0; i < item->n_bins; i++)
        pb_varint(w, item->n[i]);
    pb_end(w, nest);
}

void encode_sketch(struct pbwrite *w, const struct flush_item *item)
{
    size_t n_point = 50 + 3ul * item->n_bins;
    size_t n_all = 16u + item->name.n + item->host.n + n_point;
    struct pb_nest sketch;
    struct pb_nest point;

    for (uint32_t i = 0; i < item->n_tags; i++)
        n_all += 2u + item->tags[i].n;
    sketch = pb_begin(w, PAYLOAD_FIELD_SKETCHES, n_all);
    pb_bytes(w, SKETCH_FIELD_METRIC, item->name);
    pb_bytes(w, SKETCH_FIELD_HOST, item->host);
    for (uint32_t i = 0; i < item->n_tags; i++)
        pb_bytes_always(w, SKETCH_FIELD_TAGS, item->tags[i]);
    point = pb_begin(w, SKETCH_FIELD_POINTS, n_point);
    pb_uint(w, POINT_FIELD_TIMESTAMP, (uint64_t)item->ts_s);
    pb_uint(w, POINT_FIELD_CNT, (uint64_t)item->cnt);
    pb_double(w, POINT_FIELD_MIN, item->min);
    pb_double(w, POINT_FIELD_MAX, item->max);
    pb_double(w, POINT_FIELD_AVG, item->avg);
    pb_double(w, POINT_FIELD_SUM, item->sum);
    put_bins(w, item);
    pb_end(w, point);
    pb_raw(w, origin, sizeof(origin));
    pb_end(w, sketch);
}
