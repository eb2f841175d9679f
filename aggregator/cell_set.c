/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets keep 128-bit hashes of their members in a trie: leaves are
 * open-addressed arrays that double up to LEAF_MAX slots; a full one of that size becomes an
 * inner node of 16 leaves. So each step is bounded, and no array is ever larger
 * than a part of a block.
 */
#include "aggregator/blocks.h"
#include "aggregator/bucket.h"
#include "aggregator/cell.h"
#include "aggregator/hash.h"

#define FANOUT 16u
#define LEAF_MIN 4u
#define LEAF_MAX 256u
#define DEPTH_MAX 14u

struct set_node {
    uint32_t slots; /* of a leaf, a power of two; 0 = inner node */
    uint32_t n;
    uint32_t pad[2];
    struct hash128 h[]; /* leaf; {0, 0} = free */
};

static uint32_t *children(struct set_node *node)
{
    return (uint32_t *)(void *)node->h;
}

static uint32_t node_alloc(struct agg *a, uint32_t slots)
{
    uint32_t bytes = slots > 0 ? slots * (uint32_t)sizeof(struct hash128)
                               : FANOUT * (uint32_t)sizeof(uint32_t);
    uint32_t ref =
        chain_alloc(a, bucket_piece(a, true), CHAIN_DATA,
                    (uint32_t)sizeof(struct set_node) + bytes, false);
    struct set_node *node;

    if (ref == 0)
        return 0;
    node = block_at(a, ref);
    memset(node, 0, sizeof(*node) + bytes);
    node->slots = slots;
    return ref;
}

/* Place of @h in a leaf: where it is, or where it belongs. */
static struct hash128 *leaf_place(struct set_node *leaf, struct hash128 h)
{
    uint32_t i = (uint32_t)h.lo & (leaf->slots - 1);

    while ((leaf->h[i].lo != h.lo || leaf->h[i].hi != h.hi) &&
           (leaf->h[i].lo != 0 || leaf->h[i].hi != 0))
        i = (i + 1) & (leaf->slots - 1);
    return &leaf->h[i];
}

static void leaf_put(struct set_node *leaf, struct hash128 h)
{
    *leaf_place(leaf, h) = h;
    leaf->n++;
}

static uint32_t branch(struct hash128 h, unsigned depth)
{
    return (uint32_t)(h.hi >> (4 * depth)) & (FANOUT - 1);
}

/* A larger leaf, or 16 below an inner node, with the members of @old. */
static uint32_t split(struct agg *a, const struct set_node *old, unsigned depth)
{
    uint32_t slots = old->slots < LEAF_MAX ? 2 * old->slots : 0;
    uint32_t ref = node_alloc(a, slots);
    uint32_t n_below[FANOUT] = {0};
    struct set_node *node;

    if (ref == 0)
        return 0;
    node = block_at(a, ref);
    for (uint32_t i = 0; slots == 0 && i < old->slots; i++)
        n_below[branch(old->h[i], depth)]++; /* free slots: a few too many */
    for (uint32_t k = 0; slots == 0 && k < FANOUT; k++) {
        uint32_t want = LEAF_MIN;

        while (want < LEAF_MAX && want / 4 * 3 <= n_below[k])
            want *= 2;
        children(node)[k] = node_alloc(a, want);
        if (children(node)[k] == 0)
            return 0;
    }
    for (uint32_t i = 0; i < old->slots; i++) {
        if (old->h[i].lo == 0 && old->h[i].hi == 0)
            continue;
        leaf_put(slots > 0
                     ? node
                     : block_at(a, children(node)[branch(old->h[i], depth)]),
                 old->h[i]);
    }
    return ref;
}

static bool set_insert(struct agg *a, struct cell_set *cell, struct hash128 h)
{
    uint32_t *ref = &cell->root;
    unsigned depth = 0;

    if (*ref == 0)
        *ref = node_alloc(a, LEAF_MIN); /* the cell is saved */
    while (*ref != 0) {
        struct set_node *node = block_at(a, *ref);
        struct hash128 *at;
        uint32_t bigger;

        if (node->slots == 0) {
            ref = &children(node)[branch(h, depth++)];
            continue;
        }
        at = leaf_place(node, h);
        if (at->lo == h.lo && at->hi == h.hi)
            return true;
        if (node->n < node->slots / 4 * 3) {
            region_save(a->r, at, sizeof(*at));
            *at = h;
            region_set(a->r, node->n, node->n + 1);
            cell->n_members++;
            return true;
        }
        if (depth > DEPTH_MAX)
            break;
        bigger = split(a, node, depth);
        if (bigger == 0)
            break;
        region_set(a->r, *ref, bigger);
    }
    return false;
}

void cell_set_add(struct agg *a, struct cell_set *cell, struct view member,
                  bool counted)
{
    uint64_t *capped = &a->head->counts.hist_capped;
    struct hash128 h = hash_bytes(member.p, member.n, a->head->seed[0]);

    if (h.lo == 0 && h.hi == 0)
        h.lo = 1;
    region_save(a->r, cell, sizeof(*cell));
    cell->n += counted;
    if (!set_insert(a, cell, h))
        region_set(a->r, *capped, *capped + 1);
}
