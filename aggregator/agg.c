/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/agg.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "aggregator/blocks.h"
#include "aggregator/bucket.h"
#include "aggregator/cell.h"
#include "aggregator/context.h"
#include "aggregator/dsd_ahead.h"
#include "aggregator/enrich.h"
#include "aggregator/intern.h"
#include "aggregator/room.h"
#include "aggregator/sketch.h"
#include "aggregator/stamps.h"
#include "aggregator/table.h"
#include "aggregator/tag_memo.h"
#include "aggregator/takeover.h"
#include "aggregator/text.h"
#include "aggregator/turn.h"

#define OLD_S 3600
#define MAX_STAMP_S 4000000000

/* ---- Attach ------------------------------------------------------------- */

static size_t table_bytes(uint64_t n_entries)
{
    size_t n = 4096;

    while (n / 4 * 3 < n_entries + 4096)
        n *= 2;
    return n * sizeof(struct table_slot);
}

void agg_reserve(size_t reserve[AGG_N_RANGES], uint32_t context_limit,
                 size_t budget_bytes)
{
    uint64_t n = (uint64_t)context_limit + context_limit / 64 + 4096;
    size_t names = table_bytes(n * 8);

    reserve[RANGE_HEAD] = sizeof(struct agg_head);
    reserve[RANGE_CONTEXTS] = n * sizeof(struct context);
    reserve[RANGE_ALIASES] = n * 4 * sizeof(struct alias);
    reserve[RANGE_SPELLING_A] = table_bytes(n * 5);
    reserve[RANGE_SPELLING_B] = table_bytes(n * 5);
    reserve[RANGE_WIRE_A] = names; /* histograms have several names */
    reserve[RANGE_WIRE_B] = names;
    reserve[RANGE_INTERN_A] = names;
    reserve[RANGE_INTERN_B] = names;
    reserve[RANGE_BLOBS] = budget_bytes;
    reserve[RANGE_BLOCKS] = budget_bytes;
    reserve[RANGE_STAMPS] = ((size_t)STAMPS_MAX + 1024) * sizeof(struct stamp);
    reserve[RANGE_STAMP_INDEX_A] = table_bytes(STAMPS_MAX + 1024);
    reserve[RANGE_STAMP_INDEX_B] = table_bytes(STAMPS_MAX + 1024);
}

static void add_series(struct agg *a, uint8_t what, uint8_t percentile,
                       const char *suffix)
{
    struct hist_series *s = &a->series[a->n_series];

    if (a->n_series == FLUSH_MAX_SERIES)
        return;
    s->what = what;
    s->percentile = percentile;
    if (what != 0)
        snprintf(s->suffix, sizeof(s->suffix), ".%s", suffix);
    else
        snprintf(s->suffix, sizeof(s->suffix), ".%upercentile", percentile);
    a->n_series++;
    if (strlen(s->suffix) > a->longest_suffix)
        a->longest_suffix = (uint32_t)strlen(s->suffix);
}

static void list_series(struct agg *a)
{
    static const struct {
        uint8_t what;
        const char *suffix;
    } all[] = {{HIST_MAX, "max"}, {HIST_MEDIAN, "median"},
               {HIST_AVG, "avg"}, {HIST_COUNT, "count"},
               {HIST_MIN, "min"}, {HIST_SUM, "sum"}};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if ((a->cfg.hist_aggregates & all[i].what) != 0)
            add_series(a, all[i].what, 0, all[i].suffix);
    }
    for (uint32_t i = 0; i < a->cfg.n_percentiles; i++) {
        uint8_t p = a->cfg.percentiles[i];

        if (i == 0 || p != a->cfg.percentiles[i - 1])
            add_series(a, 0, p, NULL);
    }
}

static void attach(struct agg *a)
{
    a->head = region_base(a->r, RANGE_HEAD);
    a->contexts = region_base(a->r, RANGE_CONTEXTS);
    a->aliases = region_base(a->r, RANGE_ALIASES);
    a->blobs = region_base(a->r, RANGE_BLOBS);
    a->blocks = region_base(a->r, RANGE_BLOCKS);
    a->stamps = region_base(a->r, RANGE_STAMPS);
}

