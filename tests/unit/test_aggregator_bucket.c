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

/* ---- Clocks ------------------------------------------------------------- */

#define SET_S 1800000000 /* what the clock says once it is set */

static struct agg_config clock_config(int64_t start_s)
{
    struct agg_config cfg = pipeline_config();

    cfg.plausible_s = 1704067200;
    cfg.life_start_s = start_s;
    return cfg;
}

/* No point further ahead than the intake takes, none older than an hour. */
static void check_accepted(const struct pipeline *p, int64_t now_s)
{
    for (size_t i = 0; i < p->n_items; i++) {
        assert_true(p->items[i].ts_s <= now_s + 600);
        assert_true(p->items[i].ts_s >= now_s - 3600);
    }
}

static void what_comes_before_the_time_is_known_is_stamped_later(void **state)
{
    struct agg_config cfg = clock_config(3);
    struct pipeline p;
    char line[256];

    (void)state;
    pipeline_open(&p, &cfg);
    for (int64_t t = 3; t < 100; t += 10) {
        snprintf(line, sizeof(line),
                 "a:1|c\na:7|g\nh:1|h\nd:2|d\ns:x|s\nT:1|c|T%lld\n"
                 "T:1|c|T1800000001\nT:1|c|T1900000000\n_e{1,1}:e|t\n"
                 "_sc|k|0\n",
                 (long long)t);
        pipeline_feed(&p, t, line);
        pipeline_restart(&p);
    }
    assert_int_equal(agg_last_closed(p.agg), 0); /* all of it is held */
    agg_clock_stepped(p.agg, SET_S + 5);
    pipeline_feed(&p, SET_S + 6, "a:5|c\n");
    pipeline_feed(&p, SET_S + 30, "");
    pipeline_take(&p);
    (void)pipeline_find(&p, "a rate 1800000005=1 [] @h");
    (void)pipeline_find(&p, "a rate 1800000007=0.5 [] @h");
    (void)pipeline_find(&p, "T rate 1800000001=1 [] @h");
    /* Of a clock like ours, and further ahead than can be: of now. */
    (void)pipeline_find(&p, "T rate 1800000005=2 [] @h");
    (void)pipeline_find(&p, "e event 1800000005");
    (void)pipeline_find(&p, "k check 1800000005");
    check_accepted(&p, SET_S + 30);
    pipeline_check_unique(&p);
    pipeline_check_ledger(&p);
    pipeline_close(&p);
}

static void a_stop_before_the_time_is_known_delivers(void **state)
{
    struct agg_config cfg = clock_config(3);
    struct pipeline p;

    (void)state;
    cfg.last_stamp_s = SET_S; /* of the life before */
    pipeline_open(&p, &cfg);
    pipeline_feed(&p, 4, "a:1|c\nT:1|c|T1800000000\n");
    agg_close_all(p.agg, 5);
    pipeline_feed(&p, 6, "a:1|c\n");
    agg_close_all(p.agg, 7);
    pipeline_take(&p);
    (void)pipeline_find(&p, "a rate 1800000001=0.1 [] @h");
    (void)pipeline_find(&p, "a rate 1800000002=0.1 [] @h");
    (void)pipeline_find(&p, "T rate 1800000000=0.1 [] @h");
    assert_int_equal(agg_counts(p.agg)->delivered_old, 2);
    agg_clock_stepped(p.agg, SET_S + 5);
    pipeline_feed(&p, SET_S + 6, "a:1|c\n");
    agg_close_all(p.agg, SET_S + 7);
    pipeline_take(&p);
    pipeline_check_unique(&p);
    pipeline_check_ledger(&p);
    pipeline_close(&p);
}

/* Nobody takes the parts: samples wait in the open one and are counted once, when
 * it is closed. */
static void what_is_not_closed_is_not_counted_as_old(void **state)
{
    enum { N = 520 };
    struct agg_config cfg = clock_config(3);
    struct region_proof *proof;
    struct pipeline p;

    (void)state;
    cfg.last_stamp_s = SET_S;
    pipeline_open(&p, &cfg);
    proof = p.region.proof;
    p.region.proof = NULL; /* which takes a minute for a full ring */
    for (int i = 0; i < N; i++) {
        pipeline_feed(&p, 4, "a:1|c\n");
        agg_close_all(p.agg, 4);
    }
    assert_true(agg_counts(p.agg)->closed < N);
    assert_int_equal(agg_counts(p.agg)->delivered_old,
                     agg_counts(p.agg)->closed);
    pipeline_take(&p);
    agg_close_all(p.agg, 4);
    assert_int_equal(agg_counts(p.agg)->closed, N);
    assert_int_equal(agg_counts(p.agg)->delivered_old, N);
    pipeline_take(&p);
    pipeline_check_unique(&p);
    pipeline_check_ledger(&p);
    p.region.proof = proof;
    pipeline_close(&p);
}

