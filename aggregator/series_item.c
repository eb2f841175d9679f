/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/series_item.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "aggregator/cell.h"

void *item_room(struct item_bytes *b, size_t n)
{
    void *p;

    if (b->cap >= n && b->p != NULL)
        return b->p;
    n = n < 4096 ? 4096 : n + n / 2;
    p = malloc(n);
    if (p == NULL)
        return NULL;
    free(b->p);
    b->p = p;
    b->cap = n;
    return p;
}

static double bounded(double v)
{
    if (isfinite(v))
        return v;
    return v < 0 ? -DBL_MAX : DBL_MAX;
}

static void add_series(struct item_scratch *s, struct flush_item *out,
                       const char *suffix, enum series_type type,
                       const char *unit, int64_t ts_s, double value)
{
    struct flush_point *p = &s->points[out->n_series];

    *p = (struct flush_point){.ts_s = ts_s, .value = bounded(value)};
    out->series[out->n_series++] = (struct flush_series){.suffix = suffix,
                                                         .type = type,
                                                         .unit = unit,
                                                         .points = p,
                                                         .n_points = 1};
}

void item_small(struct item_scratch *s, bool counter,
                const struct cell_small *cell, int64_t ts_s,
                struct flush_item *out)
{
    out->kind = FLUSH_SERIES;
    if (counter)
        add_series(s, out, "", SERIES_RATE, "", ts_s,
                   sum_total(cell->value, cell->comp) / AGG_BUCKET_S);
    else
        add_series(s, out, "", SERIES_GAUGE, "", ts_s, cell->value);
}

void item_set(struct item_scratch *s, const struct cell_set *cell, int64_t ts_s,
              struct flush_item *out)
{
    out->kind = FLUSH_SERIES;
    add_series(s, out, "", SERIES_GAUGE, "", ts_s, cell->n_members);
}

/* ---- Histograms --------------------------------------------------------- */

static int by_value(const void *x, const void *y)
{
    double a = ((const struct hist_pair *)x)->value;
    double b = ((const struct hist_pair *)y)->value;

    return a < b ? -1 : a > b;
}

/* Smallest value whose cumulative weight exceeds @target. */
static double quantile(const struct hist_pair *pairs, uint32_t n, double target)
{
    double cumulative = 0;

    for (uint32_t i = 0; i < n; i++) {
        cumulative += pairs[i].weight;
        if (cumulative > target)
            return pairs[i].value;
    }
    return pairs[n - 1].value;
}

struct hist_totals {
    double min, max, sum, weight; /* of all values */
    double kept_weight;           /* of the pairs */
};

static double series_value(const struct hist_series *q,
                           const struct hist_totals *t,
                           const struct hist_pair *pairs, uint32_t n)
{
    switch (q->what) {
    case HIST_MAX:
        return t->max;
    case HIST_MIN:
        return t->min;
    case HIST_SUM:
        return t->sum;
    case HIST_AVG:
        return t->sum / t->weight;
    case HIST_COUNT:
        return t->weight / AGG_BUCKET_S;
    case HIST_MEDIAN:
        return n > 0 ? quantile(pairs, n, (t->kept_weight - 1) / 2) : t->max;
    default: /* a percentile; not an enumerator */
        break;
    }
    if (n == 0)
        return t->max;
    return quantile(pairs, n, (q->percentile * t->kept_weight - 1) / 100);
}

int item_hist(struct item_scratch *s, const struct agg *a, bool ms,
              const struct cell_hist *cell, int64_t ts_s,
              struct flush_item *out)
{
    uint32_t n = cell->n_pairs;
    struct hist_pair *pairs =
        item_room(&s->pairs, (n + 1) * sizeof(struct hist_pair));
    struct hist_totals t = {.min = cell->min,
                            .max = cell->max,
                            .sum = sum_total(cell->sum, cell->comp),
                            .weight = cell->weight};

    if (pairs == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < n; i++) {
        pairs[i] = *cell_hist_pair(a, cell, i);
        t.kept_weight += pairs[i].weight;
    }
    qsort(pairs, n, sizeof(*pairs), by_value);
    out->kind = FLUSH_SERIES;
    for (uint32_t i = 0; i < a->n_series; i++) {
        const struct hist_series *q = &a->series[i];
        bool count = q->what == HIST_COUNT;

        add_series(s, out, q->suffix, count ? SERIES_RATE : SERIES_GAUGE,
                   ms && !count ? "millisecond" : "", ts_s,
                   series_value(q, &t, pairs, n));
    }
    return 1;
}

/* ---- Distributions ------------------------------------------------------ */

struct bin_list {
    struct sketch_bin *bins;
    size_t n;
    uint64_t total;
};

static void count_bin(void *arg, int16_t key, uint32_t n)
{
    struct bin_list *l = arg;

    (void)key;
    (void)n;
    l->n++;
}

static void list_bin(void *arg, int16_t key, uint32_t n)
{
    struct bin_list *l = arg;

    l->bins[l->n++] = (struct sketch_bin){.key = key, .n = n};
    l->total += n;
}

/* All bins of the cell, sorted; what memory refused to keep goes where the
 * average is, so that cnt equals the bins' total. */
