/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups instead of items: an index of 10,000 items would take as much room as
 * the compressed body, and the middle is met well enough between 256 groups.
 * When they are used up, neighbours are joined two by two.
 */
#include "forwarder/split.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "forwarder/compress.h"

/* Halves are compressed on the loop, and rarely: fast. */
#define SPLIT_LEVEL 1

void split_index_init(struct split_index *x, uint32_t n_head_bytes,
                      uint32_t n_sep_bytes, uint32_t n_tail_bytes)
{
    x->n_head_bytes = n_head_bytes;
    x->n_tail_bytes = n_tail_bytes;
    x->n_sep_bytes = n_sep_bytes;
    x->n_groups = 0;
    x->n_per_group = 1;
}

static void group_add(struct split_group *to, const struct split_group *g)
{
    to->n_items += g->n_items;
    to->n_raw_bytes += g->n_raw_bytes;
    to->n_samples += g->n_samples;
    to->n_points += g->n_points;
}

static void join_pairs(struct split_index *x)
{
    for (uint32_t i = 0; i < x->n_groups / 2; i++) {
        struct split_group g = x->groups[2 * i];

        group_add(&g, &x->groups[2 * i + 1]);
        x->groups[i] = g;
    }
    x->n_groups /= 2;
    x->n_per_group *= 2;
}

void split_index_add(struct split_index *x, size_t n_raw_bytes,
                     uint64_t n_samples, uint64_t n_points)
{
    struct split_group g = {1, n_raw_bytes, n_samples, n_points};
    struct split_group *last = NULL;

    if (x->n_groups > 0)
        last = &x->groups[x->n_groups - 1];
    if (last != NULL && last->n_items < x->n_per_group) {
        group_add(last, &g);
        return;
    }
    if (x->n_groups == SPLIT_MAX_GROUPS)
        join_pairs(x);
    x->groups[x->n_groups++] = g;
}

static unsigned char *put_varint(unsigned char *to, uint64_t v)
{
    while (v >= 0x80) {
        *to++ = (unsigned char)(v | 0x80);
        v >>= 7;
    }
    *to++ = (unsigned char)v;
    return to;
}

size_t split_index_write(const struct split_index *x, unsigned char *to)
{
    unsigned char *at = to;

    at = put_varint(at, x->n_head_bytes);
    at = put_varint(at, x->n_tail_bytes);
    at = put_varint(at, x->n_sep_bytes);
    at = put_varint(at, x->n_groups);
    for (uint32_t i = 0; i < x->n_groups; i++) {
        at = put_varint(at, x->groups[i].n_items);
        at = put_varint(at, x->groups[i].n_raw_bytes);
        at = put_varint(at, x->groups[i].n_samples);
        at = put_varint(at, x->groups[i].n_points);
    }
    return (size_t)(at - to);
}

/* ---- Reading ----------------------------------------------------------- */

struct cursor {
    const unsigned char *p, *end;
    bool bad;
};

static uint64_t get_varint(struct cursor *c, uint64_t max)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        unsigned char byte;

        if (c->p == c->end)
            break;
        byte = *c->p++;
        if (shift == 63 && byte > 1)
            break;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            if (v > max)
                break;
            return v;
        }
    }
    c->bad = true;
    return 0;
}

bool split_index_read(struct split_index *x, const unsigned char *p, size_t n)
{
    struct cursor c = {p, p + n, false};

    x->n_head_bytes = (uint32_t)get_varint(&c, UINT32_MAX);
    x->n_tail_bytes = (uint32_t)get_varint(&c, UINT32_MAX);
    x->n_sep_bytes = (uint32_t)get_varint(&c, UINT32_MAX);
    x->n_groups = (uint32_t)get_varint(&c, SPLIT_MAX_GROUPS);
    x->n_per_group = 1;
    for (uint32_t i = 0; i < x->n_groups && !c.bad; i++) {
        struct split_group *g = &x->groups[i];

        g->n_items = get_varint(&c, UINT32_MAX);
        g->n_raw_bytes = get_varint(&c, UINT32_MAX);
        g->n_samples = get_varint(&c, UINT64_MAX);
        g->n_points = get_varint(&c, UINT64_MAX);
    }
    return !c.bad && c.p == c.end;
}

/* ---- Cutting ----------------------------------------------------------- */

static void load_of(enum payload_kind kind, const struct split_group *g,
                    struct payload_load *l)
{
    l->n_samples += g->n_samples;
    l->n_points += g->n_points;
    if (kind == PAYLOAD_EVENTS)
        l->n_events += g->n_items;
    if (kind == PAYLOAD_CHECKS)
        l->n_checks += g->n_items;
}

