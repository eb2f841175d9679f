/* SPDX-License-Identifier: Apache-2.0 */
/* What each kind of metric gives at flush, and events and checks. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aggregator/sketch.h"
#include "tests/support/pipeline.h"

/* All lines in one bucket; what the next bucket's start closes. */
static void feed_bucket(struct pipeline *p, const struct agg_config *cfg,
                        const char *lines)
{
    pipeline_open(p, cfg);
    pipeline_feed(p, 1001, lines);
    pipeline_feed(p, 1010, "");
    pipeline_take(p);
    pipeline_check_ledger(p);
}

static void a_set_counts_distinct_members(void **state)
{
    struct pipeline p;

    (void)state;
    feed_bucket(&p, NULL, "s:a|s\ns:b|s\ns:a:b|s\ns:a|s|@0.1\n");
    assert_string_equal(p.items[0].text, "s gauge 1000=3 [] @h");
    assert_int_equal(p.items[0].n_samples, 4);
    pipeline_close(&p);
}

static void a_large_set_is_exact(void **state)
{
    struct pipeline p;
    char packet[64 * 16];

    (void)state;
    pipeline_open_large(&p, NULL, 64u << 20);
    for (uint32_t i = 0; i < 200000; i += 32) {
        size_t n = 0;

        for (uint32_t k = 0; k < 32; k++)
            n += (size_t)snprintf(packet + n, sizeof(packet) - n, "s:%u|s\n",
                                  (i + k) % 130000);
        pipeline_feed_bytes(&p, 1001, packet, n, 0);
    }
    agg_close_all(p.agg, 1002);
    pipeline_take(&p);
    assert_string_equal(p.items[0].text, "s gauge 1000=130000 [] @h");
    assert_int_equal(agg_counts(p.agg)->hist_capped, 0);
    pipeline_close(&p);
}

static void histogram_series_follow_the_agents_rules(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct pipeline p;
    char lines[2000];
    size_t n = 0;

    (void)state;
    cfg.hist_aggregates = 63;
    for (int v = 1; v <= 100; v++)
        n += (size_t)snprintf(lines + n, sizeof(lines) - n, "h:%d|h\n", v);
    feed_bucket(&p, &cfg, lines);
    assert_string_equal(p.items[0].text,
                        "h.max gauge 1000=100 .median gauge 1000=50 "
                        ".avg gauge 1000=50.5 .count rate 1000=10 "
                        ".min gauge 1000=1 .sum gauge 1000=5050 "
                        ".95percentile gauge 1000=95 [] @h");
    pipeline_close(&p);
    feed_bucket(&p, NULL, "h:4:1:3:2|h\n");
    assert_string_equal(p.items[0].text,
                        "h.max gauge 1000=4 .median gauge 1000=2 "
                        ".avg gauge 1000=2.5 .count rate 1000=0.4 "
                        ".95percentile gauge 1000=4 [] @h");
    pipeline_close(&p);
}

static void a_sampled_histogram_weighs_its_values(void **state)
{
    struct pipeline p;

    (void)state;
    feed_bucket(&p, NULL, "h:10|h|@0.4\nh:20|h\n");
    /* weights 2.5 and 1: the median's target is 1.25 */
    assert_string_equal(p.items[0].text,
                        "h.max gauge 1000=20 .median gauge 1000=10 "
                        ".avg gauge 1000=12.8571428571 .count rate 1000=0.35 "
                        ".95percentile gauge 1000=20 [] @h");
    assert_int_equal(p.items[0].n_samples, 2);
    pipeline_close(&p);
}

static void timings_are_histograms_in_milliseconds(void **state)
{
    struct pipeline p;

    (void)state;
    feed_bucket(&p, NULL, "t:7|ms\nt:9|h\n");
    assert_int_equal(p.n_items, 1);
    assert_string_equal(p.items[0].text,
                        "t.max gauge ms 1000=9 .median gauge ms 1000=7 "
                        ".avg gauge ms 1000=8 .count rate 1000=0.2 "
                        ".95percentile gauge ms 1000=9 [] @h");
    pipeline_close(&p);
}

static void a_histogram_beyond_its_cap_keeps_exact_totals(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct pipeline p;
    char line[128];

    (void)state;
    cfg.hist_aggregates = HIST_COUNT | HIST_SUM | HIST_MIN | HIST_MAX;
    cfg.n_percentiles = 0;
    pipeline_open_large(&p, &cfg, 64u << 20);
    for (int i = 0; i < 100000; i += 4) {
        snprintf(line, sizeof(line), "h:%d:%d:%d:%d|h\n", i, i + 1, i + 2,
                 i + 3);
        pipeline_feed(&p, 1001, line);
    }
    agg_close_all(p.agg, 1002);
    pipeline_take(&p);
    assert_string_equal(p.items[0].text,
                        "h.max gauge 1000=99999 .count rate 1000=10000 "
                        ".min gauge 1000=0 .sum gauge 1000=4999950000 [] @h");
    assert_int_equal(agg_counts(p.agg)->hist_capped, 100000 - 65536);
    pipeline_close(&p);
}

