/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies where in the ingest region. Private to aggregator/.
 *
 *   head       counters, descriptors of tables and pools, the open bucket, the
 *              ring of parts
 *   contexts   64-byte records, by index; index 0 is none
 *   spelling   hash of (name, tags, class) as it came -> context or alias
 *   wire       hash of what the intake will see -> context
 *   aliases    further spellings of a context
 *   blobs      interned strings and tag sets, counted references
 *   intern     hash of a blob's bytes -> blob
 *   blocks     16 KiB blocks: cells and their data, freed with their part
 *   stamps     (context, second) of timestamped samples, and their index
 *
 * Each table has two ranges: it grows by being built anew in the idle one and
 * switched by its saved descriptor.
 *
 * Thread:  the reader writes; the encoder reads closed parts, and of a context
 *          the half that never changes while a part refers to it.
 * Memory:  everything here is in the region, bounded by its budget.
 * Promise: each in-place store follows its region_save(); memory that nothing
 *          committed refers to is announced by region_fresh().
 */
#ifndef RETRIEVER_AGGREGATOR_LAYOUT_H
#define RETRIEVER_AGGREGATOR_LAYOUT_H

#include "aggregator/agg.h"
#include "aggregator/series.h"
#include "aggregator/spelling.h"

#define AGG_LAYOUT_VERSION 4u

enum agg_range {
    RANGE_HEAD,
    RANGE_CONTEXTS,
    RANGE_SPELLING_A,
    RANGE_SPELLING_B,
    RANGE_WIRE_A,
    RANGE_WIRE_B,
    RANGE_ALIASES,
    RANGE_BLOBS,
    RANGE_BLOCKS,
    RANGE_INTERN_A,
    RANGE_INTERN_B,
    RANGE_STAMPS,
    RANGE_STAMP_INDEX_A,
    RANGE_STAMP_INDEX_B,
    RANGE_N
};
_Static_assert(RANGE_N == AGG_N_RANGES, "agg.h says how many ranges there are");

/* ---- Tables ------------------------------------------------------------- */

/** An entry: low half of the key's hash, and what it stands for; ref 0 = free. */
struct table_slot {
    uint32_t frag;
    uint32_t ref;
};

struct table {
    uint32_t mask; /* slots - 1 */
    uint32_t n_used;
    uint32_t side; /* 0 or 1: which of its two ranges */
    uint32_t range_a;
};

/* ---- Blobs: interned bytes ---------------------------------------------- */

enum blob_kind { BLOB_STRING, BLOB_TAGSET };

#define BLOB_UNIT 16 /* a blob reference counts units; 0 = none */
#define BLOB_CLASSES 48

struct blob {
    uint32_t n_refs; /* 0 = free; then next_free lies in bytes[0..3] */
    uint32_t frag;   /* low half of the hash */
    uint16_t n;      /* bytes used */
    uint8_t kind;
    uint8_t units; /* size class */
    char bytes[];
};

/** The bytes of a BLOB_TAGSET: hash of its normal form, then the tags. */
struct tagset {
    uint32_t wire[4]; /* bytes of a struct hash128; blobs align to 4 */
    uint32_t tags[];  /* blob references, sorted by their bytes */
};

struct blob_heap {
    uint32_t n_units; /* used of the range; unit 0 is never given */
    uint32_t pad;
    uint32_t free_of[BLOB_CLASSES]; /* by units */
};

/* ---- Contexts ----------------------------------------------------------- */

enum cell_kind { /* what the intake could confuse; h and ms are one */
                 KIND_COUNTER,
                 KIND_GAUGE,
                 KIND_SET,
                 KIND_HIST,
                 KIND_DIST,
                 KIND_N,
                 KIND_FREE = 255
};

enum context_flag {
    CONTEXT_MS = 1,       /* first seen as a timing: unit millisecond */
    CONTEXT_OVERFLOW = 2, /* samples in it are folded */
    CONTEXT_PINNED = 4    /* never expires */
};

