/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two witnesses speak about the key. The validation route tells the user early;
 * what it cannot say (an intake or proxy of one's own may not have it) counts as
 * valid. The payloads themselves decide: after a 401 or 403 nothing is sent until
 * the next validation or a new key, then one payload goes first. Nothing is
 * dropped for it.
 */
#include <string.h>

#include "agent/base/log.h"
#include "forwarder/forwarder_impl.h"

#define S_NS (1000 * FORWARDER_MS_NS)

static void report_refused(struct forwarder *f, int status)
{
    if (f->key.state != KEY_INVALID)
        log_error("forwarder",
                  "the intake refused the API key %s: check api_key and site; "
                  "payloads are kept and tried again status=%d url=%s",
                  f->key.masked, status, f->endpoint.base);
    f->key.state = KEY_INVALID;
}

static void schedule(struct forwarder *f)
{
    uint64_t every_s = f->cfg->validate_every_s;

    if (f->key.refused || f->key.state == KEY_INVALID) {
        if (every_s == 0 || every_s > FORWARDER_REVALIDATE_S)
            every_s = FORWARDER_REVALIDATE_S;
    }
    f->key.validate_at_ns =
        every_s == 0 ? FORWARDER_NEVER : uv_hrtime() + every_s * S_NS;
}

static void report_valid(struct forwarder *f)
{
    if (f->key.state != KEY_VALID)
        log_info("forwarder", "the API key %s was accepted url=%s",
                 f->key.masked, f->endpoint.base);
    f->key.state = KEY_VALID;
}

void forwarder_key_accepted(struct forwarder *f, bool delivered)
{
    f->key.refused = false;
    f->key.may_probe = false;
    f->key.refused_id = 0;
    if (delivered)
        report_valid(f);
}

void forwarder_key_refused(struct forwarder *f, uint64_t id, int status)
{
    f->key.refused_id = id;
    f->key.may_probe = false;
    report_refused(f, status);
    forwarder_note_error(f, "HTTP %d: %s", status,
                         retry_advice(HTTP_OK, status));
    if (!f->key.refused) {
        f->key.refused = true;
        schedule(f);
    }
}

static void on_validated(void *arg, const struct http_result *r)
{
    struct forwarder *f = arg;
    bool current = f->key.validating_generation == f->key.generation;

    f->key.validating = false;
    if (r->error == HTTP_CANCELLED)
        return;
    if (current) {
        if (r->error == HTTP_OK && r->status == 200) {
            if (!f->key.refused) /* the payloads' word weighs more */
                report_valid(f);
        } else if (r->error == HTTP_OK &&
                   (r->status == 401 || r->status == 403)) {
            report_refused(f, r->status);
        } else if (!f->key.unknown_reported) {
            f->key.unknown_reported = true;
            log_warn("forwarder",
                     "the intake did not validate the API key %s; payloads "
                     "are tried all the same; %s url=%s status=%d "
                     "cause=\"%s\"",
                     f->key.masked, retry_advice(r->error, r->status),
                     f->endpoint.base, r->status, r->message);
        }
        f->key.may_probe = f->key.refused;
        schedule(f);
    }
    forwarder_ring(f);
}

void forwarder_key_step(struct forwarder *f, uint64_t now_ns)
{
    struct endpoint_headers headers;
    char url[ENDPOINT_FULL_URL_MAX];
    struct http_request rq = {
        .method = "GET",
        .url = url,
        .headers = headers.list,
        .done = on_validated,
        .arg = f,
    };

    if (f->http == NULL || f->key.key[0] == '\0' || f->key.validating ||
        f->draining || now_ns < f->key.validate_at_ns)
        return;
    endpoint_validate_url(&f->endpoint, url);
    endpoint_validate_headers(&headers, f->key.key, f->cfg->version);
    schedule(f);
    f->key.validating_generation = f->key.generation;
    f->key.validating = f->ops->start(f->http, &rq) == 0;
    endpoint_headers_wipe(&headers);
}

void forwarder_set_key(struct forwarder *f, const char *api_key)
{
    struct key_cycle *k = &f->key;
    const char *why;

    if (api_key == NULL)
        api_key = "";
    log_set_secret(api_key);
    if (!endpoint_check_key(api_key, &why)) {
        log_error("forwarder", "the API key cannot be sent: it %s", why);
        api_key = "";
    }
    explicit_bzero(k->key, sizeof(k->key));
    memcpy(k->key, api_key, strlen(api_key));
    endpoint_mask_key(api_key, k->masked);
    k->state = api_key[0] != '\0' ? KEY_UNKNOWN : KEY_MISSING;
    k->generation++;
    k->refused = false;
    k->may_probe = false;
    k->unknown_reported = false;
    k->validate_at_ns = 0;
    forwarder_unpark(f);
    forwarder_ring(f);
}
