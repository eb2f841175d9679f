/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Payloads that are on disk as well as in memory, or there alone.
 *
 * The order that makes a kill harmless: a record is written before the region
 * says that the payload is frozen, and settled after the region says that it is
 * free. So what the region refers to is there, and a record that nobody refers
 * to was never committed, or is done with: a successor settles it.
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/base/log.h"
#include "forwarder/store_table.h"

#define MODULE "store"
#define NO_ENTRY STORE_NO_ENTRY

int store_disk_open(struct store *s, const struct store_opts *opts)
{
    struct disk_opts d = {.life = opts->life,
                          .max_bytes = opts->max_bytes,
                          .clock = s->clock};

    if (opts->disk == NULL)
        return 0;
    d.run_dir = opts->disk->run_dir;
    d.max_ratio = opts->disk->max_ratio;
    s->outdated_s = opts->disk->outdated_s;
    s->batch = calloc(STORE_BATCH, sizeof(*s->batch));
    return s->batch == NULL ? -ENOMEM : disk_open(&s->disk, &d);
}

void store_disk_close(struct store *s)
{
    disk_close(s->disk);
    s->disk = NULL;
    free(s->batch);
    s->batch = NULL;
}

/* ---- Writing ----------------------------------------------------------- */

struct segment_record store_record_of(const struct entry_fixed *f)
{
    return (struct segment_record){
        .state = RECORD_FROZEN,
        .order = f->order,
        .n_bytes = f->n_bytes,
        .n_raw_bytes = f->n_raw_bytes,
        .n_index_bytes = f->n_index_bytes,
        .kind = f->kind,
        .encoding = f->encoding,
        .flags = f->side == STORE_RESTORED ? RECORD_RESTORED : 0,
        .load = f->load,
        .newest_s = f->newest_s,
    };
}

struct segment_record store_record(const struct store *s, uint32_t i)
{
    struct segment_record r = store_record_of(&s->entries[i].fixed);

    if (s->entries[i].state == PAYLOAD_MAYBE_SENT)
        r.state = RECORD_MAYBE_SENT;
    return r;
}

uint64_t store_next_order(struct store *s)
{
    uint64_t now_us = (uint64_t)clock_wall_ns(s->clock) / 1000;
    uint64_t last = atomic_load(&s->last_order);
    uint64_t next;

    do {
        next = now_us > last ? now_us : last + 1;
    } while (!atomic_compare_exchange_weak(&s->last_order, &last, next));
    return next;
}

int store_write_drafts(struct store *s, struct payload_draft *drafts,
                       size_t n_drafts, uint64_t *need)
{
    uint64_t reserved = atomic_load(&s->n_placeless_bytes);

    for (size_t k = 0; s->disk != NULL && k < n_drafts; k++) {
        struct payload_draft *d = &drafts[k];
        struct segment_record r = {
            .state = RECORD_FROZEN,
            .order = d->order != 0 ? d->order : store_next_order(s),
            .n_bytes = d->n_bytes,
            .n_raw_bytes = d->n_raw_bytes,
            .n_index_bytes = d->n_index_bytes,
            .kind = d->kind,
            .encoding = d->encoding,
            .load = d->load,
            .newest_s = store_newest(s, d->newest_s),
        };
        const unsigned char *body = store_block_bytes(s, d->block);

        d->order = r.order;
        if (d->place.segment != 0)
            continue;
        if (disk_append(s->disk, &r, body, body + d->n_bytes, reserved,
                        &d->place) == DISK_FULL) {
            *need = segment_record_size(&r);
            return STORE_FULL;
        }
    }
    return 0;
}

static bool on_disk(const struct store *s, uint32_t i)
{
    return s->entries[i].fixed.segment != 0;
}

/* The oldest is known when all was read, and that begins with the freshest: until
 * then nothing goes, and what finds no room waits in memory. */
int store_make_disk_room(struct store *s, uint64_t n)
{
    if (s->disk == NULL || !disk_all_read(s->disk))
        return STORE_FULL;
    while (disk_is_full(s->disk, n, atomic_load(&s->n_placeless_bytes))) {
        uint32_t i = store_oldest_free(s, on_disk);

        if (i == NO_ENTRY)
            return STORE_FULL;
        store_drop_one(s, i, DROP_EVICTED);
    }
    return 0;
}

int store_sync(struct store *s, unsigned min_age_ms)
{
    return s->disk != NULL ? disk_sync(s->disk, min_age_ms) : 0;
}

/* ---- Spilling ---------------------------------------------------------- */

bool store_has_disk(const struct store *s)
{
    return s->disk != NULL;
}

bool store_is_on_disk(const struct store *s)
{
    return s->disk != NULL && atomic_load(&s->n_placeless_bytes) == 0;
}

static bool can_spill(const struct store *s, uint32_t i)
{
    return !s->nodes[i].spilled && s->entries[i].fixed.segment != 0;
}

