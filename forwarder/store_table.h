/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the payload store, shared by store.c and store_split.c (what happens
 * to payloads), store_disk.c and store_rewrite.c (those that are on disk, too, or
 * shall be), store_move.c (those
 * made elsewhere), store_read.c (what it tells) and store_table.c (the table of
 * entries: layout, recovery, age lists).
 *
 * Thread:  the loop.
 * Memory:  STORE_MAX_ENTRIES entries in the region, 16 private bytes for each.
 * Promise: an entry counts only when its id is below head->next_id, which the
 *          commit moves: any number of new entries appears by one store.
 */
#ifndef RETRIEVER_FORWARDER_STORE_TABLE_H
#define RETRIEVER_FORWARDER_STORE_TABLE_H

#include "forwarder/disk.h"
#include "forwarder/store.h"
#include "forwarder/store_pages.h"

enum store_range { STORE_HEAD, STORE_ENTRIES, STORE_BLOCKS };

#define STORE_MAX_ENTRIES 65536u
#define STORE_NO_ENTRY UINT32_MAX
/** Block of an entry whose body is on disk alone. */
#define STORE_NO_BLOCK UINT32_MAX
/** Records that store_read_some() finds at a time. */
#define STORE_BATCH 128u

/* Whose books a payload is in. */
enum store_side { STORE_OWN, STORE_RESTORED, STORE_N_SIDES };

/* In the region; reserved address space, so it never moves. */
struct store_head {
    uint64_t magic; /* 0 = fresh region */
    uint64_t next_id;
    uint64_t encoded_seq;
    uint64_t base_order; /* of the first payload made here */
    uint64_t own_from; /* first file made here; 0 = files were not listed yet */
    struct store_books books[STORE_N_SIDES];
    /* Accepted by an earlier image of this life, not found on disk yet. */
    struct payload_load awaited[STORE_N_SIDES];
    uint64_t import_at; /* of the next record to import; 0 = nothing adopted */
};

/* What the check covers. No hidden padding. It changes as a whole, and only in
 * block and place: store_entry_change(). */
struct entry_fixed {
    uint64_t id;
    uint64_t order; /* age: grows with each payload made, over lives, too, as
                       far as the clock allows; halves keep it */
    uint8_t kind;
    uint8_t encoding;
    uint8_t side; /* enum store_side */
    uint8_t pad;
    uint32_t block; /* STORE_NO_BLOCK: spilled */
    uint32_t n_bytes;
    uint32_t n_raw_bytes;
    uint32_t n_index_bytes;
    uint32_t at;      /* in the segment */
    uint64_t segment; /* 0: in memory alone */
    int64_t newest_s; /* of its points; 0 = none counts as old on delivery */
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
    void *copy;       /* body and index of a spilled one; NULL = in its block */
};

/* Private twin of an entry. Free entries are linked by next alone. */
struct store_node {
    uint32_t prev, next;
    struct store_handle *handle; /* NULL = not taken */
    bool spilled;
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
    struct payload_load load[STORE_N_SIDES];

    const struct clock *clock;
    struct disk *disk; /* NULL: memory only */
    uint64_t life;
    int64_t outdated_s;
    /* Of payloads that have no place on disk though there is a disk; read by the
     * encoder, too. */
    _Atomic uint64_t n_placeless_bytes;
    _Atomic uint64_t last_order; /* given out; with a disk */
    struct disk_found *batch;    /* the encoder's, the loop's during a call */
    size_t n_batch;
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
/** After the commit that freed it: unlist, give its block back, settle its record
 *  on disk. */
void store_entry_free(struct store *s, uint32_t i);
/** The same after a commit that made it PAYLOAD_SAVED: its record stays. */
void store_entry_saved(struct store *s, uint32_t i);
/** Within a transaction: other fixed fields. */
void store_entry_change(struct store *s, uint32_t i,
                        const struct entry_fixed *f);

/* ---- store.c, for its neighbours ---------------------------------------- */

/** Add to one word of the region within the open transaction. */
static inline void store_bump(struct store *s, uint64_t *word, uint64_t by)
{
    if (by > 0)
        region_set(s->r, *word, *word + by);
}
void store_count_dropped(struct store *s, enum store_side side,
                         const struct payload_load *l, enum drop_cause cause,
                         int http_status);
/** One whole transaction: the entry is dropped and gone. */
void store_drop_one(struct store *s, uint32_t i, enum drop_cause cause);
/** Who has taken it is done with it. */
void store_release(struct store *s, struct store_handle *h);
/** @newest_s of a payload that is made now: 0 when all of it is old already, and
 *  was counted so when it was received. */
int64_t store_newest(const struct store *s, int64_t newest_s);
/** @n free entries, or as many as can be had by evicting. */
void store_make_entries(struct store *s, size_t n);
/** A block, whatever has to be spilled or evicted for it. 0 or STORE_FULL. */
int store_alloc_evicting(struct store *s, size_t n, uint32_t *block);
/** The oldest entry that @fits takes; STORE_NO_ENTRY. */
typedef bool store_fits_fn(const struct store *s, uint32_t i);
uint32_t store_oldest(const struct store *s, store_fits_fn *fits);
/** The same among those that are not taken. */
uint32_t store_oldest_free(const struct store *s, store_fits_fn *fits);

/* ---- store_disk.c, for its neighbours ----------------------------------- */

int store_disk_open(struct store *s, const struct store_opts *opts);
void store_disk_close(struct store *s);
/** The age of a payload that is made now. Any thread. */
uint64_t store_next_order(struct store *s);
/** The oldest body in memory that is also on disk leaves memory. False: none. */
bool store_spill_one(struct store *s);
/** What a segment says about the entry. */
struct segment_record store_record(const struct store *s, uint32_t i);
/** The same of a payload that is no entry yet. */
struct segment_record store_record_of(const struct entry_fixed *f);
/** Body and index of a spilled entry on the heap. Returns 0, -EBADMSG (lost) or
 *  -errno (not now). */
int store_read_back(struct store *s, uint32_t i, void **copy);
/** Entries that are in memory alone go to disk, up to @max bytes of them. */
void store_write_back(struct store *s, uint64_t max);

/* ---- store_move.c, for its neighbours ----------------------------------- */

/** What a record says; side, block and place are the caller's. */
struct entry_fixed store_fixed_of(const struct segment_record *r);
/** One transaction: a payload that was made elsewhere counts as accepted (in the
 *  books of @f->side) and gets an entry. Returns false where it gets none, then
 *  it is counted as evicted: !@wanted, or the table is full. */
bool store_accept(struct store *s, struct entry_fixed *f,
                  enum record_state state, bool wanted);
/** What an earlier image said to have left and nobody found is lost. */
void store_give_up_awaited(struct store *s);

static inline struct store_handle *store_handle_of(struct payload *p)
{
    return (struct store_handle *)p;
}

static inline struct disk_place store_place(const struct entry_fixed *f)
{
    return (struct disk_place){f->segment, f->at};
}

static inline size_t store_entry_bytes(const struct entry_fixed *f)
{
    return (size_t)f->n_bytes + f->n_index_bytes;
}

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
