/* SPDX-License-Identifier: Apache-2.0 */
/* Buckets, parts and their stamps, zeros, expiry, timestamped samples. */
#include <stdio.h>
#include <string.h>

#include "tests/support/pipeline.h"

static size_t count_items(const struct pipeline *p, const char *prefix)
{
    size_t n = 0;

    for (size_t i = 0; i < p->n_items; i++)
        n += strncmp(p->items[i].text, prefix, strlen(prefix)) == 0;
    return n;
}

static void parts_of_one_bucket_take_seconds_of_their_own(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1012, "a:1|c\n");
    agg_close_all(p.agg, 1013);
    pipeline_feed(&p, 1014, "a:2|c\n");
    agg_close_all(p.agg, 1014);
    pipeline_feed(&p, 1014, "a:3|c\n");
    agg_close_all(p.agg, 1014);
    pipeline_feed(&p, 1019, "a:4|c\n");
    pipeline_feed(&p, 1020, "a:5|c\n");
    pipeline_feed(&p, 1030, "");
    pipeline_take(&p);
    assert_int_equal(p.n_items, 5);
    assert_string_equal(p.items[0].text, "a rate 1010=0.1 [] @h");
    assert_string_equal(p.items[1].text, "a rate 1013=0.2 [] @h");
    assert_string_equal(p.items[2].text, "a rate 1014=0.3 [] @h");
    assert_string_equal(p.items[3].text, "a rate 1015=0.4 [] @h");
    assert_string_equal(p.items[4].text, "a rate 1020=0.5 [] @h");
    assert_int_equal(agg_last_stamp(p.agg), 1020);
    pipeline_close(&p);
}

static void a_life_without_memory_begins_with_its_own_second(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct pipeline p;

    (void)state;
    cfg.life_start_s = 1007;
    pipeline_open(&p, &cfg);
    pipeline_feed(&p, 1008, "a:1|g\n");
    pipeline_feed(&p, 1012, "a:2|g\n");
    pipeline_feed(&p, 1020, "");
    pipeline_take(&p);
    assert_string_equal(p.items[0].text, "a gauge 1007=1 [] @h");
    assert_string_equal(p.items[1].text, "a gauge 1010=2 [] @h");
    pipeline_close(&p);
}

static void a_known_last_stamp_is_not_used_again(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct pipeline p;

    (void)state;
    cfg.life_start_s = 1003;
    cfg.last_stamp_s = 1004;
    pipeline_open(&p, &cfg);
    pipeline_feed(&p, 1005, "a:1|g\n");
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    assert_string_equal(p.items[0].text, "a gauge 1005=1 [] @h");
    pipeline_close(&p);
}

static void a_clock_set_back_never_repeats_a_second(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    for (int i = 0; i < 5; i++) {
        pipeline_feed(&p, 1000, "a:1|g\n");
        pipeline_feed(&p, 1010, "a:2|g\n");
        agg_clock_stepped(p.agg, 1000);
    }
    pipeline_take(&p);
    assert_int_equal(p.n_items, 10);
    pipeline_check_unique(&p);
    pipeline_close(&p);
}

static void a_live_counter_sends_one_zero_per_elapsed_slot(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct pipeline p;

    (void)state;
    cfg.expiry_s = 50;
    pipeline_open(&p, &cfg);
    pipeline_feed(&p, 1001, "a:1|c\nb:1|g\n");
    agg_close_all(p.agg, 1002); /* no second zero for this bucket */
    pipeline_feed(&p, 1035, "x:1|g\n");
    pipeline_feed(&p, 5000, "");
    pipeline_take(&p);
    pipeline_check_unique(&p);
    assert_int_equal(count_items(&p, "a rate"), 5);
    for (int s = 1010; s <= 1040; s += 10) {
        char text[64];

        snprintf(text, sizeof(text), "a rate %d=0 [] @h", s);
        assert_int_equal(count_items(&p, text), 1);
    }
    assert_int_equal(pipeline_find(&p, "a rate 1010=0")->n_samples, 0);
    pipeline_check_ledger(&p);
    pipeline_close(&p);
}

