/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens to payloads. Every function that changes the region is one
 * transaction: saves, stores, store_commit(), and only then the private lists
 * and the pages follow. Killed before the commit nothing happened; killed after
 * it the successor builds the private side anew from the entries.
 */
#include "forwarder/store.h"

#include <errno.h>
#include <stdlib.h>

#include "forwarder/store_table.h"

#define NO_ENTRY STORE_NO_ENTRY
/* Of payloads that a failing disk did not take, once it takes them again: per
 * part, on the loop. */
#define WRITE_BACK_BYTES ((uint64_t)1 << 20)

const char *drop_cause_name(enum drop_cause c)
{
    switch (c) {
    case DROP_NO_API_KEY:
        return "no_api_key";
    case DROP_TOO_LARGE:
        return "too_large";
    case DROP_EVICTED:
        return "evicted";
    case DROP_RING_BUSY:
        return "ring_busy";
    case DROP_DAMAGED:
        return "damaged";
    case DROP_DISK:
        return "disk";
    case DROP_DEADLINE:
        return "deadline";
    case DROP_HTTP:
        return "http";
    case DROP_N:
        break;
    }
    return "unknown";
}

int store_open(struct store **out, struct region *r,
               const struct store_opts *opts)
{
    struct store *s = calloc(1, sizeof(*s));
    int rc;

    if (s == NULL)
        return -ENOMEM;
    s->r = r;
    s->life = opts->life;
    s->clock = opts->clock != NULL ? opts->clock : &clock_real;
    rc = store_disk_open(s, opts);
    if (rc == 0)
        rc = store_table_open(s, store_memory_bytes(opts));
    if (rc != 0) {
        store_disk_close(s);
        free(s);
        return rc;
    }
    *out = s;
    return 0;
}

size_t store_memory_bytes(const struct store_opts *opts)
{
    if (opts->disk != NULL && opts->max_bytes > STORE_DISK_MEMORY_BYTES)
        return STORE_DISK_MEMORY_BYTES;
    return opts->max_bytes;
}

static void free_handle(struct store_handle *h)
{
    if (h != NULL)
        free(h->copy);
    free(h);
}

void store_close(struct store *s)
{
    if (s == NULL)
        return;
    for (uint32_t i = 0; i < s->n_entries; i++)
        free_handle(s->nodes[i].handle);
    store_table_close(s);
    store_disk_close(s);
    free(s);
}

/* ---- Blocks ------------------------------------------------------------ */

size_t store_max_bytes(const struct store *s)
{
    return (size_t)s->pages.n_pages * PAGES_BYTES;
}

int store_block_alloc(struct store *s, size_t n, uint32_t *block)
{
    return pages_alloc(&s->pages, n, block);
}

void *store_block_bytes(struct store *s, uint32_t block)
{
    return pages_bytes(&s->pages, block);
}

void store_block_trim(struct store *s, uint32_t block, size_t n, size_t keep)
{
    uint32_t had = pages_for(n);
    uint32_t kept = pages_for(keep);

    REQUIRE(kept <= had);
    if (kept < had)
        pages_free(&s->pages, block + kept, had - kept);
}

/* ---- Counting ---------------------------------------------------------- */

void store_count_dropped(struct store *s, enum store_side side,
                         const struct payload_load *l, enum drop_cause cause,
                         int http_status)
{
    struct delivery_counts *c = &s->head->books[side].counts;

    store_bump(s, &c->dropped[cause], l->n_samples);
    if (cause == DROP_HTTP && http_status >= 100 &&
        http_status < 100 + STORE_N_HTTP_CODES)
        store_bump(s, &c->dropped_http[http_status - 100], l->n_samples);
    store_bump(s, &c->events_dropped, l->n_events);
    store_bump(s, &c->checks_dropped, l->n_checks);
}

/* Of what this process does, whatever life the payload comes from. */
static struct delivery_counts *acts(struct store *s)
{
    return &s->head->books[STORE_OWN].counts;
}

/* The state goes to free within the open transaction. */
static void drop_entry(struct store *s, uint32_t i, enum drop_cause cause,
                       int http_status)
{
    struct store_entry *e = &s->entries[i];

    store_count_dropped(s, e->fixed.side, &e->fixed.load, cause, http_status);
    store_bump(s, &acts(s)->payloads_dropped, 1);
    region_set(s->r, e->state, PAYLOAD_FREE);
}

