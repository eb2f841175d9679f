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

#include "forwarder/split.h"
#include "forwarder/store_table.h"

#define NO_ENTRY STORE_NO_ENTRY

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
    rc = store_table_open(s, opts->max_bytes);
    if (rc != 0) {
        free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void store_close(struct store *s)
{
    if (s == NULL)
        return;
    for (uint32_t i = 0; i < s->n_entries; i++)
        free(s->nodes[i].handle);
    store_table_close(s);
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

/* Add to one word of the region within the open transaction. */
static void bump(struct store *s, uint64_t *word, uint64_t by)
{
    if (by > 0)
        region_set(s->r, *word, *word + by);
}

static void count_dropped(struct store *s, const struct payload_load *l,
                          enum drop_cause cause, int http_status)
{
    struct delivery_counts *c = &s->head->counts;

    bump(s, &c->dropped[cause], l->n_samples);
    if (cause == DROP_HTTP && http_status >= 100 &&
        http_status < 100 + STORE_N_HTTP_CODES)
        bump(s, &c->dropped_http[http_status - 100], l->n_samples);
    bump(s, &c->events_dropped, l->n_events);
    bump(s, &c->checks_dropped, l->n_checks);
}

/* The state goes to free within the open transaction. */
static void drop_entry(struct store *s, uint32_t i, enum drop_cause cause,
                       int http_status)
{
    struct store_entry *e = &s->entries[i];

    count_dropped(s, &e->fixed.load, cause, http_status);
    bump(s, &s->head->counts.payloads_dropped, 1);
    region_set(s->r, e->state, PAYLOAD_FREE);
}

/* ---- Eviction ---------------------------------------------------------- */

static uint32_t oldest_untaken(const struct store *s)
{
    uint32_t best = NO_ENTRY;

    for (int k = 0; k < PAYLOAD_N_KINDS; k++) {
        uint32_t i = s->lists[k].first;

        while (i != NO_ENTRY && s->nodes[i].handle != NULL)
            i = s->nodes[i].next;
        if (i == NO_ENTRY)
            continue;
        if (best == NO_ENTRY ||
            s->entries[i].fixed.order < s->entries[best].fixed.order)
            best = i;
    }
    return best;
}

static bool evict_one(struct store *s)
{
    uint32_t i = oldest_untaken(s);

    if (i == NO_ENTRY)
        return false;
    drop_entry(s, i, DROP_EVICTED, 0);
    store_commit(s);
    store_entry_free(s, i);
    return true;
}

/* A block, whatever has to be evicted for it. */
static int alloc_evicting(struct store *s, size_t n, uint32_t *block)
{
    if (n > (size_t)s->pages.n_pages * PAGES_BYTES)
        return STORE_FULL;
    while (pages_alloc(&s->pages, n, block) != 0) {
        if (!evict_one(s))
            return STORE_FULL;
    }
    return 0;
}

int store_evict(struct store *s, size_t n)
{
    uint32_t block;
    int rc = alloc_evicting(s, n, &block);

    if (rc == 0)
        pages_free(&s->pages, block, pages_for(n));
    return rc;
}

/* ---- Commit of a part -------------------------------------------------- */

static size_t draft_bytes(const struct payload_draft *d)
{
    return (size_t)d->n_bytes + d->n_index_bytes;
}

static void fill_from_draft(struct store *s, uint32_t i, uint64_t id,
                            const struct payload_draft *d)
{
    struct entry_fixed f = {
        .id = id,
        .order = id,
        .kind = (uint8_t)d->kind,
        .encoding = (uint8_t)d->encoding,
        .block = d->block,
        .n_bytes = d->n_bytes,
        .n_raw_bytes = d->n_raw_bytes,
        .n_index_bytes = d->n_index_bytes,
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

/* @n free entries, or as many as can be had. */
static void make_entries(struct store *s, size_t n)
{
    while (s->n_free < n) {
        if (!store_entries_grow(s) && !evict_one(s))
            return;
    }
}

/* In one sum each: the journal must hold the transaction of any part. */
static void count_part(struct store *s, const struct payload_draft *drafts,
                       size_t n_drafts, size_t n_stored,
                       const struct store_loss *losses, size_t n_losses)
{
    struct payload_load accepted = s->head->accepted;
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
        count_dropped(s, &dropped[k], (enum drop_cause)k, 0);
    bump(s, &s->head->counts.delivered, dropped[STORE_NOTHING_DUE].n_samples);
    region_set(s->r, s->head->accepted, accepted);
}

void store_commit_part(struct store *s, uint64_t seq,
                       const struct payload_draft *drafts, size_t n_drafts,
                       const struct store_loss *losses, size_t n_losses)
{
    uint32_t next;
    uint32_t i;
    size_t n = 0;

    if (seq > s->head->encoded_seq) {
        make_entries(s, n_drafts);
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
    for (size_t k = n; k < n_drafts; k++)
        pages_free(&s->pages, drafts[k].block,
                   pages_for(draft_bytes(&drafts[k])));
}

uint64_t store_encoded_seq(const struct store *s)
{
    return s->head->encoded_seq;
}

/* ---- Taking ------------------------------------------------------------ */

static struct store_handle *handle_of(struct payload *p)
{
    return (struct store_handle *)p;
}

static struct store_handle *take_entry(struct store *s, uint32_t i)
{
    const struct store_entry *e = &s->entries[i];
    const struct entry_fixed *f = &e->fixed;
    struct store_handle *h = calloc(1, sizeof(*h));

    if (h == NULL)
        return NULL;
    h->entry = i;
    h->p = (struct payload){
        .id = f->id,
        .kind = f->kind,
        .state = e->state,
        .encoding = f->encoding,
        .body = pages_bytes(&s->pages, f->block),
        .n_bytes = f->n_bytes,
        .n_raw_bytes = f->n_raw_bytes,
        .n_attempts = e->n_attempts,
        .load = f->load,
    };
    s->nodes[i].handle = h;
    s->n_taken++;
    return h;
}

struct payload *store_take_kinds(struct store *s, unsigned kinds)
{
    uint32_t best = NO_ENTRY;
    struct store_handle *h;

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
    if (best == NO_ENTRY)
        return NULL;
    h = take_entry(s, best);
    return h == NULL ? NULL : &h->p;
}

struct payload *store_take(struct store *s)
{
    return store_take_kinds(s, (1u << PAYLOAD_N_KINDS) - 1);
}

/* The holder is done with it. */
static void release(struct store *s, struct store_handle *h)
{
    if (h->entry != NO_ENTRY) {
        s->nodes[h->entry].handle = NULL;
        s->n_taken--;
    }
    free(h);
}

void store_put_back(struct store *s, struct payload *p)
{
    release(s, handle_of(p));
}

static void set_state(struct store *s, struct payload *p,
                      enum payload_state state)
{
    uint32_t i = handle_of(p)->entry;

    if (i == NO_ENTRY || s->entries[i].state == (uint32_t)state)
        return;
    region_set(s->r, s->entries[i].state, (uint32_t)state);
    store_commit(s);
    p->state = state;
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
    struct delivery_counts *c = &s->head->counts;
    uint32_t i = handle_of(p)->entry;
    struct store_entry *e;

    if (i == NO_ENTRY)
        return;
    e = &s->entries[i];
    if (e->n_attempts > 0)
        bump(s, &c->payloads_retried, 1);
    if (e->state == PAYLOAD_MAYBE_SENT && p->kind != PAYLOAD_SERIES)
        bump(s, &c->payloads_ambiguous, 1);
    region_set(s->r, e->n_attempts, e->n_attempts + 1);
    store_commit(s);
    p->n_attempts = e->n_attempts;
}

/* ---- Settling ---------------------------------------------------------- */

void store_settle_delivered(struct store *s, struct payload *p)
{
    struct store_handle *h = handle_of(p);
    struct delivery_counts *c = &s->head->counts;
    uint32_t i = h->entry;

    if (i != NO_ENTRY) {
        bump(s, &c->delivered, p->load.n_samples);
        bump(s, &c->points_delivered, p->load.n_points);
        bump(s, &c->events_delivered, p->load.n_events);
        bump(s, &c->checks_delivered, p->load.n_checks);
        bump(s, &c->payloads_sent, 1);
        region_set(s->r, s->entries[i].state, PAYLOAD_FREE);
        store_commit(s);
        store_entry_free(s, i);
    }
    release(s, h);
}

void store_settle_dropped(struct store *s, struct payload *p,
                          enum drop_cause cause, int http_status)
{
    struct store_handle *h = handle_of(p);
    uint32_t i = h->entry;

    if (i != NO_ENTRY) {
        drop_entry(s, i, cause, http_status);
        store_commit(s);
        store_entry_free(s, i);
    }
    release(s, h);
}

void store_drop_rest(struct store *s, enum drop_cause cause)
{
    for (int k = 0; k < PAYLOAD_N_KINDS; k++) {
        uint32_t i;

        while ((i = s->lists[k].first) != NO_ENTRY) {
            drop_entry(s, i, cause, 0);
            store_commit(s);
            store_entry_free(s, i);
        }
    }
}

/* ---- Splitting --------------------------------------------------------- */

/* The half's block, filled. */
static int place_half(struct store *s, const struct split_half *half,
                      uint32_t *block)
{
    size_t n = (size_t)half->n_bytes + half->n_index_bytes;
    int rc = alloc_evicting(s, n, block);

    if (rc == 0)
        memcpy(pages_bytes(&s->pages, *block), half->bytes, n);
    return rc;
}

static void commit_halves(struct store *s, uint32_t whole,
                          const struct split_half halves[2],
                          const uint32_t blocks[2], const uint32_t entries[2])
{
    struct entry_fixed f = s->entries[whole].fixed;

    for (int k = 0; k < 2; k++) {
        f.id = s->head->next_id + (uint64_t)k;
        f.block = blocks[k];
        f.n_bytes = halves[k].n_bytes;
        f.n_raw_bytes = halves[k].n_raw_bytes;
        f.n_index_bytes = halves[k].n_index_bytes;
        f.load = halves[k].load;
        store_entry_fill(s, entries[k], &f);
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
    struct store_handle *h = handle_of(p);
    struct split_half halves[2] = {{0}};
    uint32_t blocks[2];
    uint32_t entries[2];
    uint32_t i = h->entry;
    int n_placed = 0;
    int rc;

    if (i == NO_ENTRY)
        return STORE_CANNOT_SPLIT;
    rc = split_body(p, s->entries[i].fixed.n_index_bytes, halves);
    if (rc != 0)
        return rc == -ENOMEM ? STORE_FULL : STORE_CANNOT_SPLIT;
    rc = STORE_FULL;
    for (; n_placed < 2; n_placed++) {
        if (place_half(s, &halves[n_placed], &blocks[n_placed]) != 0)
            goto out;
    }
    make_entries(s, 2);
    if (s->n_free < 2)
        goto out;
    entries[0] = store_entry_alloc(s);
    entries[1] = store_entry_alloc(s);
    commit_halves(s, i, halves, blocks, entries);
    release(s, h);
    n_placed = 0; /* committed */
    rc = 0;
out:
    while (n_placed-- > 0)
        pages_free(&s->pages, blocks[n_placed],
                   pages_for((size_t)halves[n_placed].n_bytes +
                             halves[n_placed].n_index_bytes));
    split_half_fini(&halves[0]);
    split_half_fini(&halves[1]);
    return rc;
}

/* ---- Reading ----------------------------------------------------------- */

void store_stats(const struct store *s, struct store_stats *out)
{
    *out = (struct store_stats){
        .n_payloads = s->n_payloads,
        .n_taken = s->n_taken,
        .bytes = s->n_pages * PAGES_BYTES,
        .load = s->load,
        .accepted = s->head->accepted,
    };
}

uint64_t store_last_age(const struct store *s)
{
    return s->head->next_id - 1;
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

const struct delivery_counts *store_counts(const struct store *s)
{
    return &s->head->counts;
}
