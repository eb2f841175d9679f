/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Going down closes the listening socket and so joins the server's threads,
 * which no request may do from its own: /control leaves a wish and rings, and
 * the owner fulfils it in serve_step(). The bell rings when the answer to
 * /control is out, so that who asked gets its answer.
 */
#include "agent/intake_serve.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/json.h"
#include "agent/httpd_server.h"
#include "agent/intake_control.h"
#include "agent/intake_receive.h"
#include "agent/intake_report.h"

#define CONNECTIONS_MAX 128
#define ADDRESS_MAX 64
#define RETRY_MS 100 /* between two attempts to get the port back */

struct serve {
    struct serve_options o;
    struct httpd *http, *control;
    char address[ADDRESS_MAX]; /* with the real port */
    char url[ADDRESS_MAX + 8], control_url[ADDRESS_MAX + 8];
    int bell;
    pthread_mutex_t lock; /* covers all below */
    struct intake intake;
    struct intake_settings settings;
    int64_t up_at_ms; /* closed until then, 0 = no such time */
};

static const char about[] =
    "retriever intake: a local stand-in for the Datadog intake.\n"
    "GET /totals: sums of each metric. GET /series: every series and point.\n";

static int64_t clock_ms(clockid_t clock)
{
    struct timespec t;

    (void)clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void answer(struct httpd_reply *reply, unsigned status, const char *type,
                   const char *text)
{
    reply->status = status;
    reply->content_type = type;
    reply->body = strdup(text);
    reply->n_body = reply->body != NULL ? strlen(text) : 0;
}

static void answer_json(struct httpd_reply *reply, unsigned status,
                        const char *text)
{
    answer(reply, status, "application/json", text);
}

static int has_key(struct serve *s, const struct httpd_request *r)
{
    const char *key = httpd_header(r, "DD-API-KEY");
    int ok;

    (void)pthread_mutex_lock(&s->lock);
    ok = key != NULL && *key != '\0' &&
         (s->settings.api_key[0] == '\0' ||
          strcmp(key, s->settings.api_key) == 0);
    (void)pthread_mutex_unlock(&s->lock);
    return ok;
}

/* Judge and store; the lock is held. */
static unsigned take(struct serve *s, const struct httpd_request *r, int route,
                     int keyed)
{
    struct intake_request in = {
        .route = (enum intake_route)route,
        .content_type = httpd_header(r, "Content-Type"),
        .content_encoding = httpd_header(r, "Content-Encoding"),
        .body = r->body,
        .n_body = r->n_body,
        .now_s = clock_ms(CLOCK_REALTIME) / 1000,
    };
    unsigned status = 0;

    if (!keyed)
        status = 403;
    else if (r->body_too_large)
        status = 413;
    if (status == 0)
        return intake_receive(&s->intake, &in);
    intake_refuse(&s->intake, in.route, status,
                  keyed ? "body too large"
                        : "no API key, or not the right one");
    return status;
}

/* {"errors":[@why]} */
static void answer_error(struct httpd_reply *reply, unsigned status,
                         const char *why)
{
    struct buf out;
    struct json j;

    buf_init(&out, 2 * INTAKE_ERROR_MAX);
    json_init(&j, &out);
    json_object(&j);
    json_key(&j, "errors");
    json_array(&j);
    json_str(&j, why);
    json_end(&j);
    json_end(&j);
    answer_json(reply, status,
                json_finish(&j) == 0 ? buf_cstr(&out) : "{\"errors\":[]}");
    buf_fini(&out);
}

static void answer_status(struct httpd_reply *reply, int route, unsigned status,
                          const char *why)
{
    int lists_errors =
        route == INTAKE_ROUTE_SERIES_V2 || route == INTAKE_ROUTE_SKETCHES;

    if (status >= 300)
        answer_error(reply, status, why);
    else
        answer_json(reply, status,
                    lists_errors ? "{\"errors\":[]}" : "{\"status\":\"ok\"}");
}

static void on_payload(struct serve *s, const struct httpd_request *r,
                       int route, struct httpd_reply *reply)
{
    int keyed = has_key(s, r);
    struct fault_outcome o;
    char why[INTAKE_ERROR_MAX] = "injected fault";
    unsigned latency_ms;
    unsigned status;

    (void)pthread_mutex_lock(&s->lock);
    s->intake.n_requests++;
    o = fault_next(&s->settings.plan);
    latency_ms = s->settings.latency_ms;
    status = o.status;
    if (o.kind == FAULT_ACCEPT || o.kind == FAULT_LATE_RESET) {
        status = take(s, r, route, keyed);
        if (status != 202)
            memcpy(why, s->intake.last_error, sizeof(why));
    }
    if (o.kind == FAULT_ACCEPT && status == 202 && o.status != 0)
        status = o.status;
    if (o.kind != FAULT_ACCEPT)
        s->intake.n_faulted++;
    (void)pthread_mutex_unlock(&s->lock);

    if (o.kind == FAULT_STALL)
        (void)httpd_wait(r, -1);
    else if (latency_ms > 0)
        (void)httpd_wait(r, (int)latency_ms);
    reply->cut = o.kind == FAULT_RESET || o.kind == FAULT_LATE_RESET ||
                 o.kind == FAULT_STALL;
    reply->retry_after_s = o.retry_after_s;
    if (!reply->cut)
        answer_status(reply, route, status, why);
}

static void on_dump(struct serve *s, struct httpd_reply *reply, int all)
{
    struct buf out;
    int rc;

    buf_init(&out, SERVE_ANSWER_MAX);
    (void)pthread_mutex_lock(&s->lock);
    rc = all ? intake_report_series(&s->intake, &out)
             : intake_report_totals(&s->intake, &out);
    (void)pthread_mutex_unlock(&s->lock);
    if (rc != 0) {
        buf_fini(&out);
        answer_json(reply, 507, "{\"errors\":[\"out of memory\"]}");
        return;
    }
    reply->status = 200;
    reply->content_type = "application/json";
    reply->body = out.data; /* handed over */
    reply->n_body = out.n;
}

static void on_control(struct serve *s, const struct httpd_request *r,
                       struct httpd_reply *reply)
{
    struct intake_order order = {0};
    char why[120] = "";
    int rc;

    (void)pthread_mutex_lock(&s->lock);
    rc = intake_control(&s->settings, r->body, r->n_body, &order, why,
                        sizeof(why));
    if (rc == 0 && order.reset)
        intake_clear(&s->intake);
    if (rc == 0 && order.down_ms > 0)
        s->up_at_ms = clock_ms(CLOCK_MONOTONIC) + order.down_ms;
    (void)pthread_mutex_unlock(&s->lock);
    reply->tell_over = 1;
    if (rc == 0) {
        answer_json(reply, 200, "{\"status\":\"ok\"}");
        return;
    }
    answer_error(reply, 400, why);
}

/* Down without a control address: the port stays open for /control and the
 * totals alone, everything else is cut. */
static int is_down(struct serve *s)
{
    int down;

    (void)pthread_mutex_lock(&s->lock);
    down = s->settings.down;
    (void)pthread_mutex_unlock(&s->lock);
    return down;
}

static void on_get(struct serve *s, const struct httpd_request *r,
                   struct httpd_reply *reply)
{
    if (strcmp(r->path, "/totals") == 0 || strcmp(r->path, "/series") == 0)
        on_dump(s, reply, r->path[1] == 's');
    else if (strcmp(r->path, "/") == 0)
        answer(reply, 200, "text/plain; charset=utf-8", about);
    else if (strcmp(r->path, "/api/v1/validate") != 0)
        answer_json(reply, 404, "{\"errors\":[\"Not found\"]}");
    else if (is_down(s))
        reply->cut = 1;
    else if (has_key(s, r))
        answer_json(reply, 200, "{\"valid\":true}");
    else
        answer_json(reply, 403, "{\"errors\":[\"Forbidden\"]}");
}

static void on_request(void *arg, const struct httpd_request *r,
                       struct httpd_reply *reply)
{
    struct serve *s = arg;
    int route = intake_route(r->path);

    if (strcmp(r->method, "GET") == 0)
        on_get(s, r, reply);
    else if (strcmp(r->method, "POST") != 0)
        answer_json(reply, 405, "{\"errors\":[\"Method not allowed\"]}");
    else if (strcmp(r->path, "/control") == 0)
        on_control(s, r, reply);
    else if (is_down(s))
        reply->cut = 1;
    else if (route < 0)
        answer_json(reply, 404, "{\"errors\":[\"Not found\"]}");
    else
        on_payload(s, r, route, reply);
}

static void on_over(void *arg)
{
    struct serve *s = arg;
    const uint64_t one = 1;
    ssize_t n = write(s->bell, &one, sizeof(one));

    (void)n; /* full: it rings already */
}

static int start_one(struct serve *s, const char *address, struct httpd **out,
                     char *where)
{
    int fd = httpd_listen(address, where, ADDRESS_MAX);
    struct httpd_options o = {
        .listen_fd = fd,
        .max_body_bytes = INTAKE_PACKED_MAX,
        .max_connections = CONNECTIONS_MAX,
        .tls_cert = s->o.tls_cert,
        .tls_key = s->o.tls_key,
        .handle = on_request,
        .over = on_over,
        .arg = s,
    };

    return fd < 0 ? fd : httpd_start(out, &o);
}

static void explain(char *why, size_t n_why, const char *address, int rc)
{
    const char *advice = "";

    if (rc == -EINVAL)
        advice = "; an address is ADDR:PORT, such as 127.0.0.1:9000";
    else if (rc == -EADDRINUSE)
        advice = "; another program listens there, port 0 takes a free one";
    (void)snprintf(why, n_why, "%s: %s%s", address, strerror(-rc), advice);
}

int serve_start(struct serve **out, const struct serve_options *o, char *why,
                size_t n_why)
{
    struct serve *s = calloc(1, sizeof(*s));
    const char *scheme = o->tls_cert != NULL ? "https" : "http";
    char where[ADDRESS_MAX];
    int rc = -ENOMEM;

    if (s == NULL)
        goto out;
    s->o = *o;
    s->settings.latency_ms = o->latency_ms;
    s->settings.plan = *o->plan;
    (void)pthread_mutex_init(&s->lock, NULL);
    s->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->bell < 0 || intake_init(&s->intake, o->max_bytes, o->seed) != 0)
        goto out;
    rc = start_one(s, o->listen, &s->http, s->address);
    explain(why, n_why, o->listen, rc);
    if (rc != 0)
        goto out;
    (void)snprintf(s->url, sizeof(s->url), "%s://%s", scheme, s->address);
    if (o->control != NULL) {
        rc = start_one(s, o->control, &s->control, where);
        explain(why, n_why, o->control, rc);
        if (rc != 0)
            goto out;
        (void)snprintf(s->control_url, sizeof(s->control_url), "%s://%s",
                       scheme, where);
    }
    *out = s;
    s = NULL;
out:
    if (rc == -ENOMEM)
        (void)snprintf(why, n_why, "out of memory");
    serve_close(s);
    return rc;
}

