/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/pipeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "aggregator/used_walk.h"

#define BUDGET_BYTES (64u << 20)

struct agg_config pipeline_config(void)
{
    return (struct agg_config){
        .context_limit = 10000,
        .expiry_s = 0,
        .context_expiry_s = 20,
        .host = "h",
        .name_prefix = "",
        .hist_aggregates = HIST_MAX | HIST_MEDIAN | HIST_AVG | HIST_COUNT,
        .percentiles = {95},
        .n_percentiles = 1,
        .life_start_s = 1000,
        .seed = {0x123456789abcdefULL, 0xfedcba9876543210ULL},
    };
}

static void attach(struct pipeline *p)
{
    static const struct dsd_parser_opts opts = {.no_aggregation = true,
                                                .max_line_bytes = 65536};

    assert_int_equal(agg_create(&p->agg, &p->region, &p->cfg), 0);
    p->in = (struct ingest){.region = &p->region, .agg = p->agg};
    assert_int_equal(dsd_parser_init(&p->in.parser, &opts), 0);
}

static void make_region(struct pipeline *p, size_t budget_bytes)
{
    size_t reserve[AGG_N_RANGES];
    struct region_opts opts = {.name = "test",
                               .budget_bytes = budget_bytes,
                               .reserve = reserve,
                               .n_ranges = AGG_N_RANGES};

    agg_reserve(reserve, p->cfg.context_limit, opts.budget_bytes);
    assert_int_equal(region_create(&p->region, &opts), 0);
}

void pipeline_open_large(struct pipeline *p, const struct agg_config *cfg,
                         size_t budget_bytes)
{
    memset(p, 0, sizeof(*p));
    p->cfg = cfg != NULL ? *cfg : pipeline_config();
    make_region(p, budget_bytes);
    p->pos = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p->pos, MAP_FAILED);
    attach(p);
}

void pipeline_open(struct pipeline *p, const struct agg_config *cfg)
{
    pipeline_open_large(p, cfg, BUDGET_BYTES);
    region_prove(&p->region);
}

static void detach(struct pipeline *p)
{
    dsd_parser_fini(&p->in.parser);
    agg_close(p->agg);
}

void pipeline_restart(struct pipeline *p)
{
    detach(p);
    (void)region_rollback(&p->region);
    attach(p);
}

static int by_second(const void *x, const void *y)
{
    return (int)*(const uint32_t *)x - (int)*(const uint32_t *)y;
}

static void *copy(const void *p, size_t n)
{
    void *out = malloc(n + 1);

    assert_non_null(out);
    if (n > 0)
        memcpy(out, p, n);
    return out;
}

static void drop_used(struct pipeline *p)
{
    free((void *)p->cfg.used.stamps_s);
    free((void *)p->cfg.used.points);
    p->cfg.used = (struct used_seconds){0};
}

void pipeline_next_life(struct pipeline *p, int64_t now_s, bool remembers)
{
    detach(p);
    region_close(&p->region);
    drop_used(p);
    p->cfg.life_start_s = now_s;
    p->cfg.last_stamp_s = 0;
    if (remembers && p->n_used_s > 0) {
        qsort(p->used_s, p->n_used_s, sizeof(*p->used_s), by_second);
        if (p->n_used > 0)
            qsort(p->used, p->n_used, sizeof(*p->used), used_compare);
        p->cfg.used = (struct used_seconds){
            copy(p->used_s, p->n_used_s * sizeof(*p->used_s)), p->n_used_s,
            copy(p->used, p->n_used * sizeof(*p->used)), p->n_used};
        p->cfg.last_stamp_s = p->used_s[p->n_used_s - 1];
    }
    make_region(p, BUDGET_BYTES);
    memset(p->pos, 0, sizeof(*p->pos));
    p->taken_seq = 0;
    attach(p);
}

void pipeline_close(struct pipeline *p)
{
    detach(p);
    region_close(&p->region);
    munmap(p->pos, 4096);
    free(p->items);
    for (size_t i = 0; i < p->n_keys; i++)
        free(p->keys[i]);
    free(p->keys);
    drop_used(p);
    free(p->used_s);
    free(p->used);
}

