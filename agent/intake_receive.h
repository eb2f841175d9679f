/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One body that came to the stand-in intake: unpacked, judged as a whole, and
 * either stored as a whole or refused with the status and the reason that the
 * Datadog intake would give.
 *
 * Thread:  one at a time; the caller locks.
 * Memory:  the store within its bound, one unpacked body at a time, and the
 *          first INTAKE_ERRORS_MAX reasons.
 * Promise: nothing of a refused body is stored.
 */
#ifndef RETRIEVER_AGENT_INTAKE_RECEIVE_H
#define RETRIEVER_AGENT_INTAKE_RECEIVE_H

#include <stddef.h>
#include <stdint.h>

#include "agent/intake_payload.h"
#include "agent/intake_store.h"

#define INTAKE_ERRORS_MAX 100
#define INTAKE_ERROR_MAX 320

/* Largest body that any route takes, as it comes over the wire and unpacked. */
#define INTAKE_PACKED_MAX 2621440
#define INTAKE_PLAIN_MAX 5242880

enum intake_route {
    INTAKE_ROUTE_SERIES_V2,
    INTAKE_ROUTE_SERIES_V1,
    INTAKE_ROUTE_SKETCHES,
    INTAKE_ROUTE_CHECKS,
    INTAKE_ROUTE_EVENTS
};

struct intake {
    struct intake_store store;
    struct intake_decoder *decoder;
    uint64_t n_requests; /* bodies that came, whatever became of them */
    uint64_t n_refused;  /* by a rule of the intake */
    uint64_t n_faulted;  /* by an injected fault */
    char *errors[INTAKE_ERRORS_MAX];
    size_t n_errors;
    uint64_t n_errors_seen;
    char last_error[INTAKE_ERROR_MAX]; /* of the latest refusal */
};

/* What stands in a request beside its path. */
struct intake_request {
    enum intake_route route;
    const char *content_type;     /* NULL when absent */
    const char *content_encoding; /* NULL when absent */
    const void *body;
    size_t n_body;
    int64_t now_s;
};

/** Returns 0 or -ENOMEM. @seed: see intake_store_init(). */
int intake_init(struct intake *in, size_t max_bytes, uint64_t seed);
void intake_fini(struct intake *in);

/** Forget all that came. */
void intake_clear(struct intake *in);

/** The route of a path that takes bodies, or -1. */
int intake_route(const char *path);

/** Take @r. Returns the HTTP status: 202, or 400, 413, 415, 507 with the reason
 *  noted in in->errors. Counts n_refused, not n_requests. */
unsigned intake_receive(struct intake *in, const struct intake_request *r);

/** Note a refusal that was decided elsewhere and count it. */
void intake_refuse(struct intake *in, enum intake_route route, unsigned status,
                   const char *why);

#endif