static int list_bins(struct item_scratch *s, const struct agg *a,
                     const struct cell_dist *cell, struct bin_list *out)
{
    struct bin_list l = {0};
    size_t n_keys = cell->n_keys;
    struct sketch_bin *merged;
    int16_t *keys;
    int64_t missing;

    cell_dist_bins(a, cell, count_bin, &l);
    l.bins = item_room(&s->bins, (l.n + n_keys + 2) * sizeof(*l.bins));
    merged = item_room(&s->merged, (l.n + n_keys + 2) * sizeof(*merged));
    keys = item_room(&s->keys, DIST_MAX_KEYS * sizeof(*keys));
    if (l.bins == NULL || merged == NULL || keys == NULL)
        return -ENOMEM;
    l.n = 0;
    cell_dist_bins(a, cell, list_bin, &l);
    if (n_keys > 0)
        memcpy(keys, block_at(a, cell->keys), n_keys * sizeof(*keys));
    out->n = sketch_merge_keys(merged, l.bins, l.n, keys, n_keys);
    out->bins = merged;
    missing = cell->cnt - (int64_t)(l.total + n_keys);
    if (missing > 0) {
        memcpy(l.bins, merged, out->n * sizeof(*merged));
        out->n = sketch_merge_one(merged, l.bins, out->n,
                                  sketch_key(bounded(cell->avg)),
                                  missing < UINT32_MAX ? (uint32_t)missing
                                                       : UINT32_MAX);
    }
    return 0;
}

int item_dist(struct item_scratch *s, const struct agg *a,
              const struct cell_dist *cell, struct flush_item *out)
{
    struct bin_list l;
    size_t room;
    int32_t *k;
    uint32_t *n;

    if (list_bins(s, a, cell, &l) != 0)
        return -ENOMEM;
    room = sketch_wire_room(l.bins, l.n);
    k = item_room(&s->wire_k, (room + 1) * sizeof(*k));
    n = item_room(&s->wire_n, (room + 1) * sizeof(*n));
    if (k == NULL || n == NULL)
        return -ENOMEM;
    out->kind = FLUSH_SKETCH;
    out->n_bins = (uint32_t)sketch_to_wire(k, n, l.bins, l.n);
    out->k = k;
    out->n = n;
    out->cnt = cell->cnt;
    out->min = cell->min;
    out->max = cell->max;
    out->avg = bounded(cell->avg);
    out->sum = bounded(cell->sum);
    return 1;
}

/* ---- Timestamped points ------------------------------------------------- */

static int by_context_and_second(const void *x, const void *y)
{
    const struct cell_stamped *a = x;
    const struct cell_stamped *b = y;

    if (a->context != b->context)
        return a->context < b->context ? -1 : 1;
    return a->ts_s < b->ts_s ? -1 : a->ts_s > b->ts_s;
}

const struct context *item_stamped(struct item_scratch *s, const struct agg *a,
                                   struct flush_item *out)
{
    const struct cell_stamped *first;
    const struct context *c;
    struct flush_point *points;
    uint32_t n = 0;

    if (s->at_stamped == s->n_stamped)
        return NULL;
    first = &s->stamped[s->at_stamped];
    points = &s->stamped_points[s->at_stamped];
    c = &a->contexts[first->context];
    for (;
         s->at_stamped + n < s->n_stamped && first[n].context == first->context;
         n++) {
        double total = sum_total(first[n].value, first[n].comp);

        points[n] = (struct flush_point){.ts_s = first[n].ts_s,
                                         .value = c->kind == KIND_COUNTER
                                                      ? total / AGG_BUCKET_S
                                                      : first[n].value,
                                         .n_samples = first[n].n};
        out->n_samples += first[n].n;
    }
    s->at_stamped += n;
    out->kind = FLUSH_SERIES;
    out->ts_s = points[0].ts_s;
    out->n_series = 1;
    out->series[0] =
        (struct flush_series){.suffix = "",
                              .type = c->kind == KIND_COUNTER ? SERIES_RATE
                                                              : SERIES_GAUGE,
                              .unit = "",
                              .points = points,
                              .n_points = n};
    return c;
}

static int load_stamped(struct item_scratch *s, const struct agg *a,
                        const struct part *p)
{
    uint32_t n = p->chains[CHAIN_STAMPED].n;
    const struct cell_stamped *cell;
    struct chain_walk w;

    if (n == 0)
        return 0;
    s->stamped = malloc(n * sizeof(*s->stamped));
    s->stamped_points = malloc(n * sizeof(*s->stamped_points));
    if (s->stamped == NULL || s->stamped_points == NULL)
        return -ENOMEM;
    chain_walk_init(&w, a, &p->chains[CHAIN_STAMPED]);
    while (s->n_stamped < n &&
           (cell = chain_walk_next(&w, sizeof(*cell))) != NULL)
        s->stamped[s->n_stamped++] = *cell;
    qsort(s->stamped, s->n_stamped, sizeof(*s->stamped), by_context_and_second);
    return 0;
}

int item_scratch_init(struct item_scratch *s, const struct agg *a,
                      const struct part *p)
{
    uint32_t n_events = p->chains[CHAIN_EVENTS].n;
    uint32_t n_checks = p->chains[CHAIN_CHECKS].n;
    uint32_t n = n_events > n_checks ? n_events : n_checks;

    if (n > 0) {
        s->texts = malloc(n * sizeof(*s->texts));
        if (s->texts == NULL)
            return -ENOMEM;
    }
    return load_stamped(s, a, p);
}

void item_scratch_fini(struct item_scratch *s)
{
    struct item_bytes *all[] = {&s->pairs,  &s->bins,   &s->merged, &s->keys,
                                &s->wire_k, &s->wire_n, &s->text};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]->p);
    free(s->stamped);
    free(s->stamped_points);
    free(s->texts);
}
