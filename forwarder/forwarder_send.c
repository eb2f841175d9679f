/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Freshest first: who looks at a graph wants now, and the backlog gets all slots
 * that the fresh ones leave, which is nearly all of them. One exception: after a
 * failure the probe takes another payload than the one that failed, if there is
 * one; otherwise a single payload that always meets a 500 would hold up all older
 * ones.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/log.h"
#include "forwarder/forwarder_impl.h"
#include "forwarder/http_reply.h"

#define EXCERPT_MAX 121
/* An attempt so short before the deadline could only make bodies ambiguous. */
#define LEAST_NS (20 * FORWARDER_MS_NS)

void forwarder_note_error(struct forwarder *f, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(f->last_error, sizeof(f->last_error), fmt, ap);
    va_end(ap);
    f->failing = true;
}

/* ---- reports --------------------------------------------------------------- */

static void report_failure(struct forwarder *f, enum payload_kind kind,
                           const struct http_result *r, uint64_t now_ns)
{
    struct route_state *rt = &f->routes[kind];
    uint64_t until = rt->breaker.until_ns;
    uint64_t wait_ms = until > now_ns ? (until - now_ns) / FORWARDER_MS_NS : 0;
    const char *advice = retry_advice(r->error, r->status);
    char what[EXCERPT_MAX];

    if (r->error == HTTP_OK)
        snprintf(what, sizeof(what), "HTTP %d", r->status);
    else
        http_reply_excerpt(r->message, what, sizeof(what));
    forwarder_note_error(f, "%s: %s: %s", endpoint_kind_name(kind), what,
                         advice);
    if (rt->failing && rt->error == r->error && rt->status == r->status) {
        log_debug("forwarder",
                  "sending of %s failed again n=%u retry_in_ms=%ju",
                  endpoint_kind_name(kind), rt->breaker.n_failures,
                  (uintmax_t)wait_ms);
        return;
    }
    log_warn("forwarder",
             "sending of %s to %s failed; payloads are kept; %s "
             "retry_in_ms=%ju cause=\"%s\"",
             endpoint_kind_name(kind), f->endpoint.base, advice,
             (uintmax_t)wait_ms, what);
    if (!rt->failing)
        rt->failing_since_ns = now_ns;
    rt->failing = true;
    rt->error = r->error;
    rt->status = r->status;
}

/* The intake answered on this route, and not with a failure of its own. */
static void report_answer(struct forwarder *f, enum payload_kind kind,
                          uint64_t now_ns)
{
    struct route_state *rt = &f->routes[kind];

    if (rt->failing)
        log_info("forwarder", "sending of %s works again after_ms=%ju",
                 endpoint_kind_name(kind),
                 (uintmax_t)((now_ns - rt->failing_since_ns) /
                             FORWARDER_MS_NS));
    rt->failing = false;
    rt->failed_in_drain = false;
    rt->last_failed_id = 0;
    f->failing = false;
}

static void drop(struct forwarder *f, struct payload *p,
                 const struct http_result *r)
{
    char body[EXCERPT_MAX];

    http_reply_excerpt(r->body, body, sizeof(body));
    log_error("forwarder",
              "%s dropped: %s samples=%ju bytes=%u status=%d answer=\"%s\"",
              endpoint_kind_name(p->kind), retry_advice(HTTP_OK, r->status),
              (uintmax_t)p->load.n_samples, p->n_bytes, r->status, body);
    forwarder_note_error(f, "%s: HTTP %d: %s", endpoint_kind_name(p->kind),
                         r->status, retry_advice(HTTP_OK, r->status));
    store_settle_dropped(f->store, p, DROP_HTTP, r->status);
}

/* ---- parked payloads ------------------------------------------------------- */

static bool park(struct forwarder *f, struct payload *p, int status)
{
    if (f->n_parked == f->n_parked_max) {
        size_t max = f->n_parked_max > 0 ? 2 * f->n_parked_max : 16;
        struct parked *more = reallocarray(f->parked, max, sizeof(*more));

        if (more == NULL)
            return false;
        f->parked = more;
        f->n_parked_max = max;
    }
    f->parked[f->n_parked++] = (struct parked){p, status};
    return true;
}

