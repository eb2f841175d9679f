/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/used_walk.h"

#include <errno.h>
#include <string.h>

#include "aggregator/wire.h"

_Static_assert(USED_MAX_SPANS == STAMP_RING, "the whole ring");

static uint32_t bytes_of(enum chain_index chain)
{
    switch (chain) {
    case CHAIN_SMALL:
        return sizeof(struct cell_small);
    case CHAIN_BIG:
        return sizeof(struct cell_hist);
    case CHAIN_DIST:
        return sizeof(struct cell_dist);
    case CHAIN_STAMPED:
        return sizeof(struct cell_stamped);
    case CHAIN_EVENTS:
    case CHAIN_CHECKS:
    case CHAIN_DATA:
    case CHAIN_N:
        break;
    }
    return 0;
}

static void start(struct used_walk *w, enum chain_index chain)
{
    w->chain = chain;
    if (bytes_of(chain) != 0)
        chain_walk_init(&w->cells, w->a, &w->part->chains[chain]);
}

int used_walk_part(struct used_walk *w, const struct agg *a, uint64_t seq)
{
    const struct part *p = part_at(a, seq);

    if (p->seq != seq || p->state != PART_CLOSED)
        return -ENOENT;
    *w = (struct used_walk){.a = a, .part = p};
    /* Cells that went elsewhere than the part's stamps are rare: without one
     * those chains need not be read. */
    start(w, p->n_moved > 0 ? CHAIN_SMALL : CHAIN_STAMPED);
    return 0;
}

void used_walk_region(struct used_walk *w, const struct agg *a)
{
    *w = (struct used_walk){.a = a, .at = 1};
}

static bool next_record(struct used_walk *w, struct used_point *out)
{
    const struct agg *a = w->a;

    while (w->at < a->head->stamps.n_made) {
        const struct stamp *st = &a->stamps[w->at++];

        if (st->context == 0 || st->sent_s == 0)
            continue;
        *out = (struct used_point){
            .id = wire_identity(a, &a->contexts[st->context], ""),
            .second_s = st->ts_s};
        return true;
    }
    return false;
}

/* The second of a cell that its part's stamps do not name; 0: they do. */
static uint32_t moved_to(const struct used_walk *w, const void *cell)
{
    const struct cell_small *head = cell; /* all begin with context, shift */

    if (w->chain == CHAIN_STAMPED)
        return ((const struct cell_stamped *)cell)->ts_s;
    if (head->shift == w->a->contexts[head->context].shift)
        return 0;
    return (uint32_t)w->part->stamp_s + head->shift;
}

/* The series of w->cell from w->series on. */
static bool next_series(struct used_walk *w, struct used_point *out)
{
    const struct cell_small *head = w->cell;
    const struct context *c = &w->a->contexts[head->context];
    const char *suffix = wire_suffix(w->a, (enum cell_kind)c->kind, w->series);

    if (suffix == NULL) {
        w->cell = NULL;
        return false;
    }
    w->series++;
    *out = (struct used_point){.id = wire_identity(w->a, c, suffix),
                               .second_s = moved_to(w, w->cell)};
    return true;
}

bool used_walk_next(struct used_walk *w, struct used_point *out)
{
    if (w->part == NULL)
        return next_record(w, out);
    while (bytes_of(w->chain) != 0) {
        if (w->cell != NULL && next_series(w, out))
            return true;
        w->cell = chain_walk_next(&w->cells, bytes_of(w->chain));
        w->series = 0;
        if (w->cell == NULL)
            start(w, w->chain + 1);
        else if (moved_to(w, w->cell) == 0)
            w->cell = NULL;
    }
    return false;
}

size_t used_region_spans(const struct agg *a, struct used_span *out)
{
    const struct agg_head *h = a->head;
    size_t n = h->n_stamp_ring < STAMP_RING ? h->n_stamp_ring : STAMP_RING;

    memcpy(out, h->stamp_ring, n * sizeof(*out));
    return n;
}
