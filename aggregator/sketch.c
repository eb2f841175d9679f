/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Key of a value. The Agent computes roundToEven(ln(v) / ln(gamma)) + bias with
 * Go's math.Log. A logarithm per value costs more than the rest of the insert,
 * so it is paid once per bin instead: bound[k] is the smallest double whose key
 * is k or more, found at start with the Agent's own formula. A value's exponent
 * and the top bits of its mantissa give a key that is at most one off, and one
 * exact comparison on either side settles it.
 *
 * The formula is evaluated with Go's logarithm, not libm's: the two differ in
 * the last bit for some values, which moves a few boundaries by an ulp. This
 * file is compiled without contraction to fused operations for the same reason.
 *
 * Bins. Trimming follows the Agent's store, including its overflow bins, which
 * may take a sketch over the limit; it happens here once per sketch, there
 * after every 512 values.
 */
#include "aggregator/sketch.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#define GAMMA_LN 0.015504186535965254 /* log1p(2 * 1/128) */
#define KEY_BIAS 1338
/* gamma^(1 - KEY_BIAS) as Go's math.Pow rounds it: the least non-zero value. */
#define NORM_MIN 0x1.11479426012e9p-30

/* Keys below come from the table; larger values (4e18 and up) are rare enough
 * for a logarithm each. */
#define N_BOUNDS 4096
#define CELL_BITS 9
#define N_CELLS (1 << CELL_BITS)

/* Bins on the wire beyond which counts are no longer split: only absurd sample
 * rates get here, and they must not blow up a payload. */
#define MAX_SPLIT_BINS (2 * SKETCH_MAX_BINS)

static struct {
    bool ready;
    double bound[N_BOUNDS + 2]; /* a guess may be one too high */
    float cell[N_CELLS];        /* ln(1 + (i + 0.5) / N_CELLS) / GAMMA_LN */
} table;

static uint64_t bits_of(double v)
{
    uint64_t u;

    memcpy(&u, &v, sizeof(u));
    return u;
}

static double double_of(uint64_t u)
{
    double v;

    memcpy(&v, &u, sizeof(v));
    return v;
}

/*
 * ln(v) for a normal v > 0 as Go's math.Log computes it, operation for
 * operation: the method and constants of fdlibm's e_log.c.
 *
 *   Copyright (C) 1993 by Sun Microsystems, Inc. All rights reserved.
 *   Developed at SunPro, a Sun Microsystems, Inc. business. Permission to use,
 *   copy, modify, and distribute this software is freely granted, provided that
 *   this notice is preserved.
 */
static double go_log(double v)
{
    uint64_t u = bits_of(v);
    double k = (double)((int)(u >> 52) - 1022);
    double m = double_of((u & 0x000fffffffffffff) | 0x3fe0000000000000);
    double f, s, s2, s4, t1, t2, r, half_sq;

    if (m < 0.70710678118654752440) {
        m *= 2;
        k--;
    }
    f = m - 1;
    s = f / (2 + f);
    s2 = s * s;
    s4 = s2 * s2;
    t1 = s2 * (6.666666666666735130e-01 +
               s4 * (2.857142874366239149e-01 +
                     s4 * (1.818357216161805012e-01 +
                           s4 * 1.479819860511658591e-01)));
    t2 = s4 * (3.999999999940941908e-01 +
               s4 * (2.222219843214978396e-01 + s4 * 1.531383769920937332e-01));
    r = t1 + t2;
    half_sq = 0.5 * f * f;
    return k * 6.93147180369123816490e-01 -
           ((half_sq - (s * (half_sq + r) + k * 1.90821492927058770002e-10)) -
            f);
}

/* The Agent's formula for v >= NORM_MIN, before the clamp to int16. rint() is
 * round-half-even: nothing here changes the rounding mode. */
static int key_by_formula(double v)
{
    int k = (int)rint(go_log(v) / GAMMA_LN) + KEY_BIAS;

    return k < 1 ? 1 : k;
}

void sketch_init(void)
{
    long double gamma = expl(GAMMA_LN);
    long double edge = expl((2 - KEY_BIAS - 0.5L) * GAMMA_LN);

    if (table.ready)
        return;
    for (int i = 0; i < N_CELLS; i++) {
        double m = 1 + (i + 0.5) / N_CELLS;

        table.cell[i] = (float)(go_log(m) / GAMMA_LN);
    }
    /* Key 1 also takes what rounds below it. */
    table.bound[0] = 0;
    table.bound[1] = 0;
    for (int k = 2; k < N_BOUNDS + 2; k++) {
        /* Close by powers of gamma, the last ulps by the formula itself. */
        double v = (double)edge;

        while (key_by_formula(v) >= k)
            v = double_of(bits_of(v) - 1);
        while (key_by_formula(v) < k)
            v = double_of(bits_of(v) + 1);
        table.bound[k] = v;
        edge *= gamma;
    }
    table.ready = true;
}

