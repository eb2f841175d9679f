/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/workload.h"

static const struct workload_options plain = {
    .prefix = "t", .n_contexts = 3, .n_tags = 2, .types = 0xff, .seed = 9};

static void the_same_seed_gives_the_same_lines(void **state)
{
    struct workload *a, *b;
    char x[WORKLOAD_LINE_MAX], y[WORKLOAD_LINE_MAX];

    (void)state;
    assert_int_equal(workload_create(&a, &plain), 0);
    assert_int_equal(workload_create(&b, &plain), 0);
    for (uint64_t i = 0; i < 1000; i++) {
        size_t n = workload_line(a, i, x);

        if (i % 7 == 0) /* in any order */
            (void)workload_line(b, i + 13, y);
        assert_int_equal(workload_line(b, i, y), n);
        assert_memory_equal(x, y, n);
    }
    workload_close(a);
    workload_close(b);
}

/* Adds up the text of the counter's lines, not what the generator drew. */
static void sums_are_those_of_the_lines(void **state)
{
    struct workload *w;
    char line[WORKLOAD_LINE_MAX + 1];
    uint64_t n = 0, sum = 0, n_events = 0;
    char *json = NULL;
    size_t n_json = 0;
    FILE *f = open_memstream(&json, &n_json);
    char want[100];

    (void)state;
    assert_non_null(f);
    assert_int_equal(workload_create(&w, &plain), 0);
    for (uint64_t i = 0; i < 5000; i++) {
        line[workload_line(w, i, line)] = '\0';
        workload_count(w, i);
        n_events += line[0] == '_' && line[1] == 'e';
        if (strncmp(line, "t.page.views:", 13) == 0) {
            n++;
            sum += strtoull(line + 13, NULL, 10);
        }
    }
    workload_print(w, f);
    assert_int_equal(fclose(f), 0);
    assert_true(n > 0);
    (void)snprintf(want, sizeof(want),
                   "\"t.page.views\":{\"type\":\"c\",\"count\":%llu,\"sum\":"
                   "%llu,",
                   (unsigned long long)n, (unsigned long long)sum);
    assert_non_null(strstr(json, want));
    (void)snprintf(want, sizeof(want), "\"events\":%llu,",
                   (unsigned long long)n_events);
    assert_non_null(strstr(json, want));
    free(json);
    workload_close(w);
}

static void events_announce_their_length(void **state)
{
    struct workload_options o = plain;
    struct workload *w;
    char line[WORKLOAD_LINE_MAX + 1];

    (void)state;
    o.types = 1U << WORKLOAD_EVENT;
    assert_int_equal(workload_create(&w, &o), 0);
    for (uint64_t i = 0; i < 200; i++) {
        unsigned n_title, n_text;
        char *body;

        line[workload_line(w, i * i * i, line)] = '\0';
        assert_int_equal(sscanf(line, "_e{%u,%u}:", &n_title, &n_text), 2);
        body = strchr(line, ':') + 1;
        assert_int_equal(body[n_title], '|');
        assert_int_equal(body[n_title + 1 + n_text], '|');
    }
    workload_close(w);
}

static void types_and_bounds_are_checked(void **state)
{
    struct workload_options o = plain;
    struct workload *w = NULL;
    unsigned types = 0;

    (void)state;
    assert_int_equal(workload_parse_types("c,sc", &types), 0);
    assert_int_equal(types, 1U << WORKLOAD_COUNT | 1U << WORKLOAD_CHECK);
    assert_int_equal(workload_parse_types("c,x", &types), WORKLOAD_BAD);
    assert_int_equal(workload_parse_types("", &types), WORKLOAD_BAD);
    o.n_contexts = 0;
    assert_int_equal(workload_create(&w, &o), WORKLOAD_BAD);
    o = plain;
    o.n_tags = WORKLOAD_TAGS_MAX + 1;
    assert_int_equal(workload_create(&w, &o), WORKLOAD_BAD);
    o = plain;
    o.prefix = "a|b";
    assert_int_equal(workload_create(&w, &o), WORKLOAD_BAD);
    assert_null(w);
    o = plain; /* the longest line there can be */
    o.n_contexts = WORKLOAD_CONTEXTS_MAX;
    o.n_tags = WORKLOAD_TAGS_MAX;
    assert_int_equal(workload_create(&w, &o), 0);
    for (uint64_t i = 0; i < 100; i++) {
        char line[WORKLOAD_LINE_MAX];

        assert_in_range(workload_line(w, i, line), 1, WORKLOAD_LINE_MAX);
    }
    workload_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_lines),
        cmocka_unit_test(sums_are_those_of_the_lines),
        cmocka_unit_test(events_announce_their_length),
        cmocka_unit_test(types_and_bounds_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
