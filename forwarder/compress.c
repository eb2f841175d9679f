/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bound: what had come out at the last SYNC is exact, what was put since
 * then is taken at the library's worst case. A SYNC near the limit turns most of
 * that worst case into real, small numbers; so bodies come out near the limit
 * although nobody ever compresses twice.
 */
#include "forwarder/compress.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

/* Headers, trailers and block ends of all three formats. */
#define SLACK_BYTES 96

struct compressor {
    enum payload_encoding encoding;
    unsigned char *dst;
    size_t cap;
    size_t n_written;
    size_t n_synced;  /* of n_written: at the last SYNC */
    size_t n_pending; /* input since then */
    ZSTD_CCtx *zstd;
    z_stream zlib;
    bool zlib_ready;
    int zlib_level;
};

int compressor_create(struct compressor **out, enum payload_encoding encoding)
{
    struct compressor *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return -ENOMEM;
    c->encoding = encoding;
    *out = c;
    return 0;
}

void compressor_close(struct compressor *c)
{
    if (c == NULL)
        return;
    ZSTD_freeCCtx(c->zstd);
    if (c->zlib_ready)
        deflateEnd(&c->zlib);
    free(c);
}

static int clamp(int v, int lo, int hi)
{
    if (v < lo)
        return lo;
    return v > hi ? hi : v;
}

static int begin_zstd(struct compressor *c, int level)
{
    if (c->zstd == NULL)
        c->zstd = ZSTD_createCCtx();
    if (c->zstd == NULL)
        return -ENOMEM;
    level = clamp(level, ZSTD_minCLevel(), ZSTD_maxCLevel());
    (void)ZSTD_CCtx_reset(c->zstd, ZSTD_reset_session_and_parameters);
    (void)ZSTD_CCtx_setParameter(c->zstd, ZSTD_c_compressionLevel, level);
    return 0;
}