/* Key of v >= NORM_MIN. */
static int key_of_positive(double v)
{
    uint64_t u = bits_of(v);
    int e = (int)(u >> 52) - 1023;
    unsigned cell = (unsigned)(u >> (52 - CELL_BITS)) & (N_CELLS - 1);
    float guess;
    int k;

    if (!(v < table.bound[N_BOUNDS])) { /* all, before sketch_init() */
        k = key_by_formula(v);
        return k > SKETCH_KEY_INF ? SKETCH_KEY_INF : k;
    }
    /* 1 / log2(gamma) = ln 2 / ln gamma. One cell is 0.13 of a key wide, so the
     * nearest whole number is at most one off. */
    guess = (float)e * 44.7074427F + table.cell[cell] + (KEY_BIAS + 0.5F);
    k = (int)guess;
    return k + (v >= table.bound[k + 1]) - (v < table.bound[k]);
}

int16_t sketch_key(double v)
{
    double a = fabs(v);
    int k = a < NORM_MIN ? 0 : key_of_positive(a);

    return (int16_t)(v < 0 ? -k : k);
}

/* Sums of finite values stay finite: a payload with an infinity is refused as a
 * whole by the intake. */
static double finite_sum(double a, double b)
{
    double sum = a + b;

    if (sum > DBL_MAX)
        return DBL_MAX;
    return sum < -DBL_MAX ? -DBL_MAX : sum;
}

/* avg moved towards v by its weight n of cnt; the usual form unless the
 * difference leaves the range of double. */
static double moved_avg(double avg, double v, double n, double cnt)
{
    double step = (v - avg) * n / cnt;

    if (isfinite(step))
        return avg + step;
    return avg * (1 - n / cnt) + v * (n / cnt);
}

void sketch_summary_add(struct sketch_summary *s, double v)
{
    s->cnt++;
    s->sum = finite_sum(s->sum, v);
    if (s->cnt == 1) {
        s->min = s->max = s->avg = v;
        return;
    }
    s->avg = moved_avg(s->avg, v, 1, (double)s->cnt);
    if (v < s->min)
        s->min = v;
    if (v > s->max)
        s->max = v;
}

uint32_t sketch_summary_add_rated(struct sketch_summary *s, double v,
                                  double rate)
{
    double weight = 1 / rate;
    uint32_t n;

    if (!(weight > 1)) /* a rate of 1 or one that is none */
        weight = 1;
    if (weight > UINT32_MAX)
        weight = UINT32_MAX;
    n = (uint32_t)weight;
    if (s->cnt == 0) {
        s->min = s->max = s->avg = v;
        s->cnt = n;
        s->sum = finite_sum(0, v * weight);
        return n;
    }
    s->cnt += n;
    s->sum = finite_sum(s->sum, v * weight);
    s->avg = moved_avg(s->avg, v, n, (double)s->cnt);
    if (v < s->min)
        s->min = v;
    if (v > s->max)
        s->max = v;
    return n;
}

/* Shell sort: in place, no worst case worth an attack at these sizes, and no
 * allocation as in glibc's qsort(). Gaps: Ciura's, then times 9/4. */
static void sort_keys(int16_t *keys, size_t n)
{
    static const size_t gaps[] = {15401, 6845, 3042, 1352, 601, 301,
                                  132,   57,   23,   10,   4,   1};

    for (size_t g = 0; g < sizeof(gaps) / sizeof(gaps[0]); g++) {
        size_t gap = gaps[g];

        for (size_t i = gap; i < n; i++) {
            int16_t key = keys[i];
            size_t j = i;

            for (; j >= gap && keys[j - gap] > key; j -= gap)
                keys[j] = keys[j - gap];
            keys[j] = key;
        }
    }
}

static uint32_t add_counts(uint32_t a, uint64_t b)
{
    return b > UINT32_MAX - a ? UINT32_MAX : a + (uint32_t)b;
}

