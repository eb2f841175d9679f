/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/room.h"

#include "aggregator/blocks.h"
#include "aggregator/pool.h"
#include "aggregator/table.h"

/* More than one transaction takes; well above the marks where `low` is set. */
#define ROOM_RECORDS 256u
#define ROOM_ENTRIES 1024u
#define ROOM_BLOB_BYTES 65536u
#define ROOM_BLOCKS (BLOCKS_RESERVED * 2 + 8)

static int pool_grow(struct agg *a, const struct pool *p, unsigned range,
                     size_t record_bytes)
{
    if (pool_room(a, p, range, record_bytes) >= ROOM_RECORDS)
        return 0;
    return region_grow(a->r, range,
                       (p->n_made + (size_t)ROOM_RECORDS) * record_bytes);
}

void room_make(struct agg *a)
{
    struct agg_head *h = a->head;
    uint32_t blocks = blocks_available(a);
    int rc = 0;

    a->low = false;
    rc |= pool_grow(a, &h->contexts, RANGE_CONTEXTS, sizeof(struct context));
    rc |= pool_grow(a, &h->aliases, RANGE_ALIASES, sizeof(struct alias));
    rc |= pool_grow(a, &h->stamps, RANGE_STAMPS, sizeof(struct stamp));
    rc |= region_grow(a->r, RANGE_BLOBS,
                      (size_t)h->heap.n_units * BLOB_UNIT + ROOM_BLOB_BYTES);
    if (table_room(&h->spelling) < ROOM_ENTRIES / 2)
        rc |= table_grow(a, &h->spelling, ROOM_ENTRIES);
    if (table_room(&h->intern) < ROOM_ENTRIES / 2)
        rc |= table_grow(a, &h->intern, ROOM_ENTRIES);
    if (table_room(&h->wire) < ROOM_ENTRIES / 2)
        rc |= table_grow(a, &h->wire, ROOM_ENTRIES);
    if (table_room(&h->stamp_index) < ROOM_ENTRIES / 4)
        rc |= table_grow(a, &h->stamp_index, ROOM_ENTRIES / 2);
    if (blocks < ROOM_BLOCKS)
        rc |= region_grow(a->r, RANGE_BLOCKS,
                          ((size_t)h->blocks.n_made + ROOM_BLOCKS -
                           h->blocks.n_free) *
                              BLOCK_BYTES);
    /* One that is refused must not keep the others from growing, so all are
     * asked each time; but lines no longer end their transactions for it. */
    if (rc != 0)
        a->refused_s = a->now_s;
}
