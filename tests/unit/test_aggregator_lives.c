/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One value for each (series, second) over several lives: what a run_path
 * remembers keeps a later life from replacing a point of an earlier one. The seed
 * of the random run is printed; RETRIEVER_TEST_SEED repeats it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/pipeline.h"

static void a_later_life_takes_the_next_second_of_a_timestamp(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1002, "t:5|c|T1001\nu:1|g|T1001\n");
    agg_close_all(p.agg, 1002);
    pipeline_take(&p);
    pipeline_next_life(&p, 1003, true);
    pipeline_feed(&p, 1003, "t:3|c|T1001\nt:4|c|T1001\nu:2|g|T1003\n");
    agg_close_all(p.agg, 1004);
    pipeline_take(&p);
    (void)pipeline_find(&p, "t rate 1001=0.5");
    (void)pipeline_find(&p, "t rate 1002=0.7");
    (void)pipeline_find(&p, "u gauge 1003=2"); /* nobody had that one */
    pipeline_check_unique(&p);
    pipeline_close(&p);
}

static void an_untimed_point_avoids_a_timestamp_of_an_earlier_life(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    /* Ahead of the clock: where the second life's stamps will be. */
    pipeline_feed(&p, 1002, "t:5|c|T1010\nh.max:1|g|T1010\nt:1|c|T1011\n");
    agg_close_all(p.agg, 1002);
    pipeline_take(&p);
    pipeline_next_life(&p, 1009, true);
    pipeline_feed(&p, 1011, "t:3|c\nh:7|h\nother:1|g\n");
    agg_close_all(p.agg, 1012);
    pipeline_feed(&p, 1013, "t:1|c\n");
    agg_close_all(p.agg, 1013);
    pipeline_take(&p);
    (void)pipeline_find(&p, "t rate 1012=0.3");
    (void)pipeline_find(&p, "h.max gauge 1011=7");
    (void)pipeline_find(&p, "other gauge 1010=1");
    pipeline_check_unique(&p);
    /* A third life knows of the points that had to move, too. */
    pipeline_next_life(&p, 1014, true);
    pipeline_feed(&p, 1014, "t:1|c|T1012\nh.max:2|g|T1011\n");
    agg_close_all(p.agg, 1014);
    pipeline_take(&p);
    pipeline_check_unique(&p);
    pipeline_close(&p);
}

static void a_timestamp_avoids_the_stamps_of_earlier_parts(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1002, "t:5|c\nt:1|g\n");
    agg_close_all(p.agg, 1003);
    pipeline_feed(&p, 1012, "t:5|c\n");
    agg_close_all(p.agg, 1012);
    pipeline_take(&p);
    pipeline_next_life(&p, 1013, true);
    pipeline_feed(&p, 1013, "t:7|c|T1000\nt:8|c|T1010\n");
    agg_close_all(p.agg, 1013);
    pipeline_take(&p);
    pipeline_check_unique(&p);
    pipeline_close(&p);
}

static void series_of_two_types_share_no_second_with_timestamps(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1001, "t:1|c|T1001\nt:2|g|T1000\nt:3|g|T1001\n");
    agg_close_all(p.agg, 1002);
    pipeline_take(&p);
    pipeline_check_unique(&p);
    pipeline_close(&p);
}

/* The clock goes back, so that later stamps lie between earlier ones; a clash
 * that appears only then must not take one of those. */
static void a_late_clash_avoids_stamps_that_lie_ahead(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct pipeline p;

    (void)state;
    cfg.context_expiry_s = 5000;
    pipeline_open(&p, &cfg);
    for (int i = 0; i < 9; i++) {
        pipeline_feed(&p, 1000 + i, "t:1|c\n");
        agg_close_all(p.agg, 1000 + i);
    }
    for (int i = 1; i < 4; i++) {
        pipeline_feed(&p, 1000 + 10 * i, "t:1|c\n");
        agg_close_all(p.agg, 1000 + 10 * i);
    }
    agg_clock_stepped(p.agg, 1009);
    pipeline_feed(&p, 1009, "t:1|c\nt:1|g\nt:1|s\n");
    agg_close_all(p.agg, 1009);
    pipeline_take(&p);
    pipeline_check_unique(&p);
    pipeline_close(&p);
}

