/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The payload store: finished bodies with their states, in shared memory and, with
 * a run_path, on disk as well (disk.h), and the forwarder's half of the ledger.
 *
 *   frozen -> maybe_sent -> settled(outcome) -> free
 *
 * The bytes of a payload never change once it is frozen: a retry sends the same,
 * so series are exact at an intake that keeps the latest. The encoder fills blocks
 * that nothing refers to yet; store_commit_part() makes the part *encoded* and
 * all its payloads *frozen* in one transaction. A worker killed before it leaves
 * nothing, and the part is encoded again.
 *
 * Thread:  the loop for everything but what says otherwise: any thread but the
 *          reader then. The loop alone changes what is committed, so an
 *          allocation never evicts: it says STORE_FULL and the loop is asked for
 *          store_evict().
 * Memory:  max_bytes of bodies in whole pages; full: the oldest frozen payload
 *          that is not in flight is evicted and counted (dropped: evicted). With
 *          a disk at most STORE_DISK_MEMORY_BYTES; full: the oldest that are on
 *          disk leave memory, and max_bytes bounds the disk.
 * Promise: after a kill at any instruction store_open() finds each payload in
 *          exactly one state and the counters agree with it. With a disk that
 *          works a frozen payload outlives all processes.
 */
#ifndef RETRIEVER_FORWARDER_STORE_H
#define RETRIEVER_FORWARDER_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/clock.h"
#include "agent/base/region.h"

enum payload_kind {
    PAYLOAD_SERIES,
    PAYLOAD_SKETCHES,
    PAYLOAD_EVENTS,
    PAYLOAD_CHECKS,
    PAYLOAD_N_KINDS
};
enum payload_state {
    PAYLOAD_FREE,
    PAYLOAD_FROZEN,
    PAYLOAD_MAYBE_SENT,
    PAYLOAD_SAVED /* settled here; its bytes on disk are the next life's */
};
enum payload_encoding {
    ENCODING_NONE,
    ENCODING_DEFLATE,
    ENCODING_GZIP,
    ENCODING_ZSTD
};

/** Why samples were dropped: the closed list of the receipt. DROP_HTTP stands
 *  for one row per status code ("http_413"). */
enum drop_cause {
    DROP_NO_API_KEY,
    DROP_TOO_LARGE,
    DROP_EVICTED,
    DROP_RING_BUSY,
    DROP_DAMAGED,
    DROP_DISK,
    DROP_DEADLINE,
    DROP_HTTP,
    DROP_N
};
const char *drop_cause_name(enum drop_cause c); /* "no_api_key", ... */

/** What a payload carries, for the ledger. */
struct payload_load {
    uint64_t n_samples, n_points, n_events, n_checks;
};

/** Where a payload lies on disk: see disk.h. */
struct disk_place {
    uint64_t segment; /* 0 = nowhere */
    uint32_t at;      /* of its record */
};

/** A payload under construction: made by the encoder, taken by the commit. */
struct payload_draft {
    enum payload_kind kind;
    enum payload_encoding encoding;
    uint32_t block;         /* from store_block_alloc() */
    uint32_t n_bytes;       /* the body, compressed */
    uint32_t n_raw_bytes;   /* the body, uncompressed */
    uint32_t n_index_bytes; /* behind the body: see split.h */
    struct payload_load load;
    int64_t newest_s;        /* its newest point; 0 = unknown */
    uint64_t order;          /* with a place: its age */
    struct disk_place place; /* from store_write_drafts() */
};

/** A payload as the forwarder sees it; borrowed until it is settled or split. */
struct payload {
    uint64_t id; /* grows; restored payloads get theirs when they are found */
    enum payload_kind kind;
    enum payload_state state;
    enum payload_encoding encoding;
    const void *body;
    uint32_t n_bytes, n_raw_bytes;
    uint32_t n_attempts; /* begun so far, by earlier workers too */
    struct payload_load load;
};

