/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protobuf wire format, written forward into a buffer of fixed size.
 *
 * Proto3 rules: a zero number and an empty string are not written, except by
 * pb_bytes_always().
 *
 * Thread:  plain data, no thread of its own.
 * Memory:  the caller's buffer, never beyond its end.
 * Promise: a write that does not fit sets full, and nothing is written any more:
 *          one test at the end is enough.
 */
#ifndef RETRIEVER_FORWARDER_PBWRITE_H
#define RETRIEVER_FORWARDER_PBWRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "aggregator/series.h"

struct pbwrite {
    unsigned char *p;
    size_t n, cap;
    bool full;
};

enum pb_wire { PB_VARINT = 0, PB_I64 = 1, PB_LEN = 2 };

static inline void pb_init(struct pbwrite *w, void *p, size_t cap)
{
    *w = (struct pbwrite){.p = p, .cap = cap};
}

/** Room for @n more bytes, or full. */
static inline bool pb_room(struct pbwrite *w, size_t n)
{
    if (!w->full && n <= w->cap - w->n)
        return true;
    w->full = true;
    return false;
}

/** Bytes of the varint of @v. */
static inline size_t pb_varint_size(uint64_t v)
{
    return (size_t)(63 - __builtin_clzll(v | 1)) / 7 + 1;
}

static inline void pb_varint(struct pbwrite *w, uint64_t v)
{
    if (!pb_room(w, pb_varint_size(v)))
        return;
    while (v >= 0x80) {
        w->p[w->n++] = (unsigned char)(v | 0x80);
        v >>= 7;
    }
    w->p[w->n++] = (unsigned char)v;
}

/** Bytes as they are. */
static inline void pb_raw(struct pbwrite *w, const void *p, size_t n)
{
    if (n == 0 || !pb_room(w, n))
        return;
    memcpy(w->p + w->n, p, n);
    w->n += n;
}

static inline void pb_tag(struct pbwrite *w, uint32_t field, enum pb_wire wire)
{
    pb_varint(w, field << 3 | wire);
}

static inline uint64_t pb_zigzag(int64_t v)
{
    return (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
}

/** int64, uint64, enum, bool. */
void pb_uint(struct pbwrite *w, uint32_t field, uint64_t v);
void pb_double(struct pbwrite *w, uint32_t field, double v);
void pb_bytes(struct pbwrite *w, uint32_t field, struct view v);
/** Also when empty (elements of a repeated field). */
void pb_bytes_always(struct pbwrite *w, uint32_t field, struct view v);

/** A nested message or packed field: returns what pb_end() needs. @expected is a
 *  guess of its length; a wrong one costs a move of its bytes. */
struct pb_nest {
    size_t at; /* of the length */
    size_t n_reserved;
};
struct pb_nest pb_begin(struct pbwrite *w, uint32_t field, size_t expected);
void pb_end(struct pbwrite *w, struct pb_nest nest);

#endif
