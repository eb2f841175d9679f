/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Payloads and their limits: how items are divided among payloads, and what becomes of
 * those that fit nowhere.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "forwarder/compress.h"
#include "forwarder/split.h"
#include "tests/support/encode_rig.h"

struct crowd {
    struct flush_item *items;
    struct view *tags;
    struct flush_point *points;
    char *text;
    size_t n;
    uint64_t n_samples;
};

/* @n series with two tags each; @noise: tags that do not compress. */
static struct crowd make_crowd(size_t n, bool noise)
{
    struct crowd c = {
        .items = calloc(n, sizeof(*c.items)),
        .tags = calloc(2 * n, sizeof(*c.tags)),
        .points = calloc(n, sizeof(*c.points)),
        .text = calloc(n, 128),
        .n = n,
    };
    uint64_t x = 88172645463325252u;

    for (size_t i = 0; i < n; i++) {
        char *at = c.text + 128 * i;
        int len = snprintf(at, 128, "request_id:");

        for (int k = 0; k < 40; k++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            at[len++] = noise ? "0123456789abcdefghijklmnopqrstuv"
                                "wxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[x % 64]
                              : 'a';
        }
        len += snprintf(at + len, 128 - (size_t)len, "%zu", i);
        c.tags[2 * i] = V("env:prod");
        c.tags[2 * i + 1] = (struct view){at, (uint32_t)len};
        c.points[i] = (struct flush_point){TS, (double)(x % 1000), 0};
        c.items[i] = encode_rig_rate(&c.tags[2 * i], 2, &c.points[i], 1);
        c.items[i].n_samples = x % 50;
        c.n_samples += c.items[i].n_samples;
    }
    return c;
}

static void free_crowd(struct crowd *c)
{
    free(c->items);
    free(c->tags);
    free(c->points);
    free(c->text);
}

static void give_back(struct encode_rig *f)
{
    for (size_t i = 0; i < f->result.n_drafts; i++) {
        const struct payload_draft *d = &f->result.drafts[i];

        store_block_trim(f->s, d->block, (size_t)d->n_bytes + d->n_index_bytes,
                         0);
    }
    f->result.n_drafts = 0;
}

static void assert_within_limits(struct encode_rig *f, enum payload_kind kind)
{
    const struct encode_limits *l = &f->cfg.limits[kind];

    for (size_t i = 0; i < f->result.n_drafts; i++) {
        const struct payload_draft *d = &f->result.drafts[i];
        unsigned char *raw = malloc(d->n_raw_bytes + 1u);

        assert_true(d->n_bytes <= l->max_bytes);
        assert_true(d->n_raw_bytes <= l->max_raw_bytes);
        assert_true(l->max_points == 0 || d->load.n_points <= l->max_points);
        assert_int_equal(decompress(d->encoding, encode_rig_body(f, i),
                                    d->n_bytes, raw, d->n_raw_bytes),
                         0);
        free(raw);
    }
}

static void no_payload_exceeds_a_limit_and_most_come_near_it(void **state)
{
    static const struct encode_limits limits[] = {
        {20000, 5000000, 0},   /* compressed size */
        {512000, 5242880, 0},  /* as it is by default, without points */
        {512000, 100000, 0},   /* raw size */
        {512000, 5242880, 500} /* points */
    };
    struct crowd noisy = make_crowd(12000, true);
    struct encode_rig f;

    (void)state;
    encode_rig_open(&f, 16u << 20);
    for (int enc = ENCODING_NONE; enc <= ENCODING_ZSTD; enc++) {
        for (size_t l = 0; l < 4; l++) {
            uint64_t n_points = 0;
            size_t n_full = 0;

            f.cfg.encoding = (enum payload_encoding)enc;
            f.cfg.limits[PAYLOAD_SERIES] = limits[l];
            assert_int_equal(encode_rig_run(&f, noisy.items, noisy.n), 0);
            assert_int_equal(f.result.n_losses, 0);
            assert_int_equal(encode_rig_samples(&f.result), noisy.n_samples);
            assert_within_limits(&f, PAYLOAD_SERIES);
            for (size_t i = 0; i < f.result.n_drafts; i++) {
                const struct payload_draft *d = &f.result.drafts[i];

                n_points += d->load.n_points;
                n_full += d->n_bytes >= limits[l].max_bytes / 10 * 9 ||
                          d->n_raw_bytes >= limits[l].max_raw_bytes - 200 ||
                          d->load.n_points == limits[l].max_points;
            }
            assert_int_equal(n_points, noisy.n);
            assert_true(n_full + 1 >= f.result.n_drafts);
            give_back(&f);
        }
    }
    free_crowd(&noisy);
    encode_rig_close(&f);
}

