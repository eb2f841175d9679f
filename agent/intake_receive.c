/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/intake_receive.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/intake_body.h"
#include "agent/intake_limits.h"

/* The caps are those that the Agent keeps to when it fills a payload; the
 * intake itself is a little wider for some kinds. */
static const struct {
    const char *path;
    size_t packed_max;
    size_t plain_max;
} routes[] = {
    [INTAKE_ROUTE_SERIES_V2] = {"/api/v2/series", 512000, INTAKE_PLAIN_MAX},
    [INTAKE_ROUTE_SERIES_V1] = {"/api/v1/series", INTAKE_PACKED_MAX, 4194304},
    [INTAKE_ROUTE_SKETCHES] = {"/api/beta/sketches", INTAKE_PACKED_MAX,
                               4194304},
    [INTAKE_ROUTE_CHECKS] = {"/api/v1/check_run", INTAKE_PACKED_MAX, 4194304},
    [INTAKE_ROUTE_EVENTS] = {"/intake/", INTAKE_PACKED_MAX, 4194304},
};

/* One body on its way through the two decodings. */
struct pass {
    struct intake *in;
    enum intake_route route;
    int64_t now_s;
    size_t n_planned; /* bytes of the store that the payload will need */
    char why[INTAKE_WHY_MAX];
};

int intake_init(struct intake *in, size_t max_bytes, uint64_t seed)
{
    memset(in, 0, sizeof(*in));
    in->decoder = intake_decoder_create();
    if (in->decoder == NULL)
        return -ENOMEM;
    intake_store_init(&in->store, max_bytes, seed);
    return 0;
}

static void clear_counts(struct intake *in)
{
    for (size_t i = 0; i < in->n_errors; i++)
        free(in->errors[i]);
    in->n_errors = 0;
    in->n_errors_seen = in->n_requests = in->n_refused = in->n_faulted = 0;
}

void intake_fini(struct intake *in)
{
    clear_counts(in);
    intake_store_fini(&in->store);
    intake_decoder_close(in->decoder);
    in->decoder = NULL;
}

void intake_clear(struct intake *in)
{
    clear_counts(in);
    intake_store_clear(&in->store);
}

int intake_route(const char *path)
{
    size_t n = strlen(path);

    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        size_t m = strlen(routes[i].path);

        /* "/intake" and "/intake/" alike */
        if (strcmp(path, routes[i].path) == 0 ||
            (routes[i].path[m - 1] == '/' && n == m - 1 &&
             memcmp(path, routes[i].path, n) == 0))
            return (int)i;
    }
    return -1;
}

void intake_refuse(struct intake *in, enum intake_route route, unsigned status,
                   const char *why)
{
    in->n_refused++;
    in->n_errors_seen++;
    (void)snprintf(in->last_error, sizeof(in->last_error), "%u %s: %s", status,
                   routes[route].path, why);
    if (in->n_errors == INTAKE_ERRORS_MAX)
        return;
    in->errors[in->n_errors] = strdup(in->last_error);
    if (in->errors[in->n_errors] != NULL)
        in->n_errors++;
}

/* First pass: nothing is stored, the first fault ends it. */
static int judge_series(void *arg, const struct intake_series *s)
{
    struct pass *p = arg;
    int rc = intake_limits_check(s, p->now_s, p->why, sizeof(p->why));

    if (rc != 0)
        return rc;
    return intake_store_room(&p->in->store, s, &p->n_planned);
}

static int judge_item(void *arg, const struct intake_item *item)
{
    (void)arg;
    (void)item;
    return 0; /* the decoder judged it */
}

static int store_series(void *arg, const struct intake_series *s)
{
    struct pass *p = arg;

    intake_store_put(&p->in->store, s);
    return 0;
}

static int store_item(void *arg, const struct intake_item *item)
{
    struct pass *p = arg;
    struct intake_store *s = &p->in->store;

    intake_store_item(s,
                      p->route == INTAKE_ROUTE_CHECKS ? &s->checks : &s->events,
                      item->json);
    return 0;
}

/* Returns 0 or 415. */
static unsigned kind_of(const struct intake_request *r, enum intake_kind *kind)
{
    const char *type = r->content_type;
    int protobuf = type != NULL && strstr(type, "protobuf") != NULL;
    int json = type == NULL || strstr(type, "json") != NULL;

    switch (r->route) {
    case INTAKE_ROUTE_SERIES_V2:
        *kind = protobuf ? INTAKE_SERIES_V2_PB : INTAKE_SERIES_V2_JSON;
        return protobuf || json ? 0 : 415;
    case INTAKE_ROUTE_SKETCHES:
        *kind = INTAKE_SKETCHES;
        return protobuf ? 0 : 415;
    case INTAKE_ROUTE_SERIES_V1:
        *kind = INTAKE_SERIES_V1;
        break;
    case INTAKE_ROUTE_CHECKS:
        *kind = INTAKE_CHECKS;
        break;
    case INTAKE_ROUTE_EVENTS:
        *kind = INTAKE_EVENTS;
        break;
    }
    return json ? 0 : 415;
}

static unsigned refuse(struct intake *in, enum intake_route route,
                       unsigned status, const char *why)
{
    intake_refuse(in, route, status, why);
    return status;
}

static unsigned receive_plain(struct intake *in, const struct intake_request *r,
                              enum intake_kind kind, const void *body, size_t n)
{
    struct pass p = {.in = in, .route = r->route, .now_s = r->now_s};
    int rc =
        intake_decode(in->decoder, kind, body, n, judge_series, judge_item, &p);

    switch (rc) {
    case 0:
        break;
    case INTAKE_BAD:
        return refuse(in, r->route, 400, intake_decoder_why(in->decoder));
    case INTAKE_REFUSED:
        return refuse(in, r->route, 400, p.why);
    case INTAKE_STORE_FULL:
        return refuse(in, r->route, 507, "the store is full (--max-bytes)");
    default:
        return refuse(in, r->route, 507, "out of memory");
    }
    rc =
        intake_decode(in->decoder, kind, body, n, store_series, store_item, &p);
    return rc == 0 ? 202 : refuse(in, r->route, 507, "out of memory");
}

unsigned intake_receive(struct intake *in, const struct intake_request *r)
{
    enum intake_kind kind = INTAKE_EVENTS;
    void *plain = NULL;
    size_t n_plain = 0;
    unsigned status = kind_of(r, &kind);
    int rc;

    if (status != 0)
        return refuse(in, r->route, status, "this content type is not taken");
    if (r->n_body > routes[r->route].packed_max)
        return refuse(in, r->route, 413, "body too large");
    rc = intake_body_plain(r->content_encoding, r->body, r->n_body,
                           routes[r->route].plain_max, &plain, &n_plain);
    switch (rc) {
    case 0:
        break;
    case INTAKE_BODY_UNKNOWN:
        return refuse(in, r->route, 415, "this content encoding is not taken");
    case INTAKE_BODY_BROKEN:
        return refuse(in, r->route, 400, "broken compression");
    case INTAKE_BODY_TOO_LARGE:
        return refuse(in, r->route, 413, "unpacked body too large");
    default:
        return refuse(in, r->route, 507, "out of memory");
    }
    status = receive_plain(in, r, kind, plain, n_plain);
    free(plain);
    return status;
}
