/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "aggregator/dsd_ahead.h"

/* Each form's hash: the tests are run for each. */
static const struct dsd_ahead_form *form;

static const uint64_t seed[2] = {0x243f6a8885a308d3ULL, 0x13198a2e03707344ULL};

static struct view view_of(const char *p, size_t n)
{
    return (struct view){p, (uint32_t)n};
}

static struct hash128 hash_with(const uint64_t *of_seed, struct view name,
                                struct view tags, unsigned class)
{
    struct spelling_key key;

    spelling_key_init(&key, of_seed);
    return form->hash(&key, name, tags, class);
}

static struct hash128 hash(struct view name, struct view tags)
{
    static struct spelling_key key;

    if (key.seed[0] == 0)
        spelling_key_init(&key, seed);
    return form->hash(&key, name, tags, 0);
}

static int by_value(const void *x, const void *y)
{
    const uint64_t *a = x;
    const uint64_t *b = y;

    return *a < *b ? -1 : *a > *b;
}

static uint32_t n_equal(uint64_t *v, uint32_t n)
{
    uint32_t equal = 0;

    qsort(v, n, sizeof(*v), by_value);
    for (uint32_t i = 1; i < n; i++)
        equal += v[i] == v[i - 1];
    return equal;
}

/* Names and tags that differ in a digit here and there, as real ones do. */
static void similar_spellings_do_not_collide(void **state)
{
    enum { N = 1 << 20 };
    uint64_t *lo = malloc(N * sizeof(*lo));
    uint64_t *hi = malloc(N * sizeof(*hi));
    uint64_t *frag = malloc(N * sizeof(*frag));
    uint32_t n_frag;

    (void)state;
    assert_true(lo != NULL && hi != NULL && frag != NULL);
    for (uint32_t i = 0; i < N; i++) {
        char name[32];
        char tags[64];
        int n = snprintf(name, sizeof(name), "app.requests.%u", i % 64);
        int t = snprintf(tags, sizeof(tags), "env:prod,pod:%05u", i / 64);
        struct hash128 h =
            hash(view_of(name, (size_t)n), view_of(tags, (size_t)t));

        lo[i] = h.lo;
        hi[i] = h.hi;
        frag[i] = (uint32_t)h.lo;
    }
    assert_int_equal(n_equal(lo, N), 0);
    assert_int_equal(n_equal(hi, N), 0);
    /* 128 are expected of a random function. */
    n_frag = n_equal(frag, N);
    assert_in_range(n_frag, 70, 190);
    free(lo);
    free(hi);
    free(frag);
}

static void every_byte_every_length_and_the_border_count(void **state)
{
    enum { LONGEST = 140 };
    char bytes[LONGEST + 1] = {0};
    static uint64_t all[LONGEST * LONGEST];
    uint32_t n = 0;

    (void)state;
    /* All zero bytes: only the lengths differ. */
    for (uint32_t i = 1; i < LONGEST; i++) {
        for (uint32_t k = 0; k < LONGEST; k++)
            all[n++] = hash(view_of(bytes, i), view_of(bytes, k)).lo;
    }
    assert_int_equal(n_equal(all, n), 0);
    for (uint32_t len = 1; len < LONGEST; len++) {
        struct view v = view_of(bytes, len);
        uint64_t before = hash(v, v).lo;

        for (uint32_t i = 0; i < len; i++) {
            bytes[i] = 1;
            assert_true(hash(v, v).lo != before);
            bytes[i] = 0;
        }
    }
}

/* A flipped bit of the text flips each bit of the hash half of the time. */
static void each_bit_reaches_each_bit(void **state)
{
    enum { ROUNDS = 400 };
    static uint32_t flips[128];
    uint64_t x = 88172645463325252ULL;

    (void)state;
    for (uint32_t len = 1; len < 150; len += 11) {
        uint32_t n = 0;

        memset(flips, 0, sizeof(flips));
        for (int round = 0; round < ROUNDS; round++, n++) {
            char bytes[160];
            struct view name = {bytes, len};
            struct view tags = {bytes + 1, len + 3};
            struct hash128 h;
            struct hash128 g;

            for (uint32_t i = 0; i < sizeof(bytes); i++) {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                bytes[i] = (char)(x >> 32);
            }
            h = hash(name, tags);
            bytes[(x >> 20) % len] ^= (char)(1 << (x >> 50) % 8);
            g = hash(name, tags);
            for (int k = 0; k < 64; k++) {
                flips[k] += ((h.lo ^ g.lo) >> k) & 1;
                flips[64 + k] += ((h.hi ^ g.hi) >> k) & 1;
            }
        }
        for (int k = 0; k < 128; k++)
            assert_in_range(flips[k], n * 35 / 100, n * 65 / 100);
    }
}

static void class_and_both_halves_of_the_seed_count(void **state)
{
    const uint64_t other_lo[2] = {seed[0] + 1, seed[1]};
    const uint64_t other_hi[2] = {seed[0], seed[1] + 1};
    struct view name = view_of("app.requests.count", 18);
    struct view tags = view_of("env:prod", 8);
    struct hash128 h = hash(name, tags);
    struct hash128 others[3];

    (void)state;
    others[0] = hash_with(seed, name, tags, 1);
    others[1] = hash_with(other_lo, name, tags, 0);
    others[2] = hash_with(other_hi, name, tags, 0);
    for (int i = 0; i < 3; i++)
        assert_true(others[i].lo != h.lo && others[i].hi != h.hi);
}

/* As agg_set_origin() does it. */
static void a_seed_put_in_afterwards_counts_too(void **state)
{
    struct view name = view_of("app.requests.count", 18);
    struct view tags = view_of("env:prod", 8);
    struct hash128 h = hash(name, tags);
    struct spelling_key key;

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct hash128 g;

        spelling_key_init(&key, seed);
        key.seed[i]++;
        g = form->hash(&key, name, tags, 0);
        assert_true(g.lo != h.lo && g.hi != h.hi);
    }
}

/* All but the last of the forms have AES, and one hash: that their registers differ
 * must not show. */
static void forms_with_aes_agree(void **state)
{
    char bytes[300];
    struct spelling_key key;

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)(i * 37 + 11);
    spelling_key_init(&key, seed);
    for (unsigned i = 1; dsd_ahead_form(i + 1) != NULL; i++) {
        spelling_hash_fn *first = dsd_ahead_form(0)->hash;
        spelling_hash_fn *other = dsd_ahead_form(i)->hash;

        for (uint32_t n = 0; n < 150 * 150; n++) {
            struct view name = view_of(bytes, 1 + n / 150);
            struct view tags = view_of(bytes + 150, n % 150);
            struct hash128 h = first(&key, name, tags, n % 7);
            struct hash128 g = other(&key, name, tags, n % 7);

            assert_memory_equal(&g, &h, sizeof(g));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(similar_spellings_do_not_collide),
        cmocka_unit_test(every_byte_every_length_and_the_border_count),
        cmocka_unit_test(each_bit_reaches_each_bit),
        cmocka_unit_test(class_and_both_halves_of_the_seed_count),
        cmocka_unit_test(a_seed_put_in_afterwards_counts_too),
    };
    const struct CMUnitTest once[] = {
        cmocka_unit_test(forms_with_aes_agree),
    };
    int failed = cmocka_run_group_tests(once, NULL, NULL);

    for (unsigned i = 0; (form = dsd_ahead_form(i)) != NULL; i++)
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    return failed;
}
