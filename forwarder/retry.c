/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The back-off starts at a tenth of a second, not at seconds: most failures are
 * a connection that was closed under us or a restart behind a load balancer, and
 * a container may live no longer than ten seconds. The jitter covers almost the
 * whole range (a fleet that lost its intake must not come back as one), with a
 * floor so that no draw makes a busy loop.
 */
#include "forwarder/retry.h"

#define MS_NS UINT64_C(1000000)
#define MAX_LEVEL 64u /* beyond it nothing grows */

uint64_t retry_random(struct retry_rng *r)
{
    uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

struct retry_policy retry_policy_clean(struct retry_policy p)
{
    if (p.base_ms == 0)
        p.base_ms = 100;
    if (p.max_ms == 0)
        p.max_ms = 64000;
    if (p.max_ms < p.base_ms)
        p.max_ms = p.base_ms;
    if (!(p.factor > 1.0) || p.factor > 1e6)
        p.factor = 2.0;
    return p;
}

uint32_t retry_backoff_ms(const struct retry_policy *p, uint32_t n,
                          struct retry_rng *rng)
{
    double top = p->base_ms;
    uint32_t low = (p->base_ms + 1) / 2;
    uint32_t high;

    for (uint32_t i = 1; i < n && top < p->max_ms; i++)
        top *= p->factor;
    high = top < p->max_ms ? (uint32_t)top : p->max_ms;
    if (high <= low)
        return low;
    return low + (uint32_t)(retry_random(rng) % ((uint64_t)high - low + 1));
}

bool breaker_allows(const struct breaker *b, uint64_t now_ns, bool draining)
{
    if (!b->blocked)
        return true;
    if (now_ns < b->until_ns)
        return false;
    return draining || !b->probing;
}

bool breaker_begin(struct breaker *b, bool draining)
{
    if (draining)
        b->blocked = false; /* the back-off is over, for all */
    if (!b->blocked)
        return false;
    b->probing = true;
    return true;
}

void breaker_success(struct breaker *b)
{
    b->blocked = false;
    b->probing = false;
    b->until_ns = 0;
    b->n_failures -=
        b->n_failures < RETRY_RECOVERY ? b->n_failures : RETRY_RECOVERY;
}

void breaker_forget(struct breaker *b, bool probe)
{
    if (probe)
        b->probing = false;
}

/* The wait while a stop runs: never more than half of what is left, so that an
 * attempt still follows it. */
static uint64_t drain_wait_ns(uint64_t wait_ns, uint64_t now_ns,
                              uint64_t deadline_ns)
{
    uint64_t left = deadline_ns > now_ns ? deadline_ns - now_ns : 0;

    return wait_ns < left / 2 ? wait_ns : left / 2;
}

void breaker_failure(struct breaker *b, const struct retry_policy *p,
                     struct retry_rng *rng, bool probe, uint64_t now_ns,
                     uint32_t retry_after_ms, uint64_t deadline_ns)
{
    uint64_t wait_ms = 0;
    uint64_t until;

    if (retry_after_ms > RETRY_AFTER_MAX_MS)
        retry_after_ms = RETRY_AFTER_MAX_MS;
    if (!b->blocked || probe) {
        if (b->n_failures < MAX_LEVEL)
            b->n_failures++;
        wait_ms = retry_backoff_ms(p, b->n_failures, rng);
        if (deadline_ns != 0 && wait_ms > RETRY_DRAIN_MAX_MS)
            wait_ms = RETRY_DRAIN_MAX_MS;
    }
    if (retry_after_ms > wait_ms)
        wait_ms = retry_after_ms;
    until = now_ns + (deadline_ns != 0
                          ? drain_wait_ns(wait_ms * MS_NS, now_ns, deadline_ns)
                          : wait_ms * MS_NS);
    if (probe)
        b->probing = false;
    if (!b->blocked || until > b->until_ns)
        b->until_ns = until;
    b->blocked = true;
}

void breaker_reset(struct breaker *b)
{
    *b = (struct breaker){0};
}

enum verdict retry_verdict(enum http_error error, int status)
{
    if (error == HTTP_CANCELLED)
        return VERDICT_CANCEL;
    if (error != HTTP_OK)
        return VERDICT_RETRY;
    if (status >= 200 && status <= 299)
        return VERDICT_DELIVERED;
    switch (status) {
    case 401:
    case 403:
        return VERDICT_KEY;
    case 413:
        return VERDICT_SPLIT;
    case 404: /* a route that a proxy or an intake does not have yet */
    case 407: /* of a proxy: the intake has not seen it */
    case 408:
    case 429:
        return VERDICT_RETRY;
    default:
        return status >= 400 && status <= 499 ? VERDICT_DROP : VERDICT_RETRY;
    }
}

bool retry_was_refused(enum http_error error, int status)
{
    /* 408 may come after the body; 5xx may come from behind a queue. */
    return error == HTTP_OK && status >= 300 && status <= 499 && status != 408;
}

static const char *status_advice(int status)
{
    switch (status) {
    case 400:
        return "the intake refused the payload as malformed";
    case 401:
    case 403:
        return "the intake refused the API key: check api_key and site "
               "(payloads are kept and tried again)";
    case 404:
        return "the intake does not know this route: check dd_url";
    case 407:
        return "the proxy wants credentials: put them into the proxy's URL";
    case 408:
        return "the intake waited too long for the body";
    case 413:
        return "the payload is too large for the intake or a proxy before it";
    case 429:
        return "the intake asks to send less often";
    default:
        break;
    }
    if (status >= 300 && status <= 399)
        return "a redirect, which is never followed: set site or dd_url to the "
               "address that answers itself";
    if (status >= 400 && status <= 499)
        return "the intake will not take the payload";
    return "a fault of the intake or a proxy before it; tried again";
}

const char *retry_advice(enum http_error error, int status)
{
    switch (error) {
    case HTTP_OK:
        return status >= 200 && status <= 299 ? "" : status_advice(status);
    case HTTP_DNS:
        return "check site, dd_url, the proxy and the name servers";
    case HTTP_CONNECT:
        return "check site, dd_url, the network, the firewall and the proxy";
    case HTTP_TLS:
        return "check tls_ca_file, min_tls_version, the clock, and proxies "
               "that open TLS";
    case HTTP_TIMEOUT:
        return "no answer in time: check the network, or raise "
               "forwarder_timeout";
    case HTTP_RESET:
        return "the connection ended early; tried again";
    case HTTP_CANCELLED:
        return "given up at the end of the stop";
    case HTTP_OTHER:
        break;
    }
    return "not an answer of an HTTP intake: check dd_url and the proxy";
}