#define STORE_N_HTTP_CODES 500 /* 100..599 */

/** The forwarder's half of the ledger, in the store region. Samples unless the
 *  name says otherwise. */
struct delivery_counts {
    uint64_t delivered, saved;
    uint64_t dropped[DROP_N]; /* [DROP_HTTP] is the sum of dropped_http[] */
    uint64_t dropped_http[STORE_N_HTTP_CODES]; /* by status - 100 */
    uint64_t events_delivered, checks_delivered;
    uint64_t events_dropped, checks_dropped;
    uint64_t points_delivered;
    uint64_t payloads_sent, payloads_retried, payloads_dropped;
    uint64_t payloads_ambiguous; /* sketches, events, checks sent again after
                                    the first body may have arrived */
    uint64_t delivered_old; /* when their newest point was over an hour old */
};

/** One ledger's half. What earlier lives left on disk has books of its own: its
 *  samples were never received in this life. accepted.n_samples = delivered +
 *  saved + dropped + in flight, in each. Payloads sent, retried and ambiguous
 *  count in this life's alone. */
struct store_books {
    struct payload_load accepted;
    struct delivery_counts counts;
    uint64_t n_payloads; /* accepted; of restored ones alone */
};

/** Payloads on disk as well (docs/store.md). */
struct store_disk_opts {
    int run_dir;        /* descriptor of run_path, borrowed */
    double max_ratio;   /* used share of the filesystem at which we stop */
    int64_t outdated_s; /* payloads of earlier lives older than this go */
};

struct store_opts {
    size_t max_bytes; /* of bodies in memory; with a disk: of its files */
    const struct store_disk_opts *disk; /* NULL: memory only; copied */
    uint64_t life;                      /* with a disk: this life's id */
    const struct clock *clock;          /* NULL = clock_real */
};

/** Most bytes of bodies in memory when there is a disk. */
#define STORE_DISK_MEMORY_BYTES ((size_t)16 << 20)
/** Points older than this when they are delivered count as delivered_old. */
#define STORE_OLD_S 3600

/** Bytes of bodies that the region must have room for: of store_reserve(). */
size_t store_memory_bytes(const struct store_opts *opts);

/** Address space per range for region_create(). Returns the budget_bytes that go
 *  with it. */
#define STORE_N_RANGES 3
size_t store_reserve(size_t reserve[STORE_N_RANGES], size_t max_bytes);

struct store;

/** Attach to @r (after region_rollback()): fresh, or as an earlier worker left
 *  it. Returns 0 or -errno. */
int store_open(struct store **out, struct region *r,
               const struct store_opts *opts);
void store_close(struct store *s);

/** Bytes of all bodies together that the store takes. */
size_t store_max_bytes(const struct store *s);

/** Room for @n > 0 bytes (whole pages). Returns 0 and *block, or STORE_FULL: the
 *  loop may store_evict(), then the same is tried again. Any thread but the
 *  reader. */
enum store_rc { STORE_FULL = 1 };
int store_block_alloc(struct store *s, size_t n, uint32_t *block);
void *store_block_bytes(struct store *s, uint32_t block);
/** Of a block of @n bytes, give back what lies beyond @keep bytes, or all of it
 *  (keep = 0). Not for blocks that were committed. Any thread but the reader. */
void store_block_trim(struct store *s, uint32_t block, size_t n, size_t keep);

/** Drop the oldest payloads that are not taken (counted, one transaction each)
 *  until a block of @n bytes can be had. Returns 0, or STORE_FULL when even that
 *  does not help: then nothing is left to evict, or @n is above max_bytes. Loop. */
int store_evict(struct store *s, size_t n);

/** Sequence number of the last part that is encoded (0 = none). */
uint64_t store_encoded_seq(const struct store *s);

/** Put drafts on disk that are not there yet, before they are committed. Returns 0
 *  (each is there, or cannot be now and stays in memory alone), or STORE_FULL
 *  with *need: the loop may store_make_disk_room(), then the same is tried
 *  again. Any thread but the reader. */
