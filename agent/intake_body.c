/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both libraries stream into one buffer that doubles up to max + 1: the byte
 * too many proves that the limit was passed.
 */
#include "agent/intake_body.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <zlib.h>
#include <zstd.h>

struct plain {
    unsigned char *p;
    size_t n, cap, max;
};

/* Room for at least one more byte. */
static int grow(struct plain *o)
{
    size_t cap = o->cap == 0 ? 16384 : o->cap * 2;
    unsigned char *p;

    if (o->n < o->cap)
        return 0;
    if (o->n > o->max)
        return INTAKE_BODY_TOO_LARGE;
    if (cap > o->max + 1)
        cap = o->max + 1;
    p = realloc(o->p, cap);
    if (p == NULL)
        return -ENOMEM;
    o->p = p;
    o->cap = cap;
    return 0;
}

static int inflate_all(z_stream *z, struct plain *o, int gzip)
{
    for (;;) {
        int rc = grow(o);
        int zrc;

        if (rc != 0)
            return rc;
        z->next_out = o->p + o->n;
        z->avail_out = (uInt)(o->cap - o->n);
        zrc = inflate(z, Z_NO_FLUSH);
        o->n = (size_t)(z->next_out - o->p);
        if (zrc == Z_STREAM_END && z->avail_in > 0 && gzip)
            zrc = inflateReset(z); /* the next member */
        else if (zrc == Z_STREAM_END)
            return z->avail_in == 0 ? 0 : INTAKE_BODY_BROKEN;
        if (zrc == Z_BUF_ERROR && z->avail_out == 0)
            continue;
        if (zrc != Z_OK || (z->avail_in == 0 && z->avail_out > 0))
            return zrc == Z_MEM_ERROR ? -ENOMEM : INTAKE_BODY_BROKEN;
    }
}

static int plain_zlib(const void *in, size_t n, struct plain *o, int gzip)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)in, .avail_in = (uInt)n};
    int rc;

    /* 15: largest window; + 16: gzip instead of the zlib format. */
    if (inflateInit2(&z, gzip ? 15 + 16 : 15) != Z_OK)
        return -ENOMEM;
    rc = inflate_all(&z, o, gzip);
    (void)inflateEnd(&z);
    return rc;
}

static int plain_zstd(const void *in, size_t n, struct plain *o)
{
    ZSTD_DCtx *z = ZSTD_createDCtx();
    ZSTD_inBuffer src = {.src = in, .size = n};
    size_t left = 1; /* 0 = at the end of a frame */
    int rc = 0;

    if (z == NULL)
        return -ENOMEM;
    /* 8 MiB of window: what a decoder must offer by RFC 8878; a frame that
     * asks for more could make us allocate gigabytes. */
    (void)ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, 23);
    while (src.pos < src.size || left != 0) {
        ZSTD_outBuffer dst;
        size_t before = src.pos;

        rc = grow(o);
        if (rc != 0)
            break;
        dst = (ZSTD_outBuffer){.dst = o->p, .size = o->cap, .pos = o->n};
        left = ZSTD_decompressStream(z, &dst, &src);
        if (ZSTD_isError(left) || (dst.pos == o->n && src.pos == before)) {
            rc = INTAKE_BODY_BROKEN;
            break;
        }
        o->n = dst.pos;
    }
    ZSTD_freeDCtx(z);
    return rc;
}

static int plain_copy(const void *in, size_t n, struct plain *o)
{
    if (n > o->max)
        return INTAKE_BODY_TOO_LARGE;
    o->p = malloc(n > 0 ? n : 1);
    if (o->p == NULL)
        return -ENOMEM;
    if (n > 0)
        memcpy(o->p, in, n);
    o->n = n;
    return 0;
}

int intake_body_plain(const char *encoding, const void *in, size_t n,
                      size_t max, void **out, size_t *n_out)
{
    struct plain o = {.max = max};
    int rc;

    if (encoding == NULL || *encoding == '\0' ||
        strcasecmp(encoding, "identity") == 0)
        rc = plain_copy(in, n, &o);
    else if (strcasecmp(encoding, "deflate") == 0)
        rc = plain_zlib(in, n, &o, 0);
    else if (strcasecmp(encoding, "gzip") == 0)
        rc = plain_zlib(in, n, &o, 1);
    else if (strcasecmp(encoding, "zstd") == 0)
        rc = plain_zstd(in, n, &o);
    else
        rc = INTAKE_BODY_UNKNOWN;
    if (rc == 0 && o.n > max)
        rc = INTAKE_BODY_TOO_LARGE;
    if (rc != 0) {
        free(o.p);
        return rc;
    }
    *out = o.p;
    *n_out = o.n;
    return 0;
}
