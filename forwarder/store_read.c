/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the store tells about itself. Nothing here changes anything.
 */
#include "forwarder/store_table.h"

#define NO_ENTRY STORE_NO_ENTRY

void store_stats(const struct store *s, struct store_stats *out)
{
    *out = (struct store_stats){
        .n_payloads = s->n_payloads,
        .n_taken = s->n_taken,
        .bytes = s->n_pages * PAGES_BYTES,
        .load = s->load[STORE_OWN],
        .accepted = s->head->books[STORE_OWN].accepted,
        .restored_load = s->load[STORE_RESTORED],
    };
    load_add(&out->load, &s->head->awaited[STORE_OWN]);
    load_add(&out->restored_load, &s->head->awaited[STORE_RESTORED]);
    if (s->disk != NULL)
        disk_stats(s->disk, &out->disk);
}

unsigned store_kinds(const struct store *s)
{
    unsigned kinds = 0;

    for (unsigned k = 0; k < PAYLOAD_N_KINDS; k++) {
        if (s->lists[k].first != NO_ENTRY)
            kinds |= 1u << k;
    }
    return kinds;
}

uint64_t store_last_age(const struct store *s)
{
    uint64_t last = 0;

    for (int k = 0; k < PAYLOAD_N_KINDS; k++) {
        uint32_t i = s->lists[k].last;

        if (i != NO_ENTRY && s->entries[i].fixed.order > last)
            last = s->entries[i].fixed.order;
    }
    return last;
}

uint64_t store_oldest_age(const struct store *s)
{
    uint64_t oldest = 0;

    for (int k = 0; k < PAYLOAD_N_KINDS; k++) {
        uint32_t i = s->lists[k].first;

        if (i != NO_ENTRY &&
            (oldest == 0 || s->entries[i].fixed.order < oldest))
            oldest = s->entries[i].fixed.order;
    }
    return oldest;
}

uint64_t store_found_age(const struct store *s)
{
    return s->head->base_order - 1;
}

const struct delivery_counts *store_counts(const struct store *s)
{
    return &s->head->books[STORE_OWN].counts;
}

const struct store_books *store_own(const struct store *s)
{
    return &s->head->books[STORE_OWN];
}

const struct store_books *store_restored(const struct store *s)
{
    return &s->head->books[STORE_RESTORED];
}
