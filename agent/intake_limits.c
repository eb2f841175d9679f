/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/intake_limits.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "aggregator/normalise.h"

struct judge {
    const struct intake_series *s;
    char *why;
    size_t n;
};

__attribute__((format(printf, 2, 3))) static int refuse(const struct judge *j,
                                                        const char *fmt, ...)
{
    va_list ap;
    int at;
    size_t n_name = j->s->name.n > 100 ? 100 : j->s->name.n;

    at = snprintf(j->why, j->n, "%.*s: ", (int)n_name,
                  n_name > 0 ? j->s->name.p : "");
    va_start(ap, fmt);
    if (at >= 0 && (size_t)at < j->n)
        (void)vsnprintf(j->why + at, j->n - (size_t)at, fmt, ap);
    va_end(ap);
    for (char *p = j->why; *p != '\0'; p++) {
        if (*p < ' ' || *p > '~')
            *p = '?';
    }
    return INTAKE_REFUSED;
}

static int has_letter(struct intake_view v)
{
    for (size_t i = 0; i < v.n; i++) {
        char c = (char)(v.p[i] | 0x20);

        if (c >= 'a' && c <= 'z')
            return 1;
    }
    return 0;
}

static int begins(struct intake_view v, const char *with)
{
    size_t n = strlen(with);

    return v.n >= n && memcmp(v.p, with, n) == 0;
}

static int check_tags(const struct judge *j)
{
    const struct intake_series *s = j->s;

    for (size_t i = 0; i < s->n_tags; i++) {
        if (s->tags[i].n > INTAKE_TAG_MAX)
            return refuse(j, "tag of %zu bytes (limit %d)", s->tags[i].n,
                          INTAKE_TAG_MAX);
        if (s->type == INTAKE_SKETCH)
            continue;
        if (begins(s->tags[i], "device:") ||
            begins(s->tags[i], "dd.internal.resource:"))
            return refuse(j, "tag that belongs into the resources: %.*s",
                          (int)s->tags[i].n, s->tags[i].p);
    }
    return 0;
}

static int check_sketch(const struct judge *j, const struct intake_point *p)
{
    int64_t n = 0;

    if (p->n_values <= 0)
        return refuse(j, "sketch of %lld values", (long long)p->n_values);
    if (!isfinite(p->min) || !isfinite(p->max) || !isfinite(p->avg))
        return refuse(j, "sketch whose min, max or avg is not finite");
    if (p->min > p->max)
        return refuse(j, "sketch with min %g above max %g", p->min, p->max);
    for (size_t i = 0; i < p->n_bins; i++) {
        if (i > 0 && p->bins[i].k < p->bins[i - 1].k)
            return refuse(j, "sketch whose keys do not ascend");
        n += p->bins[i].n;
    }
    if (n != p->n_values)
        return refuse(j, "sketch of %lld values with %lld in its bins",
                      (long long)p->n_values, (long long)n);
    return 0;
}

static int check_point(const struct judge *j, const struct intake_point *p,
                       int64_t now_s)
{
    if (!isfinite(p->value))
        return refuse(j, "value is not finite");
    if (p->ts_s < 1)
        return refuse(j, "point without a time");
    if (p->ts_s > now_s + INTAKE_FUTURE_MAX_S)
        return refuse(j, "point %lld s in the future (limit %d)",
                      (long long)(p->ts_s - now_s), INTAKE_FUTURE_MAX_S);
    return j->s->type == INTAKE_SKETCH ? check_sketch(j, p) : 0;
}

int intake_limits_check(const struct intake_series *s, int64_t now_s, char *why,
                        size_t n)
{
    struct judge j = {.s = s, .why = why, .n = n};
    char normal[NORMALISE_NAME_MAX];
    int rc;

    if (s->name.n == 0)
        return refuse(&j, "series without a name");
    if (s->name.n > INTAKE_NAME_MAX)
        return refuse(&j, "name of %zu bytes (limit %d)", s->name.n,
                      INTAKE_NAME_MAX);
    if (!has_letter(s->name) ||
        normalise_name(normal, s->name.p, s->name.n) == 0)
        return refuse(&j, "name without a letter");
    if (s->host.n > INTAKE_HOST_MAX)
        return refuse(&j, "host of %zu bytes (limit %d)", s->host.n,
                      INTAKE_HOST_MAX);
    if (s->n_points == 0)
        return refuse(&j, "series without points");
    if (s->interval_s < 0 || s->interval_s > 86400)
        return refuse(&j, "interval of %lld s", (long long)s->interval_s);
    rc = check_tags(&j);
    for (size_t i = 0; rc == 0 && i < s->n_points; i++)
        rc = check_point(&j, &s->points[i], now_s);
    return rc;
}
