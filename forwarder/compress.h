/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compression of bodies: zstd, zlib ("deflate"), gzip or none behind one
 * interface, with a bound that holds before a byte is compressed.
 *
 * Thread:  one at a time per struct compressor; the rest is pure.
 * Memory:  the library's window and tables, from compressor_begin()'s first use
 *          to compressor_close(); output goes to the caller's buffer.
 * Promise: while compressor_bound(c, more) is within the buffer, putting @more
 *          further bytes and ending never runs out of room.
 */
#ifndef RETRIEVER_FORWARDER_COMPRESS_H
#define RETRIEVER_FORWARDER_COMPRESS_H

#include <stddef.h>
#include <stdint.h>

#include "forwarder/store.h"

struct compressor; /* opaque */

/** Returns 0 or -ENOMEM. */
int compressor_create(struct compressor **out, enum payload_encoding encoding);
void compressor_close(struct compressor *c);

/** Start a new body into @dst (borrowed until the end). @level as the library
 *  takes it; out of its range: the nearest. Returns 0 or -ENOMEM. */
int compressor_begin(struct compressor *c, int level, void *dst, size_t cap);

enum compress_op {
    COMPRESS_MORE, /* may stay inside for now */
    COMPRESS_SYNC, /* all that was put so far goes out: the bound gets tight */
    COMPRESS_END   /* the body is whole */
};
enum compress_rc { COMPRESS_NO_ROOM = 1 };

/** Put @n bytes. Returns 0, COMPRESS_NO_ROOM (only beyond the bound; begin anew)
 *  or -ENOMEM. */
int compressor_put(struct compressor *c, const void *src, size_t n,
                   enum compress_op op);

/** Bytes in the output so far; the whole body after COMPRESS_END. */
size_t compressor_written(const struct compressor *c);

/** Bytes put since the last SYNC: what a further one may shrink. */
size_t compressor_pending(const struct compressor *c);

/** Most bytes that the body can have when @more bytes are put and it ends. */
size_t compressor_bound(const struct compressor *c, size_t more);

/** The inverse: exactly @n_raw bytes into @dst. Returns 0, -EBADMSG (damaged, or
 *  another length) or -ENOMEM. */
int decompress(enum payload_encoding encoding, const void *src, size_t n,
               void *dst, size_t n_raw);

#endif
