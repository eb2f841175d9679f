/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small bodies are compressed in one go when they end. Only when the worst case
 * of what is pending comes near the limit is the compressor fed and synced: each
 * sync replaces a worst case by a fact, typically a tenth of it, until less than
 * a sixteenth of the limit is open. So bodies end near the limit, never above,
 * and nothing is compressed twice.
 */
#include "forwarder/encode_body.h"

#include <errno.h>
#include <stdlib.h>

/* Of the events envelope with its two names. */
#define MAX_TAIL_BYTES 65536
#define SYNC_SHARE 16

int body_init(struct body *b, enum payload_encoding encoding, int level,
              const struct encode_limits limits[PAYLOAD_N_KINDS])
{
    size_t out_cap = 0;

    memset(b, 0, sizeof(*b));
    b->level = level;
    buf_init(&b->tail, MAX_TAIL_BYTES);
    for (int k = 0; k < PAYLOAD_N_KINDS; k++) {
        if (limits[k].max_raw_bytes > b->cap)
            b->cap = limits[k].max_raw_bytes;
        if (limits[k].max_bytes > out_cap)
            out_cap = limits[k].max_bytes;
    }
    b->raw = malloc(b->cap);
    b->out = malloc(out_cap);
    if (b->raw == NULL || b->out == NULL ||
        compressor_create(&b->compressor, encoding) != 0) {
        body_fini(b);
        return -ENOMEM;
    }
    return 0;
}

void body_fini(struct body *b)
{
    compressor_close(b->compressor);
    free(b->raw);
    free(b->out);
    buf_fini(&b->tail);
    memset(b, 0, sizeof(*b));
}

static int restart(struct body *b)
{
    b->n_fed = 0;
    return compressor_begin(b->compressor, b->level, b->out,
                            b->limits.max_bytes);
}

int body_open(struct body *b, enum payload_kind kind,
              const struct encode_limits *limits, struct view head,
              size_t n_sep)
{
    if (b->tail.failed)
        return -ENOMEM;
    b->kind = kind;
    b->limits = *limits;
    b->open = true;
    pb_init(&b->w, b->raw, limits->max_raw_bytes);
    pb_raw(&b->w, head.p, head.n);
    b->too_small = b->w.full;
    b->n_sep_bytes = n_sep;
    b->n_items = 0;
    memset(&b->load, 0, sizeof(b->load));
    split_index_init(&b->index, head.n, (uint32_t)n_sep, (uint32_t)b->tail.n);
    return restart(b);
}

struct pbwrite *body_item(struct body *b)
{
    b->item_at = b->w.n;
    if (b->n_items > 0)
        pb_raw(&b->w, ",", b->n_sep_bytes);
    return &b->w;
}

static size_t bound_now(const struct body *b)
{
    return compressor_bound(b->compressor, b->w.n - b->n_fed + b->tail.n);
}

/* Give the compressor all up to @end, and make it let go of it. */
static int feed(struct body *b, size_t end)
{
    int rc = compressor_put(b->compressor, b->raw + b->n_fed, end - b->n_fed,
                            COMPRESS_SYNC);

    b->n_fed = end;
    return rc;
}

/* An item whose worst case is above the limit, alone in its body: only trying
 * tells. */
static int try_alone(struct body *b)
{
    int rc = feed(b, b->w.n);

    if (rc == 0 && bound_now(b) <= b->limits.max_bytes)
        return 0;
    if (rc < 0)
        return rc;
    rc = restart(b);
    return rc != 0 ? rc : BODY_FULL;
}

static int fits(struct body *b, const struct payload_load *load)
{
    size_t max = b->limits.max_bytes;
    int rc;

    if (b->w.full || b->tail.n > b->w.cap - b->w.n)
        return BODY_FULL;
    if (b->limits.max_points > 0 &&
        b->load.n_points + load->n_points > b->limits.max_points)
        return BODY_FULL;
    if (bound_now(b) <= max)
        return 0;
    if (b->n_items == 0)
        return try_alone(b);
    if (b->item_at - b->n_fed < max / SYNC_SHARE)
        return BODY_FULL;
    rc = feed(b, b->item_at);
    if (rc != 0)
        return rc < 0 ? rc : -ENOMEM; /* within the bound: cannot lack room */
    return bound_now(b) <= max ? 0 : BODY_FULL;
}

int body_accept(struct body *b, const struct payload_load *load)
{
    int rc = fits(b, load);

    if (rc != 0) {
        b->w.n = b->item_at;
        b->w.full = b->too_small;
        return rc;
    }
    split_index_add(&b->index, b->w.n - b->item_at, load->n_samples,
                    load->n_points);
    b->n_items++;
    b->load.n_samples += load->n_samples;
    b->load.n_points += load->n_points;
    b->load.n_events += load->n_events;
    b->load.n_checks += load->n_checks;
    return 0;
}

int body_finish(struct body *b, uint32_t *n_bytes, uint32_t *n_raw_bytes)
{
    int rc;

    pb_raw(&b->w, b->tail.data, b->tail.n);
    REQUIRE(!b->w.full);
    rc = compressor_put(b->compressor, b->raw + b->n_fed, b->w.n - b->n_fed,
                        COMPRESS_END);
    if (rc != 0)
        return rc < 0 ? rc : -ENOMEM;
    *n_bytes = (uint32_t)compressor_written(b->compressor);
    *n_raw_bytes = (uint32_t)b->w.n;
    b->open = false;
    return 0;
}
