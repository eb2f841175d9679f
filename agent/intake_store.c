/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A series' key is its identity spelled out: name NUL tag,tag,... NUL host. A
 * normal form holds neither NUL nor comma, and the host comes last, so two
 * identities never share a key.
 */
#include "agent/intake_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "agent/base/contract.h"
#include "agent/intake_limits.h"
#include "aggregator/normalise.h"

/* Tags that count for the identity: the tags and the resources as tags. */
#define TAGS_MAX (INTAKE_TAGS_MAX + INTAKE_RESOURCES_MAX)
#define KEY_MAX                                                                \
    (NORMALISE_NAME_MAX + 1 + TAGS_MAX * (NORMALISE_TAG_MAX + 1) + 1 +         \
     INTAKE_HOST_MAX)

struct key {
    uint32_t n_name, at_tags, n_tags, at_host, n_host, n;
    char bytes[KEY_MAX];
};

struct tag {
    uint16_t n;
    char p[NORMALISE_TAG_MAX];
};

static void *must(void *p)
{
    if (p == NULL) {
        (void)fputs("retriever intake: out of memory\n", stderr);
        abort();
    }
    return p;
}

void intake_store_init(struct intake_store *s, size_t max_bytes, uint64_t seed)
{
    memset(s, 0, sizeof(*s));
    s->max_bytes = max_bytes;
    s->seed = seed;
}

static void free_items(struct stored_items *items)
{
    for (size_t i = 0; i < items->n; i++)
        free(items->json[i]);
    free(items->json);
}

void intake_store_fini(struct intake_store *s)
{
    for (size_t i = 0; i < s->cap_series; i++) {
        struct stored_series *e = s->table[i];

        if (e == NULL)
            continue;
        for (size_t k = 0; k < e->n_points; k++)
            free(e->points[k].sketch);
        free(e->points);
        free(e);
    }
    for (size_t i = 0; i < s->cap_metrics; i++) {
        if (s->metrics[i] != NULL)
            free(s->metrics[i]->name);
        free(s->metrics[i]);
    }
    free(s->table);
    free(s->metrics);
    free_items(&s->checks);
    free_items(&s->events);
    memset(s, 0, sizeof(*s));
}

void intake_store_clear(struct intake_store *s)
{
    size_t max_bytes = s->max_bytes;
    uint64_t seed = s->seed;

    intake_store_fini(s);
    intake_store_init(s, max_bytes, seed);
}

static int compare_tags(const void *a, const void *b)
{
    const struct tag *x = a;
    const struct tag *y = b;
    int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);

    return c != 0 ? c : (int)x->n - (int)y->n;
}

/* Append the part of @v that a normal form can hold. */
static size_t put_text(char *text, size_t at, struct intake_view v)
{
    size_t n = v.n < NORMALISE_TAG_MAX ? v.n : NORMALISE_TAG_MAX;

    if (n > 0)
        memcpy(text + at, v.p, n);
    return at + n;
}

static size_t normal_tags(struct tag *tags, const struct intake_series *s)
{
    size_t n = 0;

    for (size_t i = 0; i < s->n_tags; i++) {
        tags[n].n =
            (uint16_t)normalise_tag(tags[n].p, s->tags[i].p, s->tags[i].n);
        n += tags[n].n > 0;
    }
    for (size_t i = 0; i + 1 < s->n_resources; i += 2) {
        char text[2 * NORMALISE_TAG_MAX + 1];
        size_t len = put_text(text, 0, s->resources[i]);

        text[len++] = ':';
        len = put_text(text, len, s->resources[i + 1]);
        tags[n].n = (uint16_t)normalise_tag(tags[n].p, text, len);
        n += tags[n].n > 0;
    }
    qsort(tags, n, sizeof(tags[0]), compare_tags);
    return n;
}

static void make_key(struct key *k, const struct intake_series *s)
{
    struct tag tags[TAGS_MAX];
    size_t n_tags = normal_tags(tags, s);
    uint32_t n;

    n = (uint32_t)normalise_name(k->bytes, s->name.p, s->name.n);
    k->n_name = n;
    k->bytes[n++] = '\0';
    k->at_tags = n;
    for (size_t i = 0; i < n_tags; i++) {
        if (i > 0 && compare_tags(&tags[i], &tags[i - 1]) == 0)
            continue;
        if (i > 0)
            k->bytes[n++] = ',';
        memcpy(k->bytes + n, tags[i].p, tags[i].n);
        n += tags[i].n;
    }
    k->n_tags = n - k->at_tags;
    k->bytes[n++] = '\0';
    k->at_host = n;
    k->n_host = (uint32_t)s->host.n;
    if (s->host.n > 0)
        memcpy(k->bytes + n, s->host.p, s->host.n);
    k->n = n + k->n_host;
}