/* Everything up to the version is laid out again when this is cut short. */
static int lay_out(struct agg *a)
{
    struct agg_head *h = a->head;
    int rc;

    region_save(a->r, h, offsetof(struct agg_head, parts));
    memset(h, 0, offsetof(struct agg_head, parts));
    h->context_limit = a->cfg.context_limit;
    memcpy(h->seed, a->cfg.seed, sizeof(h->seed));
    h->rng = a->cfg.seed[0];
    if (a->cfg.start != NULL) {
        h->counts = a->cfg.start->counts;
        h->counts.closed = h->counts.aggregated;
        h->closed_seq = h->released_seq = a->cfg.start->seq;
    }
    h->heap.n_units = 1;
    h->contexts.n_made = h->aliases.n_made = h->stamps.n_made = 1;
    h->next_chain = 1;
    /* A stamp far ahead of the clock is a wrong clock's: not to be followed. */
    if (agg_is_held(a, a->cfg.life_start_s) ||
        a->cfg.last_stamp_s <= a->cfg.life_start_s + AHEAD_S)
        h->last_stamp_s = a->cfg.last_stamp_s;
    region_commit(a->r);
    if ((rc = table_init(a, &h->spelling, RANGE_SPELLING_A)) != 0 ||
        (rc = table_init(a, &h->wire, RANGE_WIRE_A)) != 0 ||
        (rc = table_init(a, &h->intern, RANGE_INTERN_A)) != 0 ||
        (rc = table_init(a, &h->stamp_index, RANGE_STAMP_INDEX_A)) != 0)
        return rc;
    region_commit(a->r);
    room_make(a);
    if (blocks_available(a) < 2 * BLOCKS_RESERVED || context_init(a) != 0)
        return REGION_FULL;
    region_set(a->r, h->version, AGG_LAYOUT_VERSION);
    region_commit(a->r);
    return 0;
}

int agg_create(struct agg **out, struct region *r, const struct agg_config *cfg)
{
    struct agg *a = calloc(1, sizeof(*a));
    int rc = -ENOMEM;

    if (a == NULL)
        goto out;
    a->r = r;
    a->cfg = *cfg;
    rc = enrich_init(a);
    if (rc != 0)
        goto out;
    rc = tag_memo_init(a);
    if (rc != 0)
        goto out;
    sketch_init();
    list_series(a);
    rc = region_grow(r, RANGE_HEAD, sizeof(struct agg_head));
    if (rc != 0)
        goto out;
    attach(a);
    if (a->head->version == AGG_LAYOUT_VERSION)
        takeover(a);
    else
        rc = lay_out(a);
    if (rc != 0)
        goto out;
    spelling_key_init(&a->spelling, a->head->seed);
    a->form = dsd_ahead_form(0);
    *out = a;
    a = NULL; /* handed over */
out:
    agg_close(a);
    return rc == REGION_FULL ? -ENOSPC : rc;
}

void agg_set_origin(struct agg *a, struct view tags)
{
    const uint64_t *seed = a->head->seed;
    struct hash128 h = {0, 0};

    if (tags.n == 0 && a->origin.n == 0)
        return;
    if (tags.n > 0)
        h = hash_bytes(tags.p, tags.n, seed[0]);
    a->origin = tags;
    a->spelling.seed[0] = seed[0] ^ h.lo;
    a->spelling.seed[1] = seed[1] ^ h.hi;
}

bool agg_peek(const struct region *r, struct ingest_counts *counts,
              int64_t *last_stamp_s)
{
    const struct agg_head *h = region_base(r, RANGE_HEAD);

    if (region_committed(r, RANGE_HEAD) < sizeof(*h) ||
        h->version != AGG_LAYOUT_VERSION)
        return false;
    *counts = h->counts;
    *last_stamp_s = h->last_stamp_s;
    return true;
}

void agg_close(struct agg *a)
{
    if (a == NULL)
        return;
    tag_memo_fini(a);
    enrich_fini(a);
    free(a);
}

/* ---- Samples ------------------------------------------------------------ */

static enum dsd_result reject(struct agg *a, enum dsd_result reason, uint64_t n)
{
    uint64_t *counter = &a->head->counts.rejected[reason];

    region_set(a->r, *counter, *counter + n);
    return reason;
}

static void count_more(struct agg *a, uint64_t *counter, uint64_t n)
{
    region_set(a->r, *counter, *counter + n);
}

static struct context *resolve(struct agg *a, const struct sample *s,
                               unsigned class)
{
    struct hash128 h =
        a->form->hash(&a->spelling, s->name, s->tags, class | a->own);
    struct context *c = context_find(a, h);

    if (__builtin_expect(c != NULL, 1))
        return c;
    return context_make(a, s, class, h);
}

/* The context has no cell and there is no memory for one: into the series that
 * stand for what did not fit, and when even that is refused, out loud. */
