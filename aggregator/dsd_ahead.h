/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The short way through a line, for what nearly all lines are: a metric of at most
 * 128 bytes with one value. What it finds is small and stays valid when further
 * lines are read, so that several are looked up at once.
 *
 * Thread:  one parser object belongs to one thread; no shared state.
 * Memory:  views borrow from the line.
 * Promise: either what dsd_parse() would give, or nothing: then dsd_parse() knows.
 *          Bytes behind the line are looked at only where they share a page with
 *          it, and change nothing.
 */
#ifndef RETRIEVER_AGGREGATOR_DSD_AHEAD_H
#define RETRIEVER_AGGREGATOR_DSD_AHEAD_H

#include "aggregator/dsd_parse.h"

/** A line read ahead of its turn. */
struct dsd_ahead {
    struct view name, tags;
    struct view member; /* sets */
    double value;       /* all others */
    double rate;
    uint32_t n_bytes; /* of the line, with its LF */
    uint8_t type;     /* enum metric_type */
    bool bad_rate;
    bool has_lf;
};

/** The line at @at, which ends at its LF or at @end. false: it is something else,
 *  too long, or faulty; *out means nothing then. */
bool dsd_ahead(const struct dsd_parser *p, struct dsd_ahead *out,
               const char *at, const char *end);

/** The whole of it; borrows from @d, too. */
static inline struct sample dsd_ahead_sample(const struct dsd_ahead *d)
{
    return (struct sample){.name = d->name,
                           .tags = d->tags,
                           .type = (enum metric_type)d->type,
                           .bad_rate = d->bad_rate,
                           .rate = d->rate,
                           .values = &d->value,
                           .n_values = 1,
                           .member = d->member};
}

#endif