const char *serve_url(const struct serve *s)
{
    return s->url;
}

const char *serve_control_url(const struct serve *s)
{
    return s->control != NULL ? s->control_url : NULL;
}

int serve_fd(const struct serve *s)
{
    return s->bell;
}

int serve_step(struct serve *s)
{
    uint64_t n_rings;
    ssize_t n = read(s->bell, &n_rings, sizeof(n_rings));
    int64_t now_ms = clock_ms(CLOCK_MONOTONIC);
    int64_t left_ms;
    int close_now;

    (void)n;
    (void)pthread_mutex_lock(&s->lock);
    left_ms = s->up_at_ms - now_ms;
    close_now = left_ms > 0 || (s->settings.down && s->control != NULL);
    (void)pthread_mutex_unlock(&s->lock);

    if (close_now && s->http != NULL) {
        httpd_stop(s->http);
        s->http = NULL;
    }
    if (!close_now && s->http == NULL) {
        /* Somebody else may have taken the port meanwhile: go on trying. */
        if (start_one(s, s->address, &s->http, s->address) != 0)
            return RETRY_MS;
    }
    return left_ms > 0 ? (int)left_ms : -1;
}

int serve_totals(struct serve *s, struct buf *out)
{
    int rc;

    (void)pthread_mutex_lock(&s->lock);
    rc = intake_report_totals(&s->intake, out);
    (void)pthread_mutex_unlock(&s->lock);
    return rc;
}

void serve_table(struct serve *s, FILE *f, size_t n_rows)
{
    (void)pthread_mutex_lock(&s->lock);
    intake_report_table(&s->intake, f, n_rows);
    (void)pthread_mutex_unlock(&s->lock);
}

void serve_quiet(struct serve *s)
{
    httpd_stop(s->http);
    httpd_stop(s->control);
    s->http = s->control = NULL;
}

void serve_close(struct serve *s)
{
    if (s == NULL)
        return;
    serve_quiet(s);
    intake_fini(&s->intake);
    (void)pthread_mutex_destroy(&s->lock);
    if (s->bell >= 0)
        (void)close(s->bell);
    free(s);
}