void pipeline_feed_bytes(struct pipeline *p, int64_t now_s, const char *packet,
                         size_t n, unsigned flags)
{
    /* An allocation of the exact size lets ASan see a read past the end. */
    char *copy = malloc(n + 1);

    assert_non_null(copy);
    memcpy(copy, packet, n);
    ingest_packet(&p->in, p->pos, p->pos->record + 1, copy, n, TRANSPORT_UDP,
                  flags, now_s);
    free(copy);
}

void pipeline_feed(struct pipeline *p, int64_t now_s, const char *packet)
{
    if (packet[0] == '\0')
        agg_begin(p->agg, now_s);
    else
        pipeline_feed_bytes(p, now_s, packet, strlen(packet), 0);
}

struct text {
    char *at;
    size_t left;
};

static void put(struct text *t, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(t->at, t->left, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= t->left)
        n = t->left > 0 ? (int)t->left - 1 : 0;
    t->at += n;
    t->left -= (size_t)n;
}

static void put_view(struct text *t, struct view v)
{
    put(t, "%.*s", (int)v.n, v.p);
}

static void put_series(struct text *t, const struct flush_series *s)
{
    put(t, "%s %s%s", s->suffix, s->type == SERIES_RATE ? "rate" : "gauge",
        s->unit[0] != '\0' ? " ms" : "");
    for (uint32_t i = 0; i < s->n_points; i++)
        put(t, " %lld=%.12g", (long long)s->points[i].ts_s, s->points[i].value);
}

static void put_tags(struct text *t, const struct flush_item *it)
{
    put(t, " [");
    for (uint32_t i = 0; i < it->n_tags; i++) {
        put(t, "%s", i > 0 ? "," : "");
        put_view(t, it->tags[i]);
    }
    put(t, "] @");
    put_view(t, it->host);
}

static void describe(struct pipeline_item *out, const struct flush_item *it)
{
    struct text t = {out->text, sizeof(out->text)};

    put_view(&t, it->name);
    switch (it->kind) {
    case FLUSH_SERIES:
        for (uint32_t i = 0; i < it->n_series; i++) {
            put(&t, "%s", i > 0 ? " " : "");
            put_series(&t, &it->series[i]);
        }
        out->ts_s = it->series[0].points[0].ts_s;
        out->value = it->series[0].points[0].value;
        break;
    case FLUSH_SKETCH:
        put(&t, " sketch %lld cnt=%lld min=%g max=%g sum=%.12g",
            (long long)it->ts_s, (long long)it->cnt, it->min, it->max, it->sum);
        for (uint32_t i = 0; i < it->n_bins && i < 10; i++)
            put(&t, " %d:%u", it->k[i], it->n[i]);
        out->ts_s = it->ts_s;
        out->value = it->sum;
        break;
    case FLUSH_EVENT:
    case FLUSH_CHECK:
        put(&t, " %s %lld '", it->kind == FLUSH_EVENT ? "event" : "check",
            (long long)it->ts_s);
        put_view(&t, it->text);
        put(&t, "' key=");
        put_view(&t, it->aggregation_key);
        put(&t, " source=");
        put_view(&t, it->source_type);
        put(&t, " %d%d%d", it->priority, it->alert, it->status);
        out->ts_s = it->ts_s;
        break;
    }
    put_tags(&t, it);
}

static void add_key(struct pipeline *p, const struct flush_item *it,
                    const char *suffix, int64_t ts_s)
{
    char key[2048];
    struct text t = {key, sizeof(key)};

    put_view(&t, it->name);
    put(&t, "%s", suffix);
    put_tags(&t, it);
    put(&t, " %lld", (long long)ts_s);
    if (p->n_keys == p->cap_keys) {
        p->cap_keys = p->cap_keys * 2 + 64;
        p->keys = realloc(p->keys, p->cap_keys * sizeof(*p->keys));
        assert_non_null(p->keys);
    }
    p->keys[p->n_keys++] = strdup(key);
}

static void add_keys(struct pipeline *p, const struct flush_item *it)
{
    if (it->kind == FLUSH_SKETCH)
        add_key(p, it, "", it->ts_s);
    for (uint32_t i = 0; i < it->n_series; i++) {
        for (uint32_t k = 0; k < it->series[i].n_points; k++)
            add_key(p, it, it->series[i].suffix, it->series[i].points[k].ts_s);
    }
}

