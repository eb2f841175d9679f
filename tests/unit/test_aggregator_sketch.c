/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys, summaries and bins against what the Agent's quantile module gives:
 * tests/golden/sketch_keys.txt and sketches.jsonl.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "aggregator/sketch.h"

#define GAMMA_LN 0.015504186535965254
#define N_RANDOM 2000000
#define MAX_VALUES 8192

static int set_up(void **state)
{
    (void)state;
    sketch_init();
    sketch_init(); /* idempotent */
    return 0;
}

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static double double_of(uint64_t u)
{
    double v;

    memcpy(&v, &u, sizeof(v));
    return v;
}

static void keys_equal_those_of_the_agent(void **state)
{
    FILE *f = fopen(TESTS_DIR "/golden/sketch_keys.txt", "r");
    char line[128];
    int n = 0;

    (void)state;
    assert_non_null(f);
    while (fgets(line, sizeof(line), f) != NULL) {
        char *rest;
        double v;
        long want;

        if (line[0] == '#')
            continue;
        v = double_of(strtoull(line, &rest, 16));
        want = strtol(rest, NULL, 10);
        if (sketch_key(v) != want)
            fail_msg("key of %a is %ld, not %d", v, want, sketch_key(v));
        n++;
    }
    fclose(f);
    assert_true(n > 1000);
}