/** Of the changing half; those of a group's first context speak for all. */
enum context_mark { MARK_PLAIN = 1, MARK_STAMPED = 2 };

struct context {
    uint64_t hash[2]; /* of the spelling that made it */
    uint32_t name;    /* blobs */
    uint32_t tagset;
    uint32_t host;
    uint8_t kind;
    uint8_t flags;
    uint8_t shift; /* seconds its points move: its series has another type */
    uint8_t marks; /* changes */
    /* The changing half: one save of 16 bytes. */
    uint32_t chain;     /* id of the last part chain with a cell of ours */
    uint32_t cell;      /* where, if that chain is the open one */
    uint32_t seen_s;    /* bucket of the last untimed sample, or of birth */
    uint32_t touched_s; /* bucket of the last sample of any sort */
    uint32_t aliases;   /* list; free contexts: the next free one */
    uint16_t n_aliases;
    uint16_t pad;
    uint32_t stamped_chain; /* last chain with a timestamped point of ours */
    uint32_t group; /* of contexts that share a series: the first one's index */
};
_Static_assert(sizeof(struct context) == 64, "one cache line");

#define CONTEXT_HOT(c) (&(c)->chain), 16

struct alias {
    uint64_t hash[2];
    uint32_t context;
    uint32_t next; /* of the same context, or of the free list */
    uint64_t pad;
};
_Static_assert(sizeof(struct alias) == 32, "two in a cache line");

#define REF_ALIAS 0x80000000u /* a spelling's ref is an alias */
#define MAX_ALIASES_PER_CONTEXT 64

/** A growable array of records with a free list; index 0 is never given. */
struct pool {
    uint32_t n_made;
    uint32_t free_head;
    uint32_t n_free;
    uint32_t pad;
};

/* ---- Blocks, chains, parts ---------------------------------------------- */

#define BLOCK_BYTES 16384u
#define BLOCK_HEAD_BYTES 64u /* keeps cells on cache lines */
#define BLOCK_REF_UNIT 16u   /* a reference into blocks counts these */
#define BLOCK_MAX_ALLOC 8192u
#define BLOCKS_RESERVED 8u /* for cells that must exist: see cell_open() */

struct block_head {
    uint32_t next; /* block number + 1; 0 = last */
};

enum chain_index {
    CHAIN_SMALL,   /* struct cell_small: counters and gauges */
    CHAIN_BIG,     /* struct cell_hist, struct cell_set */
    CHAIN_DIST,    /* struct cell_dist */
    CHAIN_STAMPED, /* struct cell_stamped */
    CHAIN_EVENTS,  /* byte streams of records */
    CHAIN_CHECKS,
    CHAIN_DATA, /* what cells point to */
    CHAIN_N
};

struct chain {
    uint32_t first, last; /* block number + 1 */
    uint32_t used;        /* bytes in the last block, its head included */
    uint32_t n_blocks;
    uint32_t n; /* cells or records */
};

enum part_state { PART_NONE, PART_OPEN, PART_CLOSED };

/** One piece of a bucket's chain of parts; its place is seq % PARTS_MAX. */
struct part {
    uint64_t seq;
    int64_t stamp_s;
    uint32_t state;
    uint32_t chain_id;
    uint32_t is_last;   /* piece of its chain */
    uint32_t max_shift; /* of its chain: stamps up to stamp_s + max_shift */
    uint32_t n_moved;   /* cells that made way for a timestamped point */
    uint32_t pad;
    struct chain chains[CHAIN_N];
};

#define PARTS_MAX 512u
#define PIECE_CELLS 50000u

/** Whether other lives know of the open stamp (agg_claim_fn): not yet, they leave it
 *  to us, or it was to be had from none of them. */
enum stamp_claim { STAMP_UNCLAIMED, STAMP_CLAIMED, STAMP_SHARED };