static void fold(struct agg *a, const struct sample *s, struct context *c,
                 bool counted)
{
    enum cell_kind kind = (enum cell_kind)c->kind;
    struct ingest_counts *k = &a->head->counts;

    a->low = true;
    if (!counted)
        return; /* a copy: its histogram has it */
    c = context_overflow(a, s, kind);
    if (cell_add(a, c, s, true)) {
        a->pending_folded += s->n_values;
        return;
    }
    c = &a->contexts[1 + kind];
    if (cell_add(a, c, s, true)) {
        a->pending_folded += s->n_values;
        return;
    }
    a->pending_lost += s->n_values;
    count_more(a, &k->damaged, s->n_values);
    count_more(a, &k->closed, s->n_values);
}

static void apply(struct agg *a, const struct sample *s, struct context *c,
                  bool counted)
{
    if (!cell_add(a, c, s, counted)) {
        fold(a, s, c, counted);
        return;
    }
    if (counted && (c->flags & CONTEXT_OVERFLOW) != 0)
        a->pending_folded += s->n_values;
}

/* true: the sample was dealt with. */
static bool stamped(struct agg *a, const struct sample *s,
                    enum dsd_result *result)
{
    struct ingest_counts *k = &a->head->counts;
    struct context *c;

    if (agg_is_held(a, a->now_s)) {
        if (s->ts_s < a->cfg.plausible_s || s->ts_s > MAX_STAMP_S)
            return false; /* of a clock like ours: as a sample of now */
    } else if (s->ts_s > a->now_s + FUTURE_MAX_S) {
        *result = reject(a, DSD_FUTURE, s->n_values);
        return true;
    }
    c = resolve(a, s, s->type);
    if (c == NULL) {
        *result = reject(a, DSD_NAME, s->n_values);
        return true;
    }
    if (!stamps_add(a, c, s))
        return false; /* no room: as a sample of now */
    if (s->ts_s < a->now_s - OLD_S)
        count_more(a, &k->delivered_old, s->n_values);
    if ((c->flags & CONTEXT_OVERFLOW) != 0)
        a->pending_folded += s->n_values;
    a->pending_stamped += s->n_values;
    return true;
}

static void copy_to_distribution(struct agg *a, const struct sample *s)
{
    struct context *c = resolve(a, s, SPELLING_COPY);

    if (c != NULL && (c->flags & CONTEXT_OVERFLOW) == 0)
        apply(a, s, c, false);
}

static inline void note_rate(struct agg *a, const struct sample *s)
{
    if (__builtin_expect(s->bad_rate, 0))
        count_more(a, &a->head->counts.bad_rate, 1);
}

static inline enum dsd_result sample_of(struct agg *a, const struct sample *s,
                                        struct context *c)
{
    if (__builtin_expect(c == NULL, 0))
        c = resolve(a, s, s->type);
    if (__builtin_expect(c == NULL, 0))
        return reject(a, DSD_NAME, s->n_values);
    apply(a, s, c, true);
    a->pending_aggregated += s->n_values;
    if (a->cfg.copy_histograms &&
        (s->type == METRIC_HISTOGRAM || s->type == METRIC_TIMING))
        copy_to_distribution(a, s);
    return DSD_METRIC;
}

enum dsd_result agg_sample_of(struct agg *a, const struct sample *s,
                              struct context *c)
{
    REQUIRE(s->n_values <= AGG_MAX_VALUES && s->ts_s == 0);
    note_rate(a, s);
    return sample_of(a, s, c);
}

enum dsd_result agg_sample(struct agg *a, const struct sample *s)
{
    enum dsd_result result = DSD_METRIC;

    REQUIRE(s->n_values <= AGG_MAX_VALUES);
    note_rate(a, s);
    if (__builtin_expect(s->ts_s != 0, 0)) {
        if (s->type != METRIC_COUNTER && s->type != METRIC_GAUGE)
            return reject(a, DSD_UNSUPPORTED, s->n_values);
        if (stamped(a, s, &result))
            return result;
        a->pending_folded += s->n_values;
    }
    return sample_of(a, s, NULL);
}

void agg_event(struct agg *a, const struct event *e)
{
    struct ingest_counts *k = &a->head->counts;

    count_more(a, text_event(a, e) ? &k->events : &k->events_rejected, 1);
}

void agg_check(struct agg *a, const struct check *c)
{
    struct ingest_counts *k = &a->head->counts;

    count_more(a, text_check(a, c) ? &k->checks : &k->checks_rejected, 1);
}

/* ---- Transactions and time ---------------------------------------------- */

