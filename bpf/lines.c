/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many equal values are one line with a sample rate. Aggregation counts the whole
 * part of 1 / rate, so the rate is the next number below 1 / n: that of 1 / n itself
 * may lie just under n. It takes at most 2^24 from one line.
 */
#include "bpf/lines.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_WEIGHT UINT64_C(1000000)
#define LINE_BYTES 3000

void lines_init(struct lines *l, lines_take_fn *take, void *arg)
{
    l->take = take;
    l->arg = arg;
    l->n = 0;
    l->n_left_out = 0;
}

void lines_flush(struct lines *l)
{
    if (l->n > 0)
        l->take(l->arg, l->packet, l->n);
    l->n = 0;
}

static void put(struct lines *l, const char *line, int n)
{
    if (n <= 0 || n >= LINE_BYTES) {
        l->n_left_out++;
        return;
    }
    if (l->n + (size_t)n > sizeof(l->packet))
        lines_flush(l);
    memcpy(l->packet + l->n, line, (size_t)n);
    l->n += (size_t)n;
}

void lines_add(struct lines *l, const char *name, double value,
               const char *type, const char *tags)
{
    char line[LINE_BYTES];

    put(l, line,
        snprintf(line, sizeof(line), "%s:%.17g|%s%s%s\n", name, value, type,
                 tags[0] != '\0' ? "|#" : "", tags));
}

void lines_add_many(struct lines *l, const char *name, double value,
                    uint64_t count, const char *tags)
{
    char line[LINE_BYTES];

    while (count > 0) {
        uint64_t n = count < MAX_WEIGHT ? count : MAX_WEIGHT;
        double rate = n == 1 ? 1 : nextafter(1.0 / (double)n, 0);

        put(l, line,
            snprintf(line, sizeof(line), "%s:%.17g|d|@%.17g%s%s\n", name, value,
                     rate, tags[0] != '\0' ? "|#" : "", tags));
        count -= n;
    }
}

char *lines_tag(char *out, size_t size, const char *in)
{
    size_t n = 0;

    while (in[n] != '\0' && n + 1 < size) {
        unsigned char c = (unsigned char)in[n];

        out[n] = c < ' ' || c == ',' || c == '|' || c == '#' ? '_' : in[n];
        n++;
    }
    out[n] = '\0';
    return out;
}
