/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One datagram or frame through parser and aggregation, as transactions.
 *
 * Thread:  the reader.
 * Memory:  none of its own; the packet must have one writable byte behind it.
 * Promise: what is committed and what @pos says are the same at every
 *          instruction: a successor goes on at pos with the same packet and
 *          neither loses nor doubles a line.
 */
#ifndef RETRIEVER_AGGREGATOR_INGEST_H
#define RETRIEVER_AGGREGATOR_INGEST_H

#include "aggregator/agg.h"
#include "aggregator/dsd_ahead.h"

/** Where a source stands, in memory shared between workers: which record is
 *  next (slot number, or byte in a stream buffer) and how much of that record's
 *  bytes is applied already. */
struct ingest_pos {
    uint32_t record;
    uint32_t offset;
};

/** A line that was rejected, for the log: nothing is logged here. */
struct ingest_offender {
    enum dsd_result reason;
    uint32_t n; /* bytes of the line that are kept */
    char line[120];
};

struct ingest {
    struct region *region;
    struct agg *agg;
    struct dsd_parser parser;
    bool eol_required[TRANSPORT_N];
    bool drop_series, drop_sketches, drop_events, drop_checks; /* filtered */
    /* The first line of each reason in a minute, until somebody takes it. */
    struct ingest_offender offender;
    bool has_offender;
    int64_t named_at_s[DSD_N_RESULTS];
    int64_t now_s;                /* of the packet under way */
    struct dsd_readable readable; /* where packets lie, if that is known */
    struct dsd_ahead_lines ahead; /* read ahead of their turn */
    struct sample sample;         /* of one of them, for the long way */
};

#define INGEST_TRUNCATED 1u /* the kernel cut it: the last line is not whole */
#define INGEST_CONTINUED 2u /* same datagram counted already (recovery) */

/** Apply the packet from pos->offset on; at the end *pos = {@next_record, 0}.
 *  Commits at least once. Counts one datagram (when pos->offset is 0), its bytes,
 *  and every line. @now_s: process clock. TRANSPORT_KERNEL: lines of our own,
 *  which are no datagram and whose names take no prefix. */
void ingest_packet(struct ingest *in, struct ingest_pos *pos,
                   uint32_t next_record, const char *packet, size_t n,
                   enum transport t, unsigned flags, int64_t now_s);

/** Of the @n datagrams at @r, which lie one behind the other from @pos on, apply the
 *  first ones that have nothing but usual lines, at most DSD_AHEAD_LINES of those
 *  in all, in one transaction. Returns how many datagrams, at most DSD_AHEAD_LINES.
 *  Where that is fewer than @n, the next one is something else, or applied in part: for
 *  ingest_packet(). *working is the record that is looked at, or the last one
 *  that was: one that ends the process is found there, or once they come one by one
 *  (landing_note_death()). */
uint32_t ingest_datagrams(struct ingest *in, struct ingest_pos *pos,
                          const struct dsd_packet *r, uint32_t n,
                          uint32_t *working, enum transport t, int64_t now_s);

/** Two workers died at this record: count its rest as one rejected sample
 *  (poison) and go on. Commits. */
void ingest_skip(struct ingest *in, struct ingest_pos *pos,
                 uint32_t next_record, enum transport t);

#endif