static void an_item_too_large_for_any_payload_is_lost_alone(void **state)
{
    struct crowd c = make_crowd(3, true);
    char *text = malloc(60000);
    struct view tag = {text, 60000};
    struct encode_rig f;

    (void)state;
    for (unsigned i = 0; i < 60000; i++)
        text[i] = c.text[(i * i + 7) % 300];
    c.items[1].tags = &tag;
    c.items[1].n_tags = 1;
    c.items[1].n_samples = 7;
    encode_rig_open(&f, 1u << 20);
    for (int enc = ENCODING_NONE; enc <= ENCODING_ZSTD; enc++) {
        f.cfg.encoding = (enum payload_encoding)enc;
        f.cfg.limits[PAYLOAD_SERIES].max_bytes = 300;
        assert_int_equal(encode_rig_run(&f, c.items, 3), 0);
        assert_int_equal(f.result.n_losses, 1);
        assert_int_equal(f.result.losses[0].cause, DROP_TOO_LARGE);
        assert_int_equal(f.result.losses[0].load.n_samples, 7);
        assert_int_equal(f.result.losses[0].load.n_points, 1);
        assert_true(f.result.n_drafts >= 1);
        assert_within_limits(&f, PAYLOAD_SERIES);
        give_back(&f);
    }
    /* Above the limit as it is, below it when compressed. */
    memset(text, 'z', 60000);
    assert_int_equal(encode_rig_run(&f, c.items + 1, 1), 0);
    assert_int_equal(f.result.n_losses, 0);
    assert_int_equal(f.result.n_drafts, 1);
    free(text);
    free_crowd(&c);
    encode_rig_close(&f);
}

static void a_series_of_many_points_is_split_by_points(void **state)
{
    enum { N = 25001 };
    struct flush_point *points = calloc(N, sizeof(*points));
    struct flush_item items[2] = {encode_rig_rate(NULL, 0, points, N),
                                  encode_rig_rate(NULL, 0, points, 1)};
    struct encode_rig f;
    uint64_t n_points = 0;

    (void)state;
    for (int i = 0; i < N; i++)
        points[i] = (struct flush_point){TS + i, i, 2};
    items[0].n_samples = 2 * N;
    encode_rig_open(&f, 8u << 20);
    f.cfg.encoding = ENCODING_ZSTD;
    assert_int_equal(encode_rig_run(&f, items, 2), 0);
    assert_int_equal(f.result.n_losses, 0);
    assert_int_equal(f.result.n_drafts, 3);
    assert_within_limits(&f, PAYLOAD_SERIES);
    for (size_t i = 0; i < 3; i++)
        n_points += f.result.drafts[i].load.n_points;
    assert_int_equal(n_points, N + 1);
    assert_int_equal(f.result.drafts[0].load.n_samples, 20000);
    assert_int_equal(encode_rig_samples(&f.result), 2 * N + 1);
    give_back(&f);
    /* By bytes too, down to what fits. */
    f.cfg.encoding = ENCODING_NONE;
    f.cfg.limits[PAYLOAD_SERIES].max_bytes = 4000;
    assert_int_equal(encode_rig_run(&f, items, 1), 0);
    assert_int_equal(f.result.n_losses, 0);
    assert_int_equal(encode_rig_samples(&f.result), 2 * N);
    assert_within_limits(&f, PAYLOAD_SERIES);
    free(points);
    encode_rig_close(&f);
}

static void without_a_key_everything_is_counted_as_that(void **state)
{
    struct crowd c = make_crowd(100, false);
    struct encode_rig f;

    (void)state;
    encode_rig_open(&f, 1u << 20);
    f.cfg.have_endpoint = false;
    assert_int_equal(encode_rig_run(&f, c.items, c.n), 0);
    assert_int_equal(f.result.n_drafts, 0);
    assert_int_equal(f.result.n_losses, 1);
    assert_int_equal(f.result.losses[0].cause, DROP_NO_API_KEY);
    assert_int_equal(f.result.losses[0].load.n_samples, c.n_samples);
    free_crowd(&c);
    encode_rig_close(&f);
}

static void samples_without_a_series_need_no_payload(void **state)
{
    static const struct flush_point point = {TS, 1, 0};
    struct flush_item item = encode_rig_rate(NULL, 0, &point, 1);
    struct encode_rig f;

    (void)state;
    item.n_series = 0;
    item.n_samples = 9;
    encode_rig_open(&f, 1u << 20);
    assert_int_equal(encode_rig_run(&f, &item, 1), 0);
    assert_int_equal(f.result.n_drafts, 0);
    assert_int_equal(f.result.n_losses, 1);
    assert_int_equal(f.result.losses[0].cause, STORE_NOTHING_DUE);
    store_commit_part(f.s, 1, NULL, 0, f.result.losses, 1);
    assert_int_equal(store_counts(f.s)->delivered, 9);
    encode_rig_close(&f);
}

static int make_room(void *arg, size_t n)
{
    struct encode_rig *f = arg;

    return store_evict(f->s, n);
}