/** The open bucket: pieces first_seq .. first_seq + n_pieces - 1. */
struct open_chain {
    uint32_t id; /* 0: nothing is open yet */
    uint32_t n_pieces;
    uint64_t first_seq;
    int64_t bucket_s;
    int64_t stamp_s;
    uint32_t bucket_first_id; /* first chain of this bucket */
    uint32_t max_shift;       /* used by a cell of this chain */
    uint64_t n_samples, n_events, n_checks;
    uint64_t text_bytes; /* events and checks */
    uint32_t has_data;
    uint32_t claim; /* enum stamp_claim */
};

/** Work between two buckets, cut into transactions. */
enum turn_stage { TURN_NONE, TURN_FILL, TURN_STAMPS, TURN_MOVE };

struct turn {
    uint32_t stage;
    uint32_t cursor;
    uint32_t n_live; /* counters that still send zeros */
    uint32_t whole;  /* the bucket is over (else: closed before its end) */
    uint32_t all_stamps;
    uint32_t pad;
    int64_t now_s;  /* the time the turn is for */
    uint64_t n_old; /* samples that nobody knows the time of */
};

struct cell_small {
    uint32_t context;
    uint8_t shift;
    uint8_t pad[3];
    uint64_t n; /* samples; 0: a counter's zero */
    double value;
    double comp; /* counters: what the sum lost to rounding */
};
_Static_assert(sizeof(struct cell_small) == 32, "two in a cache line");

struct cell_hist {
    uint32_t context;
    uint8_t shift;
    uint8_t pad[3];
    uint64_t n;
    double weight; /* sum of weights */
    double sum, comp;
    double min, max;
    uint32_t pairs; /* struct hist_pair[], or beyond 256 a directory */
    uint32_t n_pairs;
};
_Static_assert(sizeof(struct cell_hist) == 64, "one cache line");

struct hist_pair {
    double value, weight;
};

#define HIST_CHUNK 256u
#define HIST_MAX_PAIRS 65536u

struct cell_set {
    uint32_t context;
    uint8_t shift;
    uint8_t pad[3];
    uint64_t n;
    uint32_t root;
    uint32_t n_members;
    uint64_t spare[5];
};
_Static_assert(sizeof(struct cell_set) == 64, "one cache line");

struct cell_dist {
    uint32_t context;
    uint8_t shift;
    uint8_t keys_log; /* room for 1 << keys_log keys; 0 = none */
    uint16_t n_keys;
    uint64_t n;
    int64_t cnt; /* struct sketch_summary, field by field */
    double min, max, sum, avg;
    uint32_t keys; /* int16_t[]: a power of two from 8 */
    uint32_t tree; /* counts by key: 32 x 32 x 64 */
};
_Static_assert(sizeof(struct cell_dist) == 64, "one cache line");

#define DIST_MAX_KEYS 512u
#define DIST_TOP 32u
#define DIST_LEAF 64u
/* Bounds what one cell can need on the wire: bins of 65535. */
#define DIST_MAX_WEIGHT (1u << 24)
#define DIST_MAX_TOTAL (1ll << 30)

/** A point with a timestamp of the client's. */
struct cell_stamped {
    uint32_t context;
    uint32_t ts_s;
    uint64_t n;
    double value;
    double comp;
};
_Static_assert(sizeof(struct cell_stamped) == 32, "two in a cache line");

/** A (context, second) that has or had a point. */
struct stamp {
    uint32_t context; /* 0 = free */
    uint32_t ts_s;    /* free: the next free one */
    double value, comp;
    uint32_t n;
    uint32_t sent_s; /* when its part was closed; 0 = still open */
};
_Static_assert(sizeof(struct stamp) == 32, "two in a cache line");

#define STAMPS_MAX 65536u
#define STAMPS_KEEP_S 3600 /* the intake takes nothing older */
#define STAMP_RING 512u
#define FUTURE_MAX_S 600 /* the intake takes nothing further ahead */
/* A stamp this old is not left to an intake that is slow. */
#define STALE_S 1800
/* Stamps further ahead are a wrong clock's. */
#define AHEAD_S 300

/** An event or check in its chain: this head, then the bytes of the fields. */
struct text_head {
    uint32_t n_bytes; /* behind this head */
    uint32_t n_name, n_text, n_host, n_key, n_source;
    uint32_t n_tags; /* of them; each: u16 length and bytes, at the end */
    uint8_t priority, alert, status, pad;
    int64_t ts_s;
};

