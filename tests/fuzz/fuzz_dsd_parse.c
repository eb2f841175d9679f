/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DogStatsD parser on any bytes: results lie inside the line, keep the
 * promises of sample.h and do not depend on what was parsed before. The first
 * byte chooses the options, the rest is a packet.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "aggregator/dsd_ahead.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_LINE 65536

#define CHECK(cond)                                                            \
    do {                                                                       \
        if (!(cond))                                                           \
            abort();                                                           \
    } while (0)

/* The line that is parsed, alone in memory of its size. */
static const char *line;
static size_t line_n;

static void check_view(struct view v)
{
    if (v.n == 0)
        return;
    CHECK(v.p >= line && v.p < line + line_n);
    CHECK(v.n <= (size_t)(line + line_n - v.p));
    CHECK(memchr(v.p, '\n', v.n) == NULL);
}

/* A field ends at a '|'. */
static void check_field(struct view v)
{
    check_view(v);
    CHECK(v.n == 0 || memchr(v.p, '|', v.n) == NULL);
}

static void check_metric(const struct sample *s)
{
    check_field(s->name);
    CHECK(s->name.n > 0 && memchr(s->name.p, ':', s->name.n) == NULL);
    check_field(s->tags);
    check_field(s->local_data);
    check_field(s->external_data);
    check_field(s->cardinality);
    CHECK(s->type < METRIC_N_TYPES);
    CHECK(s->rate > 0 && s->rate <= 1);
    CHECK(s->ts_s >= 0);
    CHECK(s->ts_s == 0 || s->type == METRIC_COUNTER || s->type == METRIC_GAUGE);
    CHECK(s->n_values >= 1 && s->n_values <= line_n);
    if (s->type == METRIC_SET) {
        check_field(s->member);
        CHECK(s->n_values == 1 && s->member.n > 0);
        return;
    }
    for (uint32_t i = 0; i < s->n_values; i++)
        CHECK(isfinite(s->values[i]));
}

static void check_event(const struct event *e)
{
    check_view(e->title);
    check_view(e->text);
    CHECK(e->title.n > 0 && e->text.p == e->title.p + e->title.n + 1);
    check_field(e->tags);
    check_field(e->host);
    check_field(e->aggregation_key);
    check_field(e->source_type);
    check_field(e->local_data);
    check_field(e->external_data);
    check_field(e->cardinality);
    CHECK(e->ts_s >= 0 && e->priority <= EVENT_LOW);
    CHECK(e->alert <= EVENT_SUCCESS);
}

static void check_check(const struct check *k)
{
    check_field(k->name);
    check_field(k->message);
    check_field(k->tags);
    check_field(k->host);
    check_field(k->local_data);
    check_field(k->external_data);
    check_field(k->cardinality);
    CHECK(k->name.n > 0 && k->status <= 3 && k->ts_s >= 0);
}

static enum dsd_result parse_checked(struct dsd_parser *p)
{
    enum dsd_result rc = dsd_parse(p, line, line_n);

    CHECK((unsigned)rc <= DSD_NAN && rc != DSD_UNTERMINATED);
    if (rc == DSD_METRIC)
        check_metric(&p->sample);
    else if (rc == DSD_EVENT)
        check_event(&p->event);
    else if (rc == DSD_CHECK)
        check_check(&p->check);
    return rc;
}

/* The same line once more gives the same, whatever came between. */
static void check_stable(struct dsd_parser *p, enum dsd_result first)
{
    struct sample before = p->sample;
    double *values = NULL;

    if (first == DSD_METRIC && before.type != METRIC_SET) {
        values = malloc(before.n_values * sizeof(*values));
        CHECK(values != NULL);
        memcpy(values, before.values, before.n_values * sizeof(*values));
    }
    (void)dsd_parse(p, "_e{1,1}:a|b|#t|h:x|c:y", 22);
    (void)dsd_parse(p, "other:9:8:7|d|@0.5|#a:b", 23);
    CHECK(parse_checked(p) == first);
    if (first == DSD_METRIC) {
        CHECK(p->sample.n_values == before.n_values);
        CHECK(p->sample.rate == before.rate && p->sample.ts_s == before.ts_s);
        CHECK(p->sample.type == before.type);
        CHECK(p->sample.tags.n == before.tags.n);
        CHECK(values == NULL || memcmp(values, p->sample.values,
                                       before.n_values * sizeof(*values)) == 0);
    }
    free(values);
}

