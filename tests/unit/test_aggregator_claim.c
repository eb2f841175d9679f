/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lives without a run_path that know of each other by the seconds they claim: one
 * after the other, side by side, and more of them than there are seconds.
 */
#include <stdio.h>
#include <string.h>

#include "tests/support/pipeline.h"

#define AHEAD_MOST_S 300 /* of the bucket */
#define BEHIND_MOST_S 1800

/* ---- Who has which second ------------------------------------------------ */

static struct {
    unsigned life; /* 0 = nobody */
    bool steady;
} owners[20000];
static unsigned n_claimed;

static enum agg_claim claim(void *arg, int64_t t_s, bool steady)
{
    unsigned life = *(const unsigned *)arg;

    assert_in_range(t_s, 0, 19999);
    if (owners[t_s].life == 0) {
        owners[t_s].life = life;
        owners[t_s].steady = steady;
        n_claimed++;
    }
    if (owners[t_s].life == life)
        return AGG_OURS;
    return owners[t_s].steady ? AGG_TAKEN_STEADILY : AGG_TAKEN;
}

static int forget_all(void **state)
{
    (void)state;
    memset(owners, 0, sizeof(owners));
    n_claimed = 0;
    return 0;
}

static struct agg_config config_of(unsigned *life, int64_t now_s)
{
    struct agg_config cfg = pipeline_config();

    cfg.claim = claim;
    cfg.claim_arg = life;
    cfg.life_start_s = now_s;
    return cfg;
}

static void open_life(struct pipeline *p, unsigned *life, int64_t now_s)
{
    struct agg_config cfg = config_of(life, now_s);

    pipeline_open(p, &cfg);
}

/* A life of its own in which @packet comes, all at @now_s. */
static void live(struct pipeline *p, unsigned *life, int64_t now_s,
                 const char *packet)
{
    ++*life;
    pipeline_next_life(p, now_s, false);
    if (packet[0] != '\0')
        pipeline_feed(p, now_s, packet);
    agg_close_all(p->agg, now_s);
    pipeline_take(p);
}

/* ---- One after the other ------------------------------------------------- */

static void lives_of_one_second_have_one_each(void **state)
{
    unsigned life = 1;
    struct pipeline p;

    (void)state;
    open_life(&p, &life, 5007);
    for (int i = 0; i < 40; i++)
        live(&p, &life, 5007, "a:1|c\n");
    assert_int_equal(p.n_items, 40);
    pipeline_check_unique(&p);
    assert_string_equal(p.items[0].text, "a rate 5007=0.1 [] @h");
    assert_string_equal(p.items[10].text, "a rate 5017=0.1 [] @h");
    assert_string_equal(p.items[11].text, "a rate 5006=0.1 [] @h");
    assert_string_equal(p.items[39].text, "a rate 4992=0.1 [] @h");
    pipeline_close(&p);
}

static void a_life_without_data_takes_none(void **state)
{
    unsigned life = 1;
    struct pipeline p;

    (void)state;
    open_life(&p, &life, 5007);
    live(&p, &life, 5007, "");
    live(&p, &life, 5007, "_e{1,1}:a|b\n"); /* an event has its own time */
    live(&p, &life, 5007, "a:1|c|T4900\n");
    assert_int_equal(n_claimed, 0);
    live(&p, &life, 5007, "a:1|c\n");
    assert_int_equal(n_claimed, 1);
    (void)pipeline_find(&p, "a rate 5007=0.1");
    pipeline_close(&p);
}

static void types_of_a_series_have_one_each(void **state)
{
    unsigned life = 1;
    struct pipeline p;

    (void)state;
    open_life(&p, &life, 5007);
    for (int i = 0; i < 10; i++)
        live(&p, &life, 5007, "a:1|c\na:2|g\na:x|s\nb:1|h\nb.max:1|g\n");
    pipeline_check_unique(&p);
    pipeline_close(&p);
}

