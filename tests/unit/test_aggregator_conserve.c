/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conservation: random lines of every kind over hours of virtual time; what
 * comes out of the parts is what went in, and the ledger says so. The seed is
 * printed; RETRIEVER_TEST_SEED repeats a run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/pipeline.h"

static uint64_t rng;

static uint32_t below(uint32_t n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t)((rng >> 16) % n);
}

static void seed(void)
{
    const char *s = getenv("RETRIEVER_TEST_SEED");

    rng = s != NULL ? strtoull(s, NULL, 10) : 20260101;
    print_message("seed %llu\n", (unsigned long long)rng);
    rng = rng * 2 + 1;
}

struct sent {
    double counters; /* sum over value / rate */
    uint64_t events, checks, samples;
};

static size_t write_line(char *out, size_t room, int64_t now_s,
                         struct sent *sent)
{
    static const char *const tags[] = {
        "", "|#a:1", "|#b:2,a:1", "|#a:1,b:2", "|#host:other,x", "|#,,"};
    static const char *const rates[] = {"", "|@0.5", "|@0.1"};
    static const double weights[] = {1, 2, 10};
    const char *tag = tags[below(6)];
    uint32_t rate = below(3);
    uint32_t v = below(1000);
    uint32_t name = below(20);

    sent->samples++;
    switch (below(12)) {
    case 0:
    case 1:
    case 2:
        sent->counters += v * weights[rate];
        return (size_t)snprintf(out, room, "c%u:%u|c%s%s\n", name, v,
                                rates[rate], tag);
    case 3:
        sent->counters += v * weights[rate];
        return (size_t)snprintf(out, room, "c%u:%u|c%s%s|T%lld\n", name, v,
                                rates[rate], tag,
                                (long long)now_s - 700 + below(900));
    case 4:
        return (size_t)snprintf(out, room, "g%u:%u|g%s\n", name, v, tag);
    case 5:
        return (size_t)snprintf(out, room, "h%u:%u|h%s%s\n", name, v,
                                rates[rate], tag);
    case 6:
        sent->samples += 2;
        return (size_t)snprintf(out, room, "h%u:%u:1:2|ms%s\n", name, v, tag);
    case 7:
        return (size_t)snprintf(out, room, "s%u:m%u|s%s\n", name, v, tag);
    case 8:
        sent->samples++;
        return (size_t)snprintf(out, room, "d%u:%u:3|d%s%s\n", name, v,
                                rates[rate], tag);
    case 9:
        sent->samples--;
        sent->events++;
        return (size_t)snprintf(out, room, "_e{2,3}:t%u|a\\n|s:src%u%s\n",
                                v % 10, name, tag);
    case 10:
        sent->samples--;
        sent->checks++;
        return (size_t)snprintf(out, room, "_sc|chk%u|%u%s|m:text\n", name,
                                v % 4, tag);
    default:
        return (size_t)snprintf(out, room, "bad line %u\n", v);
    }
}

static double sum_of_counters(const struct pipeline *p)
{
    double sum = 0;

    for (size_t i = 0; i < p->n_items; i++) {
        const char *at = p->items[i].text;

        if (p->items[i].kind != FLUSH_SERIES ||
            (at[0] != 'c' && strncmp(at, "retriever.overflow rate", 23) != 0))
            continue;
        while ((at = strchr(at, '=')) != NULL)
            sum += strtod(++at, NULL) * 10;
    }
    return sum;
}

static void run(struct pipeline *p, int n_steps, struct sent *sent)
{
    int64_t now_s = 1000;

    for (int i = 0; i < n_steps; i++) {
        char packet[2000];
        size_t n = 0;

        for (uint32_t k = below(15) + 1; k > 0; k--)
            n += write_line(packet + n, sizeof(packet) - n, now_s, sent);
        pipeline_feed_bytes(p, now_s, packet, n, 0);
        now_s += below(4);
        if (below(50) == 0)
            now_s += below(500);
        if (below(40) == 0)
            agg_close_all(p->agg, now_s);
        if (below(60) == 0)
            agg_clock_stepped(p->agg, now_s -= below(30));
        if (below(30) == 0)
            pipeline_restart(p);
        if (below(20) == 0)
            pipeline_take(p);
    }
    agg_close_all(p->agg, now_s);
    pipeline_take(p);
}