static void a_step_moves_what_the_intake_would_refuse(void **state)
{
    static const int64_t steps[] = {3600, -3600, 1,  -1,  2,    -2,
                                    11,   -11,   60, -60, 1700, -1700};

    (void)state;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct agg_config cfg = clock_config(SET_S);
        int64_t now_s = SET_S + 5;
        struct pipeline p;
        char line[128];

        pipeline_open(&p, &cfg);
        snprintf(line, sizeof(line), "a:1|c\na:1|g\nT:1|c|T%lld\n",
                 (long long)now_s + 500);
        pipeline_feed(&p, now_s, line);
        agg_clock_stepped(p.agg, now_s += steps[i]);
        pipeline_feed(&p, now_s, "a:2|c\na:2|g\n");
        pipeline_feed(&p, now_s + 10, "a:4|c\n");
        pipeline_feed(&p, now_s + 1000, "");
        pipeline_take(&p);
        check_accepted(&p, now_s);
        pipeline_check_unique(&p);
        pipeline_check_ledger(&p);
        pipeline_close(&p);
    }
}

/* The reader re-bases the clock, and dies before it tells. */
static void a_step_that_nobody_told_of_is_seen(void **state)
{
    static const int64_t starts[] = {3, SET_S + 3600};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct agg_config cfg = clock_config(starts[i]);
        struct pipeline p;

        pipeline_open(&p, &cfg);
        pipeline_feed(&p, starts[i], "a:1|c\n");
        pipeline_restart(&p);
        pipeline_feed(&p, SET_S, "a:2|c\n");
        pipeline_feed(&p, SET_S + 10, "");
        pipeline_take(&p);
        assert_int_equal(p.n_items, 2);
        check_accepted(&p, SET_S + 10);
        pipeline_check_unique(&p);
        pipeline_close(&p);
    }
}

static void a_moved_part_avoids_timestamped_points(void **state)
{
    struct agg_config cfg = clock_config(SET_S);
    struct pipeline p;

    (void)state;
    pipeline_open(&p, &cfg);
    pipeline_feed(&p, SET_S, "a:1|c|T1799996405\na:1|g|T1799996406\n");
    agg_close_all(p.agg, SET_S);
    pipeline_feed(&p, SET_S + 5, "a:1|c\na:1|g\nb:1|c\n");
    agg_clock_stepped(p.agg, SET_S + 5 - 3600);
    pipeline_take(&p);
    (void)pipeline_find(&p, "b rate 1799996405=0.1");
    pipeline_check_unique(&p);
    pipeline_check_ledger(&p);
    pipeline_close(&p);
}

/* An hour is 360 parts. That another series takes three seconds in each does not
 * shorten what is remembered. */
static void an_hour_back_doubles_no_second(void **state)
{
    struct agg_config cfg = clock_config(SET_S);
    struct pipeline p;

    (void)state;
    pipeline_open(&p, &cfg);
    for (int64_t b = 0; b < 360 + 20; b++) {
        int64_t now_s = SET_S + b % 360 * AGG_BUCKET_S;

        if (b == 360)
            agg_clock_stepped(p.agg, now_s);
        pipeline_feed(&p, now_s, "a:1|g\nx:1|c\nx:2|g\nx:3|s\n");
        pipeline_take(&p);
        pipeline_clear(&p);
    }
    pipeline_check_unique(&p);
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
        cmocka_unit_test(what_comes_before_the_time_is_known_is_stamped_later),
        cmocka_unit_test(a_stop_before_the_time_is_known_delivers),
        cmocka_unit_test(what_is_not_closed_is_not_counted_as_old),
        cmocka_unit_test(a_step_moves_what_the_intake_would_refuse),
        cmocka_unit_test(a_step_that_nobody_told_of_is_seen),
        cmocka_unit_test(a_moved_part_avoids_timestamped_points),
        cmocka_unit_test(an_hour_back_doubles_no_second),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
