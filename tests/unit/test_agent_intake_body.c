/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>

#include "agent/intake_body.h"

#define N_PLAIN 100000
#define N_PACKED 200000

static unsigned char plain[N_PLAIN];

static size_t pack(const char *encoding, unsigned char *out)
{
    z_stream z = {.next_in = plain, .avail_in = N_PLAIN};
    int window = strcmp(encoding, "gzip") == 0 ? 31 : 15;

    if (strcmp(encoding, "identity") == 0) {
        memcpy(out, plain, N_PLAIN);
        return N_PLAIN;
    }
    if (strcmp(encoding, "zstd") == 0)
        return ZSTD_compress(out, N_PACKED, plain, N_PLAIN, 1);
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, window, 8, 0), Z_OK);
    z.next_out = out;
    z.avail_out = N_PACKED;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    assert_int_equal(deflateEnd(&z), Z_OK);
    return z.total_out;
}

static int unpack(const char *encoding, const unsigned char *in, size_t n,
                  size_t max)
{
    void *out = NULL;
    size_t n_out = 0;
    unsigned char *copy = malloc(n > 0 ? n : 1); /* exact: overreads show */
    int rc;

    assert_non_null(copy);
    memcpy(copy, in, n);
    rc = intake_body_plain(encoding, copy, n, max, &out, &n_out);
    free(copy);
    if (rc == 0 && n > 0) {
        assert_int_equal(n_out % N_PLAIN, 0);
        for (size_t at = 0; at < n_out; at += N_PLAIN)
            assert_memory_equal((char *)out + at, plain, N_PLAIN);
    } else {
        assert_int_equal(n_out, 0);
    }
    free(out);
    return rc;
}

static const char *const encodings[] = {"identity", "deflate", "gzip", "zstd"};

static void unpacks_within_the_bound_and_not_beyond(void **state)
{
    static unsigned char packed[N_PACKED];

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        size_t n = pack(encodings[i], packed);

        assert_int_equal(unpack(encodings[i], packed, n, N_PLAIN), 0);
        assert_int_equal(unpack(encodings[i], packed, n, N_PLAIN * 2), 0);
        assert_int_equal(unpack(encodings[i], packed, n, N_PLAIN - 1),
                         INTAKE_BODY_TOO_LARGE);
        assert_int_equal(unpack(encodings[i], packed, n, 10),
                         INTAKE_BODY_TOO_LARGE);
    }
}

static void what_is_cut_or_changed_is_broken(void **state)
{
    static unsigned char packed[N_PACKED];

    (void)state;
    for (size_t i = 1; i < 4; i++) {
        size_t n = pack(encodings[i], packed);

        assert_int_equal(unpack(encodings[i], packed, n - 1, N_PLAIN),
                         INTAKE_BODY_BROKEN);
        assert_int_equal(unpack(encodings[i], packed, n / 2, N_PLAIN),
                         INTAKE_BODY_BROKEN);
        assert_int_equal(unpack(encodings[i], packed, 0, N_PLAIN),
                         INTAKE_BODY_BROKEN);
        packed[n] = 'x'; /* behind the end */
        assert_int_equal(unpack(encodings[i], packed, n + 1, N_PLAIN),
                         INTAKE_BODY_BROKEN);
        packed[0] ^= 0xff;
        assert_int_equal(unpack(encodings[i], packed, n, N_PLAIN),
                         INTAKE_BODY_BROKEN);
    }
}

static void frames_and_members_may_follow_each_other(void **state)
{
    static unsigned char packed[2 * N_PACKED];

    (void)state;
    for (size_t i = 2; i < 4; i++) {
        size_t n = pack(encodings[i], packed);

        memmove(packed + n, packed, n);
        assert_int_equal(unpack(encodings[i], packed, 2 * n, 2 * N_PLAIN), 0);
        assert_int_equal(unpack(encodings[i], packed, 2 * n, N_PLAIN),
                         INTAKE_BODY_TOO_LARGE);
    }
}

static void other_encodings_are_unknown(void **state)
{
    (void)state;
    assert_int_equal(unpack("br", plain, 10, 100), INTAKE_BODY_UNKNOWN);
    assert_int_equal(unpack("zstd,gzip", plain, 10, 100), INTAKE_BODY_UNKNOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unpacks_within_the_bound_and_not_beyond),
        cmocka_unit_test(what_is_cut_or_changed_is_broken),
        cmocka_unit_test(frames_and_members_may_follow_each_other),
        cmocka_unit_test(other_encodings_are_unknown),
    };

    for (size_t i = 0; i < N_PLAIN; i++) /* compresses to about a third */
        plain[i] = (unsigned char)((i * 2654435761u >> 13) % 7 + i / 977 % 5);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