static void check(struct pipeline *p, const struct sent *sent)
{
    const struct ingest_counts *k = agg_counts(p->agg);
    uint64_t n[4] = {0};

    pipeline_check_ledger(p);
    pipeline_check_unique(p);
    for (size_t i = 0; i < p->n_items; i++)
        n[p->items[i].kind]++;
    assert_int_equal(n[FLUSH_EVENT], sent->events);
    assert_int_equal(n[FLUSH_CHECK], sent->checks);
    assert_int_equal(k->received[TRANSPORT_UDP], sent->samples);
    assert_int_equal(k->aggregated, k->closed);
    assert_int_equal(k->damaged, 0);
    assert_true(k->aggregated > 0);
    if (k->rejected[DSD_FUTURE] == 0)
        assert_float_equal(sum_of_counters(p) / sent->counters, 1.0, 1e-9);
}

static void hours_of_random_lines_are_conserved(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct sent sent = {0};
    struct pipeline p;

    (void)state;
    seed();
    cfg.expiry_s = 300;
    pipeline_open_large(&p, &cfg, 64u << 20);
    run(&p, 8000, &sent);
    check(&p, &sent);
    assert_int_equal(agg_counts(p.agg)->folded, 0);
    pipeline_close(&p);
}

static void every_commit_of_a_random_run_rolls_back_exactly(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct sent sent = {0};
    struct pipeline p;

    (void)state;
    seed();
    cfg.expiry_s = 60;
    cfg.copy_histograms = true;
    pipeline_open(&p, &cfg);
    run(&p, 120, &sent);
    check(&p, &sent);
    pipeline_close(&p);
}

static void nothing_is_lost_beyond_the_context_limit(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct sent sent = {0};
    struct pipeline p;

    (void)state;
    seed();
    cfg.context_limit = 30;
    pipeline_open_large(&p, &cfg, 64u << 20);
    run(&p, 2000, &sent);
    check(&p, &sent);
    assert_true(agg_counts(p.agg)->folded > 0);
    pipeline_close(&p);
}

static void nothing_is_lost_when_memory_runs_out(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct pipeline p;
    char packet[4096];
    uint64_t n_sent = 0;

    (void)state;
    cfg.context_limit = 1000000;
    pipeline_open_large(&p, &cfg, 2560u << 10);
    for (uint32_t i = 0; i < 4000; i++) {
        size_t n = 0;

        for (int k = 0; k < 20; k++)
            n += (size_t)snprintf(packet + n, sizeof(packet) - n,
                                  "m%u:%d|%s|#tag%u\n", i % 50, k,
                                  i % 3 == 0   ? "c"
                                  : i % 3 == 1 ? "h"
                                               : "d",
                                  i * 20 + (uint32_t)k);
        n_sent += 20;
        /* Nobody releases parts: the encoder stands still. */
        pipeline_feed_bytes(&p, 1000 + i / 20, packet, n, 0);
    }
    agg_close_all(p.agg, 2000);
    pipeline_take(&p);
    pipeline_check_ledger(&p);
    assert_int_equal(agg_counts(p.agg)->received[TRANSPORT_UDP], n_sent);
    assert_int_equal(agg_counts(p.agg)->aggregated, n_sent);
    assert_int_equal(agg_counts(p.agg)->closed, n_sent);
    assert_int_equal(agg_counts(p.agg)->damaged, 0);
    assert_true(agg_counts(p.agg)->folded > 0);
    pipeline_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_commit_of_a_random_run_rolls_back_exactly),
        cmocka_unit_test(hours_of_random_lines_are_conserved),
        cmocka_unit_test(nothing_is_lost_beyond_the_context_limit),
        cmocka_unit_test(nothing_is_lost_when_memory_runs_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
