/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Undoes the Content-Encoding of a request's body, within a bound.
 *
 * Thread:  any.
 * Memory:  one allocation of the plain size, at most @max bytes.
 * Promise: a body that unpacks to more than @max costs no more than @max bytes
 *          and is refused; one that ends early or has bytes behind its end is
 *          broken. Frames of zstd and members of gzip may follow each other.
 */
#ifndef RETRIEVER_AGENT_INTAKE_BODY_H
#define RETRIEVER_AGENT_INTAKE_BODY_H

#include <stddef.h>

enum intake_body_rc {
    INTAKE_BODY_UNKNOWN = 1, /* no such encoding here */
    INTAKE_BODY_BROKEN,
    INTAKE_BODY_TOO_LARGE
};

/** Plain bytes of @in to *@out (malloc, the caller's) and *@n_out. @encoding:
 *  NULL, "", "identity", "deflate" (zlib format), "gzip" or "zstd". Returns 0,
 *  one of the enum, or -ENOMEM. */
int intake_body_plain(const char *encoding, const void *in, size_t n,
                      size_t max, void **out, size_t *n_out);

#endif
