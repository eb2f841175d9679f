/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Distributions: values become int16 keys at the end of a small buffer (2 bytes
 * a sample). A full buffer is counted into a tree of 32 x 32 nodes with leaves
 * of 64 counts: counting there touches 4 bytes per key, no allocation exceeds 256
 * bytes, and reading it in order gives sorted bins. Sorted arrays of bins were
 * rejected: each merge would copy up to 32 KiB aside.
 */
#include "aggregator/blocks.h"
#include "aggregator/bucket.h"
#include "aggregator/cell.h"
#include "aggregator/sketch.h"

#define FIRST_KEYS_LOG 3u

static uint32_t data_alloc(struct agg *a, uint32_t bytes)
{
    return chain_alloc(a, bucket_piece(a, true), CHAIN_DATA, bytes, false);
}

static uint32_t node_alloc(struct agg *a, uint32_t n)
{
    uint32_t ref = data_alloc(a, n * (uint32_t)sizeof(uint32_t));

    if (ref != 0)
        memset(block_at(a, ref), 0, n * sizeof(uint32_t));
    return ref;
}

/* Child @i of an inner node, made if need be with room for @n words. */
static uint32_t *child(struct agg *a, uint32_t *node, uint32_t i, uint32_t n)
{
    if (node[i] == 0) {
        uint32_t ref = node_alloc(a, n);

        if (ref == 0)
            return NULL;
        region_set(a->r, node[i], ref);
    }
    return block_at(a, node[i]);
}

static void count_capped(struct agg *a, uint64_t n)
{
    uint64_t *capped = &a->head->counts.hist_capped;

    region_set(a->r, *capped, *capped + n);
}

/* What finds no place is not lost: series.c puts the difference between cnt and
 * the bins at the average. */
static void tree_add(struct agg *a, struct cell_dist *cell, int16_t key,
                     uint32_t n)
{
    uint32_t u = (uint32_t)(key + 32768);
    uint32_t *node;

    if (cell->tree == 0)
        cell->tree = node_alloc(a, DIST_TOP);
    if (cell->tree == 0) {
        count_capped(a, 1);
        return;
    }
    node = child(a, block_at(a, cell->tree), u >> 11, DIST_TOP);
    if (node != NULL)
        node = child(a, node, (u >> 6) & 31, DIST_LEAF);
    if (node == NULL) {
        count_capped(a, 1);
        return;
    }
    region_set(a->r, node[u & 63], node[u & 63] + n);
}

void cell_dist_bins(const struct agg *a, const struct cell_dist *cell,
                    cell_bin_fn *fn, void *arg)
{
    const uint32_t *top = cell->tree != 0 ? block_at(a, cell->tree) : NULL;

    for (uint32_t i = 0; top != NULL && i < DIST_TOP; i++) {
        const uint32_t *mid = block_at(a, top[i]);

        for (uint32_t k = 0; top[i] != 0 && k < DIST_TOP; k++) {
            const uint32_t *leaf = block_at(a, mid[k]);

            for (uint32_t j = 0; mid[k] != 0 && j < DIST_LEAF; j++) {
                if (leaf[j] != 0)
                    fn(arg, (int16_t)((int32_t)(i << 11 | k << 6 | j) - 32768),
                       leaf[j]);
            }
        }
    }
}

static bool grow_keys(struct agg *a, struct cell_dist *cell)
{
    uint32_t log = cell->keys_log == 0 ? FIRST_KEYS_LOG : cell->keys_log + 1u;
    uint32_t ref = data_alloc(a, (uint32_t)sizeof(int16_t) << log);

    if (ref == 0)
        return false;
    if (cell->n_keys > 0)
        memcpy(block_at(a, ref), block_at(a, cell->keys),
               cell->n_keys * sizeof(int16_t));
    cell->keys = ref;
    cell->keys_log = (uint8_t)log;
    return true;
}

static void add_key(struct agg *a, struct cell_dist *cell, int16_t key)
{
    int16_t *keys = block_at(a, cell->keys);

    if (cell->n_keys == DIST_MAX_KEYS) {
        for (uint32_t i = 0; i < DIST_MAX_KEYS; i++)
            tree_add(a, cell, keys[i], 1);
        /* It is written again from its start, and what was committed counts on
         * these keys. */
        region_save(a->r, keys, DIST_MAX_KEYS * sizeof(*keys));
        cell->n_keys = 0;
    }
    if ((cell->keys_log == 0 || cell->n_keys == 1u << cell->keys_log) &&
        !grow_keys(a, cell)) {
        tree_add(a, cell, key, 1);
        return;
    }
    keys = block_at(a, cell->keys);
    region_fresh(a->r, &keys[cell->n_keys], sizeof(*keys));
    keys[cell->n_keys++] = key;
}

/* The rate as far as one cell's bins can bear it on the wire; a smaller one is
 * cut and counted like other rates that cannot be meant. */
static double bearable_rate(struct agg *a, int64_t cnt, double rate)
{
    uint64_t *bad = &a->head->counts.bad_rate;

    if (rate == 1.0 || (rate >= 1.0 / DIST_MAX_WEIGHT && cnt < DIST_MAX_TOTAL))
        return rate;
    region_set(a->r, *bad, *bad + 1);
    return cnt < DIST_MAX_TOTAL ? 1.0 / DIST_MAX_WEIGHT : 1.0;
}

static void add_rated(struct agg *a, struct cell_dist *cell,
                      struct sketch_summary *sum, double v, double rate,
                      uint32_t n_values)
{
    uint32_t n = sketch_summary_add_rated(sum, v, rate);
    int16_t key = sketch_key(v);

    if (n > 32 || n * n_values > DIST_MAX_KEYS) {
        tree_add(a, cell, key, n);
        return;
    }
    while (n-- > 0)
        add_key(a, cell, key);
}

void cell_dist_add(struct agg *a, struct cell_dist *cell,
                   const struct sample *s, bool counted)
{
    struct sketch_summary sum = {cell->cnt, cell->min, cell->max, cell->sum,
                                 cell->avg};

    region_save(a->r, cell, sizeof(*cell));
    for (uint32_t i = 0; i < s->n_values; i++) {
        double rate = bearable_rate(a, sum.cnt, s->rate);
        double v = s->values[i];

        if (rate < 1.0) {
            add_rated(a, cell, &sum, v, rate, s->n_values);
        } else {
            sketch_summary_add(&sum, v);
            add_key(a, cell, sketch_key(v));
        }
    }
    cell->cnt = sum.cnt;
    cell->min = sum.min;
    cell->max = sum.max;
    cell->sum = sum.sum;
    cell->avg = sum.avg;
    cell->n += counted ? s->n_values : 0;
}
