/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A feature at work, without an agent around it: the maps that features share, a
 * reader of the ring that passes records on, and a recorder of the lines.
 *
 * Thread:  one.
 * Memory:  records and lines in fixed arrays; more than fit fail the test.
 * Promise: rig_close() takes away all that rig_open() made.
 */
#ifndef RETRIEVER_TESTS_BPF_RIG_H
#define RETRIEVER_TESTS_BPF_RIG_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <setjmp.h>

#include <cmocka.h>

#include "bpf/feature.h"
#include "bpf/features.h"
#include "bpf/ring.h"
#include "tests/bpf/require.h"

#define RIG_MAX_FEATURES 4

struct rig {
    struct ring ring;
    int stats_fd;
    struct feature_opts opts;
    struct feature_env env;
    const struct feature *features[RIG_MAX_FEATURES];
    void *selves[RIG_MAX_FEATURES];
    size_t n_features;
    uint64_t n_events[EVENT_N_TYPES];
    /** Sees each record before the features do; may be NULL. */
    void (*look)(void *arg, const struct event_hdr *ev);
    void *arg;
    struct lines lines;
    char text[1 << 18]; /* whole lines, NUL at the end */
    size_t n_text;
};

/** Shared maps; fill opts and env, then rig_add(). */
void rig_open(struct rig *r, uint32_t ring_bytes);

/** Open a feature; it must be on. */
void rig_add(struct rig *r, const struct feature *f);

/** Pass on what is in the ring now. Returns the number of records. */
uint64_t rig_drain(struct rig *r);

/** Drain until @done(arg) or @timeout_ms are over; whether it was done. */
bool rig_until(struct rig *r, bool (*done)(void *arg), void *arg,
               int timeout_ms);

/** Collect from each feature; the lines replace those in text. */
void rig_collect(struct rig *r, bool last);

/** Sum of event_stats over CPUs. */
struct event_stats rig_stats(const struct rig *r, enum event_type type);

/** Sum of the values of the lines of metric @name that have all of the tags in
 *  @tags ("a:b,c:d"; NULL = any); distributions count 1 / rate. *n lines. */
double rig_sum(const struct rig *r, const char *name, const char *tags,
               unsigned int *n);

void rig_close(struct rig *r);

#endif
