/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of payloads. New entries are written where nothing committed refers
 * to and become real by the one store that commits next_id; only the state and
 * the attempts of an entry change in place. So a commit of any number of drafts
 * needs a few hundred bytes of journal.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <errno.h>
#include <stdlib.h>

#include "forwarder/store_table.h"

#define STORE_MAGIC 0x52747653746f7232ULL
#define GROW_ENTRIES 512u
#define LEAST_ORDER (INT64_C(1) << 32)
#define NO_ENTRY STORE_NO_ENTRY

size_t store_reserve(size_t reserve[STORE_N_RANGES], size_t max_bytes)
{
    size_t budget = 0;

    reserve[STORE_HEAD] = sizeof(struct store_head);
    reserve[STORE_ENTRIES] = STORE_MAX_ENTRIES * sizeof(struct store_entry);
    reserve[STORE_BLOCKS] = max_bytes;
    /* Ranges grow by steps of at most 1 MiB, rounded up to pages. */
    for (int i = 0; i < STORE_N_RANGES; i++)
        budget += (reserve[i] + 65535) / 65536 * 65536;
    return budget;
}

static uint64_t entry_check(const struct entry_fixed *f)
{
    return XXH3_64bits(f, sizeof(*f));
}

/* Of a body in memory. */
static uint32_t entry_pages(const struct entry_fixed *f)
{
    return f->block == STORE_NO_BLOCK ? 0 : pages_for(store_entry_bytes(f));
}

/* ---- Lists ------------------------------------------------------------- */

static void push_free(struct store *s, uint32_t i)
{
    s->nodes[i] = (struct store_node){NO_ENTRY, s->free, NULL, false};
    s->free = i;
    s->n_free++;
}

/* Freshest entry of the list with an order not above @order. */
static uint32_t find_place(const struct store *s, const struct store_list *l,
                           uint64_t order)
{
    uint32_t i = l->last;

    /* What is found on disk comes latest first. */
    if (i != NO_ENTRY && s->entries[l->first].fixed.order > order)
        return NO_ENTRY;
    while (i != NO_ENTRY && s->entries[i].fixed.order > order)
        i = s->nodes[i].prev;
    return i;
}

void store_entry_list(struct store *s, uint32_t i, uint32_t after)
{
    const struct entry_fixed *f = &s->entries[i].fixed;
    struct store_list *l = &s->lists[f->kind];
    uint32_t next;

    if (after == NO_ENTRY)
        after = find_place(s, l, f->order);
    next = after == NO_ENTRY ? l->first : s->nodes[after].next;
    s->nodes[i] =
        (struct store_node){after, next, NULL, f->block == STORE_NO_BLOCK};
    if (after == NO_ENTRY)
        l->first = i;
    else
        s->nodes[after].next = i;
    if (next == NO_ENTRY)
        l->last = i;
    else
        s->nodes[next].prev = i;
    s->n_payloads++;
    s->n_pages += entry_pages(f);
    if (s->disk != NULL && f->segment == 0)
        atomic_fetch_add(&s->n_placeless_bytes, store_entry_bytes(f));
    load_add(&s->load[f->side], &f->load);
}

static void unlist(struct store *s, uint32_t i)
{
    const struct entry_fixed *f = &s->entries[i].fixed;
    struct store_list *l = &s->lists[f->kind];
    struct store_node *n = &s->nodes[i];

    if (n->handle != NULL) {
        n->handle->entry = NO_ENTRY;
        n->handle = NULL; /* its holder frees it */
        s->n_taken--;
    }
    if (n->prev == NO_ENTRY)
        l->first = n->next;
    else
        s->nodes[n->prev].next = n->next;
    if (n->next == NO_ENTRY)
        l->last = n->prev;
    else
        s->nodes[n->next].prev = n->prev;
    s->n_payloads--;
    s->n_pages -= entry_pages(f);
    load_sub(&s->load[f->side], &f->load);
    if (s->disk != NULL && f->segment == 0)
        atomic_fetch_sub(&s->n_placeless_bytes, store_entry_bytes(f));
    if (f->block != STORE_NO_BLOCK)
        pages_free(&s->pages, f->block, entry_pages(f));
}

void store_entry_free(struct store *s, uint32_t i)
{
    const struct entry_fixed *f = &s->entries[i].fixed;

    REQUIRE(s->entries[i].state == PAYLOAD_FREE);
    unlist(s, i);
    if (s->disk != NULL && f->segment != 0)
        disk_settle(s->disk, store_place(f));
    push_free(s, i);
}

