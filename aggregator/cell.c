/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/cell.h"

#include <float.h>
#include <math.h>

#include "aggregator/blocks.h"
#include "aggregator/bucket.h"
#include "aggregator/context.h"
#include "aggregator/stamps.h"

static const struct {
    enum chain_index chain;
    uint32_t bytes;
} forms[KIND_N] = {
    [KIND_COUNTER] = {CHAIN_SMALL, sizeof(struct cell_small)},
    [KIND_GAUGE] = {CHAIN_SMALL, sizeof(struct cell_small)},
    [KIND_SET] = {CHAIN_BIG, sizeof(struct cell_set)},
    [KIND_HIST] = {CHAIN_BIG, sizeof(struct cell_hist)},
    [KIND_DIST] = {CHAIN_DIST, sizeof(struct cell_dist)},
};

double sum_total(double sum, double comp)
{
    double total = sum + comp;

    if (isfinite(total))
        return total;
    if (isfinite(sum)) /* a step of its way was beyond the largest double */
        return sum;
    return sum < 0 ? -DBL_MAX : DBL_MAX;
}

double rated_value(double v, double rate)
{
    double w = rate == 1.0 ? v : v / rate;

    return isfinite(w) ? w : copysign(DBL_MAX, v);
}

void *cell_open(struct agg *a, struct context *c, bool data)
{
    struct open_chain *o = &a->head->open;
    bool must = (c->flags & CONTEXT_PINNED) != 0;
    struct part *p = bucket_piece(a, must);
    uint32_t bytes = forms[c->kind].bytes;
    uint32_t ref = chain_alloc(a, p, forms[c->kind].chain, bytes, must);
    struct cell_small *cell;
    uint32_t shift = c->shift;

    if (ref == 0)
        return NULL;
    if (o->claim == STAMP_UNCLAIMED)
        bucket_claim(a);
    if (shift != 0 || (a->contexts[c->group].marks & MARK_STAMPED) != 0)
        shift = stamps_shift(a, c);
    cell = block_at(a, ref);
    memset(cell, 0, bytes);
    cell->context = (uint32_t)(c - a->contexts);
    cell->shift = (uint8_t)shift;
    if (shift != c->shift)
        region_set(a->r, p->n_moved, p->n_moved + 1);
    region_save(a->r, CONTEXT_HOT(c));
    c->chain = o->id;
    c->cell = ref;
    if (data) {
        c->seen_s = (uint32_t)o->bucket_s;
        c->touched_s = (uint32_t)o->bucket_s;
    }
    if (data)
        context_mark(a, c, MARK_PLAIN);
    if (o->has_data == 0)
        region_set(a->r, o->has_data, 1);
    /* What stamps_shift() added is this context's own affair. */
    if (c->shift > o->max_shift)
        region_set(a->r, o->max_shift, c->shift);
    if (c->shift > a->head->shift_used)
        region_set(a->r, a->head->shift_used, c->shift);
    return cell;
}

static void add_values(struct agg *a, struct cell_small *cell, bool gauge,
                       const struct sample *s)
{
    region_save(a->r, cell, sizeof(*cell));
    cell->n += s->n_values;
    if (gauge) {
        cell->value = s->values[s->n_values - 1];
        return;
    }
    for (uint32_t i = 0; i < s->n_values; i++)
        sum_add(&cell->value, &cell->comp, rated_value(s->values[i], s->rate));
}

bool cell_add(struct agg *a, struct context *c, const struct sample *s,
              bool counted)
{
    void *cell = cell_of(a, c);

    if (cell == NULL)
        return false;
    switch ((enum cell_kind)c->kind) {
    case KIND_COUNTER:
        add_values(a, cell, false, s);
        return true;
    case KIND_GAUGE:
        add_values(a, cell, true, s);
        return true;
    case KIND_SET:
        cell_set_add(a, cell, s->member, counted);
        return true;
    case KIND_HIST:
        cell_hist_add(a, cell, s, counted);
        return true;
    case KIND_DIST:
        cell_dist_add(a, cell, s, counted);
        return true;
    case KIND_N:
    case KIND_FREE:
        break;
    }
    return false;
}

bool cell_add_sum(struct agg *a, struct context *c, double value, uint64_t n)
{
    struct cell_small *cell = cell_of(a, c);

    if (cell == NULL)
        return false;
    region_save(a->r, cell, sizeof(*cell));
    if (c->kind != KIND_GAUGE)
        sum_add(&cell->value, &cell->comp, value);
    else if (cell->n == 0)
        cell->value = value;
    cell->n += n;
    return true;
}