static void parts_of_a_life_have_one_each_too(void **state)
{
    unsigned life = 1;
    struct pipeline p;

    (void)state;
    open_life(&p, &life, 5007);
    for (int i = 0; i < 10; i++) {
        live(&p, &life, 5007 + i, "a:1|c\n");
        for (int k = 0; k < 5; k++) {
            pipeline_feed(&p, 5007 + i, "a:1|c\n");
            agg_close_all(p.agg, 5007 + i);
        }
        pipeline_feed(&p, 5021, "a:1|c\n");
        agg_close_all(p.agg, 5022);
        pipeline_take(&p);
    }
    assert_int_equal(p.n_items, 70);
    pipeline_check_unique(&p);
    pipeline_close(&p);
}

static void they_go_as_far_as_the_intake_follows(void **state)
{
    const int n_all = BEHIND_MOST_S + AHEAD_MOST_S + 1;
    unsigned life = 1;
    struct pipeline p;

    (void)state;
    open_life(&p, &life, 5007);
    for (int i = 0; i < n_all; i++)
        live(&p, &life, 5007, "a:1|c\n");
    pipeline_check_unique(&p);
    (void)pipeline_find(&p, "a rate 3200=0.1");
    (void)pipeline_find(&p, "a rate 5300=0.1");
    assert_int_equal(n_claimed, n_all);
    /* Nowhere: as if nothing were known. */
    pipeline_clear(&p);
    live(&p, &life, 5007, "a:1|c\na:1|g\n");
    (void)pipeline_find(&p, "a rate 5007=0.1");
    (void)pipeline_find(&p, "a gauge 5008=1");
    /* Seconds come along as time goes on. */
    live(&p, &life, 5021, "a:1|c\n");
    (void)pipeline_find(&p, "a rate 5301=0.1");
    pipeline_close(&p);
}

static void a_successor_keeps_the_second(void **state)
{
    unsigned life = 1;
    unsigned other = 2;
    struct pipeline p;

    (void)state;
    assert_int_equal(claim(&other, 5007, false), AGG_OURS);
    open_life(&p, &life, 5007);
    pipeline_feed(&p, 5008, "a:1|c\n");
    pipeline_restart(&p);
    pipeline_feed(&p, 5009, "a:1|c\nb:1|c\n");
    agg_close_all(p.agg, 5009);
    pipeline_take(&p);
    assert_int_equal(n_claimed, 2);
    (void)pipeline_find(&p, "a rate 5008=0.2");
    (void)pipeline_find(&p, "b rate 5008=0.1");
    pipeline_close(&p);
}

/* A part that is open when the clock is set goes to where another life was. */
static void a_step_asks_anew(void **state)
{
    unsigned life = 1;
    unsigned other = 2;
    struct pipeline p;

    (void)state;
    assert_int_equal(claim(&other, 3003, false), AGG_OURS);
    assert_int_equal(claim(&other, 3010, false), AGG_OURS);
    open_life(&p, &life, 5007);
    pipeline_feed(&p, 5008, "a:1|c\n");
    agg_clock_stepped(p.agg, 3003);
    pipeline_feed(&p, 3011, "a:2|c\n");
    agg_close_all(p.agg, 3012);
    pipeline_take(&p);
    (void)pipeline_find(&p, "a rate 3004=0.1");
    (void)pipeline_find(&p, "a rate 3011=0.2");
    pipeline_close(&p);
}

/* ---- Side by side -------------------------------------------------------- */

#define MANY 16
#define BEGIN_S 5020
#define END_S                                                                  \
    5220 /* long enough to be 120 s off, where each takes the next one */