void store_entry_saved(struct store *s, uint32_t i)
{
    REQUIRE(s->entries[i].state == PAYLOAD_SAVED);
    unlist(s, i);
}

void store_entry_change(struct store *s, uint32_t i,
                        const struct entry_fixed *f)
{
    struct store_entry *e = &s->entries[i];

    region_save(s->r, &e->check, sizeof(e->check) + sizeof(e->fixed));
    e->fixed = *f;
    e->check = entry_check(f);
}

/* ---- Entries ----------------------------------------------------------- */

bool store_entries_grow(struct store *s)
{
    uint32_t want = s->n_entries + GROW_ENTRIES;
    struct store_node *nodes;
    int rc;

    if (want > STORE_MAX_ENTRIES)
        return false;
    nodes = realloc(s->nodes, want * sizeof(*nodes));
    if (nodes == NULL)
        return false;
    s->nodes = nodes;
    /* The lock: an encoder may be growing the range of the pages. */
    pthread_mutex_lock(&s->pages.lock);
    rc = region_grow(s->r, STORE_ENTRIES, want * sizeof(*s->entries));
    pthread_mutex_unlock(&s->pages.lock);
    if (rc != 0)
        return false;
    for (uint32_t i = want; i-- > s->n_entries;)
        push_free(s, i);
    s->n_entries = want;
    return true;
}

uint32_t store_entry_alloc(struct store *s)
{
    uint32_t i;

    i = s->free;
    if (i == NO_ENTRY)
        return NO_ENTRY;
    s->free = s->nodes[i].next;
    s->n_free--;
    return i;
}

void store_entry_fill(struct store *s, uint32_t i, const struct entry_fixed *f)
{
    struct store_entry *e = &s->entries[i];

    region_fresh(s->r, e, sizeof(*e));
    e->n_attempts = 0;
    e->fixed = *f;
    e->check = entry_check(f);
    /* Last: until here the slot is free, and its old content must not come back
     * to life under a kill. */
    atomic_signal_fence(memory_order_seq_cst);
    e->state = PAYLOAD_FROZEN;
}

/* Proofs only: bytes of pages that no committed payload holds may differ. */
static void mark_free_pages_fresh(struct store *s)
{
    size_t n_bytes = region_committed(s->r, STORE_BLOCKS);
    size_t n_pages = n_bytes / PAGES_BYTES;
    unsigned char *held = calloc(n_pages + 1, 1);

    REQUIRE(held != NULL);
    for (int k = 0; k < PAYLOAD_N_KINDS; k++) {
        for (uint32_t i = s->lists[k].first; i != NO_ENTRY;
             i = s->nodes[i].next) {
            const struct entry_fixed *f = &s->entries[i].fixed;

            if (f->block != STORE_NO_BLOCK)
                memset(held + f->block, 1, entry_pages(f));
        }
    }
    for (size_t i = 0; i < n_pages; i++) {
        if (!held[i])
            region_fresh(s->r, pages_bytes(&s->pages, (uint32_t)i),
                         PAGES_BYTES);
    }
    free(held);
}

void store_commit(struct store *s)
{
    if (s->r->proof != NULL)
        mark_free_pages_fresh(s);
    region_commit(s->r);
}

/* ---- Recovery ---------------------------------------------------------- */

static bool body_valid(struct store *s, const struct entry_fixed *f)
{
    if (f->block == STORE_NO_BLOCK)
        return s->disk != NULL && f->segment != 0;
    return pages_claim(&s->pages, f->block, store_entry_bytes(f));
}

static bool entry_valid(struct store *s, const struct store_entry *e)
{
    const struct entry_fixed *f = &e->fixed;

    return (e->state == PAYLOAD_FROZEN || e->state == PAYLOAD_MAYBE_SENT) &&
           e->check == entry_check(f) && f->id < s->head->next_id &&
           f->kind < PAYLOAD_N_KINDS && f->encoding <= ENCODING_ZSTD &&
           f->side < STORE_N_SIDES && body_valid(s, f);
}

/* Counted already; all that is left to do is to leave its record alone. */
static bool entry_saved(const struct store *s, const struct store_entry *e)
{
    return e->state == PAYLOAD_SAVED && e->check == entry_check(&e->fixed) &&
           e->fixed.id < s->head->next_id && e->fixed.segment != 0;
}

static uint64_t missing(uint64_t accepted, uint64_t settled, uint64_t held)
{
    uint64_t rest = accepted - settled;

    return rest > held && rest <= accepted ? rest - held : 0;
}

/* Every load that was accepted is settled or held; what is neither was lost with
 * a damaged entry, whose own numbers cannot be trusted. */