void agg_commit(struct agg *a)
{
    struct agg_head *h = a->head;
    uint64_t n_stamped = a->pending_stamped;
    uint64_t n_open = a->pending_aggregated - a->pending_lost;

    if (n_open + n_stamped + a->pending_lost > 0) {
        region_save(a->r, &h->counts, COUNTS_HOT_BYTES);
        h->counts.aggregated += a->pending_aggregated + n_stamped;
        if (a->pending_folded > 0)
            region_set(a->r, h->counts.folded,
                       h->counts.folded + a->pending_folded);
        region_set(a->r, h->open.n_samples, h->open.n_samples + n_open);
        a->pending_aggregated = a->pending_folded = 0;
        a->pending_stamped = a->pending_lost = 0;
    }
    region_commit(a->r);
}

bool agg_wants_begin(const struct agg *a)
{
    return a->low && a->refused_s != a->now_s;
}

/* A worker that died after its clock was re-based has not told of the step: such
 * times are seen here. */
static void go_to(struct agg *a, int64_t now_s)
{
    const struct open_chain *o = &a->head->open;

    if (agg_is_held(a, now_s))
        return;
    if (now_s < o->bucket_s || agg_is_held(a, o->bucket_s))
        agg_clock_stepped(a, now_s);
    else
        turn_to(a, now_s);
}

void agg_begin(struct agg *a, int64_t now_s)
{
    const struct open_chain *o = &a->head->open;

    a->now_s = now_s;
    if (__builtin_expect(o->id == 0, 0)) {
        bucket_open(a, bucket_of(now_s), now_s, true);
        region_commit(a->r);
    }
    if (__builtin_expect(a->low, 0))
        room_make(a);
    /* Within the bucket, or up to ten seconds before it: nothing to do. */
    if (__builtin_expect((uint64_t)(now_s - o->bucket_s + AGG_BUCKET_S) >=
                             2 * AGG_BUCKET_S,
                         0))
        go_to(a, now_s);
}

void agg_close_all(struct agg *a, int64_t now_s)
{
    agg_begin(a, now_s);
    turn_early(a, now_s);
}

bool agg_may_close(const struct agg *a, int64_t now_s)
{
    return agg_is_held(a, now_s) || a->head->open.stamp_s <= now_s + AHEAD_S;
}

void agg_clock_stepped(struct agg *a, int64_t now_s)
{
    struct agg_head *h = a->head;
    int64_t stamp_s = h->open.stamp_s;

    if (h->open.id == 0 || agg_is_held(a, now_s)) {
        agg_begin(a, now_s);
        return;
    }
    a->now_s = now_s;
    if (bucket_of(now_s) < h->open.bucket_s ||
        h->last_stamp_s > now_s + AHEAD_S)
        region_set(a->r, h->last_stamp_s, 0); /* the ring knows them */
    if (h->open.has_data != 0 && (stamp_s > now_s || stamp_s + STALE_S < now_s))
        turn_move(a, now_s);
    else if (h->open.has_data != 0)
        turn_early(a, now_s);
    if (h->open.has_data == 0)
        bucket_move(a, now_s);
    else /* could not be closed: goes on as it is */
        region_set(a->r, h->open.bucket_s, bucket_of(now_s));
    region_commit(a->r);
}

/* ---- What others ask ---------------------------------------------------- */

struct ingest_counts *agg_counts(const struct agg *a)
{
    return &a->head->counts;
}

struct agg_partial *agg_partial(const struct agg *a)
{
    return &a->head->partial;
}

uint64_t agg_last_closed(const struct agg *a)
{
    return a->head->closed_seq;
}

void agg_release(struct agg *a, uint64_t seq)
{
    bucket_release(a, seq);
}

int64_t agg_last_stamp(const struct agg *a)
{
    return a->head->last_stamp_s;
}

bool agg_first_clash(const struct agg *a, struct agg_clash *out)
{
    *out = a->head->clash;
    return out->n > 0;
}

const char *agg_kind_name(unsigned kind)
{
    static const char *const names[KIND_N] = {"counter", "gauge", "set",
                                              "histogram", "distribution"};

    return kind < KIND_N ? names[kind] : "unknown";
}

void agg_stats(const struct agg *a, struct agg_stats *out)
{
    const struct agg_head *h = a->head;

    out->n_contexts = h->contexts.n_made - 1 - h->contexts.n_free;
    out->n_aliases = h->aliases.n_made - 1 - h->aliases.n_free;
    out->n_parts = (uint32_t)(h->closed_seq - h->released_seq);
    out->open_samples = h->counts.aggregated - h->counts.closed;
    out->region_bytes = a->r->head->committed_bytes;
}
