/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parser against tests/golden/dogstatsd_lines.tsv, and what a table of
 * lines cannot say.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "aggregator/dsd_parse.h"

#define MAX_LINE 8192

/* What a line meant, as the table writes it. */
struct text {
    char p[4096];
    size_t n;
};

static void put(struct text *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void put(struct text *t, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(t->p + t->n, sizeof(t->p) - t->n, format, args);
    va_end(args);
    assert_true(n >= 0 && (size_t)n < sizeof(t->p) - t->n);
    t->n += (size_t)n;
}

static void put_bytes(struct text *t, struct view v)
{
    for (uint32_t i = 0; i < v.n; i++) {
        unsigned char c = (unsigned char)v.p[i];

        if (c == '\\')
            put(t, "\\\\");
        else if (c < 0x20 || c >= 0x7f)
            put(t, "\\x%02x", c);
        else
            put(t, "%c", c);
    }
}

/* " name=[text]", nothing when there is no text. */
static void put_field(struct text *t, const char *name, struct view v)
{
    if (v.n == 0)
        return;
    put(t, " %s=[", name);
    put_bytes(t, v);
    put(t, "]");
}

static void put_origin(struct text *t, struct view local_data,
                       struct view external_data, struct view cardinality)
{
    put_field(t, "c", local_data);
    put_field(t, "e", external_data);
    put_field(t, "card", cardinality);
}

static void put_metric(struct text *t, const struct sample *s)
{
    static const char *const types[METRIC_N_TYPES] = {
        [METRIC_COUNTER] = "counter",
        [METRIC_GAUGE] = "gauge",
        [METRIC_HISTOGRAM] = "histogram",
        [METRIC_TIMING] = "timing",
        [METRIC_SET] = "set",
        [METRIC_DISTRIBUTION] = "distribution",
    };

    put(t, "%s", types[s->type]);
    put_field(t, "name", s->name);
    if (s->type == METRIC_SET) {
        assert_int_equal(s->n_values, 1);
        put_field(t, "member", s->member);
    } else {
        put(t, " values=[");
        for (uint32_t i = 0; i < s->n_values; i++)
            put(t, "%s%.15g", i > 0 ? "," : "", s->values[i]);
        put(t, "]");
    }
    if (s->rate != 1)
        put(t, " rate=%.15g", s->rate);
    if (s->bad_rate)
        put(t, " bad_rate");
    if (s->ts_s != 0)
        put(t, " ts=%lld", (long long)s->ts_s);
    put_field(t, "tags", s->tags);
    put_origin(t, s->local_data, s->external_data, s->cardinality);
}

static void put_event(struct text *t, const struct event *e)
{
    static const char *const alerts[] = {"info", "error", "warning", "success"};

    put(t, "event title=[");
    put_bytes(t, e->title);
    put(t, "] text=[");
    put_bytes(t, e->text);
    put(t, "]");
    if (e->ts_s != 0)
        put(t, " ts=%lld", (long long)e->ts_s);
    if (e->priority == EVENT_LOW)
        put(t, " priority=low");
    if (e->alert != EVENT_INFO)
        put(t, " alert=%s", alerts[e->alert]);
    put_field(t, "host", e->host);
    put_field(t, "key", e->aggregation_key);
    put_field(t, "source", e->source_type);
    put_field(t, "tags", e->tags);
    put_origin(t, e->local_data, e->external_data, e->cardinality);
}

static void put_check(struct text *t, const struct check *k)
{
    put(t, "check");
    put_field(t, "name", k->name);
    put(t, " status=%u", k->status);
    if (k->ts_s != 0)
        put(t, " ts=%lld", (long long)k->ts_s);
    put_field(t, "host", k->host);
    put_field(t, "tags", k->tags);
    put_field(t, "message", k->message);
    put_origin(t, k->local_data, k->external_data, k->cardinality);
}

static void put_line(struct text *t, struct dsd_parser *p, const char *line,
                     size_t n)
{
    /* Memory of the exact size lets a sanitizer see a read past the end. */
    char *copy = malloc(n > 0 ? n : 1);
    enum dsd_result rc;

    assert_non_null(copy);
    memcpy(copy, line, n);
    rc = dsd_parse(p, copy, n);
    if (rc != DSD_EMPTY && t->n > 0)
        put(t, " ; ");
    if (rc == DSD_METRIC)
        put_metric(t, &p->sample);
    else if (rc == DSD_EVENT)
        put_event(t, &p->event);
    else if (rc == DSD_CHECK)
        put_check(t, &p->check);
    else if (rc >= DSD_FIRST_REJECT)
        put(t, "reject %s", dsd_reject_name(rc));
    free(copy);
}

static void put_packet(struct text *t, struct dsd_parser *p, const char *packet,
                       size_t n)
{
    const char *end = packet + n;

    while (packet < end) {
        const char *lf = memchr(packet, '\n', (size_t)(end - packet));

        put_line(t, p, packet, (size_t)((lf != NULL ? lf : end) - packet));
        packet = lf != NULL ? lf + 1 : end;
    }
    if (t->n == 0)
        put(t, "nothing");
}

static size_t unescape(char *out, const char *in)
{
    size_t n = 0;

    while (*in != '\0') {
        char c = *in++;

        if (c == '\\') {
            c = *in++;
            if (c == 'n') {
                c = '\n';
            } else if (c == 'r') {
                c = '\r';
            } else if (c == 'x') {
                char hex[3] = {in[0], in[1], '\0'};

                c = (char)strtoul(hex, NULL, 16);
                in += 2;
            } else {
                assert_int_equal(c, '\\');
            }
        }
        out[n++] = c;
    }
    return n;
}

/* Returns 0 when the row holds. */
static int run_row(char *row)
{
    enum { NUMBER, OPTIONS, PACKET, AGENT, RETRIEVER, WHY, N_COLUMNS };
    char *column[N_COLUMNS];
    struct dsd_parser_opts opts = {.max_line_bytes = MAX_LINE};
    struct dsd_parser parser;
    struct text got = {.n = 0};
    char packet[1024];
    size_t n;
    bool same;

    for (int i = 0; i < N_COLUMNS; i++) {
        column[i] = strsep(&row, "\t\n");
        assert_non_null(column[i]);
    }
    opts.origin_client = strcmp(column[OPTIONS], "origin") == 0;
    opts.no_aggregation = strcmp(column[OPTIONS], "aggregate_all") != 0;
    assert_int_equal(dsd_parser_init(&parser, &opts), 0);
    n = unescape(packet, column[PACKET]);
    put_packet(&got, &parser, packet, n);
    dsd_parser_fini(&parser);
    if (strcmp(got.p, column[RETRIEVER]) != 0) {
        print_error("%s: %s\n    want %s\n    got  %s\n", column[NUMBER],
                    column[PACKET], column[RETRIEVER], got.p);
        return 1;
    }
    /* A difference from the Agent has a reason, a reason a difference. */
    same = strcmp(column[AGENT], "reject") == 0
               ? strncmp(got.p, "reject ", 7) == 0
               : strcmp(got.p, column[AGENT]) == 0;
    if (same != (strcmp(column[WHY], "-") == 0)) {
        print_error("%s: the columns do not agree with the reason\n",
                    column[NUMBER]);
        return 1;
    }
    return 0;
}

static void lines_mean_what_the_table_says(void **state)
{
    FILE *f = fopen(TESTS_DIR "/golden/dogstatsd_lines.tsv", "r");
    char *row = NULL;
    size_t room = 0;
    int n_rows = 0;
    int n_bad = 0;

    (void)state;
    assert_non_null(f);
    while (getline(&row, &room, f) > 0) {
        if (row[0] == '#')
            continue;
        n_bad += run_row(row);
        n_rows++;
    }
    free(row);
    fclose(f);
    assert_true(n_rows >= 150);
    assert_int_equal(n_bad, 0);
}

static void a_packed_line_of_the_greatest_length_fits(void **state)
{
    const struct dsd_parser_opts opts = {.max_line_bytes = MAX_LINE};
    struct dsd_parser p;
    char line[MAX_LINE + 2];

    (void)state;
    assert_int_equal(dsd_parser_init(&p, &opts), 0);
    memcpy(line, "m:", 2);
    for (size_t i = 2; i < sizeof(line) - 2; i += 2)
        memcpy(line + i, "7:", 2);
    memcpy(line + MAX_LINE - 2, "|d", 2);
    assert_int_equal(dsd_parse(&p, line, MAX_LINE), DSD_METRIC);
    assert_int_equal(p.sample.n_values, (MAX_LINE - 4) / 2);
    for (uint32_t i = 0; i < p.sample.n_values; i++)
        assert_true(p.sample.values[i] == 7);
    dsd_parser_fini(&p);
}

static void a_line_longer_than_announced_is_rejected_not_overrun(void **state)
{
    const struct dsd_parser_opts opts = {.max_line_bytes = 4};
    struct dsd_parser p;

    (void)state;
    assert_int_equal(dsd_parser_init(&p, &opts), 0);
    assert_int_equal(dsd_parse(&p, "m:1:2:3|d", 9), DSD_METRIC);
    assert_int_equal(p.sample.n_values, 3);
    assert_int_equal(dsd_parse(&p, "m:1:2:3:4|d", 11), DSD_PARSE_VALUE);
    dsd_parser_fini(&p);
}

static void every_prefix_of_a_line_has_a_result(void **state)
{
    static const char *const lines[] = {
        "app.requests:1:2.5:1e3|d|@0.5|T1657100430|#a:b,c|c:ci-1|card:low",
        "_e{5,4}:title|text|d:1|h:x|k:y|p:low|s:z|t:error|#a|c:1|e:it-true",
        "_sc|agent.up|2|d:1|h:x|#a|m:text|c:1|e:it-true|card:high",
    };
    const struct dsd_parser_opts opts = {.max_line_bytes = MAX_LINE,
                                         .origin_client = true,
                                         .no_aggregation = true};
    struct dsd_parser p;

    (void)state;
    assert_int_equal(dsd_parser_init(&p, &opts), 0);
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        for (size_t n = 0; n <= strlen(lines[i]); n++) {
            struct text t = {.n = 0};

            put_line(&t, &p, lines[i], n);
            assert_true(n == 0 || t.n > 0);
        }
    }
    dsd_parser_fini(&p);
}

static void every_result_has_a_name(void **state)
{
    (void)state;
    for (int i = 0; i < DSD_N_RESULTS; i++) {
        assert_non_null(dsd_reject_name((enum dsd_result)i));
        for (int j = 0; j < i; j++)
            assert_string_not_equal(dsd_reject_name((enum dsd_result)i),
                                    dsd_reject_name((enum dsd_result)j));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_mean_what_the_table_says),
        cmocka_unit_test(a_packed_line_of_the_greatest_length_fits),
        cmocka_unit_test(a_line_longer_than_announced_is_rejected_not_overrun),
        cmocka_unit_test(every_prefix_of_a_line_has_a_result),
        cmocka_unit_test(every_result_has_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
