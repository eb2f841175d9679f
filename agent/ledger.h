/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger: one table of counters, read from both regions, and its invariant.
 *
 *   received   = rejected(reason) + filtered(reason) + aggregated
 *   aggregated = delivered + saved + dropped(cause) + in_flight + open
 *   restored   = delivered + saved + dropped(cause) + in_flight
 *
 * The unit is the sample: one value of one metric after unpacking. in_flight is
 * counted from the payloads and parts that exist, not derived, so the second
 * line is a check and not a definition. The third is about payloads that earlier
 * lives left on disk: they were received then, and have books of their own.
 *
 * Thread:  the loop, or the keeper when no worker lives.
 * Memory:  a snapshot of some 8 KiB by value.
 * Promise: at the end of a stop open and in_flight are 0: what is still there
 *          is named as dropped (deadline).
 */
#ifndef RETRIEVER_AGENT_LEDGER_H
#define RETRIEVER_AGENT_LEDGER_H

#include "agent/base/buf.h"
#include "agent/losses.h"
#include "agent/reader.h"
#include "agent/supervision.h"
#include "forwarder/store.h"

struct ledger {
    struct ingest_counts ingest;
    struct delivery_counts delivery;
    struct store_books restored; /* of earlier lives, found on disk */
    struct agg_stats agg;
    struct store_stats store;
    uint64_t received, rejected, filtered, dropped; /* sums */
    uint64_t open;      /* aggregated, not in a closed part */
    uint64_t unencoded; /* in closed parts that are not payloads yet */
    uint64_t in_flight; /* unencoded + in unsettled payloads */
    uint64_t restored_dropped;
    uint64_t restored_in_flight;
    uint64_t left_for_successor; /* datagrams in sockets others hold too */
};

/** Take a snapshot: of the ingest side as in @view (reader_view()), whose closed
 *  parts are read from @agg, and of @store. When the reader is at rest the sums
 *  balance exactly; while it runs they may differ by what moves. */
void ledger_collect(struct ledger *out, const struct reader_view *view,
                    const struct agg *agg, const struct store *store);

/** The stop is over: what is still open or in flight was not delivered in time. */
void ledger_finish(struct ledger *l);

bool ledger_balances(const struct ledger *l);

/** Facts about the process that the receipt and the status add. */
struct ledger_facts {
    const char *reason; /* of the stop; NULL for a status */
    int exit_status;
    uint64_t duration_ms;
    const uint32_t *stage_ms; /* STAGE_DONE of them; NULL = none */
    uint32_t worker_deaths;
    uint32_t n_upgrades;            /* of the program, without a stop */
    const struct drop_report *lost; /* by sender; NULL = not counted */
    const struct own_waits_report
        *waits; /* of the reader; NULL = not counted */
};

/** Samples dropped, of earlier lives too. */
uint64_t ledger_dropped(const struct ledger *l);

/** Exit status of `run` that this ledger means: 0, 3 (more was dropped than the
 *  @dropped_before_stop samples) or 4. See docs/receipt.md. */
int ledger_exit_status(const struct ledger *l, uint64_t dropped_before_stop);

/** Append the one-line JSON object of docs/receipt.md, without a line feed.
 *  Returns 0 or -ENOMEM. */
int ledger_write_json(const struct ledger *l, const struct ledger_facts *facts,
                      struct buf *out);

/** The members of that object that receipt and status share, for a status that
 *  adds its own: written into an open object. */
struct json;
void ledger_write_members(const struct ledger *l,
                          const struct ledger_facts *facts, struct json *j);

#endif