static bool index_agrees(const struct split_index *x, const struct payload *p)
{
    uint64_t raw = (uint64_t)x->n_head_bytes + x->n_tail_bytes;
    struct payload_load l = {0};

    for (uint32_t i = 0; i < x->n_groups; i++) {
        raw += x->groups[i].n_raw_bytes;
        load_of(p->kind, &x->groups[i], &l);
        if (i > 0 && x->groups[i].n_raw_bytes < x->n_sep_bytes)
            return false;
    }
    return raw == p->n_raw_bytes && l.n_samples == p->load.n_samples &&
           l.n_points == p->load.n_points && l.n_events == p->load.n_events &&
           l.n_checks == p->load.n_checks;
}

/* Number of groups of the first half; *cut: where it ends in the raw body. */
static uint32_t find_cut(const struct split_index *x, uint32_t n_raw_bytes,
                         size_t *cut)
{
    size_t at = x->n_head_bytes + (size_t)x->groups[0].n_raw_bytes;
    uint32_t n = 1;

    while (n < x->n_groups - 1) {
        size_t next = at + (size_t)x->groups[n].n_raw_bytes;

        /* Stop when the next cut is further from the middle. */
        if (at + next > n_raw_bytes)
            break;
        at = next;
        n++;
    }
    *cut = at;
    return n;
}

/* Head, items [from, to) of the raw body, tail; then the index of @groups. */
static int make_half(struct split_half *h, const struct payload *p,
                     const struct split_index *x, const unsigned char *raw,
                     size_t from, size_t to, const struct split_group *groups,
                     uint32_t n_groups)
{
    size_t n_raw = x->n_head_bytes + (to - from) + x->n_tail_bytes;
    struct split_index *hx = malloc(sizeof(*hx));
    struct compressor *c = NULL;
    size_t cap;
    int rc = -ENOMEM;

    if (hx == NULL || compressor_create(&c, p->encoding) != 0)
        goto out;
    cap = compressor_bound(c, n_raw);
    h->bytes = malloc(cap + SPLIT_MAX_INDEX_BYTES);
    if (h->bytes == NULL)
        goto out;
    rc = compressor_begin(c, SPLIT_LEVEL, h->bytes, cap);
    if (rc == 0)
        rc = compressor_put(c, raw, x->n_head_bytes, COMPRESS_MORE);
    if (rc == 0)
        rc = compressor_put(c, raw + from, to - from, COMPRESS_MORE);
    if (rc == 0)
        rc = compressor_put(c, raw + p->n_raw_bytes - x->n_tail_bytes,
                            x->n_tail_bytes, COMPRESS_END);
    if (rc != 0)
        goto out;
    *hx = *x;
    hx->n_groups = n_groups;
    memcpy(hx->groups, groups, n_groups * sizeof(*groups));
    hx->groups[0].n_raw_bytes = to - from;
    for (uint32_t i = 1; i < n_groups; i++)
        hx->groups[0].n_raw_bytes -= groups[i].n_raw_bytes;
    for (uint32_t i = 0; i < n_groups; i++)
        load_of(p->kind, &hx->groups[i], &h->load);
    h->n_bytes = (uint32_t)compressor_written(c);
    h->n_raw_bytes = (uint32_t)n_raw;
    h->n_index_bytes = (uint32_t)split_index_write(hx, h->bytes + h->n_bytes);
out:
    compressor_close(c);
    free(hx);
    return rc;
}

int split_body(const struct payload *p, uint32_t n_index_bytes,
               struct split_half out[2])
{
    struct split_index *x = malloc(sizeof(*x));
    unsigned char *raw = malloc((size_t)p->n_raw_bytes + 1);
    size_t end;
    size_t cut;
    uint32_t n;
    int rc = -ENOMEM;

    memset(out, 0, 2 * sizeof(*out));
    if (x == NULL || raw == NULL)
        goto out;
    rc = -EBADMSG;
    if (!split_index_read(x, (const unsigned char *)p->body + p->n_bytes,
                          n_index_bytes) ||
        !index_agrees(x, p))
        goto out;
    rc = SPLIT_ONE_GROUP;
    if (x->n_groups < 2)
        goto out;
    rc = decompress(p->encoding, p->body, p->n_bytes, raw, p->n_raw_bytes);
    if (rc != 0)
        goto out;
    n = find_cut(x, p->n_raw_bytes, &cut);
    end = p->n_raw_bytes - x->n_tail_bytes;
    rc = make_half(&out[0], p, x, raw, x->n_head_bytes, cut, x->groups, n);
    if (rc == 0)
        rc = make_half(&out[1], p, x, raw, cut + x->n_sep_bytes, end,
                       x->groups + n, x->n_groups - n);
    if (rc != 0) {
        split_half_fini(&out[0]);
        split_half_fini(&out[1]);
    }
out:
    free(raw);
    free(x);
    return rc;
}

void split_half_fini(struct split_half *h)
{
    free(h->bytes);
    memset(h, 0, sizeof(*h));
}