static bool same_view(struct view x, struct view y)
{
    return x.n == y.n && (x.n == 0 || x.p == y.p);
}

static void check_form(const struct dsd_parser *p,
                       const struct dsd_ahead_form *form, enum dsd_result rc)
{
    static const struct spelling_key key;
    static _Alignas(64) const struct table_slot slots[TABLE_LINE];
    const struct dsd_ahead_opts o = {.parser = &p->opts,
                                     .key = &key,
                                     .may_end_bare = true,
                                     .spellings = {slots, TABLE_LINE - 1, 0}};
    const struct dsd_packet packet = {.p = line, .n = (uint32_t)line_n};
    const struct sample *want = &p->sample;
    struct dsd_ahead_lines lines;
    struct sample s = {0};
    uint32_t working;

    form->read(&o, &lines, &packet, 1, &working);
    if (lines.n == 0)
        return;
    CHECK(rc == DSD_METRIC && want->n_values == 1 && want->ts_s == 0);
    CHECK(lines.lines[0].n_bytes == line_n);
    dsd_ahead_fill(&s, &lines.lines[0]);
    CHECK(s.type == want->type);
    CHECK(same_view(s.name, want->name) && same_view(s.tags, want->tags));
    CHECK(want->local_data.n + want->external_data.n + want->cardinality.n ==
          0);
    CHECK(s.rate == want->rate && s.bad_rate == want->bad_rate);
    if (s.type == METRIC_SET)
        CHECK(same_view(s.member, want->member));
    else
        CHECK(memcmp(s.values, want->values, sizeof(double)) == 0);
}

/* What is read ahead is what dsd_parse() gave. */
static void check_ahead(const struct dsd_parser *p, enum dsd_result rc)
{
    for (unsigned i = 0; dsd_ahead_form(i) != NULL; i++)
        check_form(p, dsd_ahead_form(i), rc);
}

static void run_line(struct dsd_parser *p, const uint8_t *bytes, size_t n)
{
    char *copy = malloc(n > 0 ? n : 1);

    CHECK(copy != NULL);
    if (n > 0)
        memcpy(copy, bytes, n);
    line = copy;
    line_n = n;
    check_stable(p, parse_checked(p));
    check_ahead(p, parse_checked(p));
    free(copy);
    /* A prefix, as the kernel leaves it of a long datagram. */
    copy = malloc(n / 2 + 1);
    CHECK(copy != NULL);
    copy[n / 2] = '|'; /* outside: must change nothing */
    if (n > 1)
        memcpy(copy, bytes, n / 2);
    line = copy;
    line_n = n / 2;
    (void)parse_checked(p);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dsd_parser_opts opts = {.max_line_bytes = MAX_LINE};
    struct dsd_parser p;
    const uint8_t *end = data + size;

    if (size == 0 || size > MAX_LINE)
        return 0;
    opts.origin_client = data[0] & 1;
    opts.no_aggregation = data[0] & 2;
    opts.max_line_bytes = data[0] & 4 ? 8 : MAX_LINE;
    CHECK(dsd_parser_init(&p, &opts) == 0);
    for (data++; data < end;) {
        const uint8_t *lf = memchr(data, '\n', (size_t)(end - data));

        run_line(&p, data, (size_t)((lf != NULL ? lf : end) - data));
        data = lf != NULL ? lf + 1 : end;
    }
    dsd_parser_fini(&p);
    return 0;
}
