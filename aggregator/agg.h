/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Aggregation: samples to cells of the open bucket part, parts to the encoder.
 *
 * A *context* is what the intake sees as one series: final name, normalised
 * tags, host. A *bucket* is ten seconds; a *part* is what one life between two
 * closings put into a bucket, with a stamp (second) of its own. A *cell* holds
 * one context's values in one part. Contexts, cells, parts and counters lie in
 * the ingest region; every change is part of the caller's transaction.
 *
 * Thread:  the reader (the region's writer). Closed parts are read by the encoder
 *          through series.h until agg_release() gives them back.
 * Memory:  the region's budget; contexts beyond context_limit (or the budget)
 *          fold into one overflow series per metric, with exact totals.
 * Promise: pure: time is an argument, no I/O, no clock. A kill at any instruction
 *          costs nothing that was committed.
 */
#ifndef RETRIEVER_AGGREGATOR_AGG_H
#define RETRIEVER_AGGREGATOR_AGG_H

#include "agent/base/region.h"
#include "aggregator/counts.h"
#include "aggregator/sample.h"
#include "aggregator/used.h"

#define AGG_BUCKET_S 10
#define AGG_MAX_PERCENTILES 16

/* Which series a histogram gives at flush. */
enum hist_aggregate {
    HIST_MAX = 1u << 0,
    HIST_MEDIAN = 1u << 1,
    HIST_AVG = 1u << 2,
    HIST_COUNT = 1u << 3,
    HIST_MIN = 1u << 4,
    HIST_SUM = 1u << 5
};

/** Where a fresh region goes on when an earlier one ended: what that one counted,
 *  all of it in parts that are encoded, and the last of those parts. */
struct agg_start {
    struct ingest_counts counts;
    uint64_t seq;
};

/** Seconds are shared with other lives of our identity, at the same time and before:
 *  whoever asks for one first has it. AGG_TAKEN_STEADILY: by a life that was not new
 *  when it asked. */
enum agg_claim { AGG_OURS, AGG_TAKEN, AGG_TAKEN_STEADILY };

/** Have the second @t_s, or learn that another life has it. @steady: this life is not
 *  new. Called by the reader: must not wait. */
typedef enum agg_claim agg_claim_fn(void *arg, int64_t t_s, bool steady);

/** Everything borrowed for the life of the struct agg. */
struct agg_config {
    uint32_t context_limit;
    uint32_t expiry_s;         /* a silent counter sends zeros this long */
    uint32_t context_expiry_s; /* a silent context is kept this long */
    const char *host;          /* default host; "" = none */
    const char *name_prefix;   /* namespace; "" = none */
    const struct view *prefix_exempt; /* names starting so get no prefix */
    uint32_t n_prefix_exempt;
    const struct view *tags; /* appended to every metric, event and check */
    uint32_t n_tags;
    unsigned hist_aggregates;                 /* enum hist_aggregate bits */
    uint8_t percentiles[AGG_MAX_PERCENTILES]; /* 0..100, ascending */
    uint32_t n_percentiles;
    const char *distribution_copy_prefix; /* NULL = no copy of histograms */
    bool copy_histograms; /* each histogram sample also as a distribution */
    int64_t life_start_s; /* first part of a life without memory: its stamp */
    int64_t last_stamp_s; /* last stamp an earlier life used; 0 = unknown */
    struct used_seconds used; /* what else earlier lives used */
    agg_claim_fn *claim;      /* NULL: nobody else is known */
    void *claim_arg;
    int64_t plausible_s; /* an earlier time is none: see agg_begin() */
    const struct agg_start *start; /* a fresh region goes on from here; NULL =
                                      from nothing */
    uint64_t seed[2];              /* of all hashes; random per keeper */
};

/** Reserve list for region_create(): AGG_N_RANGES sizes for this limit. */
#define AGG_N_RANGES 14
void agg_reserve(size_t reserve[AGG_N_RANGES], uint32_t context_limit,
                 size_t budget_bytes);

struct agg; /* the process's handle; all state that matters is in the region */

/** Attach to @r (after region_rollback()): lays out a fresh region or takes over
 *  one that an earlier worker left, finishing what it had begun. Returns 0 or
 *  -errno. */
int agg_create(struct agg **out, struct region *r,
               const struct agg_config *cfg);
void agg_close(struct agg *a);

/** What a region counted, without attaching to it: it may be damaged. False: @r was
 *  never laid out. */
bool agg_peek(const struct region *r, struct ingest_counts *counts,
              int64_t *last_stamp_s);

struct ingest_counts *agg_counts(const struct agg *a);

/** Write what the samples of this transaction add to the counters and commit
 *  it. The only way to end a transaction with agg_sample() in it. */
void agg_commit(struct agg *a);

/** A packed line of which some values are applied: there is at most one, that of
 *  the source that was being read. In the region; ingest.c saves and sets it. */
struct agg_partial {
    const void *source; /* position of the source; NULL = none */
    uint32_t record, offset;
    uint32_t n_values; /* applied */
};
struct agg_partial *agg_partial(const struct agg *a);

/** Room is short: end the transaction and call agg_begin() before the next
 *  line, or its new contexts and values may be folded. */
bool agg_wants_begin(const struct agg *a);

/** Start of a datagram (or of a stretch of one): makes room ahead of need, moves
 *  to the bucket of @now_s when the open one is over (which closes its part and
 *  commits). Call with no open transaction. @now_s: process clock, unix s. Before
 *  plausible_s nobody knows the time: one bucket stays open until
 *  agg_clock_stepped() tells it. */
void agg_begin(struct agg *a, int64_t now_s);

/** Apply one parsed line inside the caller's transaction. Counts received by
 *  the caller; aggregated, folded and rejected (name, future, unsupported) here.
 *  Saves at most AGG_MAX_SAVE bytes into the journal. Returns DSD_METRIC, or why
 *  it was rejected. */
#define AGG_MAX_SAVE (96u * 1024)
#define AGG_MAX_VALUES 256 /* of one call; ingest.c cuts longer lines */
enum dsd_result agg_sample(struct agg *a, const struct sample *s);

/** Tags "a:b,c:d" of the process that sends what comes next; each of its metrics gets
 *  them beside its own. Borrowed until the next call; n = 0: none. Costs nothing per
 *  line: the same line of two origins is two spellings. */
void agg_set_origin(struct agg *a, struct view tags);

/** As agg_sample() for a sample without timestamp whose context is known from
 *  context_find() in this transaction; NULL: it is looked up. */
struct context;
enum dsd_result agg_sample_of(struct agg *a, const struct sample *s,
                              struct context *c);
void agg_event(struct agg *a, const struct event *e);
void agg_check(struct agg *a, const struct check *c);

/** Close every part that holds data, whatever the time (stop, flush --wait),
 *  timestamped samples included. Commits. Without a plausible time the stamp is
 *  the second behind the last one known, and counts as delivered_old. */
void agg_close_all(struct agg *a, int64_t now_s);

/** False: another closing now would only run further ahead of the clock. Each
 *  part takes a second of its own, so parts that come faster than one a second,
 *  for minutes, get stamps that the intake refuses at last. */
bool agg_may_close(const struct agg *a, int64_t now_s);

/** The wall clock stepped: @now_s from now on. The open part is closed. It keeps
 *  its stamp if that is at most half an hour old by the new time; what is older,
 *  or lies ahead, would be refused: it takes the present second. Commits. */
void agg_clock_stepped(struct agg *a, int64_t now_s);

/** Last part that was closed (sequence numbers start at 1; 0 = none yet). */
uint64_t agg_last_closed(const struct agg *a);

/** Parts up to @seq are encoded: their memory is free again. Commits. */
void agg_release(struct agg *a, uint64_t seq);

/** Latest stamp that any closed part used: what a run_path remembers. */
int64_t agg_last_stamp(const struct agg *a);

/** Contexts whose series exists already with another type; the first of them, so
 *  that the main loop can name it (nothing is logged here). */
struct agg_clash {
    uint64_t n;
    uint8_t kind, other_kind; /* enum cell_kind */
    uint8_t name_bytes;
    char name[128]; /* cut */
};

/** Copy the record; false: there was no clash. */
bool agg_first_clash(const struct agg *a, struct agg_clash *out);

/** "counter", "gauge", "set", "histogram", "distribution". */
const char *agg_kind_name(unsigned kind);

struct agg_stats {
    uint32_t n_contexts, n_aliases, n_parts;
    uint64_t open_samples; /* aggregated and not yet in a closed part */
    uint64_t region_bytes;
};
void agg_stats(const struct agg *a, struct agg_stats *out);

#endif
