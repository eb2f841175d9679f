/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "forwarder/compress.h"
#include "forwarder/split.h"

/* A body "[<0>,<11>,...]" with its index behind, as an encoder leaves it. */
struct whole {
    struct payload p;
    uint32_t n_index_bytes;
    unsigned char *block;
    char *raw;
};

static struct whole make_whole(int n_items, enum payload_encoding encoding,
                               unsigned seed)
{
    struct split_index *x = malloc(sizeof(*x));
    struct whole w = {
        .p = {.kind = PAYLOAD_CHECKS, .encoding = encoding},
        .block = malloc((size_t)n_items * 64 + 4096 + SPLIT_MAX_INDEX_BYTES),
        .raw = malloc((size_t)n_items * 64 + 16),
    };
    struct compressor *c;
    size_t at = 0;

    split_index_init(x, 1, 1, 1);
    w.raw[at++] = '[';
    for (int i = 0; i < n_items; i++) {
        size_t start = at;

        if (i > 0)
            w.raw[at++] = ',';
        at += (size_t)snprintf(w.raw + at, 16, "<%d", i);
        for (unsigned k = (unsigned)i * seed % 40; k > 0; k--)
            w.raw[at++] = 'x';
        w.raw[at++] = '>';
        split_index_add(x, at - start, (uint64_t)i % 7, 1);
        w.p.load.n_samples += (uint64_t)i % 7;
        w.p.load.n_points++;
        w.p.load.n_checks++;
    }
    w.raw[at++] = ']';
    w.raw[at] = '\0';
    assert_int_equal(compressor_create(&c, encoding), 0);
    assert_int_equal(compressor_begin(c, 1, w.block,
                                      (size_t)n_items * 64 + 4096),
                     0);
    assert_int_equal(compressor_put(c, w.raw, at, COMPRESS_END), 0);
    w.p.body = w.block;
    w.p.n_bytes = (uint32_t)compressor_written(c);
    w.p.n_raw_bytes = (uint32_t)at;
    w.n_index_bytes = (uint32_t)split_index_write(x, w.block + w.p.n_bytes);
    compressor_close(c);
    free(x);
    return w;
}

static void free_whole(struct whole *w)
{
    free(w->block);
    free(w->raw);
}

/* The half's raw body; the caller frees. */
static char *unpack(const struct split_half *h, enum payload_encoding encoding)
{
    char *raw = malloc(h->n_raw_bytes + 1u);

    assert_int_equal(decompress(encoding, h->bytes, h->n_bytes, raw,
                                h->n_raw_bytes),
                     0);
    raw[h->n_raw_bytes] = '\0';
    return raw;
}

static void halves_join_to_the_whole(void **state)
{
    (void)state;
    for (int enc = ENCODING_NONE; enc <= ENCODING_ZSTD; enc++) {
        for (int n = 2; n < 3000; n = n * 5 / 3 + 1) {
            struct whole w = make_whole(n, (enum payload_encoding)enc, 13);
            struct split_half h[2];
            char *a, *b, *joined;

            assert_int_equal(split_body(&w.p, w.n_index_bytes, h), 0);
            a = unpack(&h[0], w.p.encoding);
            b = unpack(&h[1], w.p.encoding);
            joined = malloc(strlen(a) + strlen(b) + 1);
            a[strlen(a) - 1] = '\0'; /* "[<0>" and ",<1>]" */
            b[0] = ',';
            snprintf(joined, w.p.n_raw_bytes + 1u, "%s%s", a, b);
            assert_string_equal(joined, w.raw);
            assert_int_equal(h[0].load.n_samples + h[1].load.n_samples,
                             w.p.load.n_samples);
            assert_int_equal(h[0].load.n_checks + h[1].load.n_checks, n);
            if (n > 100) { /* nearest the middle */
                assert_true(h[0].n_raw_bytes > w.p.n_raw_bytes * 48 / 100);
                assert_true(h[1].n_raw_bytes > w.p.n_raw_bytes * 48 / 100);
            }
            free(a);
            free(b);
            free(joined);
            split_half_fini(&h[0]);
            split_half_fini(&h[1]);
            free_whole(&w);
        }
    }
}

