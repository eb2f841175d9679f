/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the payload store to the intake, and the promise about it: each payload is
 * tried until the intake took it, said never, or the stop's deadline is over.
 *
 * Thread:  the loop.
 * Memory:  holds nothing but requests in flight (max_concurrent; while stopping
 *          also a pointer per payload whose key was refused).
 * Promise: a request in flight is never cancelled before the deadline; retries
 *          send the same bytes; back-off starts at 100 ms with jitter and never
 *          sleeps past the deadline; ingestion never waits for any of it.
 */
#ifndef RETRIEVER_FORWARDER_FORWARDER_H
#define RETRIEVER_FORWARDER_FORWARDER_H

#include "forwarder/http.h"
#include "forwarder/store.h"

/** Everything borrowed for the life of the struct forwarder. */
struct forwarder_config {
    struct http_config http;
    const char *site;    /* "datadoghq.com": https://api.<site> */
    const char *dd_url;  /* "" or what stands in its place */
    const char *version; /* of the DD-Agent-Version header */
    bool allow_arbitrary_tags;
    uint32_t max_concurrent;
    uint32_t backoff_base_ms; /* first wait; 100 */
    uint32_t backoff_max_ms;
    double backoff_factor;
    uint32_t validate_every_s; /* of the key; 0 = at start only */
    uint64_t seed;             /* of the jitter */
};

struct forwarder; /* opaque */

/** @http_module: an open descriptor of retriever-http.so, -1 = missing; loaded at
 *  the first need by a helper thread of its own. Returns 0, -ENOMEM, or -EINVAL
 *  for a site or dd_url that endpoint.h refuses. */
int forwarder_create(struct forwarder **out, uv_loop_t *loop, struct store *s,
                     const struct forwarder_config *cfg, int http_module);

/** The key, or a new one (401/403 payloads are tried again at once). Copied,
 *  wiped on close, registered as a secret of the log. NULL, "" or bytes that no
 *  header can carry: nothing is sent. */
void forwarder_set_key(struct forwarder *f, const char *api_key);

/** New payloads were frozen: send what the limits allow. */
void forwarder_kick(struct forwarder *f);

typedef void forwarder_idle_fn(void *arg);
/** Stop mode: closed breakers are ignored, retries come within @deadline_ns
 *  (uv_hrtime's clock). @idle runs once, from the loop, when the store is empty
 *  and nothing is in flight; when nothing more can be tried (no key, no module,
 *  or the key was refused with each payload once); or at the deadline. A second
 *  call replaces the first one's deadline and callback. Payloads that come later
 *  are sent until the deadline. */
void forwarder_drain(struct forwarder *f, uint64_t deadline_ns,
                     forwarder_idle_fn *idle, void *arg);
/** While draining: what is in the store outlives this process anyway. From now on
 *  a drain is over when the intake, once per kind, did not take a payload. Until
 *  the next forwarder_drain(). */
void forwarder_set_safe(struct forwarder *f);
/** The stop gives up: payloads whose key was refused in this drain are settled as
 *  dropped for that status, not for lack of time. */
void forwarder_drop_refused(struct forwarder *f);
/** Begin no request from now on. @idle runs once, from the loop, when none is in
 *  flight any more: then the store stands still but for what the loop commits. */
void forwarder_pause(struct forwarder *f, forwarder_idle_fn *idle, void *arg);
/** Behind forwarder_pause(): requests still in flight settle nothing any more. Their
 *  payloads stay as they are, as perhaps sent, whatever is answered. */
void forwarder_freeze(struct forwarder *f);
/** Leave stop mode (exec: the job goes on after its SIGTERM), or the pause. */
void forwarder_resume(struct forwarder *f);

/** Runs once, from the loop, when all payloads that are in the store now are
 *  settled, halves included (flush --wait). Not after forwarder_close(). Returns
 *  0 or -ENOMEM. */
int forwarder_when_settled(struct forwarder *f, forwarder_idle_fn *fn,
                           void *arg);

enum key_state { KEY_UNKNOWN, KEY_VALID, KEY_INVALID, KEY_MISSING };
struct forwarder_stats {
    uint32_t n_in_flight;
    enum key_state key_state;
    bool failing;         /* the last exchange failed */
    uint32_t n_failures;  /* in a row */
    uint64_t retry_in_ms; /* of the closed breaker; 0 = open or probing */
    char last_error[160]; /* what and what to do; no secret */
    char url[256];        /* of the intake */
};
void forwarder_stats(const struct forwarder *f, struct forwarder_stats *out);

/** Cancel what is in flight (payloads stay in the store) and free; closed is
 *  called from the loop when nothing of ours is left on it. The store must live
 *  until then. */
void forwarder_close(struct forwarder *f, void (*closed)(void *arg), void *arg);

#endif