int store_write_drafts(struct store *s, struct payload_draft *drafts,
                       size_t n_drafts, uint64_t *need);
/** Drop the oldest payloads that lie on disk (counted) until @n bytes fit there.
 *  Returns 0, or STORE_FULL when nothing is left to drop, or while it is not known
 *  what is the oldest. Loop. */
int store_make_disk_room(struct store *s, uint64_t n);

/** What is on disk since before: store_list() once, any thread but the reader;
 *  then store_restore() by the loop; then both of store_read_some() and, while it
 *  says true, store_restore(). The two do not run at a time. Before the first
 *  store_restore() nothing is written. */
/** Returns 0 (memory only: too), -EAGAIN or -errno (said): try again later. */
int store_list(struct store *s);
/** False: all was read. */
bool store_read_some(struct store *s);
/** What was found becomes payloads, in the books of earlier lives. */
void store_restore(struct store *s);

/** Let payloads that are on disk for at least @min_age_ms outlive a power loss.
 *  Any thread but the reader; may take long. Returns 0 or -errno (said). */
int store_sync(struct store *s, unsigned min_age_ms);

/** Payloads that are in memory alone go to disk while the loop does other things:
 *  the loop begins one, any thread but the reader writes it, the loop ends it.
 *  Before the first, store_renew_places(). */
struct store_rewrite; /* opaque: a copy of the payload */
/** The oldest of them, taken or not. NULL: none is left, or no memory. */
struct store_rewrite *store_rewrite_begin(struct store *s);
/** Returns 0, STORE_FULL (see store_write_drafts()) or -EIO: not now (said). */
int store_rewrite_write(struct store *s, struct store_rewrite *w,
                        uint64_t *need);
/** Frees @w. False: it was not written. */
bool store_rewrite_end(struct store *s, struct store_rewrite *w);
/** All of that at once, for who has no loop. */
void store_write_rest(struct store *s);
/** Payloads that are in memory, too, and whose file is gone or did not sync count
 *  as in memory alone. */
void store_renew_places(struct store *s);
/** Do not wait before the disk is asked again: there is no later. Any thread. */
void store_try_disk_now(struct store *s);

/** The part @seq is encoded: its drafts become frozen payloads, @lost is counted
 *  as dropped for @cause (what could not become a payload). One transaction.
 *  Consumes the drafts' blocks. Cannot fail: when the table of payloads is full
 *  the oldest go, and where none can go the draft itself is counted as evicted.
 *  @seq <= store_encoded_seq(): only the blocks are given back. Loop. */
struct store_loss {
    struct payload_load load;
    enum drop_cause cause; /* or STORE_NOTHING_DUE */
};
/** Not a loss: the configuration sends no series for these samples (a histogram
 *  without aggregates). They count as delivered. */
#define STORE_NOTHING_DUE DROP_N
void store_commit_part(struct store *s, uint64_t seq,
                       const struct payload_draft *drafts, size_t n_drafts,
                       const struct store_loss *losses, size_t n_losses);

/** Freshest payload that is frozen or maybe_sent and not taken; NULL = none.
 *  The caller takes it (private mark, gone with the process) until it settles,
 *  splits or puts it back. */
struct payload *store_take(struct store *s);
/** The same among some kinds: @kinds is a set of 1u << PAYLOAD_... bits. */
struct payload *store_take_kinds(struct store *s, unsigned kinds);
void store_put_back(struct store *s, struct payload *p);

/** Before the last byte of the body is given away. Commits. */
void store_mark_maybe_sent(struct store *s, struct payload *p);

/** The intake answered that it did not take the body: a further attempt cannot
 *  double anything. Commits. */
void store_mark_refused(struct store *s, struct payload *p);

/** An attempt begins. Every one but the payload's first counts as retried, and
 *  as ambiguous where the body may double: maybe_sent, and no series. Commits. */