/* ---- At random ---------------------------------------------------------- */

static uint64_t rng;

static uint32_t below(uint32_t n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t)((rng >> 16) % n);
}

static double feed_some(struct pipeline *p, int64_t now_s)
{
    static const char *const untimed[] = {"t%u:%u|c", "t%u:%u|g",
                                          "t%u:%u|h", "t%u:%u|s",
                                          "t%u:%u|d", "t%u.max:%u|g"};
    char packet[1024];
    size_t n = 0;
    double sum = 0;

    for (uint32_t i = below(8); i > 0; i--) {
        uint32_t kind = below(10);
        uint32_t name = below(3);
        uint32_t v = below(100);

        if (kind < 6) {
            n += (size_t)snprintf(packet + n, sizeof(packet) - n, untimed[kind],
                                  name, v);
        } else {
            n += (size_t)snprintf(packet + n, sizeof(packet) - n,
                                  "t%u:%u|%c|T%lld", name, v,
                                  kind < 9 ? 'c' : 'g',
                                  (long long)now_s + below(60) - 40);
        }
        if (kind == 0 || (kind >= 6 && kind < 9))
            sum += v;
        packet[n++] = '\n';
    }
    packet[n] = '\0';
    if (n > 0)
        pipeline_feed(p, now_s, packet);
    return sum;
}

static double counted(const struct pipeline *p)
{
    double sum = 0;

    for (size_t i = 0; i < p->n_items; i++) {
        const char *at = strstr(p->items[i].text, " rate ");

        if (at == NULL || strstr(p->items[i].text, ".max") != NULL)
            continue;
        while ((at = strchr(at, '=')) != NULL)
            sum += strtod(++at, NULL) * 10;
    }
    return sum;
}

static void random_lives_share_no_second(void **state)
{
    const char *s = getenv("RETRIEVER_TEST_SEED");
    struct agg_config cfg = pipeline_config();
    struct pipeline p;
    int64_t now_s = 100000;
    double sum = 0;

    (void)state;
    rng = s != NULL ? strtoull(s, NULL, 10) : 20260802;
    print_message("seed %llu\n", (unsigned long long)rng);
    rng = rng * 2 + 1;
    cfg.life_start_s = now_s;
    cfg.hist_aggregates = HIST_MAX; /* a rate is a counter's */
    pipeline_open_large(&p, &cfg, 64u << 20);
    for (int life = 0; life < 60; life++) {
        for (uint32_t steps = below(40); steps > 0; steps--) {
            sum += feed_some(&p, now_s);
            if (below(6) == 0)
                agg_close_all(p.agg, now_s);
            if (below(12) == 0)
                agg_clock_stepped(p.agg, now_s += (int64_t)below(100) - 50);
            if (below(15) == 0)
                pipeline_restart(&p);
            now_s += below(4);
        }
        agg_close_all(p.agg, now_s);
        pipeline_take(&p);
        now_s += below(3);
        pipeline_next_life(&p, now_s, true);
    }
    pipeline_check_unique(&p);
    assert_true(sum > 1000);
    assert_float_equal(counted(&p) / sum, 1.0, 1e-9);
    pipeline_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_later_life_takes_the_next_second_of_a_timestamp),
        cmocka_unit_test(
            an_untimed_point_avoids_a_timestamp_of_an_earlier_life),
        cmocka_unit_test(a_timestamp_avoids_the_stamps_of_earlier_parts),
        cmocka_unit_test(series_of_two_types_share_no_second_with_timestamps),
        cmocka_unit_test(a_late_clash_avoids_stamps_that_lie_ahead),
        cmocka_unit_test(random_lives_share_no_second),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
