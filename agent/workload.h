/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lines that `retriever send --demo` sends: every DogStatsD type, each line
 * a pure function of the seed and its number. What was sent can be added up
 * afterwards, exactly: all values are whole numbers.
 *
 * Thread:  one owner.
 * Memory:  8 bytes for each context, at most WORKLOAD_CONTEXTS_MAX.
 * Promise: line i is the same in every run with the same options.
 */
#ifndef RETRIEVER_AGENT_WORKLOAD_H
#define RETRIEVER_AGENT_WORKLOAD_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define WORKLOAD_CONTEXTS_MAX 10000000
#define WORKLOAD_TAGS_MAX 50
#define WORKLOAD_PREFIX_MAX 100
#define WORKLOAD_LINE_MAX 2048

enum workload_type {
    WORKLOAD_COUNT,
    WORKLOAD_GAUGE,
    WORKLOAD_TIMING,
    WORKLOAD_HISTOGRAM,
    WORKLOAD_DISTRIBUTION,
    WORKLOAD_SET,
    WORKLOAD_EVENT,
    WORKLOAD_CHECK,
    WORKLOAD_N_TYPES
};

struct workload_options {
    const char *prefix; /* of the metric names; borrowed */
    uint32_t n_contexts;
    uint32_t n_tags; /* beside the tag that makes the context */
    unsigned types;  /* bit 1 << enum workload_type for each */
    uint64_t seed;
};

struct workload; /* opaque */

enum workload_rc { WORKLOAD_BAD = 1 };

/** Bits of a comma list of "c,g,ms,h,d,s,e,sc". Returns 0 or WORKLOAD_BAD. */
int workload_parse_types(const char *text, unsigned *types);

/** Returns 0, WORKLOAD_BAD (an option out of its bounds), or -ENOMEM. */
int workload_create(struct workload **out, const struct workload_options *o);

/** NULL-safe. */
void workload_close(struct workload *w);

/** Write line @i, without line feed, to @out (WORKLOAD_LINE_MAX bytes). Returns
 *  its length. */
size_t workload_line(const struct workload *w, uint64_t i, char *out);

/** Line @i was sent: add it to the sums. Lines are counted in order. */
void workload_count(struct workload *w, uint64_t i);

/** The sums as members of a JSON object: "samples":..,"events":..,"checks":..,
 *  "metrics":{...}. */
void workload_print(const struct workload *w, FILE *f);

#endif
