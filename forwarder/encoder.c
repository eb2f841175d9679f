/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From items to drafts: one body is open at a time; it is closed when the kind
 * (or the source type of events) changes or the next item does not fit.
 */
#include "forwarder/encode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "forwarder/encode_body.h"
#include "forwarder/encode_items.h"

/* Times that room is asked for, for one block: somebody else may be quicker. */
#define MAX_ROOM_TRIES 4
#define MAX_HEAD_BYTES (1024u * 1024)

struct encoder {
    struct store *store;
    struct encode_config cfg; /* limits narrowed */
    struct payload_draft *drafts;
    size_t n_drafts, cap_drafts;
    struct store_loss losses[DROP_N + 1]; /* one row for each cause */
    struct body body;
    int64_t newest_s;   /* of the points in the open body */
    struct buf scratch; /* one JSON item */
    struct buf source;  /* source type of the open events body */
};

int encoder_create(struct encoder **out, struct store *s,
                   const struct encode_config *cfg)
{
    struct encoder *e = calloc(1, sizeof(*e));
    size_t quarter = store_max_bytes(s) / 4;

    if (e == NULL)
        return -ENOMEM;
    e->store = s;
    e->cfg = *cfg;
    for (int k = 0; k < PAYLOAD_N_KINDS; k++) {
        struct encode_limits *l = &e->cfg.limits[k];

        if (l->max_bytes > quarter)
            l->max_bytes = (uint32_t)quarter;
        if (l->max_points > 0 && l->max_points < FLUSH_MAX_SERIES)
            l->max_points = FLUSH_MAX_SERIES;
    }
    *out = e;
    return 0;
}

void encoder_close(struct encoder *e)
{
    if (e == NULL)
        return;
    free(e->drafts);
    free(e);
}

/* ---- Results ----------------------------------------------------------- */

static void lose(struct encoder *e, enum drop_cause cause,
                 const struct payload_load *l)
{
    struct payload_load *sum = &e->losses[cause].load;

    sum->n_samples += l->n_samples;
    sum->n_points += l->n_points;
    sum->n_events += l->n_events;
    sum->n_checks += l->n_checks;
}

static size_t draft_bytes(const struct payload_draft *d)
{
    return (size_t)d->n_bytes + d->n_index_bytes;
}

static void discard_drafts(struct encoder *e)
{
    for (size_t i = 0; i < e->n_drafts; i++)
        store_block_trim(e->store, e->drafts[i].block,
                         draft_bytes(&e->drafts[i]), 0);
    e->n_drafts = 0;
}

static int reserve_draft(struct encoder *e)
{
    size_t cap = e->cap_drafts * 2 + 16;
    struct payload_draft *p;

    if (e->n_drafts < e->cap_drafts)
        return 0;
    p = realloc(e->drafts, cap * sizeof(*p));
    if (p == NULL)
        return -ENOMEM;
    e->drafts = p;
    e->cap_drafts = cap;
    return 0;
}

/* Losses without the empty rows. */
static size_t pack_losses(struct encoder *e)
{
    size_t n = 0;

    for (int c = 0; c <= DROP_N; c++) {
        struct payload_load l = e->losses[c].load;

        if ((l.n_samples | l.n_points | l.n_events | l.n_checks) == 0)
            continue;
        e->losses[n].load = l;
        e->losses[n].cause = (enum drop_cause)c;
        n++;
    }
    return n;
}

/* ---- Bodies ------------------------------------------------------------ */

static int alloc_block(struct encoder *e, size_t n, uint32_t *block)
{
    for (int i = 0; i < MAX_ROOM_TRIES; i++) {
        if (store_block_alloc(e->store, n, block) == 0)
            return 0;
        if (e->cfg.make_room == NULL || e->cfg.make_room(e->cfg.arg, n) != 0)
            break;
    }
    return STORE_FULL;
}

static int close_body(struct encoder *e)
{
    unsigned char index[SPLIT_MAX_INDEX_BYTES];
    struct body *b = &e->body;
    struct payload_draft d = {
        .kind = b->kind,
        .encoding = e->cfg.encoding,
        .load = b->load,
        .newest_s = e->newest_s,
    };
    unsigned char *to;
    int rc;

    if (!b->open)
        return 0;
    if (b->n_items == 0) {
        b->open = false;
        return 0;
    }
    rc = reserve_draft(e);
    if (rc == 0)
        rc = body_finish(b, &d.n_bytes, &d.n_raw_bytes);
    if (rc != 0)
        return rc;
    d.n_index_bytes = (uint32_t)split_index_write(&b->index, index);
    if (alloc_block(e, draft_bytes(&d), &d.block) != 0) {
        lose(e, DROP_EVICTED, &d.load);
        return 0;
    }
    to = store_block_bytes(e->store, d.block);
    memcpy(to, b->out, d.n_bytes);
    memcpy(to + d.n_bytes, index, d.n_index_bytes);
    e->drafts[e->n_drafts++] = d;
    return 0;
}

