/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `retriever status`: the ledger and the state of delivery, for people and for
 * programs, from the same snapshot.
 *
 * Thread:  the loop.
 * Memory:  borrows all it points to; the text goes to the caller's buffer.
 * Promise: both forms say the same numbers.
 */
#ifndef RETRIEVER_AGENT_STATUS_H
#define RETRIEVER_AGENT_STATUS_H

#include "agent/ledger.h"
#include "agent/sockets.h"
#include "agent/tapping.h"
#include "forwarder/forwarder.h"

struct status {
    struct ledger ledger;
    struct ledger_facts facts;
    struct forwarder_stats forwarder;
    struct drop_report lost;       /* when facts.lost leads here */
    struct own_waits_report waits; /* when facts.waits does */
    const struct sockets *sockets;
    const struct tapping *tapping;
    uint64_t uptime_s;
    const char *no_api_key; /* NULL, or why nothing is sent */
    struct reader_sched sched;
};

/** Append one line of JSON (the keys of the receipt and more) or the text. */
void status_write_json(const struct status *s, struct buf *out);
void status_write_text(const struct status *s, struct buf *out);

#endif