/* The slot that holds @key, or the empty one where it belongs. */
static struct stored_series **find_series(struct intake_store *s,
                                          const struct key *key, uint64_t hash)
{
    size_t mask = s->cap_series - 1;

    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        struct stored_series *e = s->table[i];

        if (e == NULL || (e->hash == hash && e->n_key == key->n &&
                          memcmp(e->key, key->bytes, key->n) == 0))
            return &s->table[i];
    }
}

static uint64_t metric_hash(const struct intake_store *s, const char *name)
{
    return XXH3_64bits_withSeed(name, strlen(name), s->seed);
}

static struct stored_metric **find_metric(struct intake_store *s,
                                          const char *name)
{
    size_t mask = s->cap_metrics - 1;

    for (size_t i = metric_hash(s, name) & mask;; i = (i + 1) & mask) {
        struct stored_metric *m = s->metrics[i];

        if (m == NULL || strcmp(m->name, name) == 0)
            return &s->metrics[i];
    }
}

/* Both tables stay at most half full. */
static void grow_series(struct intake_store *s)
{
    struct stored_series **old = s->table;
    size_t cap = s->cap_series;

    if (s->n_series * 2 < cap)
        return;
    s->cap_series = cap == 0 ? 1024 : cap * 2;
    s->table = must(calloc(s->cap_series, sizeof(*s->table)));
    s->n_bytes += (s->cap_series - cap) * sizeof(*s->table);
    for (size_t i = 0; i < cap; i++) {
        size_t at;

        if (old[i] == NULL)
            continue;
        at = old[i]->hash & (s->cap_series - 1);
        while (s->table[at] != NULL)
            at = (at + 1) & (s->cap_series - 1);
        s->table[at] = old[i];
    }
    free(old);
}

static void grow_metrics(struct intake_store *s)
{
    struct stored_metric **old = s->metrics;
    size_t cap = s->cap_metrics;

    if (s->n_metrics * 2 < cap)
        return;
    s->cap_metrics = cap == 0 ? 256 : cap * 2;
    s->metrics = must(calloc(s->cap_metrics, sizeof(*s->metrics)));
    s->n_bytes += (s->cap_metrics - cap) * sizeof(*s->metrics);
    for (size_t i = 0; i < cap; i++) {
        if (old[i] != NULL)
            *find_metric(s, old[i]->name) = old[i];
    }
    free(old);
}

static struct stored_metric *get_metric(struct intake_store *s,
                                        const char *name)
{
    struct stored_metric **slot;

    grow_metrics(s);
    slot = find_metric(s, name);
    if (*slot == NULL) {
        *slot = must(calloc(1, sizeof(**slot)));
        (*slot)->name = must(strdup(name));
        s->n_metrics++;
        s->n_bytes += sizeof(**slot) + strlen(name) + 1;
    }
    return *slot;
}

static struct stored_series *get_series(struct intake_store *s,
                                        const struct key *k)
{
    uint64_t hash = XXH3_64bits_withSeed(k->bytes, k->n, s->seed);
    struct stored_series **slot;
    struct stored_series *e;

    grow_series(s);
    slot = find_series(s, k, hash);
    if (*slot != NULL)
        return *slot;
    e = must(calloc(1, sizeof(*e) + k->n));
    e->metric = get_metric(s, k->bytes);
    e->metric->n_series++;
    e->hash = hash;
    e->at_tags = k->at_tags;
    e->n_tags = k->n_tags;
    e->at_host = k->at_host;
    e->n_host = k->n_host;
    e->n_key = k->n;
    memcpy(e->key, k->bytes, k->n);
    s->n_series++;
    s->n_bytes += sizeof(*e) + k->n;
    *slot = e;
    return e;
}

static size_t sketch_bytes(size_t n_bins)
{
    return sizeof(struct stored_sketch) + n_bins * sizeof(struct intake_bin);
}