static void idle_contexts_are_forgotten_when_their_part_is_released(
    void **state)
{
    struct agg_stats before, s;
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    agg_stats(p.agg, &before);
    pipeline_feed(&p, 1001, "a:1|c|#x\na:1|h|#y:2,x\na:2|h|#x,y:2\n");
    pipeline_feed(&p, 2000, "");
    agg_stats(p.agg, &s);
    assert_int_equal(s.n_contexts, before.n_contexts + 2);
    assert_int_equal(s.n_aliases, 1);
    pipeline_take(&p);
    pipeline_feed(&p, 2010, "");
    agg_stats(p.agg, &s);
    assert_int_equal(s.n_contexts, before.n_contexts);
    assert_int_equal(s.n_aliases, 0);
    pipeline_feed(&p, 2011, "a:5|c|#x\n");
    pipeline_feed(&p, 2020, "");
    pipeline_take(&p);
    (void)pipeline_find(&p, "a rate 2010=0.5 [x] @h");
    pipeline_close(&p);
}

static void timestamped_counters_sum_per_second_and_wait_for_late_ones(
    void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1001, "t:1|c|T1001\nt:2|c|T1003|@0.5\nt:3|c|T1001\n");
    pipeline_feed(&p, 1010, "t:4|c|T1001\n");
    pipeline_take(&p);
    assert_int_equal(p.n_items, 0); /* the bucket of 1001 is closed just now */
    pipeline_feed(&p, 1020, "");
    pipeline_take(&p);
    assert_int_equal(p.n_items, 1);
    assert_string_equal(p.items[0].text, "t rate 1001=0.8 1003=0.4 [] @h");
    assert_int_equal(p.items[0].n_samples, 4);
    pipeline_feed(&p, 1021, "t:9|c|T1001\n"); /* late: the next free second */
    pipeline_feed(&p, 1030, "");
    pipeline_take(&p);
    assert_string_equal(p.items[1].text, "t rate 1002=0.9 [] @h");
    pipeline_check_ledger(&p);
    pipeline_close(&p);
}

static void a_timestamped_point_avoids_the_stamp_of_an_untimed_one(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1001, "t:1|g\nt:2|g|T1000\n");
    agg_close_all(p.agg, 1002);
    pipeline_feed(&p, 1003, "t:3|g\nt:4|g|T1003\n");
    agg_close_all(p.agg, 1004);
    pipeline_take(&p);
    assert_int_equal(p.n_items, 4);
    pipeline_check_unique(&p);
    pipeline_close(&p);
}

static void the_far_future_is_rejected_and_the_old_counted(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 10000,
                  "t:1:2|c|T10601\nt:1|c|T10600\nt:1|c|T6000\nt:1|h|T9999\n");
    assert_int_equal(agg_counts(p.agg)->rejected[DSD_FUTURE], 2);
    assert_int_equal(agg_counts(p.agg)->rejected[DSD_UNSUPPORTED], 1);
    assert_int_equal(agg_counts(p.agg)->delivered_old, 1);
    assert_int_equal(agg_counts(p.agg)->aggregated, 2);
    agg_close_all(p.agg, 10001);
    pipeline_take(&p);
    pipeline_check_ledger(&p);
    pipeline_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_of_one_bucket_take_seconds_of_their_own),
        cmocka_unit_test(a_life_without_memory_begins_with_its_own_second),
        cmocka_unit_test(a_known_last_stamp_is_not_used_again),
        cmocka_unit_test(a_clock_set_back_never_repeats_a_second),
        cmocka_unit_test(a_live_counter_sends_one_zero_per_elapsed_slot),
        cmocka_unit_test(
            idle_contexts_are_forgotten_when_their_part_is_released),
        cmocka_unit_test(
            timestamped_counters_sum_per_second_and_wait_for_late_ones),
        cmocka_unit_test(
            a_timestamped_point_avoids_the_stamp_of_an_untimed_one),
        cmocka_unit_test(the_far_future_is_rejected_and_the_old_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