static size_t append_bin(struct sketch_bin *out, size_t n_out, int16_t key,
                         uint64_t n)
{
    if (n_out > 0 && out[n_out - 1].key == key) {
        out[n_out - 1].n = add_counts(out[n_out - 1].n, n);
        return n_out;
    }
    out[n_out] = (struct sketch_bin){.key = key, .n = add_counts(0, n)};
    return n_out + 1;
}

size_t sketch_merge_keys(struct sketch_bin *out, const struct sketch_bin *bins,
                         size_t n_bins, int16_t *keys, size_t n_keys)
{
    size_t n_out = 0;
    size_t b = 0;
    size_t i = 0;

    sort_keys(keys, n_keys);
    while (b < n_bins || i < n_keys) {
        if (i == n_keys || (b < n_bins && bins[b].key <= keys[i])) {
            n_out = append_bin(out, n_out, bins[b].key, bins[b].n);
            b++;
        } else {
            n_out = append_bin(out, n_out, keys[i], 1);
            i++;
        }
    }
    return n_out;
}

size_t sketch_merge_one(struct sketch_bin *out, const struct sketch_bin *bins,
                        size_t n_bins, int16_t key, uint32_t n)
{
    size_t n_out = 0;
    size_t b = 0;

    for (; b < n_bins && bins[b].key <= key; b++)
        n_out = append_bin(out, n_out, bins[b].key, bins[b].n);
    n_out = append_bin(out, n_out, key, n);
    for (; b < n_bins; b++)
        n_out = append_bin(out, n_out, bins[b].key, bins[b].n);
    return n_out;
}

static size_t n_split(uint32_t n, uint32_t width)
{
    return n / width + (n % width != 0);
}

static size_t n_split_all(const struct sketch_bin *bins, size_t n_bins,
                          uint32_t width)
{
    size_t total = 0;

    for (size_t i = 0; i < n_bins; i++)
        total += n_split(bins[i].n, width);
    return total;
}

/* Largest count of one bin on the wire for these bins. */
static uint32_t wire_width(const struct sketch_bin *bins, size_t n_bins)
{
    if (n_split_all(bins, n_bins, SKETCH_MAX_COUNT) <= MAX_SPLIT_BINS)
        return SKETCH_MAX_COUNT;
    /* Sketches with many keys but without large counts are split as ever; the
     * trim takes care of them. */
    for (size_t i = 0; i < n_bins; i++) {
        if (bins[i].n > SKETCH_MAX_COUNT)
            return UINT32_MAX;
    }
    return SKETCH_MAX_COUNT;
}

size_t sketch_wire_room(const struct sketch_bin *bins, size_t n_bins)
{
    return n_split_all(bins, n_bins, wire_width(bins, n_bins));
}

/* The Agent's trimLeft(): sums the surplus lowest bins into the first kept one.
 * Each full @width on the way stays as an overflow bin of its own; these never
 * outnumber the bins already read, so they are written in place. */
static size_t trim_left(int32_t *k, uint32_t *n, size_t n_bins, uint32_t width)
{
    size_t n_remove, n_over = 0;
    uint64_t missing = 0;

    if (n_bins <= SKETCH_MAX_BINS)
        return n_bins;
    n_remove = n_bins - SKETCH_MAX_BINS;
    for (size_t i = 0; i < n_remove; i++) {
        missing += n[i];
        if (missing > width) {
            k[n_over] = k[i];
            n[n_over++] = width;
            missing -= width;
        }
    }
    missing += n[n_remove];
    if (missing > width) {
        n[n_remove] = width;
        k[n_over] = k[n_remove];
        n[n_over++] = (uint32_t)(missing - width);
    } else {
        n[n_remove] = (uint32_t)missing;
    }
    memmove(k + n_over, k + n_remove, SKETCH_MAX_BINS * sizeof(*k));
    memmove(n + n_over, n + n_remove, SKETCH_MAX_BINS * sizeof(*n));
    return n_over + SKETCH_MAX_BINS;
}

size_t sketch_to_wire(int32_t *k, uint32_t *n, const struct sketch_bin *bins,
                      size_t n_bins)
{
    uint32_t width = wire_width(bins, n_bins);
    size_t n_out = 0;

    for (size_t i = 0; i < n_bins; i++) {
        uint32_t rest = bins[i].n % width;

        if (rest != 0) { /* the partial bin comes first */
            k[n_out] = bins[i].key;
            n[n_out++] = rest;
        }
        for (uint32_t full = bins[i].n / width; full > 0; full--) {
            k[n_out] = bins[i].key;
            n[n_out++] = width;
        }
    }
    return trim_left(k, n, n_out, width);
}
