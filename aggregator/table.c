/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/table.h"

#define FIRST_SLOTS 512u
#define MOST_SLOTS (1u << 30)

int table_init(struct agg *a, struct table *t, uint32_t range_a)
{
    int rc =
        region_grow(a->r, range_a, FIRST_SLOTS * sizeof(struct table_slot));

    if (rc != 0)
        return rc;
    region_save(a->r, t, sizeof(*t));
    *t = (struct table){.mask = FIRST_SLOTS - 1, .range_a = range_a};
    return 0;
}

bool table_insert(struct agg *a, struct table *t, uint32_t frag, uint32_t ref)
{
    struct table_slot *slots = table_slots(a, t);
    uint32_t i = table_home(t->mask, frag);

    if (table_room(t) == 0)
        return false;
    while (slots[i].ref != 0)
        i = (i + 1) & t->mask;
    region_save(a->r, &slots[i], sizeof(slots[i]));
    slots[i] = (struct table_slot){.frag = frag, .ref = ref};
    region_set(a->r, t->n_used, t->n_used + 1);
    return true;
}

static bool find_slot(const struct agg *a, const struct table *t, uint32_t frag,
                      uint32_t ref, uint32_t *at)
{
    const struct table_slot *slots = table_slots(a, t);
    uint32_t i = table_home(t->mask, frag);

    for (; slots[i].ref != 0; i = (i + 1) & t->mask) {
        if (slots[i].ref == ref && slots[i].frag == frag) {
            *at = i;
            return true;
        }
    }
    return false;
}

/* The entry that may fill the hole: the last such one of its line, so that a line
 * costs one move; else the first behind it. The hole itself: none. */
static uint32_t filler(const struct table *t, const struct table_slot *slots,
                       uint32_t hole)
{
    uint32_t found = hole;

    for (uint32_t i = (hole + 1) & t->mask; slots[i].ref != 0;
         i = (i + 1) & t->mask) {
        uint32_t home = table_home(t->mask, slots[i].frag);
        bool same_line = (i ^ hole) < TABLE_LINE;

        if (!same_line && found != hole)
            break;
        /* It may move into the hole unless its home lies behind the hole. */
        if (((i - home) & t->mask) < ((i - hole) & t->mask))
            continue;
        found = i;
        if (!same_line)
            break;
    }
    return found;
}

/* Holes are filled, instead of tombstones: a table that lives for months must not
 * fill up with what was. Runs are short (at most 3/4 used, seeded hashes). */
void table_remove(struct agg *a, struct table *t, uint32_t frag, uint32_t ref)
{
    struct table_slot *slots = table_slots(a, t);
    uint32_t hole;
    uint32_t from;

    if (!find_slot(a, t, frag, ref, &hole))
        return;
    while ((from = filler(t, slots, hole)) != hole) {
        region_save(a->r, &slots[hole], sizeof(slots[hole]));
        slots[hole] = slots[from];
        hole = from;
    }
    region_save(a->r, &slots[hole], sizeof(slots[hole]));
    slots[hole] = (struct table_slot){0};
    region_set(a->r, t->n_used, t->n_used - 1);
}

void table_replace(struct agg *a, struct table *t, uint32_t frag, uint32_t ref,
                   uint32_t to)
{
    uint32_t i;

    if (find_slot(a, t, frag, ref, &i))
        region_set(a->r, table_slots(a, t)[i].ref, to);
}

static void rebuild(struct table_slot *to, uint32_t mask,
                    const struct table_slot *from, uint32_t n_slots)
{
    for (uint32_t k = 0; k < n_slots; k++) {
        uint32_t i = table_home(mask, from[k].frag);

        if (from[k].ref == 0)
            continue;
        while (to[i].ref != 0)
            i = (i + 1) & mask;
        to[i] = from[k];
    }
}

int table_grow(struct agg *a, struct table *t, uint32_t n_more)
{
    uint64_t n_slots = (uint64_t)t->mask + 1;
    uint32_t other = t->range_a + (t->side ^ 1);
    uint32_t mine = t->range_a + t->side;
    size_t n_bytes;
    int rc;

    while (n_slots / 4 * 3 < (uint64_t)t->n_used + n_more)
        n_slots *= 2;
    if (n_slots == (uint64_t)t->mask + 1)
        return 0;
    if (n_slots > MOST_SLOTS)
        return REGION_FULL;
    n_bytes = n_slots * sizeof(struct table_slot);
    region_shrink(a->r, other, 0); /* so that it reads as zero */
    rc = region_grow(a->r, other, n_bytes);
    if (rc != 0)
        return rc;
    region_fresh(a->r, region_base(a->r, other), n_bytes);
    rebuild(region_base(a->r, other), (uint32_t)(n_slots - 1),
            region_base(a->r, mine), t->mask + 1);
    region_save(a->r, t, sizeof(*t));
    t->mask = (uint32_t)(n_slots - 1);
    t->side ^= 1;
    region_commit(a->r);
    region_shrink(a->r, mine, 0);
    return 0;
}