static void a_full_store_loses_the_oldest_and_names_it(void **state)
{
    struct crowd c = make_crowd(3000, true);
    struct encode_rig f;
    uint64_t dropped;
    struct store_stats st;

    (void)state;
    encode_rig_open(&f, 1u << 18); /* 256 KiB for about 280 KiB */
    assert_int_equal(encode_rig_run(&f, c.items, c.n), 0);
    assert_int_equal(f.result.n_losses, 1);
    assert_int_equal(f.result.losses[0].cause, DROP_EVICTED);
    assert_int_equal(encode_rig_samples(&f.result), c.n_samples);
    store_commit_part(f.s, 1, f.result.drafts, f.result.n_drafts,
                      f.result.losses, f.result.n_losses);
    dropped = store_counts(f.s)->dropped[DROP_EVICTED];
    f.cfg.make_room = make_room;
    f.cfg.arg = &f;
    assert_int_equal(encode_rig_run(&f, c.items, 1500), 0);
    assert_int_equal(f.result.n_losses, 0);
    store_commit_part(f.s, 2, f.result.drafts, f.result.n_drafts, NULL, 0);
    assert_true(store_counts(f.s)->dropped[DROP_EVICTED] > dropped);
    store_stats(f.s, &st);
    assert_int_equal(st.accepted.n_samples,
                     st.load.n_samples +
                         store_counts(f.s)->dropped[DROP_EVICTED]);
    free_crowd(&c);
    encode_rig_close(&f);
}

static void memory_that_runs_out_in_the_middle_keeps_nothing(void **state)
{
    struct crowd c = make_crowd(3000, true);
    struct part_iter it = {.items = c.items, .n = c.n, .enomem_at = 2900};
    uint32_t block;
    struct encode_rig f;

    (void)state;
    encode_rig_open(&f, 1u << 20);
    assert_int_equal(encoder_create(&f.e, f.s, &f.cfg), 0);
    assert_int_equal(encoder_run(f.e, &it, false, &f.result), -ENOMEM);
    /* Every block is free again. */
    assert_int_equal(store_block_alloc(f.s, 1u << 20, &block), 0);
    store_block_trim(f.s, block, 1u << 20, 0);
    it = (struct part_iter){.items = c.items, .n = c.n};
    assert_int_equal(encoder_run(f.e, &it, true, &f.result), 0);
    assert_int_equal(encode_rig_samples(&f.result), c.n_samples);
    free_crowd(&c);
    encode_rig_close(&f);
}

static void halves_of_a_split_decode_to_the_same_items(void **state)
{
    struct flush_item items[9] = {{0}};
    struct encode_rig f;

    (void)state;
    for (int i = 0; i < 9; i++)
        items[i] = (struct flush_item){.kind = FLUSH_EVENT,
                                       .name = {"012345678" + i, 1},
                                       .text = V("split me"),
                                       .host = V("h"),
                                       .ts_s = TS};
    encode_rig_open(&f, 1u << 20);
    for (int enc = ENCODING_NONE; enc <= ENCODING_ZSTD; enc++) {
        struct payload *whole, *half;
        struct buf before, after;
        uint64_t n_events;

        f.cfg.encoding = (enum payload_encoding)enc;
        assert_int_equal(encode_rig_run(&f, items, 9), 0);
        buf_init(&before, 1u << 20);
        buf_init(&after, 1u << 20);
        encode_rig_decode(&f, 0, &before);
        store_commit_part(f.s, store_encoded_seq(f.s) + 1, f.result.drafts, 1,
                          NULL, 0);
        whole = store_take(f.s);
        assert_int_equal(store_split(f.s, whole), 0);
        n_events = 0;
        for (int i = 0; i < 2; i++) {
            struct buf both;

            half = store_take(f.s);
            n_events += half->load.n_events;
            assert_true(half->load.n_events >= 4);
            f.result.drafts[0].kind = half->kind;
            f.result.drafts[0].encoding = half->encoding;
            f.result.drafts[0].n_bytes = half->n_bytes;
            f.result.drafts[0].block =
                (uint32_t)(((const unsigned char *)half->body -
                            (unsigned char *)store_block_bytes(f.s, 0)) /
                           4096);
            /* The second half is taken first. */
            buf_init(&both, 1u << 20);
            encode_rig_decode(&f, 0, &both);
            if (after.n > 0)
                buf_append(&both, after.data, after.n);
            buf_fini(&after);
            after = both;
            store_settle_delivered(f.s, half);
        }
        assert_int_equal(n_events, 9);
        assert_string_equal(buf_cstr(&after), buf_cstr(&before));
        buf_fini(&before);
        buf_fini(&after);
    }
    encode_rig_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_payload_exceeds_a_limit_and_most_come_near_it),
        cmocka_unit_test(an_item_too_large_for_any_payload_is_lost_alone),
        cmocka_unit_test(a_series_of_many_points_is_split_by_points),
        cmocka_unit_test(without_a_key_everything_is_counted_as_that),
        cmocka_unit_test(samples_without_a_series_need_no_payload),
        cmocka_unit_test(a_full_store_loses_the_oldest_and_names_it),
        cmocka_unit_test(memory_that_runs_out_in_the_middle_keeps_nothing),
        cmocka_unit_test(halves_of_a_split_decode_to_the_same_items),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