void forwarder_unpark(struct forwarder *f)
{
    while (f->n_parked > 0)
        store_put_back(f->store, f->parked[--f->n_parked].payload);
    free(f->parked);
    f->parked = NULL;
    f->n_parked_max = 0;
}

void forwarder_drop_refused(struct forwarder *f)
{
    uint64_t n_samples = 0;
    size_t n = f->n_parked;

    while (f->n_parked > 0) {
        struct parked *k = &f->parked[--f->n_parked];

        n_samples += k->payload->load.n_samples;
        store_settle_dropped(f->store, k->payload, DROP_HTTP, k->status);
    }
    if (n > 0)
        log_error("forwarder",
                  "the stop ended and the intake still refused the API key %s: "
                  "payloads were dropped payloads=%zu samples=%ju",
                  f->key.masked, n, (uintmax_t)n_samples);
}

/* ---- fates ------------------------------------------------------------------- */

static void fail(struct forwarder *f, const struct flight *fl,
                 struct payload *p, const struct http_result *r,
                 uint64_t now_ns)
{
    struct route_state *rt = &f->routes[p->kind];

    rt->last_failed_id = p->id;
    rt->failed_in_drain = f->draining;
    breaker_failure(&rt->breaker, &f->policy, &f->rng, fl->probe, now_ns,
                    r->retry_after_ms, f->draining ? f->deadline_ns : 0);
    report_failure(f, p->kind, r, now_ns);
    store_put_back(f->store, p);
}

static void refused_key(struct forwarder *f, const struct flight *fl,
                        struct payload *p, const struct http_result *r)
{
    breaker_forget(&f->routes[p->kind].breaker, fl->probe);
    if (fl->key_generation == f->key.generation) {
        forwarder_key_refused(f, p->id, r->status);
        if (f->draining && park(f, p, r->status))
            return;
    }
    store_put_back(f->store, p);
}

static void split(struct forwarder *f, const struct flight *fl,
                  struct payload *p, const struct http_result *r,
                  uint64_t now_ns)
{
    enum payload_kind kind = p->kind;
    uint32_t n_bytes = p->n_bytes;
    int rc = store_split(f->store, p);

    if (rc == 0) {
        log_warn("forwarder", "%s split: %s bytes=%u", endpoint_kind_name(kind),
                 retry_advice(HTTP_OK, 413), n_bytes);
        breaker_success(&f->routes[kind].breaker);
    } else if (rc == STORE_CANNOT_SPLIT) {
        breaker_success(&f->routes[kind].breaker);
        drop(f, p, r);
    } else {
        fail(f, fl, p, r, now_ns); /* no memory now: later */
    }
}

static void settle(struct forwarder *f, const struct flight *fl,
                   struct payload *p, const struct http_result *r)
{
    uint64_t now_ns = uv_hrtime();
    enum verdict v = retry_verdict(r->error, r->status);
    enum payload_kind kind = p->kind;

    if (retry_was_refused(r->error, r->status))
        store_mark_refused(f->store, p);
    if (v != VERDICT_KEY && r->error == HTTP_OK &&
        fl->key_generation == f->key.generation)
        forwarder_key_accepted(f, v == VERDICT_DELIVERED);
    switch (v) {
    case VERDICT_DELIVERED:
        breaker_success(&f->routes[kind].breaker);
        store_settle_delivered(f->store, p);
        report_answer(f, kind, now_ns);
        break;
    case VERDICT_DROP:
        breaker_success(&f->routes[kind].breaker);
        report_answer(f, kind, now_ns);
        drop(f, p, r);
        break;
    case VERDICT_SPLIT:
        report_answer(f, kind, now_ns);
        split(f, fl, p, r, now_ns);
        break;
    case VERDICT_KEY:
        refused_key(f, fl, p, r);
        break;
    case VERDICT_RETRY:
        fail(f, fl, p, r, now_ns);
        break;
    case VERDICT_CANCEL:
        breaker_forget(&f->routes[kind].breaker, fl->probe);
        store_put_back(f->store, p);
        break;
    }
}