/* First point at or behind @ts_s; usually there is none. */
static size_t find_point(const struct stored_series *e, int64_t ts_s)
{
    size_t lo = 0;
    size_t hi = e->n_points;

    if (hi > 0 && e->points[hi - 1].ts_s < ts_s)
        return hi;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (e->points[mid].ts_s < ts_s)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct stored_point *insert_point(struct intake_store *s,
                                         struct stored_series *e, size_t at)
{
    if (e->n_points == e->cap_points) {
        size_t cap = e->cap_points == 0 ? 2 : e->cap_points * 2;

        e->points = must(realloc(e->points, cap * sizeof(*e->points)));
        s->n_bytes += (cap - e->cap_points) * sizeof(*e->points);
        e->cap_points = cap;
    }
    memmove(&e->points[at + 1], &e->points[at],
            (e->n_points - at) * sizeof(*e->points));
    e->n_points++;
    s->n_points++;
    return &e->points[at];
}

static struct stored_sketch *copy_sketch(struct intake_store *s,
                                         const struct intake_point *p)
{
    struct stored_sketch *k = must(malloc(sketch_bytes(p->n_bins)));

    k->n_values = p->n_values;
    k->min = p->min;
    k->max = p->max;
    k->avg = p->avg;
    k->n_bins = p->n_bins;
    if (p->n_bins > 0)
        memcpy(k->bins, p->bins, p->n_bins * sizeof(k->bins[0]));
    s->n_bytes += sketch_bytes(p->n_bins);
    return k;
}

static void put_point(struct intake_store *s, struct stored_series *e,
                      const struct intake_series *series,
                      const struct intake_point *p)
{
    size_t at = find_point(e, p->ts_s);
    struct stored_point *to;

    if (at < e->n_points && e->points[at].ts_s == p->ts_s) {
        to = &e->points[at];
        s->n_replaced++;
        if (to->sketch != NULL)
            s->n_bytes -= sketch_bytes(to->sketch->n_bins);
        free(to->sketch);
    } else {
        to = insert_point(s, e, at);
    }
    *to = (struct stored_point){.ts_s = p->ts_s,
                                .value = p->value,
                                .interval_s = (uint32_t)series->interval_s,
                                .type = series->type};
    if (series->type == INTAKE_SKETCH)
        to->sketch = copy_sketch(s, p);
}

/* An estimate from above: as if every series were new and every array had just
 * doubled. */
int intake_store_room(struct intake_store *s,
                      const struct intake_series *series, size_t *n_planned)
{
    size_t need = sizeof(struct stored_series) + sizeof(struct stored_metric) +
                  2 * series->name.n + series->host.n + 64;
    struct key k;

    for (size_t i = 0; i < series->n_tags; i++)
        need += series->tags[i].n + 1;
    need += series->n_resources * NORMALISE_TAG_MAX;
    need += 2 * (series->n_points + 1) * sizeof(struct stored_point);
    for (size_t i = 0; i < series->n_points; i++) {
        if (series->type == INTAKE_SKETCH)
            need += sketch_bytes(series->points[i].n_bins);
    }
    if (s->n_bytes + *n_planned + need > s->max_bytes)
        return INTAKE_STORE_FULL;
    if (s->cap_series > 0) {
        struct stored_series *e;

        make_key(&k, series);
        e = *find_series(s, &k, XXH3_64bits_withSeed(k.bytes, k.n, s->seed));
        if (e != NULL &&
            e->n_points + series->n_points > INTAKE_SERIES_POINTS_MAX)
            return INTAKE_STORE_FULL;
    }
    *n_planned += need;
    return 0;
}

void intake_store_put(struct intake_store *s,
                      const struct intake_series *series)
{
    struct key k;
    struct stored_series *e;

    REQUIRE(series->host.n <= INTAKE_HOST_MAX);
    make_key(&k, series);
    e = get_series(s, &k);
    for (size_t i = 0; i < series->n_points; i++)
        put_point(s, e, series, &series->points[i]);
}

static void add_point(struct stored_metric *m, const struct stored_point *p)
{
    const struct stored_sketch *k = p->sketch;

    m->types |= 1U << p->type;
    switch (p->type) {
    case INTAKE_COUNT:
        m->sum += p->value;
        break;
    case INTAKE_RATE:
        m->sum += p->value * (p->interval_s > 0 ? p->interval_s : 1);
        break;
    case INTAKE_GAUGE:
        break; /* the last one of the series counts, see below */
    case INTAKE_SKETCH:
        m->sum += p->value;
        if (m->n_values == 0 || k->min < m->min)
            m->min = k->min;
        if (m->n_values == 0 || k->max > m->max)
            m->max = k->max;
        m->n_values += k->n_values;
        break;
    }
}

void intake_store_sum(struct intake_store *s)
{
    for (size_t i = 0; i < s->cap_metrics; i++) {
        struct stored_metric *m = s->metrics[i];

        if (m != NULL)
            *m = (struct stored_metric){.name = m->name,
                                        .n_series = m->n_series};
    }
    for (size_t i = 0; i < s->cap_series; i++) {
        const struct stored_series *e = s->table[i];

        if (e == NULL)
            continue;
        e->metric->n_points += e->n_points;
        for (size_t k = 0; k < e->n_points; k++)
            add_point(e->metric, &e->points[k]);
        if (e->points[e->n_points - 1].type == INTAKE_GAUGE)
            e->metric->sum += e->points[e->n_points - 1].value;
    }
}

void intake_store_item(struct intake_store *s, struct stored_items *items,
                       struct intake_view json)
{
    items->n_seen++;
    if (items->n == INTAKE_ITEMS_MAX || s->n_bytes + json.n > s->max_bytes)
        return;
    if (items->n == items->cap) {
        items->cap = items->cap == 0 ? 64 : items->cap * 2;
        items->json =
            must(realloc(items->json, items->cap * sizeof(*items->json)));
    }
    items->json[items->n++] = must(strndup(json.p, json.n));
    s->n_bytes += json.n + 1;
}
