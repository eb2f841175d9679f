/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nanoseconds per line of parsing and aggregating, journal included, those of the
 * first sight of a context, and its bytes: 90-byte lines over 100, 10,000 and
 * 1,000,000 contexts, in packets of 8 KiB that are applied again and again, once with
 * counters alone, once mixed (c 60 %, g 15, ms 10, h 5, d 8, s 2), and once with each
 * counter in a packet of its own. Numbers, no verdict.
 *
 *   bench_ingest [counters|mixed|single [contexts...]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "aggregator/ingest.h"

#define PACKET_BYTES 8192u
#define LINE_MAX_BYTES 128u
#define BUDGET_BYTES ((size_t)2 << 30)
#define PASS_LINES 2000000u /* in each bucket, at least */
#define PASSES 4

struct packets {
    char *bytes;
    uint32_t *n_bytes;
    uint32_t n;
    uint32_t n_first; /* of which no line has a context seen before */
    uint64_t n_lines;
    unsigned char *line_bytes; /* n_lines of them */
};

/* CPU time: what other processes take does not count. */
static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint32_t below(uint32_t n)
{
    static uint64_t x = 88172645463325252ULL;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (uint32_t)((x >> 20) % n);
}

enum kind { COUNTERS, MIXED, SINGLE, N_KINDS };
static const char *const kinds[N_KINDS] = {"counters", "mixed", "single"};
static enum kind kind;

static const char *type_of(uint32_t context)
{
    uint32_t r = context * 2654435761u >> 8;

    r = kind == MIXED ? r % 100 : 0;
    return r < 60   ? "c"
           : r < 75 ? "g"
           : r < 85 ? "ms"
           : r < 90 ? "h"
           : r < 98 ? "d"
                    : "s";
}

static size_t write_line(char *out, uint32_t context, uint32_t n_contexts)
{
    uint32_t names = n_contexts < 1000 ? 10 : 1000;

    return (size_t)snprintf(
        out, LINE_MAX_BYTES,
        "app.request.count.%04u:%u|%s|#env:prod,service:checkout,"
        "region:eu-west-1,pod:%07u\n",
        context % names, below(1000), type_of(context), context / names);
}

static void make_packets(struct packets *p, uint32_t n_contexts,
                         uint64_t n_lines)
{
    uint32_t most = (uint32_t)(n_lines / 70 + 2);

    p->bytes = malloc((size_t)most * PACKET_BYTES);
    p->n_bytes = calloc(most, sizeof(*p->n_bytes));
    p->line_bytes = malloc(n_lines + PACKET_BYTES);
    if (p->bytes == NULL || p->n_bytes == NULL || p->line_bytes == NULL)
        abort();
    p->n = 0;
    p->n_first = 0;
    for (p->n_lines = 0; p->n_lines < n_lines && p->n < most; p->n++) {
        char *at = p->bytes + (size_t)p->n * PACKET_BYTES;
        size_t n = 0;

        while (n + LINE_MAX_BYTES < PACKET_BYTES) {
            uint32_t c = p->n_lines < n_contexts ? (uint32_t)p->n_lines
                                                 : below(n_contexts);

            p->line_bytes[p->n_lines] =
                (unsigned char)write_line(at + n, c, n_contexts);
            n += p->line_bytes[p->n_lines++];
        }
        p->n_bytes[p->n] = (uint32_t)n;
        if (p->n_lines <= n_contexts)
            p->n_first = p->n + 1;
    }
}

struct bench {
    struct region region;
    struct agg *agg;
    struct ingest in;
    struct ingest_pos pos;
};

static void open_bench(struct bench *b, uint32_t n_contexts)
{
    static const struct dsd_parser_opts parser = {.max_line_bytes = 8192};
    struct agg_config cfg = {.context_limit = n_contexts + 1000,
                             .context_expiry_s = 20,
                             .host = "bench",
                             .name_prefix = "",
                             .hist_aggregates =
                                 HIST_MAX | HIST_MEDIAN | HIST_AVG | HIST_COUNT,
                             .percentiles = {95},
                             .n_percentiles = 1,
                             .seed = {1, 2}};
    size_t reserve[AGG_N_RANGES];
    struct region_opts opts = {.name = "bench",
                               .budget_bytes = BUDGET_BYTES,
                               .reserve = reserve,
                               .n_ranges = AGG_N_RANGES};

    memset(b, 0, sizeof(*b));
    agg_reserve(reserve, cfg.context_limit, BUDGET_BYTES);
    if (region_create(&b->region, &opts) != 0 ||
        agg_create(&b->agg, &b->region, &cfg) != 0 ||
        dsd_parser_init(&b->in.parser, &parser) != 0)
        abort();
    b->in.region = &b->region;
    b->in.agg = b->agg;
}

/* The lines of packet @i, each as a packet, as a ring or a batch has them. */
static void singly(struct bench *b, const struct packets *p, uint32_t i,
                   int64_t now_s)
{
    const char *at = p->bytes + (size_t)i * PACKET_BYTES;
    const char *end = at + p->n_bytes[i];
    struct dsd_packet r[DSD_AHEAD_LINES];
    static uint64_t line;
    uint32_t working;

    if (i == 0)
        line = 0;
    while (at < end) {
        uint32_t n = 0;

        for (; n < DSD_AHEAD_LINES && at < end; n++) {
            r[n] = (struct dsd_packet){.p = at, .n = p->line_bytes[line++]};
            at += r[n].n;
        }
        for (uint32_t done = 0; done < n;) {
            uint32_t k = ingest_datagrams(&b->in, &b->pos, r + done, n - done,
                                          &working, TRANSPORT_UDP, now_s);

            if (k == 0)
                ingest_packet(&b->in, &b->pos, 0, r[done].p, r[done].n,
                              TRANSPORT_UDP, 0, now_s);
            done += k > 0 ? k : 1;
        }
    }
}

static void apply(struct bench *b, const struct packets *p, uint32_t n,
                  int64_t now_s)
{
    for (uint32_t i = 0; kind == SINGLE && i < n; i++)
        singly(b, p, i, now_s);
    for (uint32_t i = 0; kind != SINGLE && i < n; i++)
        ingest_packet(&b->in, &b->pos, 0, p->bytes + (size_t)i * PACKET_BYTES,
                      p->n_bytes[i], TRANSPORT_UDP, 0, now_s);
}

/* Nothing but lines of contexts that nobody knows yet. */
static double first_sights(struct bench *b, const struct packets *p,
                           int64_t now_s)
{
    struct agg_stats before, after;
    uint64_t t0;

    agg_stats(b->agg, &before);
    t0 = now_ns();
    apply(b, p, p->n_first, now_s);
    t0 = now_ns() - t0;
    agg_stats(b->agg, &after);
    if (after.n_contexts == before.n_contexts) /* fewer than a packet's lines */
        return 0;
    return (double)t0 / (after.n_contexts - before.n_contexts);
}

/* One bucket: the packets, until that are PASS_LINES. */
static double pass(struct bench *b, const struct packets *p, int64_t now_s)
{
    uint64_t n_lines = 0;
    uint64_t t0 = now_ns();

    for (; n_lines < PASS_LINES; n_lines += p->n_lines)
        apply(b, p, p->n, now_s);
    return (double)(now_ns() - t0) / (double)n_lines;
}

static void run(uint32_t n_contexts)
{
    uint64_t n_lines = n_contexts < 20000 ? 40000 : 2 * (uint64_t)n_contexts;
    struct agg_stats before, after;
    struct packets p;
    struct bench b;
    double first, turn, best = 1e9;
    uint64_t t0;

    make_packets(&p, n_contexts, n_lines);
    open_bench(&b, n_contexts);
    agg_stats(b.agg, &before);
    first = first_sights(&b, &p, 1000);
    (void)pass(&b, &p, 1000);
    agg_stats(b.agg, &after);
    t0 = now_ns();
    agg_begin(b.agg, 1010);
    turn = (double)(now_ns() - t0) / 1e6;
    for (int i = 0; i < PASSES; i++) {
        double ns;

        agg_release(b.agg, agg_last_closed(b.agg));
        ns = pass(&b, &p, 1010 + 10 * i);
        best = ns < best ? ns : best;
    }
    printf("%-8s %8u contexts: %5.1f ns/line, first sight %.0f ns, "
           "turn %.2f ms, %.0f bytes/context (cells and spare room "
           "included), %.1f MiB\n",
           kinds[kind], after.n_contexts - before.n_contexts, best, first, turn,
           (double)(after.region_bytes - before.region_bytes) / n_contexts,
           (double)after.region_bytes / 1048576);
    dsd_parser_fini(&b.in.parser);
    agg_close(b.agg);
    region_close(&b.region);
    free(p.bytes);
    free(p.n_bytes);
    free(p.line_bytes);
}

int main(int argc, char **argv)
{
    for (kind = 0; kind < N_KINDS; kind++) {
        if (argc > 1 && strcmp(argv[1], kinds[kind]) != 0)
            continue;
        for (int i = 2; i < argc; i++)
            run((uint32_t)strtoul(argv[i], NULL, 10));
        if (argc > 2)
            continue;
        run(100);
        run(10000);
        run(1000000);
    }
    return 0;
}