static int by_text(const void *x, const void *y)
{
    return strcmp(*(char *const *)x, *(char *const *)y);
}

void pipeline_check_unique(struct pipeline *p)
{
    if (p->n_keys > 0)
        qsort(p->keys, p->n_keys, sizeof(*p->keys), by_text);
    for (size_t i = 1; i < p->n_keys; i++) {
        if (strcmp(p->keys[i - 1], p->keys[i]) == 0)
            fail_msg("two points: %s", p->keys[i]);
    }
}

static void *longer(void *items, size_t n, size_t bytes)
{
    void *p = (n & (n - 1)) == 0 ? realloc(items, (n + 1) * 2 * bytes) : items;

    assert_non_null(p);
    return p;
}

static void add_used(struct pipeline *p, const struct part_info *info)
{
    struct used_point point;
    struct used_walk w;

    for (uint32_t k = 0; k <= info->max_shift; k++) {
        p->used_s = longer(p->used_s, p->n_used_s, sizeof(*p->used_s));
        p->used_s[p->n_used_s++] = (uint32_t)info->stamp_s + k;
    }
    assert_int_equal(used_walk_part(&w, p->agg, info->seq), 0);
    while (used_walk_next(&w, &point)) {
        p->used = longer(p->used, p->n_used, sizeof(*p->used));
        p->used[p->n_used++] = point;
    }
}

static void take_part(struct pipeline *p, uint64_t seq)
{
    struct part_iter *it;
    struct flush_item *item = malloc(sizeof(*item));
    struct part_info info;
    uint64_t n_samples = 0;
    uint64_t n_items = 0;
    int rc;

    assert_non_null(item);
    assert_int_equal(part_iter_open(&it, p->agg, seq), 0);
    part_iter_info(it, &info);
    assert_int_equal(info.seq, seq);
    add_used(p, &info);
    while ((rc = part_iter_next(it, item)) > 0) {
        if (p->n_items == p->cap_items) {
            p->cap_items = p->cap_items * 2 + 64;
            p->items = realloc(p->items, p->cap_items * sizeof(*p->items));
            assert_non_null(p->items);
        }
        p->items[p->n_items] =
            (struct pipeline_item){.kind = item->kind,
                                   .n_samples = item->n_samples,
                                   .seq = seq};
        describe(&p->items[p->n_items++], item);
        add_keys(p, item);
        n_samples += item->n_samples;
        n_items++;
    }
    assert_int_equal(rc, 0);
    assert_int_equal(n_samples, info.n_samples);
    assert_true(n_items <= info.n_items);
    part_iter_close(it);
    free(item);
}

void pipeline_take(struct pipeline *p)
{
    for (uint64_t seq = p->taken_seq + 1; seq <= agg_last_closed(p->agg); seq++)
        take_part(p, seq);
    p->taken_seq = agg_last_closed(p->agg);
    agg_release(p->agg, p->taken_seq);
}

void pipeline_clear(struct pipeline *p)
{
    p->n_items = 0;
}

const struct pipeline_item *pipeline_find(const struct pipeline *p,
                                          const char *prefix)
{
    for (size_t i = 0; i < p->n_items; i++) {
        if (strncmp(p->items[i].text, prefix, strlen(prefix)) == 0)
            return &p->items[i];
    }
    for (size_t i = 0; i < p->n_items; i++)
        print_message("item: %s\n", p->items[i].text);
    fail_msg("no item begins with '%s'", prefix);
    return NULL;
}

void pipeline_check_ledger(const struct pipeline *p)
{
    const struct ingest_counts *k = agg_counts(p->agg);
    uint64_t received = 0;
    uint64_t elsewhere = 0;
    uint64_t in_items = 0;

    for (int i = 0; i < TRANSPORT_N; i++)
        received += k->received[i];
    for (int i = 0; i < DSD_N_RESULTS; i++)
        elsewhere += k->rejected[i];
    for (int i = 0; i < FILTER_N; i++)
        elsewhere += k->filtered[i];
    for (size_t i = 0; i < p->n_items; i++)
        in_items += p->items[i].n_samples;
    assert_int_equal(received, elsewhere + k->aggregated);
    assert_int_equal(k->closed, in_items);
}
