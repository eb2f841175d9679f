/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/intake_report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/json.h"

static const char *const type_words[] = {[INTAKE_COUNT] = "count",
                                         [INTAKE_RATE] = "rate",
                                         [INTAKE_GAUGE] = "gauge",
                                         [INTAKE_SKETCH] = "sketch"};

static const char *type_of(const struct stored_metric *m)
{
    for (unsigned t = INTAKE_COUNT; t <= INTAKE_SKETCH; t++) {
        if (m->types == 1U << t)
            return type_words[t];
    }
    return "mixed";
}

static int compare_metrics(const void *a, const void *b)
{
    const struct stored_metric *const *x = a;
    const struct stored_metric *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

/* All metrics with fresh sums, sorted; NULL when there is none or no memory. */
static struct stored_metric **sorted(struct intake_store *s, size_t *n)
{
    struct stored_metric **list;

    *n = 0;
    intake_store_sum(s);
    list = s->n_metrics > 0 ? malloc(s->n_metrics * sizeof(*list)) : NULL;
    for (size_t i = 0; list != NULL && i < s->cap_metrics; i++) {
        if (s->metrics[i] != NULL)
            list[(*n)++] = s->metrics[i];
    }
    if (*n > 0)
        qsort(list, *n, sizeof(*list), compare_metrics);
    return list;
}

static void put_metric(struct json *j, const struct stored_metric *m)
{
    json_key(j, m->name);
    json_object(j);
    json_member_str(j, "type", type_of(m));
    json_member_u64(j, "contexts", m->n_series);
    json_member_u64(j, "points", m->n_points);
    json_member_double(j, "sum", (double)m->sum);
    if (m->n_values > 0) {
        json_member_i64(j, "count", m->n_values);
        json_member_double(j, "min", m->min);
        json_member_double(j, "max", m->max);
    }
    json_end(j);
}

int intake_report_totals(struct intake *in, struct buf *out)
{
    struct json j;
    size_t n;
    struct stored_metric **list = sorted(&in->store, &n);

    json_init(&j, out);
    json_object(&j);
    json_member_u64(&j, "requests", in->n_requests);
    json_member_u64(&j, "refused", in->n_refused);
    json_member_u64(&j, "faulted", in->n_faulted);
    json_member_u64(&j, "replaced_points", in->store.n_replaced);
    json_key(&j, "metrics");
    json_object(&j);
    for (size_t i = 0; i < n; i++)
        put_metric(&j, list[i]);
    json_end(&j);
    json_member_u64(&j, "events", in->store.events.n_seen);
    json_member_u64(&j, "checks", in->store.checks.n_seen);
    json_key(&j, "errors");
    json_array(&j);
    for (size_t i = 0; i < in->n_errors; i++)
        json_str(&j, in->errors[i]);
    json_end(&j);
    json_end(&j);
    free(list);
    return json_finish(&j);
}

static void put_sketch(struct json *j, const struct stored_sketch *k)
{
    json_member_i64(j, "count", k->n_values);
    json_member_double(j, "min", k->min);
    json_member_double(j, "max", k->max);
    json_member_double(j, "avg", k->avg);
    json_key(j, "k");
    json_array(j);
    for (size_t i = 0; i < k->n_bins; i++)
        json_i64(j, k->bins[i].k);
    json_end(j);
    json_key(j, "n");
    json_array(j);
    for (size_t i = 0; i < k->n_bins; i++)
        json_u64(j, k->bins[i].n);
    json_end(j);
}

static void put_point(struct json *j, const struct stored_point *p)
{
    json_object(j);
    json_member_i64(j, "ts", p->ts_s);
    json_member_str(j, "type", type_words[p->type]);
    json_member_double(j, "value", p->value);
    if (p->type == INTAKE_RATE)
        json_member_u64(j, "interval", p->interval_s);
    if (p->sketch != NULL)
        put_sketch(j, p->sketch);
    json_end(j);
}

static void put_tags(struct json *j, const char *p, size_t n)
{
    const char *end = p + n;

    json_key(j, "tags");
    json_array(j);
    while (p < end) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        size_t n_tag = (size_t)((comma != NULL ? comma : end) - p);

        json_strn(j, p, n_tag);
        p += n_tag + (comma != NULL);
    }
    json_end(j);
}

static void put_series(struct json *j, const struct stored_series *e)
{
    json_object(j);
    json_member_str(j, "metric", e->metric->name);
    put_tags(j, e->key + e->at_tags, e->n_tags);
    json_key(j, "host");
    json_strn(j, e->key + e->at_host, e->n_host);
    json_key(j, "points");
    json_array(j);
    for (size_t i = 0; i < e->n_points; i++)
        put_point(j, &e->points[i]);
    json_end(j);
    json_end(j);
}

static void put_items(struct json *j, const char *name,
                      const struct stored_items *s)
{
    json_key(j, name);
    json_array(j);
    for (size_t i = 0; i < s->n; i++)
        json_raw(j, s->json[i], strlen(s->json[i]));
    json_end(j);
}

int intake_report_series(struct intake *in, struct buf *out)
{
    const struct intake_store *s = &in->store;
    struct json j;

    json_init(&j, out);
    json_object(&j);
    json_key(&j, "series");
    json_array(&j);
    for (size_t i = 0; i < s->cap_series; i++) {
        if (s->table[i] != NULL)
            put_series(&j, s->table[i]);
    }
    json_end(&j);
    put_items(&j, "events", &s->events);
    put_items(&j, "checks", &s->checks);
    json_end(&j);
    return json_finish(&j);
}

void intake_report_table(struct intake *in, FILE *f, size_t n_rows)
{
    size_t n;
    struct stored_metric **list = sorted(&in->store, &n);
    size_t n_shown = n_rows > 0 && n > n_rows ? n_rows : n;

    (void)fprintf(f, "%-44s %-7s %9s %9s %17s\n", "metric", "type", "contexts",
                  "points", "sum");
    for (size_t i = 0; i < n_shown; i++) {
        const struct stored_metric *m = list[i];

        (void)fprintf(f, "%-44s %-7s %9" PRIu64 " %9" PRIu64 " %17.10g\n",
                      m->name, type_of(m), m->n_series, m->n_points,
                      (double)m->sum);
    }
    if (n_shown < n)
        (void)fprintf(f, "... and %zu more\n", n - n_shown);
    (void)fprintf(f,
                  "%" PRIu64 " events, %" PRIu64 " checks; %" PRIu64
                  " requests, %" PRIu64 " refused, %" PRIu64
                  " faults injected, %" PRIu64 " points replaced\n",
                  in->store.events.n_seen, in->store.checks.n_seen,
                  in->n_requests, in->n_refused, in->n_faulted,
                  in->store.n_replaced);
    for (size_t i = 0; i < in->n_errors && i < 10; i++)
        (void)fprintf(f, "refused: %s\n", in->errors[i]);
    if (in->n_errors_seen > 10)
        (void)fprintf(f, "... and %" PRIu64 " more\n", in->n_errors_seen - 10);
    free(list);
}
