/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts: spellings, identity at the intake, limits, enrichment. */
#include <stdio.h>
#include <string.h>

#include "aggregator/layout.h"
#include "tests/support/pipeline.h"

static void feed_bucket(struct pipeline *p, const struct agg_config *cfg,
                        const char *lines)
{
    pipeline_open(p, cfg);
    pipeline_feed(p, 1001, lines);
    pipeline_feed(p, 1010, "");
    pipeline_take(p);
    pipeline_check_ledger(p);
    pipeline_check_unique(p);
}

static void spellings_the_intake_would_merge_share_a_series(void **state)
{
    struct pipeline p;

    (void)state;
    feed_bucket(&p, NULL,
                "a-b:1|c|#X:1,y\na_b:2|c|#y,x:1\na b:3|c|#y,,y,x:1\n");
    assert_int_equal(p.n_items, 1);
    assert_string_equal(p.items[0].text, "a-b rate 1000=0.6 [X:1,y] @h");
    assert_int_equal(agg_counts(p.agg)->type_clashes, 0);
    pipeline_close(&p);
}

static void another_type_of_a_series_takes_another_second(void **state)
{
    struct agg_clash clash;
    struct pipeline p;

    (void)state;
    feed_bucket(&p, NULL, "m:1|c\nm:2|g\nm:x|s\nm:3|d\nm.max:7|g\nm:9|h\n");
    assert_int_equal(p.n_items, 6);
    (void)pipeline_find(&p, "m rate 1000=0.1");
    (void)pipeline_find(&p, "m gauge 1001=2");
    (void)pipeline_find(&p, "m gauge 1002=1");
    (void)pipeline_find(&p, "m sketch 1003 ");
    (void)pipeline_find(&p, "m.max gauge 1000=7");
    (void)pipeline_find(&p, "m.max gauge 1001=9");
    assert_int_equal(agg_counts(p.agg)->type_clashes, 4);
    assert_int_equal(agg_last_stamp(p.agg), 1003);
    assert_true(agg_first_clash(p.agg, &clash));
    assert_int_equal(clash.n, 4);
    assert_string_equal(agg_kind_name(clash.kind), "gauge");
    assert_memory_equal(clash.name, "m", clash.name_bytes);
    pipeline_close(&p);
}

/* Each name of a histogram is a series that others may have. */
static void every_final_name_of_a_histogram_is_its_own(void **state)
{
    struct pipeline p;

    (void)state;
    feed_bucket(&p, NULL,
                "x:1|h\nx.avg:2|g\nx.count:5|c\nx.95percentile:3|g\n");
    (void)pipeline_find(&p, "x.max gauge 1000=1");
    (void)pipeline_find(&p, "x.avg gauge 1001=2");
    (void)pipeline_find(&p, "x.count rate 1001=0.5");
    (void)pipeline_find(&p, "x.95percentile gauge 1001=3");
    assert_int_equal(agg_counts(p.agg)->type_clashes, 3);
    pipeline_close(&p);
}

static void the_last_host_tag_wins_and_internal_tags_go(void **state)
{
    struct pipeline p;

    (void)state;
    feed_bucket(&p, NULL,
                "a:1|g|#host:x,k,host:y\nb:1|g|#host:\n"
                "c:1|g|#dd.internal.entity_id:u,dd.internal.card:low,"
                "dd.internal.jmx_check_name:j,dd.internal.resource:t:n,"
                "Host:z\n");
    assert_string_equal(p.items[0].text, "a gauge 1000=1 [k] @y");
    assert_string_equal(p.items[1].text, "b gauge 1000=1 [] @");
    assert_string_equal(p.items[2].text,
                        "c gauge 1000=1 [Host:z,dd.internal.resource:t:n] @h");
    pipeline_close(&p);
}

static void the_namespace_spares_exempt_names(void **state)
{
    static const struct view exempt[] = {{"jvm", 3}};
    struct agg_config cfg = pipeline_config();
    struct pipeline p;

    (void)state;
    cfg.name_prefix = "ns.";
    cfg.prefix_exempt = exempt;
    cfg.n_prefix_exempt = 1;
    feed_bucket(&p, &cfg, "a:1|g\njvmx:1|g\n");
    assert_string_equal(p.items[0].text, "ns.a gauge 1000=1 [] @h");
    assert_string_equal(p.items[1].text, "jvmx gauge 1000=1 [] @h");
    pipeline_close(&p);
}

static void names_the_intake_would_refuse_are_rejected(void **state)
{
    struct pipeline p;
    char lines[1200];
    char name[400];

    (void)state;
    memset(name, 'n', sizeof(name));
    snprintf(lines, sizeof(lines), "123:1|c\n_:1:2|c\n%.351s:1|c\n%.350s:1|c\n",
             name, name);
    feed_bucket(&p, NULL, lines);
    assert_int_equal(p.n_items, 1);
    assert_int_equal(agg_counts(p.agg)->rejected[DSD_NAME], 4);
    pipeline_close(&p);
    /* With its longest suffix the second would be too long. */
    snprintf(lines, sizeof(lines), "%.336s:1|h\n%.340s:1|h\n", name, name);
    feed_bucket(&p, NULL, lines);
    assert_int_equal(agg_counts(p.agg)->rejected[DSD_NAME], 1);
    pipeline_close(&p);
}

