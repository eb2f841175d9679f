/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stand-in intake behind HTTP: its routes, its faults, and POST /control,
 * by which a test changes them while it runs.
 *
 *   POST /api/v2/series /api/v1/series /api/beta/sketches
 *        /api/v1/check_run /intake/          the payloads
 *   GET  /api/v1/validate                    is the key good?
 *   GET  /totals /series                     what came (intake_report.h)
 *   POST /control                            see docs/intake.md
 *
 * Thread:  start, step and stop: one owner. Requests come on threads of the
 *          server; one lock covers all state.
 * Memory:  see intake_store.h and httpd_server.h; answers are bounded by
 *          SERVE_ANSWER_MAX.
 * Promise: a payload is stored before the wait of a configured latency begins;
 *          a client that gives up meanwhile has delivered all the same.
 */
#ifndef RETRIEVER_AGENT_INTAKE_SERVE_H
#define RETRIEVER_AGENT_INTAKE_SERVE_H

#include <stdio.h>

#include "agent/base/buf.h"
#include "agent/intake_fault.h"

#define SERVE_ANSWER_MAX (1u << 30)

struct serve_options {
    const char *listen;  /* "ADDR:PORT", port 0 = any */
    const char *control; /* a second address, never down; NULL = none */
    const char *tls_cert, *tls_key; /* PEM text; NULL = plain HTTP */
    unsigned latency_ms;
    uint64_t seed;
    size_t max_bytes;              /* of the store */
    const struct fault_plan *plan; /* copied */
};

struct serve; /* opaque */

/** Start listening. Returns 0 or -errno with the cause in @why. */
int serve_start(struct serve **out, const struct serve_options *o, char *why,
                size_t n_why);

/** "http://ADDR:PORT", and that of the control address or NULL. */
const char *serve_url(const struct serve *s);
const char *serve_control_url(const struct serve *s);

/** A descriptor that is readable when serve_step() has something to do. */
int serve_fd(const struct serve *s);

/** Go down or come up as /control asked for. Returns the milliseconds until it
 *  wants to be called again, -1 = when serve_fd() says so. */
int serve_step(struct serve *s);

/** Totals as JSON; -ENOMEM when they do not fit. */
int serve_totals(struct serve *s, struct buf *out);

/** The table for people, see intake_report_table(). */
void serve_table(struct serve *s, FILE *f, size_t n_rows);

/** No more requests; the totals stay readable. */
void serve_quiet(struct serve *s);

/** NULL-safe. */
void serve_close(struct serve *s);

#endif