static int begin_zlib(struct compressor *c, int level)
{
    int window = c->encoding == ENCODING_GZIP ? 15 + 16 : 15;

    level = clamp(level, 1, 9);
    if (c->zlib_ready && c->zlib_level == level)
        return deflateReset(&c->zlib) == Z_OK ? 0 : -ENOMEM;
    if (c->zlib_ready)
        deflateEnd(&c->zlib);
    c->zlib_ready = false;
    memset(&c->zlib, 0, sizeof(c->zlib));
    if (deflateInit2(&c->zlib, level, Z_DEFLATED, window, 8,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return -ENOMEM;
    c->zlib_ready = true;
    c->zlib_level = level;
    return 0;
}

int compressor_begin(struct compressor *c, int level, void *dst, size_t cap)
{
    c->dst = dst;
    c->cap = cap;
    c->n_written = 0;
    c->n_synced = 0;
    c->n_pending = 0;
    switch (c->encoding) {
    case ENCODING_NONE:
        return 0;
    case ENCODING_DEFLATE:
    case ENCODING_GZIP:
        return begin_zlib(c, level);
    case ENCODING_ZSTD:
        return begin_zstd(c, level);
    }
    return -EINVAL;
}

static int put_none(struct compressor *c, const void *src, size_t n)
{
    if (n > c->cap - c->n_written)
        return COMPRESS_NO_ROOM;
    if (n > 0)
        memcpy(c->dst + c->n_written, src, n);
    c->n_written += n;
    return 0;
}

static int put_zstd(struct compressor *c, const void *src, size_t n,
                    enum compress_op op)
{
    static const ZSTD_EndDirective directives[] = {
        [COMPRESS_MORE] = ZSTD_e_continue,
        [COMPRESS_SYNC] = ZSTD_e_flush,
        [COMPRESS_END] = ZSTD_e_end,
    };
    ZSTD_inBuffer in = {src, n, 0};
    ZSTD_outBuffer out = {c->dst, c->cap, c->n_written};
    size_t left;

    do {
        left = ZSTD_compressStream2(c->zstd, &out, &in, directives[op]);
        c->n_written = out.pos;
        if (ZSTD_isError(left))
            return -ENOMEM;
        if (op == COMPRESS_MORE && in.pos == in.size)
            return 0;
        if (left > 0 && out.pos == out.size)
            return COMPRESS_NO_ROOM;
    } while (left > 0);
    return 0;
}

static int put_zlib(struct compressor *c, const void *src, size_t n,
                    enum compress_op op)
{
    static const int flushes[] = {
        [COMPRESS_MORE] = Z_NO_FLUSH,
        [COMPRESS_SYNC] = Z_SYNC_FLUSH,
        [COMPRESS_END] = Z_FINISH,
    };
    z_stream *z = &c->zlib;
    size_t room = c->cap - c->n_written;
    int rc;

    z->next_in = (unsigned char *)(uintptr_t)src;
    z->avail_in = (uInt)n;
    z->next_out = c->dst + c->n_written;
    z->avail_out = (uInt)room;
    rc = deflate(z, flushes[op]);
    c->n_written += room - z->avail_out;
    if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
        return -ENOMEM;
    if (op == COMPRESS_END)
        return rc == Z_STREAM_END ? 0 : COMPRESS_NO_ROOM;
    return z->avail_in == 0 && z->avail_out > 0 ? 0 : COMPRESS_NO_ROOM;
}

int compressor_put(struct compressor *c, const void *src, size_t n,
                   enum compress_op op)
{
    int rc = -EINVAL;

    REQUIRE(n <= UINT32_MAX && c->cap <= UINT32_MAX);
    switch (c->encoding) {
    case ENCODING_NONE:
        rc = put_none(c, src, n);
        break;
    case ENCODING_DEFLATE:
    case ENCODING_GZIP:
        rc = put_zlib(c, src, n, op);
        break;
    case ENCODING_ZSTD:
        rc = put_zstd(c, src, n, op);
        break;
    }
    c->n_pending += n;
    if (rc == 0 && op != COMPRESS_MORE) {
        c->n_synced = c->n_written;
        c->n_pending = 0;
    }
    return rc;
}

size_t compressor_written(const struct compressor *c)
{
    return c->n_written;
}

size_t compressor_pending(const struct compressor *c)
{
    return c->n_pending;
}

size_t compressor_bound(const struct compressor *c, size_t more)
{
    size_t n = c->n_pending + more;

    switch (c->encoding) {
    case ENCODING_NONE:
        return c->n_synced + n;
    case ENCODING_DEFLATE:
    case ENCODING_GZIP:
        /* compressBound() is deflateBound() of our window and memory level. */
        return c->n_synced + compressBound(n) + SLACK_BYTES;
    case ENCODING_ZSTD:
        return c->n_synced + ZSTD_compressBound(n) + SLACK_BYTES;
    }
    return SIZE_MAX;
}

/* ---- The inverse ------------------------------------------------------- */

static int inflate_exactly(enum payload_encoding encoding, const void *src,
                           size_t n, void *dst, size_t n_raw)
{
    z_stream z = {0};
    int rc;

    z.next_in = (unsigned char *)(uintptr_t)src;
    z.avail_in = (uInt)n;
    z.next_out = dst;
    z.avail_out = (uInt)n_raw;
    if (inflateInit2(&z, encoding == ENCODING_GZIP ? 15 + 16 : 15) != Z_OK)
        return -ENOMEM;
    rc = inflate(&z, Z_FINISH);
    rc = rc == Z_STREAM_END && z.avail_out == 0 && z.avail_in == 0 ? 0
                                                                   : -EBADMSG;
    inflateEnd(&z);
    return rc;
}

int decompress(enum payload_encoding encoding, const void *src, size_t n,
               void *dst, size_t n_raw)
{
    if (n > UINT32_MAX || n_raw > UINT32_MAX)
        return -EBADMSG;
    switch (encoding) {
    case ENCODING_NONE:
        if (n != n_raw)
            return -EBADMSG;
        if (n > 0)
            memcpy(dst, src, n);
        return 0;
    case ENCODING_DEFLATE:
    case ENCODING_GZIP:
        return inflate_exactly(encoding, src, n, dst, n_raw);
    case ENCODING_ZSTD:
        return ZSTD_decompress(dst, n_raw, src, n) == n_raw ? 0 : -EBADMSG;
    }
    return -EBADMSG;
}
