/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/intern.h"

#include "aggregator/hash.h"
#include "aggregator/table.h"

/* Free blobs keep their links in their first bytes, which nobody reads. */
static uint32_t next_free(const struct blob *b)
{
    uint32_t next;

    memcpy(&next, b->bytes, sizeof(next));
    return next;
}

static uint32_t blob_take(struct agg *a, uint32_t units)
{
    struct blob_heap *h = &a->head->heap;
    size_t have = region_committed(a->r, RANGE_BLOBS) / BLOB_UNIT;
    uint32_t ref = h->free_of[units];

    if (ref != 0) {
        struct blob *b = blob_at(a, ref);

        region_set(a->r, h->free_of[units], next_free(b));
        /* The list goes through it until the commit. */
        region_save(a->r, b, sizeof(*b) + sizeof(uint32_t));
    } else {
        if (h->n_units + units > have)
            return 0;
        ref = h->n_units;
        region_set(a->r, h->n_units, h->n_units + units);
        if (have - h->n_units < 32768 / BLOB_UNIT)
            a->low = true;
    }
    region_fresh(a->r, blob_at(a, ref), (size_t)units * BLOB_UNIT);
    return ref;
}

static void blob_give(struct agg *a, uint32_t ref)
{
    struct blob_heap *h = &a->head->heap;
    struct blob *b = blob_at(a, ref);
    uint32_t units = b->units;

    region_save(a->r, b->bytes, sizeof(uint32_t));
    memcpy(b->bytes, &h->free_of[units], sizeof(uint32_t));
    region_set(a->r, h->free_of[units], ref);
}

uint32_t intern_ref(struct agg *a, enum blob_kind kind, const void *bytes,
                    uint32_t n)
{
    struct table *t = &a->head->intern;
    struct table_slot *slots = table_slots(a, t);
    uint32_t frag = (uint32_t)hash_bytes(bytes, n, a->head->seed[1] + kind).lo;
    uint32_t units =
        (uint32_t)(sizeof(struct blob) + (n < 4 ? 4 : n) + BLOB_UNIT - 1) /
        BLOB_UNIT;
    struct blob *b;
    uint32_t ref;

    REQUIRE(units < BLOB_CLASSES);
    for (uint32_t i = table_home(t->mask, frag); slots[i].ref != 0;
         i = (i + 1) & t->mask) {
        if (slots[i].frag != frag)
            continue;
        b = blob_at(a, slots[i].ref);
        if (b->kind == kind && b->n == n && memcmp(b->bytes, bytes, n) == 0) {
            intern_again(a, slots[i].ref);
            return slots[i].ref;
        }
    }
    if (table_room(t) < 256)
        a->low = true;
    if (table_room(t) == 0)
        return 0;
    ref = blob_take(a, units);
    if (ref == 0)
        return 0;
    b = blob_at(a, ref);
    b->n_refs = 1;
    b->frag = frag;
    b->n = (uint16_t)n;
    b->kind = (uint8_t)kind;
    b->units = (uint8_t)units;
    memcpy(b->bytes, bytes, n);
    (void)table_insert(a, t, frag, ref);
    return ref;
}

static void drop_blob(struct agg *a, uint32_t ref)
{
    a->n_dropped++;
    table_remove(a, &a->head->intern, blob_at(a, ref)->frag, ref);
    blob_give(a, ref);
}

static bool last_holder(struct agg *a, uint32_t ref)
{
    struct blob *b = blob_at(a, ref);

    region_set(a->r, b->n_refs, b->n_refs - 1);
    return b->n_refs == 0;
}

void intern_unref(struct agg *a, uint32_t ref)
{
    if (ref == 0 || !last_holder(a, ref))
        return;
    if (blob_at(a, ref)->kind == BLOB_TAGSET) {
        const struct tagset *s = tagset_of(blob_at(a, ref));
        uint32_t n = tagset_n(blob_at(a, ref));

        for (uint32_t i = 0; i < n; i++) {
            if (last_holder(a, s->tags[i]))
                drop_blob(a, s->tags[i]);
        }
    }
    drop_blob(a, ref);
}