static void count_damage(struct store *s, enum store_side side)
{
    struct delivery_counts *c = &s->head->books[side].counts;
    const struct payload_load *a = &s->head->books[side].accepted;
    struct payload_load held = s->load[side];
    uint64_t settled = c->delivered + c->saved;
    uint64_t n;

    load_add(&held, &s->head->awaited[side]);
    for (int i = 0; i < DROP_N; i++)
        settled += c->dropped[i];
    n = missing(a->n_samples, settled, held.n_samples);
    store_bump(s, &c->dropped[DROP_DAMAGED], n);
    n = missing(a->n_events, c->events_delivered + c->events_dropped,
                held.n_events);
    store_bump(s, &c->events_dropped, n);
    n = missing(a->n_checks, c->checks_delivered + c->checks_dropped,
                held.n_checks);
    store_bump(s, &c->checks_dropped, n);
    store_commit(s);
}

struct aged {
    uint64_t order, id;
    uint32_t entry;
};

static int by_age(const void *a, const void *b)
{
    const struct aged *x = a;
    const struct aged *y = b;

    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int claim(struct store *s, const struct entry_fixed *f)
{
    return s->disk != NULL && f->segment != 0
               ? disk_claim(s->disk, store_place(f))
               : 0;
}

static int recover(struct store *s)
{
    struct aged *aged = malloc((s->n_entries + 1) * sizeof(*aged));
    uint32_t n = 0;
    int rc = 0;

    if (aged == NULL)
        return -ENOMEM;
    for (uint32_t i = s->n_entries; i-- > 0 && rc == 0;) {
        struct store_entry *e = &s->entries[i];

        if (e->state != PAYLOAD_FREE && entry_valid(s, e)) {
            aged[n++] = (struct aged){e->fixed.order, e->fixed.id, i};
            continue;
        }
        if (e->state == PAYLOAD_SAVED && entry_saved(s, e)) {
            s->nodes[i] = (struct store_node){NO_ENTRY, NO_ENTRY, NULL, false};
            rc = claim(s, &e->fixed);
            continue;
        }
        /* Never committed, or damaged: no save, the next one who opens would
         * do the same again. */
        region_fresh(s->r, e, sizeof(*e));
        e->state = PAYLOAD_FREE;
        push_free(s, i);
    }
    qsort(aged, n, sizeof(*aged), by_age);
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        store_entry_list(s, aged[i].entry, NO_ENTRY);
        rc = claim(s, &s->entries[aged[i].entry].fixed);
    }
    s->last_order = s->head->base_order;
    if (n > 0 && aged[n - 1].order > s->last_order)
        s->last_order = aged[n - 1].order;
    free(aged);
    if (rc != 0)
        return rc;
    pages_settle(&s->pages);
    for (int side = 0; side < STORE_N_SIDES; side++)
        count_damage(s, side);
    return 0;
}

int store_table_open(struct store *s, size_t max_bytes)
{
    struct region *r = s->r;
    int rc;

    s->free = NO_ENTRY;
    for (int k = 0; k < PAYLOAD_N_KINDS; k++)
        s->lists[k] = (struct store_list){NO_ENTRY, NO_ENTRY};
    rc = region_grow(r, STORE_HEAD, sizeof(*s->head));
    if (rc != 0)
        return rc < 0 ? rc : -ENOMEM;
    s->head = region_base(r, STORE_HEAD);
    s->entries = region_base(r, STORE_ENTRIES);
    if (s->head->magic != STORE_MAGIC) {
        /* Ages are compared with those of earlier lives, on disk, and of earlier
         * images: what came from there is older than all that is made here, so
         * there must be room below. */
        int64_t wall_us = clock_wall_ns(s->clock) / 1000;
        uint64_t first =
            wall_us > LEAST_ORDER ? (uint64_t)wall_us : LEAST_ORDER;

        region_set(r, s->head->next_id, first);
        region_set(r, s->head->base_order, first);
        region_set(r, s->head->magic, STORE_MAGIC);
        region_commit(r);
    }
    rc = pages_init(&s->pages, r, STORE_BLOCKS, max_bytes);
    if (rc != 0)
        return rc;
    s->n_entries =
        (uint32_t)(region_committed(r, STORE_ENTRIES) / sizeof(*s->entries));
    s->nodes = malloc((s->n_entries + 1) * sizeof(*s->nodes));
    rc = s->nodes == NULL ? -ENOMEM : recover(s);
    if (rc != 0)
        store_table_close(s);
    return rc;
}

void store_table_close(struct store *s)
{
    free(s->nodes);
    s->nodes = NULL;
    pages_fini(&s->pages);
}
