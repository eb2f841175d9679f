/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that happens only rings a timer; step() does what is due. It is the
 * only place that decides, and the only one that calls the caller back.
 */
#include "forwarder/forwarder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/contract.h"
#include "agent/base/log.h"
#include "forwarder/forwarder_impl.h"

/* ---- the module ------------------------------------------------------------ */

/* A file that is not there will not come; what is short for a moment will. */
#define MODULE_RETRY_MS 1000u
#define MODULE_RETRY_MAX_MS 60000u
/* In a drain it is tried for some 1.5 s: what is short when a stop begins is given
 * back by then, and a job is not made to wait for what will never load. */
#define MODULE_RETRY_DRAIN_MS 50u
#define MODULE_DRAIN_TRIES 6u

static void module_failed(struct forwarder *f, const char *why)
{
    uint64_t wait_ms = f->draining ? MODULE_RETRY_DRAIN_MS : MODULE_RETRY_MS;
    uint32_t n = f->draining ? f->n_drain_failures++ : f->n_module_failures;

    for (uint32_t i = 0; i < n; i++)
        wait_ms = wait_ms * 2 < MODULE_RETRY_MAX_MS ? wait_ms * 2
                                                    : MODULE_RETRY_MAX_MS;
    f->module_retry_ns = f->module_fd < 0
                             ? FORWARDER_NEVER
                             : uv_hrtime() + wait_ms * FORWARDER_MS_NS;
    f->module_state = MODULE_FAILED;
    forwarder_ring(f);
    if (f->n_module_failures++ > 0)
        return; /* said */
    forwarder_note_error(f, "retriever-http.so could not be used: %s", why);
    log_error("forwarder",
              "nothing can be sent: retriever-http.so could not be used; "
              "install it of the same version beside the program; tried again "
              "cause=\"%s\"",
              why);
}

static void on_module_loaded(void *arg, const struct http_ops *ops,
                             const char *error)
{
    struct forwarder *f = arg;
    int rc;

    if (ops == NULL) {
        module_failed(f, error);
        return;
    }
    rc = ops->create(&f->http, f->loop, &f->cfg->http);
    if (rc != 0) {
        module_failed(f, rc == -EINVAL ? "min_tls_version is not known"
                                       : strerror(-rc));
        return;
    }
    if (f->n_module_failures > 0)
        log_info("forwarder", "retriever-http.so could be used after all");
    f->ops = ops;
    f->module_state = MODULE_READY;
    f->n_module_failures = 0;
    f->failing = false;
    forwarder_ring(f);
}

static void part_closed(void *arg);

static void on_module_retired(void *arg)
{
    struct forwarder *f = arg;

    f->module_open = f->module_retiring = false;
    if (f->closing)
        part_closed(f);
    else
        forwarder_ring(f);
}

/* The next try begins when nothing is left of the last one. */
static void retire_module(struct forwarder *f, uint64_t now_ns)
{
    if (f->module_state != MODULE_FAILED || now_ns < f->module_retry_ns)
        return;
    f->module_state = MODULE_NONE;
    if (f->module_open) {
        f->module_retiring = true;
        http_module_close(&f->module, on_module_retired);
    }
}

static void load_module(struct forwarder *f)
{
    int rc;

    if (f->module_state != MODULE_NONE || f->module_retiring ||
        f->key.key[0] == '\0')
        return;
    if (f->module_fd < 0) {
        module_failed(f, "it is missing");
        return;
    }
    f->module_state = MODULE_LOADING;
    rc = http_module_load(&f->module, f->loop, f->module_fd,
                          f->cfg->http.key_log_file, on_module_loaded, f);
    f->module_open = rc == 0;
    if (rc != 0)
        module_failed(f, strerror(-rc));
}

/* ---- the step ---------------------------------------------------------------- */

static void on_timer(uv_timer_t *timer);

void forwarder_ring(struct forwarder *f)
{
    if (!f->closing)
        (void)uv_timer_start(&f->timer, on_timer, 0, 0);
}

static void tell_settled(struct forwarder *f)
{
    uint64_t oldest = store_oldest_age(f->store);
    struct settled_waiter **link = &f->waiters;

    while (*link != NULL && !f->closing) {
        struct settled_waiter *w = *link;

        if ((oldest != 0 && oldest <= w->age) ||
            (w->awaits && store_awaits(f->store))) {
            link = &w->next;
            continue;
        }
        *link = w->next;
        w->fn(w->arg); /* may add payloads and waiters, or close */
        free(w);
        oldest = store_oldest_age(f->store);
        link = &f->waiters;
    }
}