static enum payload_kind payload_kind(enum flush_kind k)
{
    switch (k) {
    case FLUSH_SERIES:
        break;
    case FLUSH_SKETCH:
        return PAYLOAD_SKETCHES;
    case FLUSH_EVENT:
        return PAYLOAD_EVENTS;
    case FLUSH_CHECK:
        return PAYLOAD_CHECKS;
    }
    return PAYLOAD_SERIES;
}

static int open_events(struct encoder *e, const struct flush_item *item)
{
    const struct encode_limits *l = &e->cfg.limits[PAYLOAD_EVENTS];
    struct buf head;
    int rc;

    buf_init(&head, MAX_HEAD_BYTES);
    encode_events_head(&head, item->source_type);
    encode_events_tail(&e->body.tail, e->cfg.internal_hostname);
    buf_clear(&e->source);
    buf_append(&e->source, item->source_type.p, item->source_type.n);
    if (head.failed || e->source.failed)
        rc = -ENOMEM;
    else
        rc = body_open(&e->body, PAYLOAD_EVENTS, l,
                       (struct view){head.data, (uint32_t)head.n}, 1);
    buf_fini(&head);
    return rc;
}

static int open_body(struct encoder *e, enum payload_kind kind,
                     const struct flush_item *item)
{
    const struct encode_limits *l = &e->cfg.limits[kind];
    struct body *b = &e->body;
    struct view none = {NULL, 0};

    buf_clear(&b->tail);
    e->newest_s = 0;
    switch (kind) {
    case PAYLOAD_SERIES:
        return body_open(b, kind, l, none, 0);
    case PAYLOAD_SKETCHES:
        buf_append(&b->tail, ENCODE_SKETCHES_TAIL, ENCODE_SKETCHES_TAIL_BYTES);
        return body_open(b, kind, l, none, 0);
    case PAYLOAD_EVENTS:
        return open_events(e, item);
    case PAYLOAD_CHECKS:
        buf_putc(&b->tail, ']');
        return body_open(b, kind, l, (struct view){"[", 1}, 1);
    case PAYLOAD_N_KINDS:
        break;
    }
    return -EINVAL;
}

/* The open body is of another kind, or of another source of events. */
static bool other_body(const struct encoder *e, enum payload_kind kind,
                       const struct flush_item *item)
{
    if (e->body.kind != kind)
        return true;
    return kind == PAYLOAD_EVENTS &&
           (item->source_type.n != e->source.n ||
            (e->source.n > 0 &&
             memcmp(item->source_type.p, e->source.data, e->source.n) != 0));
}

/* ---- Items ------------------------------------------------------------- */

/* A stretch of an item: all of it, or some points of its one series. */
struct piece {
    uint32_t first, n;
    struct payload_load load;
};

static struct piece whole(const struct flush_item *item)
{
    struct piece p = {0, 0, {.n_samples = item->n_samples}};

    switch (item->kind) {
    case FLUSH_SERIES:
        for (uint32_t i = 0; i < item->n_series; i++) {
            uint32_t n = item->series[i].n_points;

            p.load.n_points += n;
            p.n = n > p.n ? n : p.n;
        }
        break;
    case FLUSH_SKETCH:
        p.load.n_points = 1;
        break;
    case FLUSH_EVENT:
        p.load.n_events = 1;
        break;
    case FLUSH_CHECK:
        p.load.n_checks = 1;
        break;
    }
    return p;
}

static int write_item(struct encoder *e, const struct flush_item *item,
                      const struct piece *p)
{
    struct pbwrite *w = body_item(&e->body);

    switch (item->kind) {
    case FLUSH_SERIES:
        encode_series(w, item, p->first, p->n);
        return 0;
    case FLUSH_SKETCH:
        encode_sketch(w, item);
        return 0;
    case FLUSH_EVENT:
        return encode_event(w, &e->scratch, item);
    case FLUSH_CHECK:
        return encode_check(w, &e->scratch, item);
    }
    return 0;
}

static int64_t newest_of(const struct flush_item *item, const struct piece *p)
{
    int64_t newest_s = item->kind == FLUSH_SERIES ? 0 : item->ts_s;

    for (uint32_t i = 0; i < item->n_series; i++) {
        const struct flush_series *s = &item->series[i];

        for (uint32_t k = p->first; k < p->first + p->n && k < s->n_points; k++)
            newest_s =
                s->points[k].ts_s > newest_s ? s->points[k].ts_s : newest_s;
    }
    return newest_s;
}

static void note_newest(struct encoder *e, const struct flush_item *item,
                        const struct piece *p)
{
    int64_t newest_s = newest_of(item, p);

    if (newest_s > e->newest_s)
        e->newest_s = newest_s;
}