bool store_spill_one(struct store *s)
{
    uint32_t i = s->disk != NULL ? store_oldest_free(s, can_spill) : NO_ENTRY;
    struct entry_fixed f;
    uint32_t block;
    uint32_t n_pages;

    if (i == NO_ENTRY)
        return false;
    f = s->entries[i].fixed;
    block = f.block;
    n_pages = pages_for(store_entry_bytes(&f));
    f.block = STORE_NO_BLOCK;
    store_entry_change(s, i, &f);
    store_commit(s);
    s->nodes[i].spilled = true;
    s->n_pages -= n_pages;
    pages_free(&s->pages, block, n_pages);
    return true;
}

int store_read_back(struct store *s, uint32_t i, void **copy)
{
    const struct entry_fixed *f = &s->entries[i].fixed;
    struct segment_record r = store_record(s, i);
    int rc;

    *copy = malloc(store_entry_bytes(f));
    if (*copy == NULL)
        return -ENOMEM;
    rc = disk_read(s->disk, store_place(f), &r, *copy);
    if (rc == -EIO)
        rc = -EBADMSG; /* it would stand before all others for ever */
    if (rc == -EBADMSG)
        log_error(MODULE,
                  "a payload on disk is lost: its bytes could not be read "
                  "back samples=%ju segment=%jx",
                  (uintmax_t)f->load.n_samples, (uintmax_t)f->segment);
    return rc;
}

/* ---- What was there before --------------------------------------------- */

int store_list(struct store *s)
{
    return s->disk != NULL ? disk_list(s->disk, s->head->own_from) : 0;
}

bool store_read_some(struct store *s)
{
    if (s->disk == NULL)
        return false;
    s->n_batch = disk_next(s->disk, s->batch, STORE_BATCH);
    return s->n_batch > 0;
}

/* A file of this very life, made before this store, is an earlier image's. */
static enum store_side side_of(const struct disk_found *f)
{
    return f->own && !(f->record.flags & RECORD_RESTORED) ? STORE_OWN
                                                          : STORE_RESTORED;
}

/* By the age of the payload: its file may have been begun long before, since a
 * healthy agent writes one file over and over. Where either time cannot be right
 * nobody knows. */
static bool is_outdated(const struct store *s, const struct disk_found *f)
{
    int64_t now_s = clock_wall_ns(s->clock) / CLOCK_NS_PER_S;
    int64_t made_s = (int64_t)(f->record.order / 1000000);

    return !f->own && s->outdated_s > 0 && made_s >= CLOCK_PLAUSIBLE_S &&
           made_s < now_s && now_s - made_s > s->outdated_s;
}

static void restore_one(struct store *s, const struct disk_found *d)
{
    struct entry_fixed f = store_fixed_of(&d->record);

    f.side = (uint8_t)side_of(d);
    f.block = STORE_NO_BLOCK;
    f.at = d->place.at;
    f.segment = d->place.segment;
    if (!store_accept(s, &f, d->record.state, !is_outdated(s, d)))
        disk_settle(s->disk, d->place);
}

void store_restore(struct store *s)
{
    if (s->disk == NULL)
        return;
    if (s->head->own_from == 0) {
        uint64_t number = disk_start(s->disk);

        region_set(s->r, s->head->own_from, number);
        store_commit(s);
    } else {
        (void)disk_start(s->disk);
    }
    for (size_t k = 0; k < s->n_batch; k++)
        restore_one(s, &s->batch[k]);
    s->n_batch = 0;
    (void)store_make_disk_room(s, 0);
    if (disk_all_read(s->disk))
        store_give_up_awaited(s);
}

/* ---- The end ----------------------------------------------------------- */

/* The record stays for the next life. It is not counted as saved where it may not
 * be there any more. */
static void leave_entry(struct store *s, uint32_t i)
{
    struct store_entry *e = &s->entries[i];
    const struct entry_fixed *f = &e->fixed;
    struct store_books *books = s->head->books;

    if (disk_is_safe(s->disk, store_place(f))) {
        store_bump(s, &books[f->side].counts.saved, f->load.n_samples);
    } else {
        store_count_dropped(s, f->side, &f->load, DROP_DISK, 0);
        store_bump(s, &books[STORE_OWN].counts.payloads_dropped, 1);
    }
    region_set(s->r, e->state, PAYLOAD_SAVED);
    store_commit(s);
    store_entry_saved(s, i);
}

/* On disk, not read yet: the next life finds it. */
static void save_awaited(struct store *s)
{
    for (int side = 0; side < STORE_N_SIDES; side++) {
        store_bump(s, &s->head->books[side].counts.saved,
                   s->head->awaited[side].n_samples);
        region_set(s->r, s->head->awaited[side], (struct payload_load){0});
        store_commit(s);
    }
}

bool store_save_rest(struct store *s)
{
    if (s->disk == NULL)
        return false;
    for (int k = 0; k < PAYLOAD_N_KINDS; k++) {
        uint32_t i;

        while ((i = s->lists[k].first) != NO_ENTRY) {
            if (s->entries[i].fixed.segment != 0)
                leave_entry(s, i);
            else
                store_drop_one(s, i, DROP_DISK);
        }
    }
    save_awaited(s);
    return true;
}