/* Each kind that is left met a failure in this drain, and can wait. */
static bool gave_up(const struct forwarder *f)
{
    unsigned kinds = store_kinds(f->store);

    if (!f->safe)
        return false;
    for (unsigned k = 0; k < PAYLOAD_N_KINDS && !f->key.refused; k++) {
        if ((kinds & (1u << k)) && !f->routes[k].failed_in_drain)
            return false;
    }
    return true;
}

static bool has_no_module(const struct forwarder *f)
{
    return f->module_state == MODULE_FAILED &&
           (f->module_fd < 0 ||
            f->n_drain_failures >= (f->safe ? 1 : MODULE_DRAIN_TRIES));
}

/* Nothing is left that another moment could deliver. */
static bool drained(const struct forwarder *f)
{
    struct store_stats st;

    if (f->inflight.n > 0)
        return false;
    if (f->key.key[0] == '\0')
        return true;
    store_stats(f->store, &st);
    return st.n_payloads == f->n_parked || gave_up(f) || has_no_module(f);
}

static void tell_drained(struct forwarder *f, uint64_t now_ns)
{
    forwarder_idle_fn *idle = f->idle;

    if (idle == NULL)
        return;
    if (f->paused ? f->inflight.n > 0 : now_ns < f->deadline_ns && !drained(f))
        return;
    f->idle = NULL; /* before the call: it may drain again or close */
    idle(f->idle_arg);
}

static uint64_t next_instant(const struct forwarder *f, uint64_t now_ns)
{
    uint64_t next = FORWARDER_NEVER;

    for (int k = 0; k < PAYLOAD_N_KINDS; k++) {
        const struct breaker *b = &f->routes[k].breaker;

        if (b->blocked && b->until_ns > now_ns && b->until_ns < next)
            next = b->until_ns;
    }
    if (f->http != NULL && f->key.key[0] != '\0' && !f->key.validating &&
        !f->draining && f->key.validate_at_ns < next)
        next = f->key.validate_at_ns;
    if (f->module_state == MODULE_FAILED && f->module_retry_ns < next)
        next = f->module_retry_ns;
    if (f->idle != NULL && !f->paused && f->deadline_ns < next)
        next = f->deadline_ns;
    return next;
}

static void step(struct forwarder *f)
{
    uint64_t now_ns = uv_hrtime();
    uint64_t next;

    tell_settled(f);
    if (f->closing)
        return;
    retire_module(f, now_ns);
    load_module(f);
    forwarder_send(f, now_ns);
    forwarder_key_step(f, now_ns);
    tell_drained(f, now_ns);
    if (f->closing || uv_is_active((uv_handle_t *)&f->timer))
        return; /* a callback rang again */
    next = next_instant(f, now_ns);
    if (next != FORWARDER_NEVER) {
        uint64_t ms = next > now_ns ? (next - now_ns) / FORWARDER_MS_NS : 0;

        uv_update_time(f->loop);
        (void)uv_timer_start(&f->timer, on_timer, ms + 1, 0);
    }
}

static void on_timer(uv_timer_t *timer)
{
    step(timer->data);
}

/* ---- calls from outside ------------------------------------------------------ */

int forwarder_create(struct forwarder **out, uv_loop_t *loop, struct store *s,
                     const struct forwarder_config *cfg, int http_module)
{
    struct forwarder *f = calloc(1, sizeof(*f));
    int rc = -ENOMEM;

    if (f == NULL)
        return rc;
    rc = endpoint_init(&f->endpoint, cfg->site, cfg->dd_url);
    if (rc != 0)
        goto fail;
    rc = inflight_init(&f->inflight, cfg->max_concurrent);
    if (rc != 0)
        goto fail;
    f->loop = loop;
    f->store = s;
    f->cfg = cfg;
    f->module_fd = http_module;
    f->key.state = KEY_MISSING;
    f->rng.state = cfg->seed;
    f->policy = retry_policy_clean((struct retry_policy){
        .base_ms = cfg->backoff_base_ms,
        .max_ms = cfg->backoff_max_ms,
        .factor = cfg->backoff_factor,
    });
    (void)uv_timer_init(loop, &f->timer); /* cannot fail */
    f->timer.data = f;
    *out = f;
    return 0;
fail:
    free(f);
    return rc;
}

void forwarder_kick(struct forwarder *f)
{
    forwarder_ring(f);
}

