/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When to try again, and when never: pure functions of time and outcome.
 *
 * A breaker stands before each route of the intake. A failure blocks the route
 * for a back-off; when that is over, one probe goes first, and only its success
 * lets the others follow. While draining (a stop) there is no time for probes:
 * the route opens for all as soon as the back-off is over.
 *
 * Thread:  the caller's; no clock, no I/O: time is an argument (monotonic ns).
 * Memory:  embedded structs, nothing else.
 * Promise: a wait is at most backoff_max_ms or what the intake asked for (at
 *          most RETRY_AFTER_MAX_MS), and while draining it ends before the
 *          deadline. The same seed gives the same waits.
 */
#ifndef RETRIEVER_FORWARDER_RETRY_H
#define RETRIEVER_FORWARDER_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "forwarder/http.h"

#define RETRY_AFTER_MAX_MS (15u * 60 * 1000)
/** Longest back-off of our own while draining. */
#define RETRY_DRAIN_MAX_MS 1000u
/** A success takes back so many failures. */
#define RETRY_RECOVERY 2u

struct retry_policy {
    uint32_t base_ms; /* > 0 */
    uint32_t max_ms;  /* >= base_ms */
    double factor;    /* > 1 */
};

/** The generator of the jitter (splitmix64). */
struct retry_rng {
    uint64_t state;
};
uint64_t retry_random(struct retry_rng *r);

/** @p with every field in its bounds: 0, negative and NaN become 100 ms, 64 s
 *  and 2. */
struct retry_policy retry_policy_clean(struct retry_policy p);

/** The wait after the @n-th failure in a row (@n >= 1): uniform between half of
 *  base_ms and min(base_ms * factor^(n - 1), max_ms). */
uint32_t retry_backoff_ms(const struct retry_policy *p, uint32_t n,
                          struct retry_rng *rng);

/** All zero: open, no failure yet. */
struct breaker {
    uint32_t n_failures; /* level of the back-off */
    bool blocked;        /* until until_ns, then one probe */
    bool probing;        /* the probe is under way */
    uint64_t until_ns;
};

/** May a request begin now? @draining: see above. */
bool breaker_allows(const struct breaker *b, uint64_t now_ns, bool draining);
/** A request begins, breaker_allows() was true. Returns true if it is the
 *  probe: pass that on to breaker_failure(). */
bool breaker_begin(struct breaker *b, bool draining);
void breaker_success(struct breaker *b);
/** The request's fate says nothing about the route (cancelled, key refused). */
void breaker_forget(struct breaker *b, bool probe);

/** @probe: as breaker_begin() said. Failures of requests that had begun before
 *  the block are one failure. @retry_after_ms: what the intake asked for, 0 =
 *  nothing. @deadline_ns: of the stop; 0 = not draining. */
void breaker_failure(struct breaker *b, const struct retry_policy *p,
                     struct retry_rng *rng, bool probe, uint64_t now_ns,
                     uint32_t retry_after_ms, uint64_t deadline_ns);

/** A stop begins: what was learnt before no longer counts. */
void breaker_reset(struct breaker *b);

/** What to do with a payload after an exchange. */
enum verdict {
    VERDICT_DELIVERED,
    VERDICT_DROP,  /* the intake will never take it */
    VERDICT_SPLIT, /* too large for it */
    VERDICT_KEY,   /* the key was refused */
    VERDICT_RETRY, /* later, the same bytes */
    VERDICT_CANCEL /* we gave up: the payload stays */
};
enum verdict retry_verdict(enum http_error error, int status);

/** True if an answer of @status says that the body was not taken, so that a
 *  further attempt cannot double anything. */
bool retry_was_refused(enum http_error error, int status);

/** What went wrong, and what to do about it; static text, "" for success. */
const char *retry_advice(enum http_error error, int status);

#endif