static void tags_are_cut_to_the_limits_of_the_intake(void **state)
{
    char line[4096];
    struct pipeline p;
    struct part_iter *it;
    static struct flush_item item;
    size_t n = (size_t)snprintf(line, sizeof(line), "a:1|g|#z%0250d", 0);

    (void)state;
    for (int i = 0; i < 120; i++)
        n += (size_t)snprintf(line + n, sizeof(line) - n, ",t%03d", i);
    snprintf(line + n, sizeof(line) - n, ",bad\xff\n");
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1001, line);
    pipeline_feed(&p, 1010, "");
    assert_int_equal(part_iter_open(&it, p.agg, 1), 0);
    assert_int_equal(part_iter_next(it, &item), 1);
    assert_int_equal(item.n_tags, 100);
    assert_int_equal(item.tags[0].n, 6);
    assert_memory_equal(item.tags[0].p, "bad\xef\xbf\xbd", 6);
    assert_memory_equal(item.tags[99].p, "t098", 4);
    part_iter_close(it);
    assert_int_equal(agg_counts(p.agg)->clipped_tags, 1 + 22);
    assert_int_equal(agg_counts(p.agg)->bad_utf8, 1);
    pipeline_close(&p);
}

static void contexts_beyond_the_limit_fold_into_one_per_name(void **state)
{
    static const struct view tags[] = {{"env:x", 5}};
    struct agg_config cfg = pipeline_config();
    struct pipeline p;
    char line[64];

    (void)state;
    cfg.context_limit = 10;
    cfg.tags = tags;
    cfg.n_tags = 1;
    pipeline_open(&p, &cfg);
    for (int i = 0; i < 30; i++) {
        snprintf(line, sizeof(line), "m:1|c|#t%d\nm:1|h|#t%d\n", i % 15, i);
        pipeline_feed(&p, 1001, line);
    }
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    pipeline_check_ledger(&p);
    pipeline_check_unique(&p);
    assert_int_equal(p.n_items, 10 + 2);
    (void)pipeline_find(&p, "m rate 1000=0.2 [env:x,t0]");
    assert_int_equal(
        pipeline_find(&p, "m rate 1000=2 [env:x,retriever_overflow:true]")
            ->n_samples,
        20);
    assert_int_equal(agg_counts(p.agg)->folded, 45);
    pipeline_close(&p);
}

static void very_many_names_beyond_the_limit_share_one_series(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct pipeline p;
    char line[64];

    (void)state;
    cfg.context_limit = 5;
    pipeline_open_large(&p, &cfg, 64u << 20);
    for (int i = 0; i < 500; i++) {
        snprintf(line, sizeof(line), "m%d:1|c\n", i);
        pipeline_feed(&p, 1001, line);
    }
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    pipeline_check_ledger(&p);
    /* 5 of their own, 64 by name, the rest together */
    assert_int_equal(p.n_items, 5 + 64 + 1);
    assert_int_equal(pipeline_find(&p, "retriever.overflow rate")->n_samples,
                     500 - 5 - 64);
    pipeline_close(&p);
}

static void a_damaged_context_is_folded_and_the_rest_goes_on(void **state)
{
    struct context *damaged;
    struct agg_head *head;
    struct pipeline p;

    (void)state;
    pipeline_open_large(&p, NULL, 64u << 20);
    pipeline_feed(&p, 1001, "a:1|c|#x\nb:2|c|#x\n");
    head = region_base(&p.region, RANGE_HEAD);
    damaged = (struct context *)region_base(&p.region, RANGE_CONTEXTS) +
              head->contexts.n_made - 1;
    damaged->name = 0xfffffff0u;
    damaged->tagset = 7;
    pipeline_restart(&p);
    pipeline_feed(&p, 1002, "a:1|c|#x\nb:2|c|#x\n");
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    pipeline_check_ledger(&p);
    assert_int_equal(agg_counts(p.agg)->damaged_contexts, 1);
    (void)pipeline_find(&p, "a rate 1000=0.2 [x]");
    assert_int_equal(
        pipeline_find(&p, "retriever.overflow rate 1000=0.2")->n_samples, 1);
    pipeline_close(&p);
}

static void more_cells_than_a_piece_holds_make_several_parts(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct pipeline p;
    char packet[4096];

    (void)state;
    cfg.context_limit = 200000;
    pipeline_open_large(&p, &cfg, 256u << 20);
    for (int i = 0; i < 120000; i += 100) {
        size_t n = 0;

        for (int k = 0; k < 100; k++)
            n += (size_t)snprintf(packet + n, sizeof(packet) - n,
                                  "m%d:1|c|#%d\n", i % 1000, i + k);
        pipeline_feed_bytes(&p, 1001, packet, n, 0);
    }
    pipeline_feed(&p, 1010, "");
    assert_int_equal(agg_last_closed(p.agg), 3);
    pipeline_take(&p);
    pipeline_check_ledger(&p);
    pipeline_check_unique(&p);
    assert_int_equal(p.n_items, 120000);
    assert_int_equal(p.items[0].ts_s, p.items[119999].ts_s);
    pipeline_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spellings_the_intake_would_merge_share_a_series),
        cmocka_unit_test(another_type_of_a_series_takes_another_second),
        cmocka_unit_test(every_final_name_of_a_histogram_is_its_own),
        cmocka_unit_test(the_last_host_tag_wins_and_internal_tags_go),
        cmocka_unit_test(the_namespace_spares_exempt_names),
        cmocka_unit_test(names_the_intake_would_refuse_are_rejected),
        cmocka_unit_test(tags_are_cut_to_the_limits_of_the_intake),
        cmocka_unit_test(contexts_beyond_the_limit_fold_into_one_per_name),
        cmocka_unit_test(very_many_names_beyond_the_limit_share_one_series),
        cmocka_unit_test(a_damaged_context_is_folded_and_the_rest_goes_on),
        cmocka_unit_test(more_cells_than_a_piece_holds_make_several_parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