void forwarder_drain(struct forwarder *f, uint64_t deadline_ns,
                     forwarder_idle_fn *idle, void *arg)
{
    f->paused = f->frozen = false;
    f->draining = true;
    f->safe = false;
    f->deadline_ns = deadline_ns;
    f->idle = idle;
    f->idle_arg = arg;
    for (int k = 0; k < PAYLOAD_N_KINDS; k++)
        breaker_reset(&f->routes[k].breaker);
    for (int k = 0; k < PAYLOAD_N_KINDS; k++)
        f->routes[k].failed_in_drain = false;
    f->n_drain_failures = 0;
    if (f->module_state == MODULE_FAILED && f->module_fd >= 0)
        f->module_retry_ns = 0;
    forwarder_ring(f);
}

void forwarder_set_safe(struct forwarder *f)
{
    f->safe = f->draining;
    forwarder_ring(f);
}

void forwarder_pause(struct forwarder *f, forwarder_idle_fn *idle, void *arg)
{
    f->paused = true;
    f->idle = idle;
    f->idle_arg = arg;
    forwarder_unpark(f);
    forwarder_ring(f);
}

void forwarder_freeze(struct forwarder *f)
{
    REQUIRE(f->paused);
    f->frozen = true;
    for (uint32_t i = 0; i < f->inflight.max; i++) {
        if (f->inflight.slots[i].payload != NULL)
            store_mark_maybe_sent(f->store, f->inflight.slots[i].payload);
    }
}

void forwarder_resume(struct forwarder *f)
{
    f->paused = f->frozen = false;
    f->draining = false;
    f->idle = NULL;
    forwarder_unpark(f);
    forwarder_ring(f);
}

int forwarder_when_settled(struct forwarder *f, forwarder_idle_fn *fn,
                           void *arg)
{
    struct settled_waiter *w = calloc(1, sizeof(*w));

    if (w == NULL)
        return -ENOMEM;
    w->age = store_last_age(f->store);
    w->awaits = store_awaits(f->store);
    if (w->awaits && w->age < store_found_age(f->store))
        w->age = store_found_age(f->store);
    w->fn = fn;
    w->arg = arg;
    w->next = f->waiters;
    f->waiters = w;
    forwarder_ring(f);
    return 0;
}

void forwarder_stats(const struct forwarder *f, struct forwarder_stats *out)
{
    uint64_t now_ns = uv_hrtime();

    memset(out, 0, sizeof(*out));
    out->n_in_flight = f->inflight.n;
    out->key_state = f->key.state;
    out->failing = f->failing;
    for (int k = 0; k < PAYLOAD_N_KINDS; k++) {
        const struct breaker *b = &f->routes[k].breaker;
        uint64_t wait_ms = 0;

        if (b->blocked && b->until_ns > now_ns)
            wait_ms = (b->until_ns - now_ns) / FORWARDER_MS_NS;
        if (b->n_failures > out->n_failures)
            out->n_failures = b->n_failures;
        if (wait_ms > out->retry_in_ms)
            out->retry_in_ms = wait_ms;
    }
    snprintf(out->last_error, sizeof(out->last_error), "%s", f->last_error);
    snprintf(out->url, sizeof(out->url), "%.255s", f->endpoint.base);
}

/* ---- the end ------------------------------------------------------------------ */

static void part_closed(void *arg)
{
    struct forwarder *f = arg;
    void (*closed)(void *) = f->closed;
    void *closed_arg = f->closed_arg;

    if (--f->n_open > 0)
        return;
    while (f->waiters != NULL) {
        struct settled_waiter *w = f->waiters;

        f->waiters = w->next;
        free(w);
    }
    inflight_fini(&f->inflight);
    explicit_bzero(f, sizeof(*f)); /* the key */
    free(f);
    closed(closed_arg);
}

static void on_timer_closed(uv_handle_t *timer)
{
    part_closed(timer->data);
}

void forwarder_close(struct forwarder *f, void (*closed)(void *arg), void *arg)
{
    REQUIRE(!f->closing);
    f->closing = true;
    f->idle = NULL;
    f->closed = closed;
    f->closed_arg = arg;
    f->n_open = 1;
    forwarder_unpark(f);
    uv_close((uv_handle_t *)&f->timer, on_timer_closed);
    if (f->module_open)
        f->n_open++;
    if (f->module_open && !f->module_retiring)
        http_module_close(&f->module, part_closed);
    if (f->http != NULL) {
        f->n_open++;
        f->ops->close(f->http, part_closed, f);
    }
}