static void a_distribution_gives_the_agents_sketch(void **state)
{
    struct pipeline p;

    (void)state;
    feed_bucket(&p, NULL, "d:1:2:3|d\nn:-1:0:1|d\nr:10|d|@0.25\n");
    assert_string_equal(p.items[0].text,
                        "d sketch 1000 cnt=3 min=1 max=3 sum=6 "
                        "1338:1 1383:1 1409:1 [] @h");
    assert_string_equal(p.items[1].text,
                        "n sketch 1000 cnt=3 min=-1 max=1 sum=0 "
                        "-1338:1 0:1 1338:1 [] @h");
    assert_string_equal(p.items[2].text,
                        "r sketch 1000 cnt=4 min=10 max=10 sum=40 "
                        "1487:4 [] @h");
    pipeline_close(&p);
}

/* The cell's tree and key buffer against one plain merge of all keys. */
static void many_values_of_a_distribution_are_all_in_its_bins(void **state)
{
    enum { N = 30000 };
    int16_t *keys = malloc(N * sizeof(*keys));
    struct sketch_bin *bins = malloc(N * sizeof(*bins));
    struct pipeline p;
    struct part_iter *it;
    struct flush_item *item = malloc(sizeof(*item));
    char line[64];
    size_t n;

    (void)state;
    sketch_init();
    pipeline_open_large(&p, NULL, 64u << 20);
    for (int i = 0; i < N; i++) {
        double v = ((i * 7919) % 20011 - 3000) * 0.25;

        snprintf(line, sizeof(line), "d:%.2f|d\n", v);
        keys[i] = sketch_key(v);
        pipeline_feed(&p, 1001, line);
    }
    n = sketch_merge_keys(bins, NULL, 0, keys, N);
    agg_close_all(p.agg, 1002);
    assert_int_equal(part_iter_open(&it, p.agg, 1), 0);
    assert_int_equal(part_iter_next(it, item), 1);
    assert_int_equal(item->cnt, N);
    assert_int_equal(item->n_bins, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(item->k[i], bins[i].key);
        assert_int_equal(item->n[i], bins[i].n);
    }
    part_iter_close(it);
    pipeline_close(&p);
    free(item);
    free(bins);
    free(keys);
}

static void absurd_sample_rates_cannot_explode_a_sketch(void **state)
{
    struct pipeline p;
    char lines[4000];
    size_t n = 0;

    (void)state;
    for (int i = 0; i < 100; i++)
        n += (size_t)snprintf(lines + n, sizeof(lines) - n,
                              "d:%d|d|@0.0000000000001\n", i);
    feed_bucket(&p, NULL, lines);
    assert_int_equal(p.items[0].n_samples, 100);
    assert_true(agg_counts(p.agg)->bad_rate >= 100);
    pipeline_close(&p);
}

/* What is compared to find what an addition lost may be beyond it where the sum is
 * not. */
static void a_sum_that_comes_back_is_not_the_largest_number(void **state)
{
    char packet[256];
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    (void)snprintf(packet, sizeof(packet), "a:%.17g|c\na:%.17g|c\na:%.17g|c\n",
                   -0x1.8p971, DBL_MAX, -DBL_MAX);
    pipeline_feed(&p, 1000, packet);
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    assert_int_equal(p.n_items, 1);
    assert_true(p.items[0].value < 0 && p.items[0].value > -0x1p971);
    pipeline_close(&p);
}

static void sums_beyond_the_largest_number_stay_finite(void **state)
{
    struct pipeline p;

    (void)state;
    feed_bucket(&p, NULL,
                "c:1e308:1e308:1e308|c\nh:1e308:1e308|h|@0.1\n"
                "d:1e308:1e308:1e308|d\n");
    for (size_t i = 0; i < p.n_items; i++) {
        assert_true(isfinite(p.items[i].value));
        assert_null(strstr(p.items[i].text, "nan"));
        assert_null(strstr(p.items[i].text, "inf"));
    }
    pipeline_close(&p);
}

static void small_counts_beside_a_large_one_are_not_lost(void **state)
{
    struct pipeline p;
    char line[8192];
    size_t n;

    (void)state;
    n = (size_t)snprintf(line, sizeof(line), "c:1e16");
    for (int i = 0; i < 2000; i++)
        n += (size_t)snprintf(line + n, sizeof(line) - n, ":1");
    snprintf(line + n, sizeof(line) - n, ":-1e16|c\n");
    feed_bucket(&p, NULL, line); /* in several commits, too */
    assert_string_equal(p.items[0].text, "c rate 1000=200 [] @h");
    assert_int_equal(p.items[0].n_samples, 2002);
    pipeline_close(&p);
}

