/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Closed parts to items. Runs on the encoder's thread and reads only what a
 * closed part keeps unchanged: its chains, the fixed half of contexts, blobs.
 */
#include "aggregator/series.h"

#include <errno.h>
#include <stdlib.h>

#include "aggregator/blocks.h"
#include "aggregator/cell.h"
#include "aggregator/enrich.h"
#include "aggregator/intern.h"
#include "aggregator/series_item.h"

enum stage {
    STAGE_CELLS,
    STAGE_STAMPED,
    STAGE_DIST,
    STAGE_EVENTS,
    STAGE_CHECKS,
    STAGE_END
};

struct part_iter {
    const struct agg *a;
    const struct part *part;
    struct part_info info;
    enum stage stage;
    enum chain_index chain;
    struct chain_walk walk;
    void *held; /* the cell whose item failed for lack of memory */
    struct item_scratch scratch;
};

static void start_chain(struct part_iter *it, enum chain_index chain)
{
    it->chain = chain;
    chain_walk_init(&it->walk, it->a, &it->part->chains[chain]);
}

static void count_samples(struct part_iter *it)
{
    static const struct {
        enum chain_index chain;
        uint32_t bytes;
    } forms[] = {{CHAIN_SMALL, sizeof(struct cell_small)},
                 {CHAIN_BIG, sizeof(struct cell_hist)},
                 {CHAIN_DIST, sizeof(struct cell_dist)},
                 {CHAIN_STAMPED, sizeof(struct cell_stamped)}};

    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        const struct cell_small *cell; /* all have n at the same place */

        start_chain(it, forms[i].chain);
        while ((cell = chain_walk_next(&it->walk, forms[i].bytes)) != NULL)
            it->info.n_samples += cell->n;
        it->info.n_items += it->part->chains[forms[i].chain].n;
    }
}
_Static_assert(offsetof(struct cell_small, n) == 8 &&
                   offsetof(struct cell_hist, n) == 8 &&
                   offsetof(struct cell_set, n) == 8 &&
                   offsetof(struct cell_dist, n) == 8 &&
                   offsetof(struct cell_stamped, n) == 8,
               "count_samples()");

int part_iter_open(struct part_iter **out, const struct agg *a, uint64_t seq)
{
    const struct part *p = part_at(a, seq);
    struct part_iter *it;
    int rc;

    if (p->seq != seq || p->state != PART_CLOSED)
        return -ENOENT;
    it = calloc(1, sizeof(*it));
    if (it == NULL)
        return -ENOMEM;
    it->a = a;
    it->part = p;
    it->info.seq = seq;
    it->info.stamp_s = p->stamp_s;
    it->info.max_shift = p->max_shift;
    it->info.n_events = p->chains[CHAIN_EVENTS].n;
    it->info.n_checks = p->chains[CHAIN_CHECKS].n;
    it->info.n_items = it->info.n_events + it->info.n_checks;
    count_samples(it);
    rc = item_scratch_init(&it->scratch, a, p);
    if (rc != 0) {
        part_iter_close(it);
        return rc;
    }
    start_chain(it, CHAIN_SMALL);
    *out = it;
    return 0;
}

void part_iter_info(const struct part_iter *it, struct part_info *out)
{
    *out = it->info;
}

void part_iter_close(struct part_iter *it)
{
    if (it == NULL)
        return;
    item_scratch_fini(&it->scratch);
    free(it);
}

/* Name, host and tags of a context. */
static void fill_context(struct part_iter *it, const struct context *c,
                         struct flush_item *out)
{
    const struct agg *a = it->a;
    struct blob *set = blob_at(a, c->tagset);

    out->name = intern_view(a, c->name);
    out->host = intern_view(a, c->host);
    out->n_tags = tagset_n(set);
    for (uint32_t i = 0; i < out->n_tags; i++)
        it->scratch.tags[i] = intern_view(a, tagset_of(set)->tags[i]);
    out->tags = it->scratch.tags;
    out->interval_s = AGG_BUCKET_S;
}

static int fill_cell(struct part_iter *it, void *cell, struct flush_item *out)
{
    const struct cell_small *head = cell;
    const struct context *c = &it->a->contexts[head->context];
    int64_t ts_s = it->part->stamp_s + head->shift;

    fill_context(it, c, out);
    out->n_samples = head->n;
    out->ts_s = ts_s;
    switch ((enum cell_kind)c->kind) {
    case KIND_COUNTER:
    case KIND_GAUGE:
        item_small(&it->scratch, c->kind == KIND_COUNTER, cell, ts_s, out);
        return 1;
    case KIND_SET:
        item_set(&it->scratch, cell, ts_s, out);
        return 1;
    case KIND_HIST:
        return item_hist(&it->scratch, it->a, (c->flags & CONTEXT_MS) != 0,
                         cell, ts_s, out);
    case KIND_DIST:
        return item_dist(&it->scratch, it->a, cell, out);
    case KIND_N:
    case KIND_FREE:
        break;
    }
    return 0;
}

static int next_cell(struct part_iter *it, uint32_t bytes,
                     struct flush_item *out)
{
    int rc;

    if (it->held == NULL)
        it->held = chain_walk_next(&it->walk, bytes);
    if (it->held == NULL)
        return 0;
    rc = fill_cell(it, it->held, out);
    if (rc >= 0)
        it->held = NULL;
    return rc;
}

static int next_stamped(struct part_iter *it, struct flush_item *out)
{
    const struct context *c = item_stamped(&it->scratch, it->a, out);

    if (c == NULL)
        return 0;
    fill_context(it, c, out);
    return 1;
}

static int next_of_stage(struct part_iter *it, struct flush_item *out)
{
    int rc;

    switch (it->stage) {
    case STAGE_CELLS:
        rc = next_cell(it,
                       it->chain == CHAIN_SMALL ? sizeof(struct cell_small)
                                                : sizeof(struct cell_hist),
                       out);
        if (rc == 0 && it->chain == CHAIN_SMALL) {
            start_chain(it, CHAIN_BIG);
            return next_of_stage(it, out);
        }
        return rc;
    case STAGE_STAMPED:
        return next_stamped(it, out);
    case STAGE_DIST:
        out->kind = FLUSH_SKETCH;
        return next_cell(it, sizeof(struct cell_dist), out);
    case STAGE_EVENTS:
    case STAGE_CHECKS:
        rc = item_text(&it->scratch, it->a, it->stage == STAGE_EVENTS, out);
        if (rc > 0 && out->ts_s == 0)
            out->ts_s = it->part->stamp_s;
        return rc;
    case STAGE_END:
        break;
    }
    return 0;
}

int part_iter_next(struct part_iter *it, struct flush_item *out)
{
    while (it->stage != STAGE_END) {
        int rc;

        memset(out, 0, offsetof(struct flush_item, series));
        out->n_series = 0;
        rc = next_of_stage(it, out);
        if (rc != 0)
            return rc;
        it->stage++;
        if (it->stage == STAGE_DIST)
            start_chain(it, CHAIN_DIST);
        else if (it->stage == STAGE_EVENTS || it->stage == STAGE_CHECKS)
            item_text_start(&it->scratch, it->a, it->part,
                            it->stage == STAGE_EVENTS);
    }
    return 0;
}
