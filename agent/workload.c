/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/workload.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/contract.h"

#define N_MEMBERS 1000 /* distinct members of the set */
#define RARE 100       /* one event and one check in so many lines */

static const struct {
    const char *word; /* in --types and, for metrics, in the line */
    const char *name;
    uint32_t max; /* values are 1..max */
} types[WORKLOAD_N_TYPES] = {
    [WORKLOAD_COUNT] = {"c", "page.views", 10},
    [WORKLOAD_GAUGE] = {"g", "queue.depth", 1000},
    [WORKLOAD_TIMING] = {"ms", "request.time", 500},
    [WORKLOAD_HISTOGRAM] = {"h", "payload.size", 5000},
    [WORKLOAD_DISTRIBUTION] = {"d", "query.latency", 10000},
    [WORKLOAD_SET] = {"s", "users", N_MEMBERS},
    [WORKLOAD_EVENT] = {"e", NULL, 4},
    [WORKLOAD_CHECK] = {"sc", NULL, 4},
};

struct sums {
    uint64_t n, sum, min, max;
};

struct workload {
    struct workload_options o;
    enum workload_type metrics[WORKLOAD_N_TYPES]; /* the chosen ones */
    unsigned n_metrics;
    struct sums sums[WORKLOAD_N_TYPES];
    double *gauges; /* last value of each context; NaN = none yet */
    unsigned char members[N_MEMBERS + 1];
    char tags[WORKLOAD_TAGS_MAX * 24]; /* ",tag0:value0,tag1:..." */
    size_t n_tags_text;
};

/* What line i says, before it is spelled. */
struct draw {
    enum workload_type type;
    uint32_t context;
    uint32_t value;
};

int workload_parse_types(const char *text, unsigned *bits)
{
    unsigned found = 0;

    while (*text != '\0') {
        size_t n = strcspn(text, ",");
        unsigned i = 0;

        while (i < WORKLOAD_N_TYPES && (strlen(types[i].word) != n ||
                                        memcmp(types[i].word, text, n) != 0))
            i++;
        if (i == WORKLOAD_N_TYPES)
            return WORKLOAD_BAD;
        found |= 1U << i;
        text += n;
        if (*text == ',')
            text++;
    }
    if (found == 0)
        return WORKLOAD_BAD;
    *bits = found;
    return 0;
}

