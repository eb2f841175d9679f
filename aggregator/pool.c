/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/pool.h"

#define LOW_ROOM 64u

uint32_t pool_room(const struct agg *a, const struct pool *p, unsigned range,
                   size_t record_bytes)
{
    size_t n = region_committed(a->r, range) / record_bytes;

    return p->n_free + (uint32_t)(n > p->n_made ? n - p->n_made : 0);
}

uint32_t pool_take(struct agg *a, struct pool *p, unsigned range,
                   size_t record_bytes, size_t link_at)
{
    unsigned char *base = region_base(a->r, range);
    uint32_t room = pool_room(a, p, range, record_bytes);
    uint32_t i;

    if (room <= LOW_ROOM)
        a->low = true;
    if (room == 0)
        return 0;
    region_save(a->r, p, sizeof(*p));
    i = p->free_head;
    if (i != 0) {
        /* The free list goes through it until the commit: save all of it. */
        region_save(a->r, base + i * record_bytes, record_bytes);
        memcpy(&p->free_head, base + i * record_bytes + link_at,
               sizeof(p->free_head));
        p->n_free--;
    } else {
        i = p->n_made++;
        region_fresh(a->r, base + i * record_bytes, record_bytes);
    }
    return i;
}

void pool_give(struct agg *a, struct pool *p, uint32_t i, uint32_t *link)
{
    region_save(a->r, p, sizeof(*p));
    region_set(a->r, *link, p->free_head);
    p->free_head = i;
    p->n_free++;
}
