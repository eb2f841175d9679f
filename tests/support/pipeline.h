/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ingest side in one thread under virtual time, for tests: a region whose
 * commits are proved, packets in, items as text out.
 *
 * Thread:  one.
 * Memory:  items grow without bound; tests are small.
 */
#ifndef RETRIEVER_TESTS_SUPPORT_PIPELINE_H
#define RETRIEVER_TESTS_SUPPORT_PIPELINE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "aggregator/ingest.h"
#include "aggregator/series.h"
#include "aggregator/used.h"

struct pipeline_item {
    enum flush_kind kind;
    uint64_t n_samples;
    uint64_t seq;
    int64_t ts_s; /* of the first point */
    double value; /* of the first point, or a sketch's sum */
    char text[1024];
};

struct pipeline {
    struct region region;
    struct agg_config cfg;
    struct agg *agg;
    struct ingest in;
    struct ingest_pos *pos; /* shared memory, as the landing zone's */
    uint64_t taken_seq;
    struct pipeline_item *items;
    size_t n_items, cap_items;
    /* What the parts taken have used, as a run_path would keep it. */
    uint32_t *used_s;
    struct used_point *used;
    size_t n_used_s, n_used;
    char **keys; /* "series [tags] @host second" of each point */
    size_t n_keys, cap_keys;
};

/** What a test usually configures; change it before pipeline_open(). */
struct agg_config pipeline_config(void);

/** @cfg NULL: pipeline_config(). Proves each commit. */
void pipeline_open(struct pipeline *p, const struct agg_config *cfg);

/** As above, without proof and with another budget: for large runs. */
void pipeline_open_large(struct pipeline *p, const struct agg_config *cfg,
                         size_t budget_bytes);
void pipeline_close(struct pipeline *p);

/** A successor takes the region over. */
void pipeline_restart(struct pipeline *p);

/** This life ends, another begins at @now_s with a region of its own and, if
 *  @remembers, with what was used. What was taken stays. */
void pipeline_next_life(struct pipeline *p, int64_t now_s, bool remembers);

/** One datagram at @now_s; "" only lets time pass. */
void pipeline_feed(struct pipeline *p, int64_t now_s, const char *packet);
void pipeline_feed_bytes(struct pipeline *p, int64_t now_s, const char *packet,
                         size_t n, unsigned flags);

/** Read the parts closed since, append their items, release them. */
void pipeline_take(struct pipeline *p);

/** Forget the items. */
void pipeline_clear(struct pipeline *p);

/** The one item whose text begins so; fails the test when there is none. */
const struct pipeline_item *pipeline_find(const struct pipeline *p,
                                          const char *prefix);

/** No two points of all that was taken have one (series, second). */
void pipeline_check_unique(struct pipeline *p);

/** received = rejected + filtered + aggregated, and the items taken so far plus
 *  what is open are what was aggregated. */
void pipeline_check_ledger(const struct pipeline *p);

#endif
