/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/blocks.h"

uint32_t blocks_available(const struct agg *a)
{
    const struct pool *b = &a->head->blocks;
    size_t n = region_committed(a->r, RANGE_BLOCKS) / BLOCK_BYTES;

    return b->n_free + (uint32_t)(n - b->n_made);
}

/* Number + 1 of a block whose content nothing refers to; 0 = none. */
static uint32_t take_block(struct agg *a, bool must)
{
    struct pool *b = &a->head->blocks;
    uint32_t available = blocks_available(a);
    uint32_t number;

    if (available <= BLOCKS_RESERVED * 2)
        a->low = true;
    if (available == 0 || (!must && available <= BLOCKS_RESERVED))
        return 0;
    region_save(a->r, b, sizeof(*b));
    if (b->free_head != 0) {
        number = b->free_head;
        b->free_head = block_of(a, number)->next;
        b->n_free--;
        /* The free list still goes through it until the commit. */
        region_save(a->r, block_of(a, number), sizeof(struct block_head));
    } else {
        number = ++b->n_made;
    }
    region_fresh(a->r, block_of(a, number), BLOCK_BYTES);
    block_of(a, number)->next = 0;
    return number;
}

static bool extend(struct agg *a, struct chain *c, bool must)
{
    uint32_t number = take_block(a, must);

    if (number == 0)
        return false;
    if (c->last != 0)
        region_set(a->r, block_of(a, c->last)->next, number);
    else
        c->first = number;
    c->last = number;
    c->used = BLOCK_HEAD_BYTES;
    c->n_blocks++;
    return true;
}

uint32_t chain_alloc(struct agg *a, struct part *p, enum chain_index chain,
                     uint32_t bytes, bool must)
{
    struct chain *c = &p->chains[chain];
    unsigned char *at;

    bytes = (bytes + BLOCK_REF_UNIT - 1) & ~(BLOCK_REF_UNIT - 1);
    REQUIRE(bytes <= BLOCK_MAX_ALLOC);
    region_save(a->r, c, sizeof(*c));
    if ((c->last == 0 || c->used + bytes > BLOCK_BYTES) && !extend(a, c, must))
        return 0;
    at = (unsigned char *)block_of(a, c->last) + c->used;
    c->used += bytes;
    c->n++;
    region_fresh(a->r, at, bytes);
    return (uint32_t)((size_t)(at - a->blocks) / BLOCK_REF_UNIT);
}

bool chain_write(struct agg *a, struct part *p, enum chain_index chain,
                 const void *bytes, uint32_t n)
{
    struct chain *c = &p->chains[chain];
    const unsigned char *from = bytes;

    region_save(a->r, c, sizeof(*c));
    while (n > 0) {
        uint32_t some;
        unsigned char *at;

        if ((c->last == 0 || c->used == BLOCK_BYTES) && !extend(a, c, false))
            return false;
        some = BLOCK_BYTES - c->used < n ? BLOCK_BYTES - c->used : n;
        at = (unsigned char *)block_of(a, c->last) + c->used;
        region_fresh(a->r, at, some);
        memcpy(at, from, some);
        c->used += some;
        from += some;
        n -= some;
    }
    return true;
}

void chains_free(struct agg *a, struct part *p)
{
    struct pool *b = &a->head->blocks;

    region_save(a->r, b, sizeof(*b));
    region_save(a->r, p->chains, sizeof(p->chains));
    for (int i = 0; i < CHAIN_N; i++) {
        struct chain *c = &p->chains[i];

        if (c->last == 0)
            continue;
        region_set(a->r, block_of(a, c->last)->next, b->free_head);
        b->free_head = c->first;
        b->n_free += c->n_blocks;
        *c = (struct chain){0};
    }
}

void chain_walk_init(struct chain_walk *w, const struct agg *a,
                     const struct chain *c)
{
    *w = (struct chain_walk){.a = a,
                             .block = c->first,
                             .last = c->last,
                             .at = BLOCK_HEAD_BYTES,
                             .used = c->used};
}

/* Bytes left in the current block; moves on to the next one when it is done. */
static uint32_t left_in_block(struct chain_walk *w, uint32_t want)
{
    while (w->block != 0) {
        uint32_t end = w->block == w->last ? w->used : BLOCK_BYTES;

        if (end - w->at >= want)
            return end - w->at;
        if (w->block == w->last)
            break;
        w->block = block_of(w->a, w->block)->next;
        w->at = BLOCK_HEAD_BYTES;
    }
    w->block = 0;
    return 0;
}

void *chain_walk_next(struct chain_walk *w, uint32_t bytes)
{
    void *p;

    if (left_in_block(w, bytes) == 0)
        return NULL;
    p = (unsigned char *)block_of(w->a, w->block) + w->at;
    w->at += bytes;
    return p;
}

bool chain_read(struct chain_walk *w, void *out, uint32_t n)
{
    unsigned char *to = out;

    while (n > 0) {
        uint32_t some = left_in_block(w, 1);

        if (some == 0)
            return false;
        if (some > n)
            some = n;
        memcpy(to, (unsigned char *)block_of(w->a, w->block) + w->at, some);
        w->at += some;
        to += some;
        n -= some;
    }
    return true;
}
