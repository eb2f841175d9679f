/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Histograms keep (value, weight) pairs: an array that doubles up to
 * HIST_CHUNK, then a directory of such arrays. Beyond HIST_MAX_PAIRS a
 * reservoir: each value so far is kept with equal probability.
 */
#include "aggregator/blocks.h"
#include "aggregator/bucket.h"
#include "aggregator/cell.h"
#include "aggregator/hash.h"

#define FIRST_PAIRS 4u

struct hist_pair *cell_hist_pair(const struct agg *a,
                                 const struct cell_hist *cell, uint32_t i)
{
    const uint32_t *dir;

    if (cell->n_pairs <= HIST_CHUNK)
        return (struct hist_pair *)block_at(a, cell->pairs) + i;
    dir = block_at(a, cell->pairs);
    return (struct hist_pair *)block_at(a, dir[i / HIST_CHUNK]) +
           i % HIST_CHUNK;
}

static uint32_t data_alloc(struct agg *a, uint32_t bytes)
{
    return chain_alloc(a, bucket_piece(a, true), CHAIN_DATA, bytes, false);
}

/* Doubles the array of a cell with n pairs; its old place is garbage. */
static bool grow_array(struct agg *a, struct cell_hist *cell, uint32_t n)
{
    uint32_t want = n == 0 ? FIRST_PAIRS : 2 * n;
    uint32_t ref = data_alloc(a, want * (uint32_t)sizeof(struct hist_pair));

    if (ref == 0)
        return false;
    if (n > 0)
        memcpy(block_at(a, ref), block_at(a, cell->pairs),
               n * sizeof(struct hist_pair));
    cell->pairs = ref;
    return true;
}

/* One more array behind the n pairs of whole arrays. */
static bool add_array(struct agg *a, struct cell_hist *cell, uint32_t n)
{
    uint32_t ref =
        data_alloc(a, HIST_CHUNK * (uint32_t)sizeof(struct hist_pair));
    uint32_t dir_ref;
    uint32_t *dir;

    if (ref == 0)
        return false;
    if (n == HIST_CHUNK) {
        dir_ref =
            data_alloc(a, HIST_MAX_PAIRS / HIST_CHUNK * (uint32_t)sizeof(*dir));
        if (dir_ref == 0)
            return false;
        dir = block_at(a, dir_ref);
        dir[0] = cell->pairs;
        cell->pairs = dir_ref;
    }
    dir = block_at(a, cell->pairs);
    region_fresh(a->r, &dir[n / HIST_CHUNK], sizeof(*dir));
    dir[n / HIST_CHUNK] = ref;
    return true;
}

static bool make_place(struct agg *a, struct cell_hist *cell)
{
    uint32_t n = cell->n_pairs;

    if (n < HIST_CHUNK) {
        bool full = n == 0 || (n >= FIRST_PAIRS && (n & (n - 1)) == 0);

        return !full || grow_array(a, cell, n);
    }
    return n % HIST_CHUNK != 0 || add_array(a, cell, n);
}

static uint64_t random_below(struct agg *a, uint64_t n)
{
    region_set(a->r, a->head->rng, a->head->rng + 0x9e3779b97f4a7c15ULL);
    return hash_u64(a->head->rng) % n;
}

static void cap_pair(struct agg *a, struct cell_hist *cell, double v, double w,
                     uint64_t n_seen)
{
    uint64_t *capped = &a->head->counts.hist_capped;
    uint64_t i;

    region_set(a->r, *capped, *capped + 1);
    if (cell->n_pairs == 0)
        return;
    i = random_below(a, n_seen);
    if (i >= cell->n_pairs)
        return;
    region_save(a->r, cell_hist_pair(a, cell, (uint32_t)i),
                sizeof(struct hist_pair));
    *cell_hist_pair(a, cell, (uint32_t)i) = (struct hist_pair){v, w};
}

static void add_pair(struct agg *a, struct cell_hist *cell, double v, double w,
                     uint64_t n_seen)
{
    struct hist_pair *pair;

    if (cell->n_pairs == HIST_MAX_PAIRS || !make_place(a, cell)) {
        cap_pair(a, cell, v, w, n_seen);
        return;
    }
    cell->n_pairs++;
    pair = cell_hist_pair(a, cell, cell->n_pairs - 1);
    region_fresh(a->r, pair, sizeof(*pair));
    *pair = (struct hist_pair){v, w};
}

void cell_hist_add(struct agg *a, struct cell_hist *cell,
                   const struct sample *s, bool counted)
{
    double w = rated_value(1.0, s->rate);
    uint64_t n_seen = cell->n;

    region_save(a->r, cell, sizeof(*cell));
    for (uint32_t i = 0; i < s->n_values; i++) {
        double v = s->values[i];

        if (n_seen == 0 || v < cell->min)
            cell->min = v;
        if (n_seen == 0 || v > cell->max)
            cell->max = v;
        n_seen++;
        cell->weight += w;
        sum_add(&cell->sum, &cell->comp, rated_value(v, s->rate));
        add_pair(a, cell, v, w, n_seen);
    }
    cell->n += counted ? s->n_values : 0;
}
