/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the counters say that somebody should mend: samples folded into overflow
 * series, one series sent with two types, text that the intake would refuse,
 * rates that are none. Each kind is named at most once a minute, with how often
 * and what to do.
 *
 * Thread:  the loop.
 * Memory:  one embedded struct.
 * Promise: a kind is named as soon as it first happens (at the next end of a
 *          bucket), and never more often than once in COMPLAINTS_EVERY_S.
 */
#ifndef RETRIEVER_AGENT_COMPLAINTS_H
#define RETRIEVER_AGENT_COMPLAINTS_H

#include "agent/reader.h"

#define COMPLAINTS_EVERY_S 60
#define COMPLAINTS_N_KINDS 8

struct complaints {
    uint64_t seen[COMPLAINTS_N_KINDS];       /* counter when last named */
    uint64_t named_at_s[COMPLAINTS_N_KINDS]; /* monotonic; 0 = never */
};

/** Compare the counters with what was named last. @agg: for the name of the first
 *  clash, which stays as it is once its counter is in @counts. @now_s: monotonic,
 *  from 1. */
void complaints_look(struct complaints *c, const struct ingest_counts *counts,
                     const struct agg *agg, uint64_t now_s);

#endif