int workload_create(struct workload **out, const struct workload_options *o)
{
    struct workload *w;

    if (o->n_contexts < 1 || o->n_contexts > WORKLOAD_CONTEXTS_MAX ||
        o->n_tags > WORKLOAD_TAGS_MAX || o->types == 0 ||
        strlen(o->prefix) > WORKLOAD_PREFIX_MAX ||
        o->prefix[strspn(o->prefix, "abcdefghijklmnopqrstuvwxyz"
                                    "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                    "0123456789_.")] != '\0')
        return WORKLOAD_BAD;
    w = calloc(1, sizeof(*w));
    if (w == NULL)
        return -ENOMEM;
    w->o = *o;
    for (unsigned i = 0; i < WORKLOAD_EVENT; i++) {
        if (o->types & 1U << i)
            w->metrics[w->n_metrics++] = (enum workload_type)i;
    }
    w->gauges = malloc(o->n_contexts * sizeof(*w->gauges));
    if (w->gauges == NULL) {
        free(w);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < o->n_contexts; i++)
        w->gauges[i] = NAN;
    for (uint32_t i = 0; i < o->n_tags; i++)
        w->n_tags_text += (size_t)snprintf(w->tags + w->n_tags_text,
                                           sizeof(w->tags) - w->n_tags_text,
                                           ",tag%u:value%u", i, i);
    *out = w;
    return 0;
}

void workload_close(struct workload *w)
{
    if (w == NULL)
        return;
    free(w->gauges);
    free(w);
}

/* splitmix64's finaliser over the number of the line: random access. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static struct draw draw(const struct workload *w, uint64_t i)
{
    uint64_t h = mix(w->o.seed + (i + 1) * 0x9e3779b97f4a7c15ULL);
    int event = (w->o.types & 1U << WORKLOAD_EVENT) != 0;
    int check = (w->o.types & 1U << WORKLOAD_CHECK) != 0;
    struct draw d = {.context = (uint32_t)(h % w->o.n_contexts)};

    if (event && (i % RARE == RARE - 1 || w->n_metrics + check == 0))
        d.type = WORKLOAD_EVENT;
    else if (check && (i % RARE == RARE / 2 - 1 || w->n_metrics == 0))
        d.type = WORKLOAD_CHECK;
    else
        d.type = w->metrics[i % w->n_metrics];
    d.value = 1 + (uint32_t)((h >> 32) % types[d.type].max);
    return d;
}

struct out {
    char *p;
    size_t n;
};

static void put(struct out *o, const char *text, size_t n)
{
    memcpy(o->p + o->n, text, n);
    o->n += n;
}

static void puts_to(struct out *o, const char *text)
{
    put(o, text, strlen(text));
}

static void put_u32(struct out *o, uint32_t v)
{
    char digits[10];
    size_t n = sizeof(digits);

    do {
        digits[--n] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    put(o, digits + n, sizeof(digits) - n);
}

static void put_tags(struct out *o, const struct workload *w, uint32_t context)
{
    if (w->o.n_contexts == 1 && w->n_tags_text == 0)
        return;
    puts_to(o, "|#");
    if (w->o.n_contexts > 1) {
        puts_to(o, "ctx:");
        put_u32(o, context);
        put(o, w->tags, w->n_tags_text);
    } else {
        put(o, w->tags + 1, w->n_tags_text - 1);
    }
}

static void put_event(struct out *o, const struct workload *w, uint64_t i)
{
    static const char *const alerts[] = {"info", "success", "warning", "error"};
    char text[64];
    int n = snprintf(text, sizeof(text), "Deployed build %llu",
                     (unsigned long long)i);
    char head[48];

    (void)snprintf(head, sizeof(head), "_e{%d,11}:", n);
    puts_to(o, head);
    puts_to(o, text);
    puts_to(o, "|by a sender|t:");
    puts_to(o, alerts[draw(w, i).value - 1]);
}

size_t workload_line(const struct workload *w, uint64_t i, char *out)
{
    struct draw d = draw(w, i);
    struct out o = {.p = out};

    if (d.type == WORKLOAD_EVENT) {
        put_event(&o, w, i);
    } else if (d.type == WORKLOAD_CHECK) {
        puts_to(&o, "_sc|");
        puts_to(&o, w->o.prefix);
        puts_to(&o, ".can_connect|");
        put_u32(&o, d.value - 1);
    } else {
        puts_to(&o, w->o.prefix);
        puts_to(&o, ".");
        puts_to(&o, types[d.type].name);
        puts_to(&o, d.type == WORKLOAD_SET ? ":user" : ":");
        put_u32(&o, d.value);
        puts_to(&o, "|");
        puts_to(&o, types[d.type].word);
    }
    put_tags(&o, w, d.context);
    REQUIRE(o.n <= WORKLOAD_LINE_MAX);
    return o.n;
}

void workload_count(struct workload *w, uint64_t i)
{
    struct draw d = draw(w, i);
    struct sums *s = &w->sums[d.type];

    s->n++;
    s->sum += d.value;
    if (s->n == 1 || d.value < s->min)
        s->min = d.value;
    if (d.value > s->max)
        s->max = d.value;
    if (d.type == WORKLOAD_GAUGE)
        w->gauges[d.context] = d.value;
    else if (d.type == WORKLOAD_SET)
        w->members[d.value] = 1;
}

/* For a gauge: the sum of the last values, what a graph of all contexts shows
 * last. For a set: how many members there were at all. */
static uint64_t sum_of(const struct workload *w, enum workload_type type)
{
    uint64_t sum = 0;

    if (type == WORKLOAD_GAUGE) {
        for (uint32_t i = 0; i < w->o.n_contexts; i++)
            sum += isnan(w->gauges[i]) ? 0 : (uint64_t)w->gauges[i];
        return sum;
    }
    if (type == WORKLOAD_SET) {
        for (unsigned i = 0; i <= N_MEMBERS; i++)
            sum += w->members[i];
        return sum;
    }
    return w->sums[type].sum;
}

void workload_print(const struct workload *w, FILE *f)
{
    uint64_t n_samples = 0;
    const char *comma = "";

    for (unsigned i = 0; i < WORKLOAD_EVENT; i++)
        n_samples += w->sums[i].n;
    (void)fprintf(f,
                  "\"samples\":%llu,\"events\":%llu,\"checks\":%llu,"
                  "\"metrics\":{",
                  (unsigned long long)n_samples,
                  (unsigned long long)w->sums[WORKLOAD_EVENT].n,
                  (unsigned long long)w->sums[WORKLOAD_CHECK].n);
    for (unsigned i = 0; i < WORKLOAD_EVENT; i++) {
        const struct sums *s = &w->sums[i];

        if (s->n == 0)
            continue;
        (void)fprintf(f,
                      "%s\"%s.%s\":{\"type\":\"%s\",\"count\":%llu,"
                      "\"sum\":%llu,\"min\":%llu,\"max\":%llu}",
                      comma, w->o.prefix, types[i].name, types[i].word,
                      (unsigned long long)s->n,
                      (unsigned long long)sum_of(w, (enum workload_type)i),
                      (unsigned long long)s->min, (unsigned long long)s->max);
        comma = ",";
    }
    (void)fputc('}', f);
}
