/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Payloads that are in memory alone, because the disk did not take them or lost
 * them, on their way to disk.
 *
 * A disk that fails is often one that hangs. So, where there is time, a copy is
 * written by another thread: the payload itself may be delivered meanwhile, then
 * its record is settled.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "forwarder/store_table.h"

#define NO_ENTRY STORE_NO_ENTRY

struct store_rewrite {
    uint64_t id;
    uint32_t entry;
    struct segment_record record;
    struct disk_place place; /* segment 0: not written */
    unsigned char bytes[];   /* body and index */
};

static bool memory_alone(const struct store *s, uint32_t i)
{
    return s->entries[i].fixed.segment == 0;
}

/* From nowhere to @p, or back. */
static void set_place(struct store *s, uint32_t i, struct disk_place p)
{
    struct entry_fixed f = s->entries[i].fixed;

    f.segment = p.segment;
    f.at = p.at;
    store_entry_change(s, i, &f);
    store_commit(s);
    if (p.segment != 0)
        atomic_fetch_sub(&s->n_placeless_bytes, store_entry_bytes(&f));
    else
        atomic_fetch_add(&s->n_placeless_bytes, store_entry_bytes(&f));
}

/* Returns 0 or what disk_append() said. */
static int write_entry(struct store *s, uint32_t i)
{
    const struct entry_fixed *f = &s->entries[i].fixed;
    struct segment_record r = store_record(s, i);
    const unsigned char *body = pages_bytes(&s->pages, f->block);
    struct disk_place p;
    int rc = disk_append(s->disk, &r, body, body + f->n_bytes, 0, &p);

    if (rc == DISK_FULL &&
        store_make_disk_room(s, segment_record_size(&r)) == 0)
        rc = disk_append(s->disk, &r, body, body + f->n_bytes, 0, &p);
    if (rc != 0)
        return rc;
    set_place(s, i, p);
    return 0;
}

void store_write_back(struct store *s, uint64_t max)
{
    uint32_t i;

    while (atomic_load(&s->n_placeless_bytes) > 0 && disk_is_on(s->disk) &&
           (i = store_oldest(s, memory_alone)) != NO_ENTRY) {
        size_t n = store_entry_bytes(&s->entries[i].fixed);

        if (n > max || write_entry(s, i) != 0)
            break;
        max -= n;
    }
}

void store_write_rest(struct store *s)
{
    if (s->disk == NULL)
        return;
    store_renew_places(s);
    store_try_disk_now(s);
    store_write_back(s, UINT64_MAX);
}

void store_try_disk_now(struct store *s)
{
    if (s->disk != NULL)
        disk_try_now(s->disk);
}

/* ---- Places that are worth nothing -------------------------------------- */

/* A body in memory was made here, so a successor settles what it finds of the old
 * record. */
static void give_up_place(struct store *s, uint32_t i)
{
    struct disk_place old = store_place(&s->entries[i].fixed);

    set_place(s, i, (struct disk_place){0});
    disk_settle(s->disk, old);
}

void store_renew_places(struct store *s)
{
    uint64_t looked_at = 0;
    bool lost = false;

    for (int k = 0; s->disk != NULL && k < PAYLOAD_N_KINDS; k++) {
        uint32_t i = s->lists[k].first;

        for (; i != NO_ENTRY; i = s->nodes[i].next) {
            const struct entry_fixed *f = &s->entries[i].fixed;

            if (f->segment == 0 || f->block == STORE_NO_BLOCK)
                continue;
            if (f->segment != looked_at) {
                looked_at = f->segment;
                lost = disk_is_lost(s->disk, store_place(f));
            }
            if (lost)
                give_up_place(s, i);
        }
    }
}

/* ---- By another thread --------------------------------------------------- */

struct store_rewrite *store_rewrite_begin(struct store *s)
{
    struct store_rewrite *w;
    const struct entry_fixed *f;
    uint32_t i;

    if (s->disk == NULL || atomic_load(&s->n_placeless_bytes) == 0)
        return NULL;
    i = store_oldest(s, memory_alone);
    if (i == NO_ENTRY)
        return NULL;
    f = &s->entries[i].fixed;
    w = malloc(sizeof(*w) + store_entry_bytes(f));
    if (w == NULL)
        return NULL;
    *w = (struct store_rewrite){.id = f->id,
                                .entry = i,
                                .record = store_record(s, i)};
    memcpy(w->bytes, pages_bytes(&s->pages, f->block), store_entry_bytes(f));
    return w;
}

int store_rewrite_write(struct store *s, struct store_rewrite *w,
                        uint64_t *need)
{
    int rc = disk_append(s->disk, &w->record, w->bytes,
                         w->bytes + w->record.n_bytes, 0, &w->place);

    if (rc == DISK_FULL) {
        *need = segment_record_size(&w->record);
        return STORE_FULL;
    }
    return rc == 0 ? 0 : -EIO;
}

/* It may have been settled meanwhile, and its slot be another's; or have left. */
bool store_rewrite_end(struct store *s, struct store_rewrite *w)
{
    const struct store_entry *e = &s->entries[w->entry];
    bool written = w->place.segment != 0;
    bool there =
        (e->state == PAYLOAD_FROZEN || e->state == PAYLOAD_MAYBE_SENT) &&
        e->fixed.id == w->id && e->fixed.segment == 0;

    if (written && there) {
        set_place(s, w->entry, w->place);
        if (store_record(s, w->entry).state != w->record.state)
            disk_mark(s->disk, w->place, store_record(s, w->entry).state);
    } else if (written) {
        disk_settle(s->disk, w->place);
    }
    free(w);
    return written;
}