/* What changes with nearly every datagram lies together: see counts.h. */
#define COUNTS_HOT_BYTES                                                       \
    (offsetof(struct ingest_counts, aggregated) + sizeof(uint64_t))
_Static_assert(COUNTS_HOT_BYTES == 64, "one save");

/* ---- Head --------------------------------------------------------------- */

struct agg_head {
    uint32_t version; /* written last: laid out */
    uint32_t context_limit;
    uint64_t seed[2];
    struct ingest_counts counts;
    struct table spelling, wire, intern, stamp_index;
    struct blob_heap heap;
    struct pool contexts, aliases, blocks, stamps;
    uint32_t n_overflow;
    uint32_t n_stamps_open;
    uint64_t stamped_samples; /* in open stamps */
    uint64_t rng;             /* of reservoirs */
    struct open_chain open;
    struct turn turn;
    uint64_t closed_seq;
    uint64_t released_seq;
    uint32_t released_chain;
    uint32_t next_chain;
    int64_t last_stamp_s;
    struct used_span stamp_ring[STAMP_RING]; /* of the latest parts */
    uint32_t n_stamp_ring;
    uint32_t shift_used; /* largest shift of a context that had a cell */
    struct agg_clash clash;
    struct agg_partial partial;
    struct part parts[PARTS_MAX];
};

/* ---- The process's handle ------------------------------------------------ */

/** A series of a histogram. */
struct hist_series {
    char suffix[16];
    uint8_t what; /* enum hist_aggregate bit; 0: a percentile */
    uint8_t percentile;
};

struct enrich_scratch;
struct tag_memo;

struct agg {
    struct region *r;
    struct agg_head *head;
    struct context *contexts;
    struct alias *aliases;
    unsigned char *blobs;
    unsigned char *blocks;
    struct stamp *stamps;
    struct agg_config cfg;
    struct hist_series series[FLUSH_MAX_SERIES];
    uint32_t n_series;
    uint32_t longest_suffix;
    struct enrich_scratch *scratch;
    struct tag_memo *tag_memo;
    uint64_t n_dropped; /* blobs let go */
    /* Of the open transaction; agg_commit() writes them. */
    uint64_t pending_aggregated, pending_folded, pending_stamped, pending_lost;
    /* Not state: may be lost at any time. */
    int64_t now_s;
    int64_t refused_s;  /* the second in which room was refused */
    bool low;           /* some pool wants to grow */
    unsigned own;       /* SPELLING_OWN while lines of our own are applied */
    struct view origin; /* see agg_set_origin() */
    struct spelling_key spelling; /* the region's seed, and the origin in it */
    const struct dsd_ahead_form *form; /* reads lines, hashes their spellings */
};

static inline struct blob *blob_at(const struct agg *a, uint32_t ref)
{
    return (struct blob *)(a->blobs + (size_t)ref * BLOB_UNIT);
}

static inline struct tagset *tagset_of(struct blob *b)
{
    return (struct tagset *)(void *)b->bytes;
}

static inline uint32_t tagset_n(const struct blob *b)
{
    return (uint32_t)((b->n - sizeof(struct tagset)) / sizeof(uint32_t));
}

static inline void *block_at(const struct agg *a, uint32_t ref)
{
    return a->blocks + (size_t)ref * BLOCK_REF_UNIT;
}

static inline struct block_head *block_of(const struct agg *a, uint32_t number)
{
    return (struct block_head *)(void *)(a->blocks +
                                         (size_t)(number - 1) * BLOCK_BYTES);
}

/** Nobody knows the time: nothing is closed by it, stamps are for later. */
static inline bool agg_is_held(const struct agg *a, int64_t now_s)
{
    return now_s < a->cfg.plausible_s;
}

static inline struct part *part_at(const struct agg *a, uint64_t seq)
{
    return &a->head->parts[seq % PARTS_MAX];
}

#endif