static void keys_of_round_numbers_are_the_known_ones(void **state)
{
    static const struct {
        double v;
        int key;
    } rows[] = {
        {0, 0},
        {-0.0, 0},
        {1e-9, 1},
        {1e-6, 447},
        {0.001, 892},
        {0.01, 1041},
        {0.1, 1189},
        {0.5, 1293},
        {1, 1338},
        {1.5, 1364},
        {2, 1383},
        {2.5, 1397},
        {3, 1409},
        {4, 1427},
        {5, 1442},
        {10, 1487},
        {42, 1579},
        {100, 1635},
        {250, 1694},
        {500, 1739},
        {1000, 1784},
        {1e4, 1932},
        {1e6, 2229},
        {1e9, 2675},
        {1e12, 3120},
        {1e15, 3566},
        {-1, -1338},
        {-10, -1487},
        {1e100, 16189},
        {DBL_MAX, SKETCH_KEY_INF},
        {-DBL_MAX, -SKETCH_KEY_INF},
        {DBL_MIN, 0},
        {-5e-324, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(sketch_key(rows[i].v), rows[i].key);
}

/* By the plain formula in long double; values within 1e-10 of the middle
 * between two keys are the business of the golden file. */
static void keys_of_random_values_follow_the_formula(void **state)
{
    uint64_t seed = 0x9e3779b97f4a7c15;
    long n = 0;

    (void)state;
    for (int i = 0; i < N_RANDOM; i++) {
        uint64_t u = next_random(&seed);
        /* Half of them over all of the range, half where people measure. */
        double v =
            i & 1 ? double_of(u & INT64_MAX) : (double)(u >> 11) / 0x1p40;
        long double exact;
        int want;

        if (!isfinite(v) || v < 1e-9)
            continue;
        exact = logl(v) / (long double)GAMMA_LN;
        if (fabsl(exact - floorl(exact) - 0.5L) < 1e-10L)
            continue;
        want = (int)rintl(exact) + 1338;
        want = want > SKETCH_KEY_INF ? SKETCH_KEY_INF : want;
        if (sketch_key(v) != want || sketch_key(-v) != -want)
            fail_msg("key of %a is %d, not %d", v, want, sketch_key(v));
        n++;
    }
    assert_true(n > N_RANDOM / 2);
}

/* One sketch as the aggregator builds it. */
struct built {
    struct sketch_summary sum;
    struct sketch_bin *bins;
    size_t n_bins;
    int16_t keys[512];
    size_t n_keys;
};

static void merge_keys(struct built *b)
{
    struct sketch_bin *out = malloc((b->n_bins + b->n_keys + 1) * sizeof(*out));

    assert_non_null(out);
    b->n_bins = sketch_merge_keys(out, b->bins, b->n_bins, b->keys, b->n_keys);
    b->n_keys = 0;
    free(b->bins);
    b->bins = out;
}

static void insert(struct built *b, double v, double rate)
{
    struct sketch_bin *out;
    uint32_t n;

    if (rate == 1) {
        sketch_summary_add(&b->sum, v);
        b->keys[b->n_keys++] = sketch_key(v);
        if (b->n_keys == 512)
            merge_keys(b);
        return;
    }
    n = sketch_summary_add_rated(&b->sum, v, rate);
    out = malloc((b->n_bins + 1) * sizeof(*out));
    assert_non_null(out);
    b->n_bins = sketch_merge_one(out, b->bins, b->n_bins, sketch_key(v), n);
    free(b->bins);
    b->bins = out;
}

/* The numbers behind "name": [ or "name": in a line of JSON. Returns how many;
 * 0 when the line has no such member. */
static size_t json_numbers(double *out, const char *line, const char *name)
{
    char quoted[32];
    const char *p;
    size_t n = 0;

    snprintf(quoted, sizeof(quoted), "\"%s\": ", name);
    p = strstr(line, quoted);
    if (p == NULL)
        return 0;
    p += strlen(quoted);
    if (*p != '[') {
        out[0] = strtod(p, NULL);
        return 1;
    }
    while (*p != ']') {
        char *end;

        assert_true(n < MAX_VALUES);
        out[n] = strtod(p + 1, &end);
        assert_true(end != p + 1);
        n++;
        p = end;
    }
    return n;
}

static void assert_close(double got, const char *want_of, const char *name)
{
    double want;

    assert_int_equal(json_numbers(&want, want_of, name), 1);
    if (!(fabs(got - want) <= 1e-12 * fabs(want)))
        fail_msg("%s is %.17g, not %.17g", name, got, want);
}

static void check_bins(const struct built *b, const char *want)
{
    static double k[MAX_VALUES], n[MAX_VALUES];
    size_t n_want = json_numbers(k, want, "k");
    size_t room = sketch_wire_room(b->bins, b->n_bins);
    int32_t *got_k = malloc(room * sizeof(*got_k));
    uint32_t *got_n = malloc(room * sizeof(*got_n));

    assert_true(got_k != NULL && got_n != NULL);
    assert_int_equal(json_numbers(n, want, "n"), n_want);
    assert_int_equal(sketch_to_wire(got_k, got_n, b->bins, b->n_bins), n_want);
    for (size_t i = 0; i < n_want; i++) {
        assert_int_equal(got_k[i], (int)k[i]);
        assert_int_equal(got_n[i], (unsigned)n[i]);
    }
    free(got_k);
    free(got_n);
}

static void run_case(const char *line)
{
    static double values[MAX_VALUES], rates[MAX_VALUES];
    const char *want = strstr(line, "\"want\"");
    size_t n_values = json_numbers(values, line, "values");
    size_t n_rates = json_numbers(rates, line, "rates");
    struct built b = {.n_bins = 0};
    double number = 1;
    int repeat;

    assert_true(want != NULL && n_values > 0);
    assert_true(n_rates == 0 || n_rates == n_values);
    (void)json_numbers(&number, line, "repeat");
    repeat = (int)number;
    for (size_t i = 0; i < n_values; i++) {
        for (int r = 0; r < repeat; r++)
            insert(&b, values[i], n_rates > 0 ? rates[i] : 1);
    }
    merge_keys(&b);
    assert_int_equal(json_numbers(&number, want, "cnt"), 1);
    assert_int_equal(b.sum.cnt, (int64_t)number);
    assert_int_equal(json_numbers(&number, want, "min"), 1);
    assert_true(b.sum.min == number);
    assert_int_equal(json_numbers(&number, want, "max"), 1);
    assert_true(b.sum.max == number);
    assert_close(b.sum.sum, want, "sum");
    assert_close(b.sum.avg, want, "avg");
    check_bins(&b, want);
    free(b.bins);
}

static void sketches_equal_those_of_the_agent(void **state)
{
    FILE *f = fopen(TESTS_DIR "/golden/sketches.jsonl", "r");
    char *line = NULL;
    size_t room = 0;
    int n = 0;

    (void)state;
    assert_non_null(f);
    while (getline(&line, &room, f) > 0) {
        run_case(line);
        n++;
    }
    free(line);
    fclose(f);
    assert_int_equal(n, 27);
}

static void the_order_of_merges_does_not_matter(void **state)
{
    int16_t a[] = {5, -3, 5, 0, 7, 32767, -32767};
    int16_t b[] = {7, 7, -3, 1};
    struct sketch_bin first[7], ab[11], ba[11], one[12];
    size_t n_first, n_ab, n_ba;

    (void)state;
    n_first = sketch_merge_keys(first, NULL, 0, a, 7);
    n_ab = sketch_merge_keys(ab, first, n_first, b, 4);
    n_first = sketch_merge_keys(first, NULL, 0, b, 4);
    n_ba = sketch_merge_keys(ba, first, n_first, a, 7);
    assert_int_equal(n_ab, 7);
    assert_int_equal(n_ba, 7);
    for (size_t i = 0; i < n_ab; i++) {
        assert_int_equal(ab[i].key, ba[i].key);
        assert_int_equal(ab[i].n, ba[i].n);
        assert_true(i == 0 || ab[i].key > ab[i - 1].key);
    }
    assert_int_equal(sketch_merge_one(one, ab, n_ab, 6, 9), 8);
    assert_int_equal(one[5].key, 6);
    assert_int_equal(one[5].n, 9);
    assert_int_equal(sketch_merge_one(one, ab, n_ab, 7, UINT32_MAX), 7);
    assert_int_equal(one[5].n, UINT32_MAX); /* full, not wrapped */
}

static void a_merge_sorts_any_number_of_keys(void **state)
{
    enum { N = 40000 };
    static int16_t keys[N];
    static struct sketch_bin out[N];
    uint64_t seed = 88172645463325252;
    uint64_t total = 0;
    size_t n;

    (void)state;
    for (int i = 0; i < N; i++)
        keys[i] = (int16_t)next_random(&seed);
    n = sketch_merge_keys(out, NULL, 0, keys, N);
    for (size_t i = 0; i < n; i++) {
        assert_true(i == 0 || out[i].key > out[i - 1].key);
        total += out[i].n;
    }
    assert_int_equal(total, N);
}

/* The lowest bins go into the first that is kept; whole 65535s of them stay
 * beside it as overflow bins, and nothing is lost. */
static void surplus_bins_collapse_from_the_left(void **state)
{
    enum { N = SKETCH_MAX_BINS + 4 };
    static struct sketch_bin bins[N];
    static int32_t k[N + 8];
    static uint32_t n[N + 8];
    uint64_t total = 0;
    size_t room, n_out;

    (void)state;
    for (int i = 0; i < N; i++)
        bins[i] = (struct sketch_bin){.key = (int16_t)(i - 100), .n = 2};
    n_out = sketch_to_wire(k, n, bins, N);
    assert_int_equal(n_out, SKETCH_MAX_BINS);
    assert_int_equal(k[0], -96);
    assert_int_equal(n[0], 10);
    assert_int_equal(k[1], -95);
    assert_int_equal(n[1], 2);

    bins[0].n = bins[1].n = 65535;
    bins[2].n = 5;
    room = sketch_wire_room(bins, N);
    assert_int_equal(room, N);
    n_out = sketch_to_wire(k, n, bins, N);
    assert_int_equal(n_out, SKETCH_MAX_BINS + 2);
    assert_int_equal(k[0], -99);
    assert_int_equal(n[0], 65535);
    assert_int_equal(k[1], -98);
    assert_int_equal(n[1], 65535);
    assert_int_equal(k[2], -96);
    assert_int_equal(n[2], 5 + 2 + 2);
    for (size_t i = 0; i < n_out; i++)
        total += n[i];
    assert_int_equal(total, 2 * 65535 + 5 + 2 * (N - 3));
}

static void absurd_counts_do_not_blow_up_the_payload(void **state)
{
    static struct sketch_bin bins[SKETCH_MAX_BINS];
    static int32_t k[2 * SKETCH_MAX_BINS];
    static uint32_t n[2 * SKETCH_MAX_BINS];

    (void)state;
    for (int i = 0; i < SKETCH_MAX_BINS; i++)
        bins[i] = (struct sketch_bin){.key = (int16_t)i, .n = UINT32_MAX};
    assert_int_equal(sketch_wire_room(bins, SKETCH_MAX_BINS), SKETCH_MAX_BINS);
    assert_int_equal(sketch_to_wire(k, n, bins, SKETCH_MAX_BINS),
                     SKETCH_MAX_BINS);
    assert_int_equal(n[7], UINT32_MAX);
}

static void sums_stay_finite(void **state)
{
    struct sketch_summary s = {.cnt = 0};

    (void)state;
    sketch_summary_add(&s, DBL_MAX);
    sketch_summary_add(&s, DBL_MAX);
    assert_true(s.sum == DBL_MAX && s.avg == DBL_MAX);
    sketch_summary_add(&s, -DBL_MAX);
    assert_true(isfinite(s.avg) && s.min == -DBL_MAX && s.max == DBL_MAX);
    assert_int_equal(sketch_summary_add_rated(&s, DBL_MAX, 1e-300), UINT32_MAX);
    assert_true(isfinite(s.sum) && isfinite(s.avg));
    assert_int_equal(s.cnt, (int64_t)UINT32_MAX + 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_equal_those_of_the_agent),
        cmocka_unit_test(keys_of_round_numbers_are_the_known_ones),
        cmocka_unit_test(keys_of_random_values_follow_the_formula),
        cmocka_unit_test(sketches_equal_those_of_the_agent),
        cmocka_unit_test(the_order_of_merges_does_not_matter),
        cmocka_unit_test(a_merge_sorts_any_number_of_keys),
        cmocka_unit_test(surplus_bins_collapse_from_the_left),
        cmocka_unit_test(absurd_counts_do_not_blow_up_the_payload),
        cmocka_unit_test(sums_stay_finite),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