void store_count_attempt(struct store *s, struct payload *p);

/** The fate is known: counted, freed. One transaction. */
void store_settle_delivered(struct store *s, struct payload *p);
void store_settle_dropped(struct store *s, struct payload *p,
                          enum drop_cause cause, int http_status);

/** 413: two payloads in place of one, in one transaction; they keep its age, and
 *  may be split again. Returns 0 (@p is gone), or, with @p still the caller's,
 *  STORE_CANNOT_SPLIT (one item, or one group of items: see split.h; the caller
 *  drops it) or STORE_FULL (no memory: put it back). */
enum store_split_rc { STORE_CANNOT_SPLIT = 2 };
int store_split(struct store *s, struct payload *p);

/** Hand-over to another image of the program, which goes on with this life: the
 *  old one exports when it does nothing more; in the new one's fresh store first
 *  the counts are adopted, then what was exported is imported. What is on disk
 *  follows by store_restore(), as payloads of this life's books and not of an
 *  earlier one's. */
/** Write every unsettled payload that is in memory alone to @fd (a memfd), as one
 *  segment (segment.h) of this life. Returns 0 or -errno. */
int store_export(const struct store *s, int fd);
/** Take such a segment in, from where a killed worker was with it. Returns 0,
 *  -EBADMSG (not one of this life, or damaged: what is whole was taken; the rest
 *  is counted as lost) or -errno. */
int store_import(struct store *s, int fd);
/** Payloads of this life that an earlier image left on disk are not found yet. */
bool store_awaits(const struct store *s);
/** Add an earlier image's counters in one transaction; nothing the second time.
 *  What they say is in flight counts so until it is imported or found on disk. */
void store_adopt_counts(struct store *s, const struct store_books *own,
                        const struct store_books *restored);

/** Stop: nothing more will be tried; count what is left as dropped, taken ones
 *  too (their holders may only put them back or settle them, which does nothing
 *  more). */
void store_drop_rest(struct store *s, enum drop_cause cause);
/** The same where there is a disk: what lies there is saved, what does not is
 *  dropped (disk); so is what may not outlive a power loss, though its record is
 *  left to the next life. Nothing is written but the ledger. Returns false when
 *  there is no disk. */
bool store_save_rest(struct store *s);

/** Of <run_path>/payloads/. */
struct disk_stats {
    uint64_t n_bytes; /* of all files of ours */
    uint32_t n_segments;
    uint64_t n_damaged_bytes; /* found unreadable since the start */
    bool failing;
};

/** The set (1u << PAYLOAD_...) of kinds that have payloads. */
unsigned store_kinds(const struct store *s);
bool store_has_disk(const struct store *s);
/** Every payload is on disk, too. */
bool store_is_on_disk(const struct store *s);

struct store_stats {
    uint32_t n_payloads, n_taken; /* of all lives */
    uint64_t bytes;               /* of bodies in memory */
    struct payload_load load;     /* of this life's payloads that are not
                                     settled: in flight */
    struct payload_load accepted; /* of all parts committed, losses included:
                                     = delivered + saved + dropped + load */
    struct payload_load restored_load; /* of earlier lives', the same */
    struct disk_stats disk;            /* zeros: memory only */
};
void store_stats(const struct store *s, struct store_stats *out);
/** For who waits until all of now is settled: the age of the freshest payload, and
 *  that of the oldest, taken or not (0 = none). Halves have the age of what they
 *  were; what is made later has a larger one. */
uint64_t store_last_age(const struct store *s);
uint64_t store_oldest_age(const struct store *s);
/** Nothing that is still to be found on disk (store_awaits()) will be fresher. */
uint64_t store_found_age(const struct store *s);
const struct delivery_counts *store_counts(const struct store *s);
/** All of this life, and of payloads of earlier lives. */
const struct store_books *store_own(const struct store *s);
const struct store_books *store_restored(const struct store *s);

#endif