static void histograms_are_copied_to_distributions_when_asked(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct pipeline p;

    (void)state;
    cfg.copy_histograms = true;
    cfg.distribution_copy_prefix = "dist.";
    feed_bucket(&p, &cfg, "h:1:2:3|h|#a\n");
    assert_int_equal(p.n_items, 2);
    assert_int_equal(p.items[0].n_samples, 3);
    assert_int_equal(p.items[1].n_samples, 0);
    (void)pipeline_find(&p, "dist.h sketch 1000 cnt=3 min=1 max=3 sum=6");
    pipeline_close(&p);
}

static void events_and_checks_keep_all_their_fields(void **state)
{
    struct agg_config cfg = pipeline_config();
    static const struct view tags[] = {{"env:x", 5}};
    struct pipeline p;

    (void)state;
    cfg.tags = tags;
    cfg.n_tags = 1;
    feed_bucket(&p, &cfg,
                "_e{5,4}:a\\nbc|x\\ny|d:55|h:eh|k:key|p:low|s:zsrc|t:error|#b,a"
                "\n_e{1,0}:t|\n"
                "_sc|c.ok|2|d:7|h:ch|#host:gone,q|m:a\\nb\n");
    assert_int_equal(p.n_items, 3);
    assert_string_equal(p.items[0].text,
                        "t event 1001 '' key= source= 000 [env:x] @h");
    assert_string_equal(p.items[1].text,
                        "a\nbc event 55 'x\ny' key=key source=zsrc 110 "
                        "[a,b,env:x] @eh");
    assert_string_equal(p.items[2].text,
                        "c.ok check 7 'a\\nb' key= source= 002 [env:x,q] @ch");
    assert_int_equal(agg_counts(p.agg)->events, 2);
    assert_int_equal(agg_counts(p.agg)->checks_closed, 1);
    pipeline_close(&p);
}

static void a_truncated_datagram_gives_its_whole_lines(void **state)
{
    static const char text[] = "a:1|c\na:2|c\na:3";
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed_bytes(&p, 1001, text, sizeof(text) - 1, INGEST_TRUNCATED);
    assert_int_equal(agg_counts(p.agg)->aggregated, 2);
    assert_int_equal(agg_counts(p.agg)->rejected[DSD_TRUNCATED], 1);
    assert_int_equal(agg_counts(p.agg)->received[TRANSPORT_UDP], 3);
    p.in.eol_required[TRANSPORT_UDP] = true;
    pipeline_feed(&p, 1001, "a:1|c\na:1|c");
    assert_int_equal(agg_counts(p.agg)->rejected[DSD_UNTERMINATED], 1);
    pipeline_close(&p);
}

static void what_the_configuration_turns_off_is_filtered(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1001, "a:1|c\n"); /* it has a cell, which is no excuse */
    p.in.drop_series = true;
    pipeline_feed(&p, 1001, "a:1:2|c\na:1|c\nd:1|d\n");
    assert_int_equal(agg_counts(p.agg)->filtered[FILTER_DISABLED], 3);
    assert_int_equal(agg_counts(p.agg)->aggregated, 2);
    agg_close_all(p.agg, 1002);
    pipeline_take(&p);
    pipeline_check_ledger(&p);
    pipeline_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_set_counts_distinct_members),
        cmocka_unit_test(a_large_set_is_exact),
        cmocka_unit_test(histogram_series_follow_the_agents_rules),
        cmocka_unit_test(a_sampled_histogram_weighs_its_values),
        cmocka_unit_test(timings_are_histograms_in_milliseconds),
        cmocka_unit_test(a_histogram_beyond_its_cap_keeps_exact_totals),
        cmocka_unit_test(a_distribution_gives_the_agents_sketch),
        cmocka_unit_test(many_values_of_a_distribution_are_all_in_its_bins),
        cmocka_unit_test(absurd_sample_rates_cannot_explode_a_sketch),
        cmocka_unit_test(sums_beyond_the_largest_number_stay_finite),
        cmocka_unit_test(a_sum_that_comes_back_is_not_the_largest_number),
        cmocka_unit_test(small_counts_beside_a_large_one_are_not_lost),
        cmocka_unit_test(histograms_are_copied_to_distributions_when_asked),
        cmocka_unit_test(events_and_checks_keep_all_their_fields),
        cmocka_unit_test(a_truncated_datagram_gives_its_whole_lines),
        cmocka_unit_test(what_the_configuration_turns_off_is_filtered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
