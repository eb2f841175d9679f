/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the payload store, shared by store.c (what happens to payloads) and
 * store_table.c (the table of entries: layout, recovery, age lists).
 *
 * Thread:  the loop.
 * Memory:  STORE_MAX_ENTRIES entries in the region, 16 private bytes for each.
 * Promise: an entry counts only when its id is below head->next_id, which the
 *          commit moves: any number of new entries appears by one store.
 */
#ifndef RETRIEVER_FORWARDER_STORE_TABLE_H
#define RETRIEVER_FORWARDER_STORE_TABLE_H

#include "forwarder/store.h"
#include "forwarder/store_pages.h"

enum store_range { STORE_HEAD, STORE_ENTRIES, STORE_BLOCKS };

#define STORE_MAX_ENTRIES 65536u
#define STORE_NO_ENTRY UINT32_MAX

/* In the region; reserved address space, so it never moves. */
struct store_head {
    uint64_t magic; /* 0 = fresh region */
    uint64_t next_id;
    uint64_t encoded_seq;
    struct payload_load accepted;
    struct delivery_counts counts;
};

/* What never changes while the entry lives. */
struct entry_fixed {
    uint64_t id;
    uint64_t order; /* age: id of the payload it was split from, or its own */
    uint8_t kind;
    uint8_t encoding;
    uint8_t pad[6];
    uint32_t block;
    uint32_t n_bytes;
    uint32_t n_raw_bytes;
    uint32_t n_index_bytes;
    struct payload_load load;
};

struct store_entry {
    uint32_t state; /* enum payload_state */
    uint32_t n_attempts;
    uint64_t check; /* hash of fixed */
    struct entry_fixed fixed;
};

/* A taken payload: what the forwarder holds. */
struct store_handle {
    struct payload p; /* first: the handle is found from it */
    uint32_t entry;   /* STORE_NO_ENTRY: dropped meanwhile */
};

/* Private twin of an entry. Free entries are linked by next alone. */
struct store_node {
    uint32_t prev, next;
    struct store_handle *handle; /* NULL = not taken */
};

struct store_list {
    uint32_t first, last; /* oldest, freshest */
};

struct store {
    struct region *r;
    struct store_head *head;
    struct store_entry *entries; /* in the region */
    struct store_node *nodes;
    uint32_t n_entries; /* in the region and in nodes */
    uint32_t free;      /* first free entry */
    uint32_t n_free;
    struct store_list lists[PAYLOAD_N_KINDS];
    struct store_pages pages;
    uint32_t n_payloads, n_taken;
    uint64_t n_pages; /* of committed payloads */
    struct payload_load load;
};

/** Entries and pages as the last commit left them. What does not check is
 *  counted as damaged. Returns 0 or -errno. */
int store_table_open(struct store *s, size_t max_bytes);
void store_table_close(struct store *s);

/** More free entries. False: the table is as large as it gets. */
bool store_entries_grow(struct store *s);
/** A free entry; STORE_NO_ENTRY: none. */
uint32_t store_entry_alloc(struct store *s);
/** Fill a free entry: it counts from the commit that moves next_id past @f->id. */
void store_entry_fill(struct store *s, uint32_t i, const struct entry_fixed *f);
/** After the commit: list it behind @after (STORE_NO_ENTRY: as the freshest). */
void store_entry_list(struct store *s, uint32_t i, uint32_t after);
/** After the commit that freed it: unlist, give its block back. */
void store_entry_free(struct store *s, uint32_t i);

/** Commit the open transaction. */
void store_commit(struct store *s);

static inline void load_add(struct payload_load *to,
                            const struct payload_load *l)
{
    to->n_samples += l->n_samples;
    to->n_points += l->n_points;
    to->n_events += l->n_events;
    to->n_checks += l->n_checks;
}

static inline void load_sub(struct payload_load *from,
                            const struct payload_load *l)
{
    from->n_samples -= l->n_samples;
    from->n_points -= l->n_points;
    from->n_events -= l->n_events;
    from->n_checks -= l->n_checks;
}

#endif
