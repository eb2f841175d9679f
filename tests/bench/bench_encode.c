/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What encoding and compressing a part costs, and how large the bodies get.
 *
 *   bench_encode [contexts [runs]]
 *
 * The contexts look like a service fleet's: 50 metric names, five tags with the
 * cardinalities of env, service, host, endpoint and status. Prints one line for
 * each compressor: the CPU time of the best of the runs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "forwarder/encode.h"

#define N_TAGS 5
#define TEXT_BYTES 48

struct context {
    char text[N_TAGS + 1][TEXT_BYTES];
    struct view tags[N_TAGS];
    struct flush_point point;
};

struct part_iter {
    const struct context *contexts;
    size_t n, at;
};

int part_iter_open(struct part_iter **out, const struct agg *a, uint64_t seq)
{
    (void)out;
    (void)a;
    (void)seq;
    return -1;
}

void part_iter_info(const struct part_iter *it, struct part_info *out)
{
    *out = (struct part_info){.n_items = it->n};
}

int part_iter_next(struct part_iter *it, struct flush_item *out)
{
    const struct context *c = &it->contexts[it->at];

    if (it->at == it->n)
        return 0;
    it->at++;
    memset(out, 0, sizeof(*out));
    out->kind = FLUSH_SERIES;
    out->n_samples = 1;
    out->name =
        (struct view){c->text[N_TAGS], (uint32_t)strlen(c->text[N_TAGS])};
    out->host = (struct view){"i-0123456789abcdef0", 19};
    out->tags = c->tags;
    out->n_tags = N_TAGS;
    out->interval_s = 10;
    out->series[0] = (struct flush_series){"", SERIES_RATE, "", &c->point, 1};
    out->n_series = 1;
    return 1;
}

void part_iter_close(struct part_iter *it)
{
    (void)it;
}

static struct context *make_contexts(size_t n)
{
    struct context *all = calloc(n, sizeof(*all));

    if (all == NULL)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        struct context *c = &all[i];
        unsigned r = (unsigned)(i * 2654435761u >> 8);

        snprintf(c->text[0], TEXT_BYTES, "endpoint:/api/v1/item/%u", r % 997);
        snprintf(c->text[1], TEXT_BYTES, "env:%s", r % 3 ? "prod" : "staging");
        snprintf(c->text[2], TEXT_BYTES, "pod:web-%06zx", i / 50);
        snprintf(c->text[3], TEXT_BYTES, "service:svc-%u", r % 40);
        snprintf(c->text[4], TEXT_BYTES, "status:%u", 200 + r % 5 * 100);
        snprintf(c->text[N_TAGS], TEXT_BYTES, "app.requests.metric_%zu",
                 i % 50);
        for (int t = 0; t < N_TAGS; t++)
            c->tags[t] =
                (struct view){c->text[t], (uint32_t)strlen(c->text[t])};
        c->point = (struct flush_point){1600000000, r % 1000 / 10.0, 0};
    }
    return all;
}

static double cpu_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

struct outcome {
    double best_ms;
    size_t n_payloads, n_bytes, n_raw_bytes;
};

static int measure(struct store *s, const struct encode_config *cfg,
                   const struct context *contexts, size_t n, int runs,
                   struct outcome *o)
{
    *o = (struct outcome){.best_ms = 1e300};
    for (int i = 0; i < runs; i++) {
        struct part_iter it = {contexts, n, 0};
        struct encode_result r;
        struct encoder *e;
        double t;

        if (encoder_create(&e, s, cfg) != 0)
            return -1;
        t = cpu_ms();
        if (encoder_run(e, &it, false, &r) != 0)
            return -1;
        t = cpu_ms() - t;
        o->best_ms = t < o->best_ms ? t : o->best_ms;
        o->n_payloads = r.n_drafts;
        o->n_bytes = o->n_raw_bytes = 0;
        for (size_t k = 0; k < r.n_drafts; k++) {
            const struct payload_draft *d = &r.drafts[k];

            o->n_bytes += d->n_bytes;
            o->n_raw_bytes += d->n_raw_bytes;
            store_block_trim(s, d->block, (size_t)d->n_bytes + d->n_index_bytes,
                             0);
        }
        encoder_close(e);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        enum payload_encoding encoding;
        int level;
    } rows[] = {
        {"none", ENCODING_NONE, 0},      {"zstd-1", ENCODING_ZSTD, 1},
        {"zstd-3", ENCODING_ZSTD, 3},    {"zstd-fast5", ENCODING_ZSTD, -5},
        {"zlib-1", ENCODING_DEFLATE, 1}, {"zlib-3", ENCODING_DEFLATE, 3},
        {"zlib-6", ENCODING_DEFLATE, 6}, {"gzip-3", ENCODING_GZIP, 3},
    };
    size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000;
    int runs = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 5;
    size_t reserve[STORE_N_RANGES];
    struct region_opts opts = {.name = "bench-encode",
                               .reserve = reserve,
                               .n_ranges = STORE_N_RANGES};
    struct context *contexts = make_contexts(n);
    struct store_opts store_opts = {.max_bytes = 256u << 20};
    struct region r;
    struct store *s;

    opts.budget_bytes = store_reserve(reserve, store_opts.max_bytes);
    if (contexts == NULL || region_create(&r, &opts) != 0 ||
        store_open(&s, &r, &store_opts) != 0)
        return 1;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct encode_config cfg = {
            .encoding = rows[i].encoding,
            .level = rows[i].level,
            .limits = {[PAYLOAD_SERIES] = {512000, 5242880, 10000},
                       [PAYLOAD_SKETCHES] = {2621440, 4194304, 0},
                       [PAYLOAD_EVENTS] = {2621440, 4194304, 0},
                       [PAYLOAD_CHECKS] = {2621440, 4194304, 0}},
            .internal_hostname = "",
            .have_endpoint = true,
        };
        struct outcome o;

        if (measure(s, &cfg, contexts, n, runs, &o) != 0)
            return 1;
        printf("encode compressor=%s contexts=%zu ms=%.1f ns_per_context=%.0f "
               "payloads=%zu raw_bytes=%zu bytes=%zu ratio=%.1f\n",
               rows[i].name, n, o.best_ms, o.best_ms * 1e6 / (double)n,
               o.n_payloads, o.n_raw_bytes, o.n_bytes,
               (double)o.n_raw_bytes / (double)o.n_bytes);
    }
    store_close(s);
    region_close(&r);
    free(contexts);
    return 0;
}