/* Into the open body or the next one. Returns 0, BODY_FULL (too large for an
 * empty one) or -ENOMEM. */
static int put_piece(struct encoder *e, const struct flush_item *item,
                     const struct piece *p)
{
    enum payload_kind kind = payload_kind(item->kind);
    int rc;

    if (e->body.open && other_body(e, kind, item)) {
        rc = close_body(e);
        if (rc != 0)
            return rc;
    }
    for (;;) {
        bool was_empty;

        if (!e->body.open) {
            rc = open_body(e, kind, item);
            if (rc != 0)
                return rc;
        }
        was_empty = e->body.n_items == 0;
        rc = write_item(e, item, p);
        if (rc == 0)
            rc = body_accept(&e->body, &p->load);
        if (rc == 0)
            note_newest(e, item, p);
        if (rc != BODY_FULL || was_empty)
            return rc;
        rc = close_body(e);
        if (rc != 0)
            return rc;
    }
}

/* The first @n points of *p become a piece of their own. Its samples are those of
 * the points, and the last piece has what is left: nothing counts twice. */
static struct piece cut_piece(struct piece *p, const struct flush_item *item,
                              uint32_t n)
{
    struct piece head = {p->first, n, {.n_points = n}};

    for (uint32_t i = p->first; i < p->first + n; i++)
        head.load.n_samples += item->series[0].points[i].n_samples;
    if (head.load.n_samples > p->load.n_samples)
        head.load.n_samples = p->load.n_samples;
    p->first += n;
    p->n -= n;
    p->load.n_points -= n;
    p->load.n_samples -= head.load.n_samples;
    return head;
}

/* One series with more points than a payload takes: in stretches, each half as
 * long as the last when that one was too large in bytes. */
static int put_points(struct encoder *e, const struct flush_item *item,
                      struct piece rest)
{
    uint32_t max_points = e->cfg.limits[PAYLOAD_SERIES].max_points;
    uint32_t n = rest.n / 2;

    if (max_points > 0 && rest.n > max_points)
        n = max_points;
    while (rest.n > 0) {
        struct piece before = rest;
        struct piece piece = cut_piece(&rest, item, n < rest.n ? n : rest.n);
        int rc = put_piece(e, item, &piece);

        if (rc < 0)
            return rc;
        if (rc == 0)
            continue;
        if (n == 1) {
            lose(e, DROP_TOO_LARGE, &piece.load);
            continue;
        }
        rest = before;
        n /= 2;
    }
    return 0;
}

static int put_item(struct encoder *e, const struct flush_item *item)
{
    struct piece p = whole(item);
    int rc;

    if (item->kind == FLUSH_SERIES && p.load.n_points == 0) {
        lose(e, STORE_NOTHING_DUE, &p.load);
        return 0;
    }
    if (!e->cfg.have_endpoint) {
        lose(e, DROP_NO_API_KEY, &p.load);
        return 0;
    }
    rc = put_piece(e, item, &p);
    if (rc <= 0)
        return rc;
    if (item->kind == FLUSH_SERIES && item->n_series == 1 && p.n > 1)
        return put_points(e, item, p);
    lose(e, DROP_TOO_LARGE, &p.load);
    return 0;
}

void encoder_set_endpoint(struct encoder *e, bool have_endpoint)
{
    e->cfg.have_endpoint = have_endpoint;
}

static size_t max_item_bytes(const struct encoder *e)
{
    uint32_t events = e->cfg.limits[PAYLOAD_EVENTS].max_raw_bytes;
    uint32_t checks = e->cfg.limits[PAYLOAD_CHECKS].max_raw_bytes;

    return events > checks ? events : checks;
}

int encoder_run(struct encoder *e, struct part_iter *it, bool stopping,
                struct encode_result *out)
{
    struct flush_item item;
    int level = stopping ? e->cfg.stop_level : e->cfg.level;
    int rc;

    e->n_drafts = 0;
    memset(e->losses, 0, sizeof(e->losses));
    buf_init(&e->scratch, max_item_bytes(e));
    buf_init(&e->source, MAX_HEAD_BYTES);
    rc = body_init(&e->body, e->cfg.encoding, level, e->cfg.limits);
    if (rc != 0)
        goto out;
    while ((rc = part_iter_next(it, &item)) == 1) {
        rc = put_item(e, &item);
        if (rc != 0)
            break;
    }
    if (rc == 0)
        rc = close_body(e);
    if (rc != 0)
        discard_drafts(e);
out:
    body_fini(&e->body);
    buf_fini(&e->scratch);
    buf_fini(&e->source);
    if (rc != 0)
        return rc;
    *out = (struct encode_result){.drafts = e->drafts,
                                  .n_drafts = e->n_drafts,
                                  .losses = e->losses,
                                  .n_losses = pack_losses(e)};
    return 0;
}