static void on_done(void *arg, const struct http_result *r)
{
    struct flight *fl = arg;
    struct flight was = *fl;
    struct forwarder *f = fl->owner;

    if (f->frozen) {
        breaker_forget(&f->routes[fl->payload->kind].breaker, fl->probe);
        store_put_back(f->store, inflight_end(&f->inflight, fl));
    } else {
        settle(f, &was, inflight_end(&f->inflight, fl), r);
    }
    forwarder_ring(f);
}

static void on_sending(void *arg)
{
    struct flight *fl = arg;
    struct forwarder *f = fl->owner;

    store_mark_maybe_sent(f->store, fl->payload);
}

/* ---- sending ----------------------------------------------------------------- */

/* The set of kinds that may begin a request now. */
static unsigned sendable(const struct forwarder *f, uint64_t now_ns)
{
    unsigned kinds = inflight_room(&f->inflight);

    if (f->http == NULL || f->key.key[0] == '\0' || f->paused)
        return 0;
    if (f->draining && now_ns + LEAST_NS > f->deadline_ns)
        return 0;
    if (f->key.refused && !f->draining &&
        (!f->key.may_probe || f->inflight.n > 0))
        return 0;
    for (unsigned k = 0; k < PAYLOAD_N_KINDS; k++) {
        if (!breaker_allows(&f->routes[k].breaker, now_ns, f->draining))
            kinds &= ~(1u << k);
    }
    return kinds;
}

static struct payload *pick(struct forwarder *f, unsigned kinds)
{
    struct payload *p = store_take_kinds(f->store, kinds);
    struct payload *other = NULL;
    const struct route_state *rt;

    if (p == NULL)
        return NULL;
    rt = &f->routes[p->kind];
    if (rt->breaker.blocked && p->id == rt->last_failed_id)
        other = store_take_kinds(f->store, 1u << p->kind);
    else if (f->key.refused && p->id == f->key.refused_id)
        other = store_take_kinds(f->store, kinds);
    if (other == NULL)
        return p;
    store_put_back(f->store, p);
    return other;
}

static uint32_t timeout_ms(const struct forwarder *f, uint64_t now_ns)
{
    uint64_t ms = f->cfg->http.timeout_ms;
    uint64_t left_ms;

    if (f->draining) {
        left_ms = (f->deadline_ns - now_ns) / FORWARDER_MS_NS;
        if (left_ms < ms)
            ms = left_ms > 0 ? left_ms : 1;
    }
    return (uint32_t)ms;
}

static bool send_one(struct forwarder *f, struct payload *p, uint64_t now_ns)
{
    struct breaker *b = &f->routes[p->kind].breaker;
    struct flight *fl = inflight_begin(&f->inflight, p);
    struct endpoint_headers headers;
    char url[ENDPOINT_FULL_URL_MAX];
    struct http_request rq = {
        .method = "POST",
        .url = url,
        .headers = headers.list,
        .body = p->body,
        .n_body = p->n_bytes,
        .timeout_ms = timeout_ms(f, now_ns),
        .sending = on_sending,
        .done = on_done,
        .arg = fl,
    };
    int rc;

    fl->owner = f;
    fl->key_generation = f->key.generation;
    fl->probe = breaker_begin(b, f->draining);
    endpoint_url(&f->endpoint, p->kind, url);
    endpoint_headers(&headers, p->kind, p->encoding, f->key.key,
                     f->cfg->version, f->cfg->allow_arbitrary_tags);
    rc = f->ops->start(f->http, &rq);
    endpoint_headers_wipe(&headers);
    if (rc == 0) {
        store_count_attempt(f->store, p);
        return true;
    }
    forwarder_note_error(f, "%s: no memory for a request; tried again",
                         endpoint_kind_name(p->kind));
    breaker_failure(b, &f->policy, &f->rng, fl->probe, now_ns, 0,
                    f->draining ? f->deadline_ns : 0);
    store_put_back(f->store, inflight_end(&f->inflight, fl));
    return false;
}

void forwarder_send(struct forwarder *f, uint64_t now_ns)
{
    for (;;) {
        unsigned kinds = sendable(f, now_ns);
        struct payload *p = kinds != 0 ? pick(f, kinds) : NULL;

        if (p == NULL || !send_one(f, p, now_ns))
            return;
    }
}