void store_drop_one(struct store *s, uint32_t i, enum drop_cause cause)
{
    drop_entry(s, i, cause, 0);
    store_commit(s);
    store_entry_free(s, i);
}

/* ---- Eviction ---------------------------------------------------------- */

static uint32_t oldest(const struct store *s, store_fits_fn *fits,
                       bool taken_too)
{
    uint32_t best = NO_ENTRY;

    for (int k = 0; k < PAYLOAD_N_KINDS; k++) {
        uint32_t i = s->lists[k].first;

        while (i != NO_ENTRY &&
               ((s->nodes[i].handle != NULL && !taken_too) || !fits(s, i)))
            i = s->nodes[i].next;
        if (i == NO_ENTRY)
            continue;
        if (best == NO_ENTRY ||
            s->entries[i].fixed.order < s->entries[best].fixed.order)
            best = i;
    }
    return best;
}

uint32_t store_oldest(const struct store *s, store_fits_fn *fits)
{
    return oldest(s, fits, true);
}

uint32_t store_oldest_free(const struct store *s, store_fits_fn *fits)
{
    return oldest(s, fits, false);
}

static bool any_fits(const struct store *s, uint32_t i)
{
    (void)s;
    (void)i;
    return true;
}

static bool in_memory(const struct store *s, uint32_t i)
{
    return !s->nodes[i].spilled;
}

static bool evict_one(struct store *s, store_fits_fn *fits)
{
    uint32_t i = store_oldest_free(s, fits);

    if (i == NO_ENTRY)
        return false;
    store_drop_one(s, i, DROP_EVICTED);
    return true;
}

int store_alloc_evicting(struct store *s, size_t n, uint32_t *block)
{
    if (n > (size_t)s->pages.n_pages * PAGES_BYTES)
        return STORE_FULL;
    while (pages_alloc(&s->pages, n, block) != 0) {
        if (!store_spill_one(s) && !evict_one(s, in_memory))
            return STORE_FULL;
    }
    return 0;
}

int store_evict(struct store *s, size_t n)
{
    uint32_t block;
    int rc = store_alloc_evicting(s, n, &block);

    if (rc == 0)
        pages_free(&s->pages, block, pages_for(n));
    return rc;
}

/* ---- Commit of a part -------------------------------------------------- */

static size_t draft_bytes(const struct payload_draft *d)
{
    return (size_t)d->n_bytes + d->n_index_bytes;
}

int64_t store_newest(const struct store *s, int64_t newest_s)
{
    int64_t now_s = clock_wall_ns(s->clock) / CLOCK_NS_PER_S;

    return newest_s < now_s - STORE_OLD_S ? 0 : newest_s;
}

/* Without a disk a payload is as old as its number. */
static void fill_from_draft(struct store *s, uint32_t i, uint64_t id,
                            const struct payload_draft *d)
{
    struct entry_fixed f = {
        .id = id,
        .order = d->order != 0     ? d->order
                 : s->disk != NULL ? store_next_order(s)
                                   : id,
        .kind = (uint8_t)d->kind,
        .encoding = (uint8_t)d->encoding,
        .block = d->block,
        .n_bytes = d->n_bytes,
        .n_raw_bytes = d->n_raw_bytes,
        .n_index_bytes = d->n_index_bytes,
        .at = d->place.at,
        .segment = d->place.segment,
        .newest_s = store_newest(s, d->newest_s),
        .load = d->load,
    };

    store_entry_fill(s, i, &f);
}

/* Entries for the drafts, linked through their nodes. Drafts that get none stay
 * behind: returns how many did. */
static size_t fill_entries(struct store *s, const struct payload_draft *drafts,
                           size_t n_drafts, uint32_t *first)
{
    uint32_t *link = first;
    size_t n = 0;

    *first = NO_ENTRY;
    while (n < n_drafts) {
        uint32_t i = store_entry_alloc(s);

        if (i == NO_ENTRY)
            break;
        fill_from_draft(s, i, s->head->next_id + n, &drafts[n]);
        n++;
        s->nodes[i].next = NO_ENTRY;
        *link = i;
        link = &s->nodes[i].next;
    }
    return n;
}

void store_make_entries(struct store *s, size_t n)
{
    while (s->n_free < n) {
        if (!store_entries_grow(s) && !evict_one(s, any_fits))
            return;
    }
}

