/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "forwarder/compress.h"

#define MAX (2u << 20)

static uint64_t random_state = 88172645463325252u;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

enum texture { ZEROS, NOISE, TEXT, MIXED, N_TEXTURES };

static void fill(unsigned char *p, size_t n, enum texture t)
{
    for (size_t i = 0; i < n; i++) {
        bool noisy = t == NOISE || (t == MIXED && (i >> 12) % 3 == 0);

        if (noisy)
            p[i] = (unsigned char)next_random();
        else
            p[i] = t == ZEROS ? 0 : (unsigned char)("metric:x|"[i % 9]);
    }
}

static void what_goes_in_comes_out(void **state)
{
    static const size_t sizes[] = {0, 1, 100, 70000, 1000000};
    unsigned char *raw = malloc(MAX);
    unsigned char *out = malloc(2 * MAX);
    unsigned char *back = malloc(MAX);

    (void)state;
    for (int enc = ENCODING_NONE; enc <= ENCODING_ZSTD; enc++) {
        struct compressor *c;

        assert_int_equal(compressor_create(&c, (enum payload_encoding)enc), 0);
        for (int t = 0; t < N_TEXTURES; t++) {
            for (size_t s = 0; s < 5; s++) {
                size_t n = sizes[s];

                fill(raw, n, (enum texture)t);
                /* Levels outside the library's range are taken, too. */
                assert_int_equal(compressor_begin(c, (int)s * 20 - 9, out,
                                                  2 * MAX),
                                 0);
                assert_int_equal(compressor_put(c, raw, n / 3, COMPRESS_MORE),
                                 0);
                assert_int_equal(compressor_put(c, raw + n / 3, n - n / 3,
                                                COMPRESS_END),
                                 0);
                assert_int_equal(decompress((enum payload_encoding)enc, out,
                                            compressor_written(c), back, n),
                                 0);
                assert_memory_equal(raw, back, n);
            }
        }
        compressor_close(c);
    }
    free(raw);
    free(out);
    free(back);
}

/* Put pieces of any size with syncs at any time into a buffer that is exactly
 * as large as the bound said at some moment: it must be enough from there on. */
static void the_bound_holds_whatever_comes(void **state)
{
    unsigned char *raw = malloc(MAX);
    unsigned char *out = malloc(2 * MAX);

    (void)state;
    for (int enc = ENCODING_NONE; enc <= ENCODING_ZSTD; enc++) {
        struct compressor *c;

        assert_int_equal(compressor_create(&c, (enum payload_encoding)enc), 0);
        for (int round = 0; round < 120; round++) {
            size_t n = (size_t)(next_random() % (round % 4 ? 60000 : MAX));
            size_t n_before = n == 0 ? 0 : (size_t)(next_random() % n);
            size_t at = 0;
            size_t bound;

            fill(raw, n, (enum texture)(next_random() % N_TEXTURES));
            /* Twice: to learn the bound, then with a buffer of that size. */
            bound = 2 * MAX;
            for (int pass = 0; pass < 2; pass++) {
                uint64_t seed = random_state;

                assert_int_equal(compressor_begin(c, 1 + round % 6, out, bound),
                                 0);
                for (at = 0; at < n_before;) {
                    size_t piece = (size_t)(next_random() % 30000) + 1;
                    enum compress_op op =
                        next_random() % 3 ? COMPRESS_MORE : COMPRESS_SYNC;

                    if (piece > n_before - at)
                        piece = n_before - at;
                    assert_int_equal(compressor_put(c, raw + at, piece, op), 0);
                    at += piece;
                }
                bound = compressor_bound(c, n - at);
                random_state = pass == 0 ? seed : random_state;
            }
            while (at < n) {
                size_t piece = (size_t)(next_random() % 3000) + 1;

                if (piece > n - at)
                    piece = n - at;
                assert_int_equal(compressor_put(c, raw + at, piece,
                                                COMPRESS_MORE),
                                 0);
                at += piece;
            }
            assert_int_equal(compressor_put(c, NULL, 0, COMPRESS_END), 0);
            assert_true(compressor_written(c) <= bound);
        }
        compressor_close(c);
    }
    free(raw);
    free(out);
}

static void a_buffer_too_small_is_said_and_not_overrun(void **state)
{
    unsigned char *raw = malloc(100000);

    (void)state;
    fill(raw, 100000, NOISE);
    for (int enc = ENCODING_NONE; enc <= ENCODING_ZSTD; enc++) {
        for (size_t cap = 0; cap < 3000; cap += 271) {
            unsigned char *out = malloc(cap + 1);
            struct compressor *c;
            int rc;

            assert_int_equal(compressor_create(&c, (enum payload_encoding)enc),
                             0);
            assert_int_equal(compressor_begin(c, 1, out, cap), 0);
            rc = compressor_put(c, raw, 100000, COMPRESS_END);
            assert_int_equal(rc, COMPRESS_NO_ROOM);
            assert_true(compressor_written(c) <= cap);
            compressor_close(c);
            free(out);
        }
    }
    free(raw);
}

static void damaged_bodies_are_refused(void **state)
{
    unsigned char raw[500], out[4096], back[600];
    size_t n;

    (void)state;
    fill(raw, sizeof(raw), TEXT);
    for (int enc = ENCODING_DEFLATE; enc <= ENCODING_ZSTD; enc++) {
        struct compressor *c;

        assert_int_equal(compressor_create(&c, (enum payload_encoding)enc), 0);
        assert_int_equal(compressor_begin(c, 3, out, sizeof(out)), 0);
        assert_int_equal(compressor_put(c, raw, sizeof(raw), COMPRESS_END), 0);
        n = compressor_written(c);
        compressor_close(c);
        /* Another length, a cut, bytes behind, a flipped bit. */
        assert_true(decompress(enc, out, n, back, sizeof(raw) - 1) < 0);
        assert_true(decompress(enc, out, n, back, sizeof(raw) + 1) < 0);
        assert_true(decompress(enc, out, n - 1, back, sizeof(raw)) < 0);
        assert_true(decompress(enc, out, n + 1, back, sizeof(raw)) < 0);
        assert_true(decompress(enc, out, 0, back, sizeof(raw)) < 0);
        out[0] ^= 0x40;
        assert_true(decompress(enc, out, n, back, sizeof(raw)) < 0);
    }
    assert_true(decompress(ENCODING_NONE, raw, 10, back, 11) < 0);
    for (int i = 0; i < 20000; i++) {
        size_t len = (size_t)(next_random() % sizeof(out));

        fill(out, len, NOISE);
        (void)decompress((enum payload_encoding)(i % 4), out, len, back,
                         (size_t)(next_random() % sizeof(back)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_in_comes_out),
        cmocka_unit_test(the_bound_holds_whatever_comes),
        cmocka_unit_test(a_buffer_too_small_is_said_and_not_overrun),
        cmocka_unit_test(damaged_bodies_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