/* Splitting halves again and again ends with single items, each once. */
static uint64_t split_down(struct whole *w, unsigned depth)
{
    struct split_half h[2];
    uint64_t n = 0;
    int rc = split_body(&w->p, w->n_index_bytes, h);

    assert_true(depth < 20);
    if (rc == SPLIT_ONE_GROUP)
        return w->p.load.n_checks;
    assert_int_equal(rc, 0);
    for (int i = 0; i < 2; i++) {
        struct whole part = {.p = w->p, .n_index_bytes = h[i].n_index_bytes};

        part.p.body = h[i].bytes;
        part.p.n_bytes = h[i].n_bytes;
        part.p.n_raw_bytes = h[i].n_raw_bytes;
        part.p.load = h[i].load;
        n += split_down(&part, depth + 1);
        split_half_fini(&h[i]);
    }
    return n;
}

static void halves_can_be_split_again(void **state)
{
    struct whole w = make_whole(200, ENCODING_ZSTD, 7);

    (void)state;
    assert_int_equal(split_down(&w, 0), 200);
    free_whole(&w);
}

static void the_index_of_a_million_items_stays_small(void **state)
{
    struct split_index *x = malloc(sizeof(*x));
    unsigned char bytes[SPLIT_MAX_INDEX_BYTES];
    uint64_t raw = 0, items = 0, samples = 0, points = 0;

    (void)state;
    split_index_init(x, 0, 0, 2);
    for (uint64_t i = 0; i < 1000000; i++)
        split_index_add(x, i % 100, i, 2);
    assert_true(x->n_groups <= SPLIT_MAX_GROUPS);
    assert_true(x->n_groups > SPLIT_MAX_GROUPS / 2 - 1);
    assert_true(split_index_write(x, bytes) < 4096);
    for (uint32_t i = 0; i < x->n_groups; i++) {
        items += x->groups[i].n_items;
        raw += x->groups[i].n_raw_bytes;
        samples += x->groups[i].n_samples;
        points += x->groups[i].n_points;
    }
    assert_int_equal(items, 1000000);
    assert_int_equal(raw, 49500000);
    assert_int_equal(samples, 499999500000);
    assert_int_equal(points, 2000000);
    free(x);
}

static void an_index_reads_back_as_written(void **state)
{
    struct split_index *x = calloc(1, sizeof(*x));
    struct split_index *y = calloc(1, sizeof(*y));
    unsigned char bytes[SPLIT_MAX_INDEX_BYTES];
    size_t n;

    (void)state;
    split_index_init(x, 300, 1, 2);
    for (unsigned i = 0; i < 77; i++)
        split_index_add(x, i * 1000, UINT64_MAX - i, i);
    n = split_index_write(x, bytes);
    assert_true(split_index_read(y, bytes, n));
    assert_int_equal(y->n_groups, 77);
    assert_int_equal(y->n_head_bytes, 300);
    assert_memory_equal(x->groups, y->groups, 77 * sizeof(x->groups[0]));
    for (size_t cut = 0; cut < n; cut++)
        assert_false(split_index_read(y, bytes, cut));
    bytes[n] = 0;
    assert_false(split_index_read(y, bytes, n + 1));
    free(x);
    free(y);
}

/* Whatever lies behind a body: refused, or split with loads that add up. */
static void damaged_blocks_are_refused_or_harmless(void **state)
{
    uint64_t r = 88172645463325252u;

    (void)state;
    for (int i = 0; i < 3000; i++) {
        struct whole w = make_whole(20, (enum payload_encoding)(i % 4), 3);
        struct split_half h[2];
        int rc;

        for (int k = 0; k < 1 + i % 3; k++) {
            r ^= r << 13;
            r ^= r >> 7;
            r ^= r << 17;
            w.block[r % (w.p.n_bytes + w.n_index_bytes)] ^=
                (unsigned char)(r >> 32);
        }
        rc = split_body(&w.p, w.n_index_bytes, h);
        assert_true(rc == 0 || rc == -EBADMSG || rc == SPLIT_ONE_GROUP);
        if (rc == 0) {
            assert_int_equal(h[0].load.n_samples + h[1].load.n_samples,
                             w.p.load.n_samples);
            split_half_fini(&h[0]);
            split_half_fini(&h[1]);
        }
        free_whole(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_join_to_the_whole),
        cmocka_unit_test(halves_can_be_split_again),
        cmocka_unit_test(the_index_of_a_million_items_stays_small),
        cmocka_unit_test(an_index_reads_back_as_written),
        cmocka_unit_test(damaged_blocks_are_refused_or_harmless),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