/* In one sum each: the journal must hold the transaction of any part. */
static void count_part(struct store *s, const struct payload_draft *drafts,
                       size_t n_drafts, size_t n_stored,
                       const struct store_loss *losses, size_t n_losses)
{
    struct store_books *own = &s->head->books[STORE_OWN];
    struct payload_load accepted = own->accepted;
    struct payload_load dropped[DROP_N + 1] = {{0}};

    for (size_t k = 0; k < n_drafts; k++) {
        load_add(&accepted, &drafts[k].load);
        if (k >= n_stored)
            load_add(&dropped[DROP_EVICTED], &drafts[k].load);
    }
    for (size_t k = 0; k < n_losses; k++) {
        load_add(&accepted, &losses[k].load);
        load_add(&dropped[losses[k].cause], &losses[k].load);
    }
    for (int k = 0; k < DROP_N; k++)
        store_count_dropped(s, STORE_OWN, &dropped[k], (enum drop_cause)k, 0);
    store_bump(s, &own->counts.delivered, dropped[STORE_NOTHING_DUE].n_samples);
    region_set(s->r, own->accepted, accepted);
}

void store_commit_part(struct store *s, uint64_t seq,
                       const struct payload_draft *drafts, size_t n_drafts,
                       const struct store_loss *losses, size_t n_losses)
{
    uint32_t next;
    uint32_t i;
    size_t n = 0;

    if (seq > s->head->encoded_seq) {
        store_make_entries(s, n_drafts);
        n = fill_entries(s, drafts, n_drafts, &next);
        count_part(s, drafts, n_drafts, n, losses, n_losses);
        region_set(s->r, s->head->next_id, s->head->next_id + n);
        region_set(s->r, s->head->encoded_seq, seq);
        store_commit(s);
        for (i = n > 0 ? next : NO_ENTRY; i != NO_ENTRY; i = next) {
            next = s->nodes[i].next;
            store_entry_list(s, i, NO_ENTRY);
        }
    }
    for (size_t k = n; k < n_drafts; k++) {
        pages_free(&s->pages, drafts[k].block,
                   pages_for(draft_bytes(&drafts[k])));
        if (drafts[k].place.segment != 0)
            disk_settle(s->disk, drafts[k].place);
    }
    if (s->disk != NULL)
        store_write_back(s, WRITE_BACK_BYTES);
}

uint64_t store_encoded_seq(const struct store *s)
{
    return s->head->encoded_seq;
}

/* ---- Taking ------------------------------------------------------------ */

/* Returns 0; -EBADMSG: its bytes are lost; -errno: not now. */
static int take_entry(struct store *s, uint32_t i, struct store_handle **out)
{
    const struct store_entry *e = &s->entries[i];
    const struct entry_fixed *f = &e->fixed;
    struct store_handle *h = calloc(1, sizeof(*h));
    int rc = h == NULL ? -ENOMEM : 0;

    if (rc == 0 && f->block == STORE_NO_BLOCK)
        rc = store_read_back(s, i, &h->copy);
    if (rc != 0) {
        free_handle(h);
        return rc;
    }
    h->entry = i;
    h->p = (struct payload){
        .id = f->id,
        .kind = f->kind,
        .state = e->state,
        .encoding = f->encoding,
        .body = h->copy != NULL ? h->copy : pages_bytes(&s->pages, f->block),
        .n_bytes = f->n_bytes,
        .n_raw_bytes = f->n_raw_bytes,
        .n_attempts = e->n_attempts,
        .load = f->load,
    };
    s->nodes[i].handle = h;
    s->n_taken++;
    *out = h;
    return 0;
}

static uint32_t freshest(const struct store *s, unsigned kinds)
{
    uint32_t best = NO_ENTRY;

    for (int k = 0; k < PAYLOAD_N_KINDS; k++) {
        uint32_t i = s->lists[k].last;

        if (!(kinds & (1u << k)))
            continue;
        while (i != NO_ENTRY && s->nodes[i].handle != NULL)
            i = s->nodes[i].prev;
        if (i == NO_ENTRY)
            continue;
        if (best == NO_ENTRY ||
            s->entries[i].fixed.order > s->entries[best].fixed.order)
            best = i;
    }
    return best;
}

struct payload *store_take_kinds(struct store *s, unsigned kinds)
{
    uint32_t i;

