/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the stand-in intake says about what it got: totals as JSON and as a
 * table, and every series with its points.
 *
 * Thread:  one at a time, with the intake's lock held.
 * Memory:  one pointer for each metric, freed before return; the text grows in
 *          the caller's buffer to its maximum.
 * Promise: valid JSON, and sums added up from the points that are held now.
 */
#ifndef RETRIEVER_AGENT_INTAKE_REPORT_H
#define RETRIEVER_AGENT_INTAKE_REPORT_H

#include <stdio.h>

#include "agent/base/buf.h"
#include "agent/intake_receive.h"
#include "agent/jsonread.h"

/** {"requests":..,"refused":..,"replaced_points":..,"metrics":{NAME:{"type":
 *  "contexts","points","sum", sketches also "count","min","max"}},"events":..,
 *  "checks":..,"errors":[..]} on one line, without line feed. Metrics are sorted
 *  by name. Returns 0, or -ENOMEM when it does not fit into @out. */
int intake_report_totals(struct intake *in, struct buf *out);

/** {"series":[{"metric","tags","host","points":[{"ts","type","value",..}]}],
 *  "events":[..],"checks":[..]}. A rate's point also has "interval", a sketch's
 *  "count","min","max","avg","k","n". Returns 0 or -ENOMEM. */
int intake_report_series(struct intake *in, struct buf *out);

/** A table of at most @n_rows metrics (0 = all) for people. */
void intake_report_table(struct intake *in, FILE *f, size_t n_rows);

/** Is @expected a subset of @actual: objects member by member, lists element by
 *  element and of equal length, numbers to 1e-12 relative? Writes one line for
 *  each difference to @f and returns their number. */
unsigned intake_report_differ(const struct jsonread *d_expected,
                              const struct jsonread_node *expected,
                              const struct jsonread *d_actual,
                              const struct jsonread_node *actual, FILE *f);

#endif