/* The first @n of them. The furthest that one was from its bucket. */
static int64_t serve(struct pipeline *p, unsigned n)
{
    int64_t furthest_s = 0;

    for (int64_t t_s = BEGIN_S; t_s < END_S; t_s += 10) {
        for (unsigned i = 0; i < n; i++) {
            int64_t off_s;

            pipeline_feed(&p[i], t_s + 3, "a:1|g\n");
            agg_close_all(p[i].agg, t_s + 9);
            pipeline_take(&p[i]);
            assert_int_equal(p[i].n_items, 1);
            off_s = p[i].items[0].ts_s - t_s;
            assert_true(off_s >= 0);
            if (off_s > furthest_s)
                furthest_s = off_s;
            pipeline_clear(&p[i]);
        }
    }
    return furthest_s;
}

static void serve_many(unsigned n, int64_t at_most_s)
{
    static struct pipeline p[MANY];
    unsigned lives[MANY];

    for (unsigned i = 0; i < n; i++) {
        struct agg_config cfg;

        lives[i] = i + 1;
        cfg = config_of(&lives[i], 4900);
        /* Without the proof of each commit, which takes seconds for so many. */
        pipeline_open_large(&p[i], &cfg, 4u << 20);
    }
    assert_true(serve(p, n) <= at_most_s);
    for (unsigned i = 0; i < n; i++)
        pipeline_close(&p[i]);
}

static void ten_agents_share_the_seconds_of_a_bucket(void **state)
{
    (void)state;
    serve_many(10, 9);
    assert_int_equal(n_claimed, END_S - BEGIN_S);
}

static void more_agents_stay_with_their_bucket(void **state)
{
    (void)state;
    serve_many(MANY, 19);
}

/* Many short lives beside one that goes on: it is not overwritten either, and stays
 * as near as it can. */
static void an_agent_makes_way_for_short_lives(void **state)
{
    static struct pipeline agent;
    unsigned life = 1;
    unsigned own = 999;
    struct pipeline p;

    (void)state;
    open_life(&p, &life, 5000);
    open_life(&agent, &own, 4000);
    for (int i = 0; i < 100; i++)
        live(&p, &life, 5000, "a:1|c\n");
    pipeline_feed(&agent, 5003, "a:1|c\n");
    agg_close_all(agent.agg, 5009);
    pipeline_take(&agent);
    assert_string_equal(agent.items[0].text, "a rate 5055=0.1 [] @h");
    assert_int_equal(owners[5055].life, 999);
    pipeline_close(&agent);
    pipeline_close(&p);
}

/* Jobs that begin beside them go where there is room. */
static void a_new_life_is_not_turned_away_by_them(void **state)
{
    unsigned life = MANY + 1;
    struct pipeline p;

    (void)state;
    serve_many(MANY, 19);
    open_life(&p, &life, END_S - 5);
    for (int i = 0; i < 20; i++)
        live(&p, &life, END_S - 5, "a:1|c\n");
    pipeline_check_unique(&p);
    for (int i = 0; i < 20; i++)
        assert_int_equal(owners[p.items[i].ts_s].life, MANY + 2 + i);
    pipeline_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(lives_of_one_second_have_one_each, forget_all),
        cmocka_unit_test_setup(a_life_without_data_takes_none, forget_all),
        cmocka_unit_test_setup(types_of_a_series_have_one_each, forget_all),
        cmocka_unit_test_setup(parts_of_a_life_have_one_each_too, forget_all),
        cmocka_unit_test_setup(they_go_as_far_as_the_intake_follows,
                               forget_all),
        cmocka_unit_test_setup(a_successor_keeps_the_second, forget_all),
        cmocka_unit_test_setup(a_step_asks_anew, forget_all),
        cmocka_unit_test_setup(ten_agents_share_the_seconds_of_a_bucket,
                               forget_all),
        cmocka_unit_test_setup(more_agents_stay_with_their_bucket, forget_all),
        cmocka_unit_test_setup(an_agent_makes_way_for_short_lives, forget_all),
        cmocka_unit_test_setup(a_new_life_is_not_turned_away_by_them,
                               forget_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
