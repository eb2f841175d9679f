/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the ingest side counts: the first half of the ledger. It lies in the
 * ingest region and changes in the same transaction as the data it counts.
 *
 * Thread:  written by the reader; others read single words (racy but whole).
 * Memory:  one struct of the ingest region.
 * Promise: received = rejected + filtered + aggregated, exactly, at each commit.
 */
#ifndef RETRIEVER_AGGREGATOR_COUNTS_H
#define RETRIEVER_AGGREGATOR_COUNTS_H

#include <stdint.h>

#include "aggregator/dsd_parse.h"

enum transport {
    TRANSPORT_UDP,
    TRANSPORT_UDS,
    TRANSPORT_UDS_STREAM,
    TRANSPORT_TCP,
    TRANSPORT_KERNEL, /* what the agent measures itself: no datagrams */
    TRANSPORT_N
};

/** "udp", "uds", "uds_stream", "tcp", "kernel". */
const char *transport_name(enum transport t);

enum filter_reason { FILTER_DISABLED /* enable_payloads.* */, FILTER_N };
const char *filter_name(enum filter_reason r);

/** Units are samples (one value of one metric) unless the name says otherwise;
 *  a rejected line counts as one received and one rejected sample. */
struct ingest_counts {
    /* The first 64 bytes change with nearly every datagram. */
    uint64_t datagrams;
    uint64_t bytes;
    uint64_t received[TRANSPORT_N]; /* samples, rejected lines included */
    uint64_t aggregated;

    uint64_t folded; /* of aggregated: into an overflow series */
    uint64_t closed; /* of aggregated: in parts that were closed */
    uint64_t rejected[DSD_N_RESULTS];
    uint64_t filtered[FILTER_N];
    uint64_t events, checks;                   /* accepted */
    uint64_t events_rejected, checks_rejected; /* lines; not in rejected[] */
    uint64_t events_closed, checks_closed;
    uint64_t damaged;   /* samples lost to a damaged region */
    uint64_t ring_busy; /* samples: records that a sender did not finish */
    uint64_t damaged_contexts; /* folded into an overflow series for that */
    uint64_t delivered_old;    /* samples stamped older than 1 h, sent anyway */
    uint64_t bad_rate, bad_utf8, clipped_tags, clipped_hosts;
    uint64_t type_clashes; /* contexts whose series exist with another type */
    uint64_t hist_capped;  /* values of histograms, sets and distributions that
                              were counted but not kept in detail */
    uint64_t truncated_datagrams;
    uint64_t stream_refused, stream_oversize; /* connections */
    uint64_t kernel_drops[TRANSPORT_N];       /* datagrams, by SO_MEMINFO */
    uint64_t tapped[TRANSPORT_N]; /* of datagrams: out of the tap's ring */
};

#endif
