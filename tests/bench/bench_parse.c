/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nanoseconds per line of the parser, per number and per sketch key, in one
 * thread on warm memory: the best of many rounds. Lines of 90 bytes with four
 * tags, 60 % counters, 15 % gauges, 10 % timings, 5 % histograms, 8 %
 * distributions, 2 % sets, in packets of 8 KiB.
 *
 *   bench_parse [rounds]
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "aggregator/dsd_parse.h"
#include "aggregator/number.h"
#include "aggregator/sketch.h"

#define N_LINES 20000
#define LINE_BYTES 90
#define PACKET_BYTES 8192

static char text[N_LINES * (LINE_BYTES + 32)];
static size_t text_n;
static double checksum; /* keeps the work from being optimised away */

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static uint32_t next_random(uint32_t *s)
{
    *s = *s * 1664525 + 1013904223;
    return *s >> 8;
}

static void make_lines(void)
{
    uint32_t seed = 1;

    for (int i = 0; i < N_LINES; i++) {
        uint32_t kind = next_random(&seed) % 100;
        const char *type = kind < 60   ? "c"
                           : kind < 75 ? "g"
                           : kind < 85 ? "ms"
                           : kind < 90 ? "h"
                           : kind < 98 ? "d"
                                       : "s";
        char value[32];
        char *line = text + text_n;
        int n;

        if (kind < 60)
            snprintf(value, sizeof(value), "%u", next_random(&seed) % 100 + 1);
        else if (kind < 98)
            snprintf(value, sizeof(value), "%.3f",
                     next_random(&seed) % 1000000 / 1000.0);
        else
            snprintf(value, sizeof(value), "user%u", next_random(&seed) % 999);
        n = snprintf(line, LINE_BYTES + 32,
                     "app.requests.%03u:%s|%s|#env:prod,service:web,"
                     "region:eu-west-1,host:web-%04u",
                     next_random(&seed) % 1000, value, type,
                     next_random(&seed) % 1000);
        while (n < LINE_BYTES - 1)
            line[n++] = (char)('a' + next_random(&seed) % 26);
        line[n++] = '\n';
        text_n += (size_t)n;
    }
}

/* Line ends alone, or line ends and parser. */
static double lines_ns(struct dsd_parser *p, int parse)
{
    const char *at = text;
    const char *end = text + text_n;
    double start = now_ns();

    while (at < end) {
        const char *stop = at + PACKET_BYTES < end ? at + PACKET_BYTES : end;

        while (at < stop) {
            const char *lf = memchr(at, '\n', (size_t)(end - at));

            if (parse && dsd_parse(p, at, (size_t)(lf - at)) == DSD_METRIC)
                checksum += p->sample.tags.n;
            checksum++;
            at = lf + 1;
        }
    }
    return (now_ns() - start) / N_LINES;
}

#define N_NUMBERS 4

static double numbers_ns(const char *const numbers[N_NUMBERS])
{
    size_t len[N_NUMBERS];
    double start;

    for (int i = 0; i < N_NUMBERS; i++)
        len[i] = strlen(numbers[i]);
    start = now_ns();
    for (int i = 0; i < N_LINES; i++) {
        double v = 0;

        (void)number_parse(&v, numbers[i % N_NUMBERS], len[i % N_NUMBERS]);
        checksum += v;
    }
    return (now_ns() - start) / N_LINES;
}

static double keys_ns(void)
{
    static double values[N_LINES];
    uint32_t seed = 2;
    double start;

    if (values[0] == 0) {
        for (int i = 0; i < N_LINES; i++)
            values[i] = (next_random(&seed) % 1000000 + 1) / 1000.0;
    }
    start = now_ns();
    for (int i = 0; i < N_LINES; i++)
        checksum += sketch_key(values[i]);
    return (now_ns() - start) / N_LINES;
}

static void best(double *least, double v)
{
    if (*least == 0 || v < *least)
        *least = v;
}

int main(int argc, char **argv)
{
    static const char *const usual[N_NUMBERS] = {"1", "42", "12.34", "918.276"};
    static const char *const full[N_NUMBERS] = {"0.8414709848078965",
                                                "12345.678901234567", "1e-07",
                                                "16.180339887498948"};
    static const char *const rare[N_NUMBERS] = {"1e300", "1_000", "0x1.8p1",
                                                "2.2250738585072014e-308"};
    const struct dsd_parser_opts opts = {.max_line_bytes = PACKET_BYTES,
                                         .no_aggregation = true};
    int rounds = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 300;
    double ends = 0, lines = 0, u = 0, f = 0, r = 0, keys = 0;
    struct dsd_parser p;

    if (dsd_parser_init(&p, &opts) != 0)
        return 1;
    make_lines();
    sketch_init();
    for (int i = 0; i < rounds; i++) {
        best(&ends, lines_ns(&p, 0));
        best(&lines, lines_ns(&p, 1));
        best(&u, numbers_ns(usual));
        best(&f, numbers_ns(full));
        best(&r, numbers_ns(rare));
        best(&keys, keys_ns());
    }
    dsd_parser_fini(&p);
    printf("bytes per line          %6.1f\n", (double)text_n / N_LINES);
    printf("line ends (memchr)      %6.1f ns\n", ends);
    printf("line ends and parser    %6.1f ns\n", lines);
    printf("number, usual           %6.1f ns\n", u);
    printf("number, all 17 digits   %6.1f ns\n", f);
    printf("number, rare forms      %6.1f ns\n", r);
    printf("sketch key              %6.1f ns\n", keys);
    printf("(checksum %g)\n", checksum);
    return 0;
}
