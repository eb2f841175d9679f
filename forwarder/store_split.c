/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two payloads in place of one that the intake found too large.
 */
#include <errno.h>
#include <string.h>

#include "forwarder/split.h"
#include "forwarder/store_table.h"

#define NO_ENTRY STORE_NO_ENTRY

/* The half's fixed part, its block filled, its record on disk. */
static int place_half(struct store *s, const struct split_half *half,
                      struct entry_fixed *f)
{
    size_t n = (size_t)half->n_bytes + half->n_index_bytes;
    int rc;

    f->n_bytes = half->n_bytes;
    f->n_raw_bytes = half->n_raw_bytes;
    f->n_index_bytes = half->n_index_bytes;
    f->load = half->load;
    f->segment = 0;
    rc = store_alloc_evicting(s, n, &f->block);
    if (rc != 0)
        return rc;
    memcpy(pages_bytes(&s->pages, f->block), half->bytes, n);
    if (s->disk != NULL) {
        struct segment_record r = store_record_of(f);
        struct disk_place at = {0};

        if (disk_append(s->disk, &r, half->bytes, half->bytes + half->n_bytes,
                        0, &at) == 0) {
            f->segment = at.segment;
            f->at = at.at;
        }
    }
    return 0;
}

static void forget_half(struct store *s, const struct entry_fixed *f)
{
    pages_free(&s->pages, f->block, pages_for(store_entry_bytes(f)));
    if (f->segment != 0)
        disk_settle(s->disk, store_place(f));
}

/* The halves are on disk before the whole is settled there. */
static void commit_halves(struct store *s, uint32_t whole,
                          struct entry_fixed halves[2])
{
    uint32_t entries[2];

    for (int k = 0; k < 2; k++) {
        entries[k] = store_entry_alloc(s);
        halves[k].id = s->head->next_id + (uint64_t)k;
        store_entry_fill(s, entries[k], &halves[k]);
    }
    region_set(s->r, s->head->next_id, s->head->next_id + 2);
    region_set(s->r, s->entries[whole].state, PAYLOAD_FREE);
    store_commit(s);
    store_entry_list(s, entries[0], NO_ENTRY);
    store_entry_list(s, entries[1], NO_ENTRY);
    store_entry_free(s, whole);
}

int store_split(struct store *s, struct payload *p)
{
    struct store_handle *h = store_handle_of(p);
    struct split_half halves[2] = {{0}};
    struct entry_fixed fixed[2];
    uint32_t i = h->entry;
    int n_placed = 0;
    int rc;

    if (i == NO_ENTRY)
        return STORE_CANNOT_SPLIT;
    rc = split_body(p, s->entries[i].fixed.n_index_bytes, halves);
    if (rc != 0)
        return rc == -ENOMEM ? STORE_FULL : STORE_CANNOT_SPLIT;
    fixed[0] = fixed[1] = s->entries[i].fixed;
    rc = STORE_FULL;
    for (; n_placed < 2; n_placed++) {
        if (place_half(s, &halves[n_placed], &fixed[n_placed]) != 0)
            goto out;
    }
    store_make_entries(s, 2);
    if (s->n_free < 2)
        goto out;
    commit_halves(s, i, fixed);
    store_release(s, h);
    n_placed = 0; /* committed */
    rc = 0;
out:
    while (n_placed-- > 0)
        forget_half(s, &fixed[n_placed]);
    split_half_fini(&halves[0]);
    split_half_fini(&halves[1]);
    return rc;
}