    while ((i = freshest(s, kinds)) != NO_ENTRY) {
        struct store_handle *h = NULL;
        int rc = take_entry(s, i, &h);

        if (rc == 0)
            return &h->p;
        if (rc != -EBADMSG)
            return NULL;
        store_drop_one(s, i, DROP_DISK);
    }
    return NULL;
}

struct payload *store_take(struct store *s)
{
    return store_take_kinds(s, (1u << PAYLOAD_N_KINDS) - 1);
}

void store_release(struct store *s, struct store_handle *h)
{
    if (h->entry != NO_ENTRY) {
        s->nodes[h->entry].handle = NULL;
        s->n_taken--;
    }
    free_handle(h);
}

void store_put_back(struct store *s, struct payload *p)
{
    store_release(s, store_handle_of(p));
}

static void set_state(struct store *s, struct payload *p,
                      enum payload_state state)
{
    uint32_t i = store_handle_of(p)->entry;

    if (i == NO_ENTRY || s->entries[i].state == (uint32_t)state)
        return;
    region_set(s->r, s->entries[i].state, (uint32_t)state);
    store_commit(s);
    p->state = state;
    if (s->disk != NULL && s->entries[i].fixed.segment != 0)
        disk_mark(s->disk, store_place(&s->entries[i].fixed),
                  state == PAYLOAD_FROZEN ? RECORD_FROZEN : RECORD_MAYBE_SENT);
}

void store_mark_maybe_sent(struct store *s, struct payload *p)
{
    set_state(s, p, PAYLOAD_MAYBE_SENT);
}

void store_mark_refused(struct store *s, struct payload *p)
{
    set_state(s, p, PAYLOAD_FROZEN);
}

void store_count_attempt(struct store *s, struct payload *p)
{
    struct delivery_counts *c = acts(s);
    uint32_t i = store_handle_of(p)->entry;
    struct store_entry *e;

    if (i == NO_ENTRY)
        return;
    e = &s->entries[i];
    if (e->n_attempts > 0)
        store_bump(s, &c->payloads_retried, 1);
    if (e->state == PAYLOAD_MAYBE_SENT && p->kind != PAYLOAD_SERIES)
        store_bump(s, &c->payloads_ambiguous, 1);
    region_set(s->r, e->n_attempts, e->n_attempts + 1);
    store_commit(s);
    p->n_attempts = e->n_attempts;
}

/* ---- Settling ---------------------------------------------------------- */

/* Its newest point is so old that the intake may refuse it. */
static bool is_old(const struct store *s, const struct entry_fixed *f)
{
    int64_t now_s = clock_wall_ns(s->clock) / CLOCK_NS_PER_S;

    return f->newest_s != 0 && f->newest_s < now_s - STORE_OLD_S;
}

static void count_delivered(struct store *s, const struct entry_fixed *f)
{
    struct delivery_counts *c = &s->head->books[f->side].counts;

    store_bump(s, &c->delivered, f->load.n_samples);
    store_bump(s, &c->points_delivered, f->load.n_points);
    store_bump(s, &c->events_delivered, f->load.n_events);
    store_bump(s, &c->checks_delivered, f->load.n_checks);
    if (is_old(s, f))
        store_bump(s, &c->delivered_old, f->load.n_samples);
    store_bump(s, &acts(s)->payloads_sent, 1);
}

void store_settle_delivered(struct store *s, struct payload *p)
{
    struct store_handle *h = store_handle_of(p);
    uint32_t i = h->entry;

    if (i != NO_ENTRY) {
        count_delivered(s, &s->entries[i].fixed);
        region_set(s->r, s->entries[i].state, PAYLOAD_FREE);
        store_commit(s);
        store_entry_free(s, i);
    }
    store_release(s, h);
}

void store_settle_dropped(struct store *s, struct payload *p,
                          enum drop_cause cause, int http_status)
{
    struct store_handle *h = store_handle_of(p);
    uint32_t i = h->entry;

    if (i != NO_ENTRY) {
        drop_entry(s, i, cause, http_status);
        store_commit(s);
        store_entry_free(s, i);
    }
    store_release(s, h);
}

void store_drop_rest(struct store *s, enum drop_cause cause)
{
    for (int k = 0; k < PAYLOAD_N_KINDS; k++) {
        uint32_t i;

        while ((i = s->lists[k].first) != NO_ENTRY)
            store_drop_one(s, i, cause);
    }
}
