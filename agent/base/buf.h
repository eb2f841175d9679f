/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growable bytes with a hard maximum.
 *
 * An append that does not fit changes nothing and sets `failed`, which stays
 * set: a writer may append many pieces and ask once at the end.
 *
 * Thread:  one owner.
 * Memory:  heap, doubled as needed, never above max_bytes; nothing before the
 *          first append.
 * Promise: data[n] is always a terminator when data is not NULL, so text is a
 *          C string.
 */
#ifndef RETRIEVER_AGENT_BASE_BUF_H
#define RETRIEVER_AGENT_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct buf {
    char *data; /* NULL until something was appended */
    size_t n;   /* bytes in use, without the terminator */
    size_t cap_bytes;
    size_t max_bytes;
    bool failed; /* an append was refused since buf_init() or buf_clear() */
};

/** Empty, without memory; @max_bytes bounds n for good. */
void buf_init(struct buf *b, size_t max_bytes);

/** Free; the buffer may be used again as after buf_init(). */
void buf_fini(struct buf *b);

/** Forget the content and `failed`, keep the memory. */
void buf_clear(struct buf *b);

/** Make room for @n_more bytes. Returns 0 or -ENOMEM (maximum or heap). */
int buf_reserve(struct buf *b, size_t n_more);

/** Append @n bytes, whole or not at all. Returns 0 or -ENOMEM. @p may be NULL
 *  when @n is 0, and may not point into @b. */
int buf_append(struct buf *b, const void *p, size_t n);

/** Append formatted text, whole or not at all. Returns 0 or -ENOMEM. */
int buf_printf(struct buf *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/** Drop the first @n bytes; the rest moves down. @n <= b->n. */
void buf_consume(struct buf *b, size_t n);

/** The content as text, "" when empty; valid until the next call on @b. */
static inline const char *buf_cstr(const struct buf *b)
{
    return b->data != NULL ? b->data : "";
}

static inline int buf_puts(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

static inline int buf_putc(struct buf *b, char c)
{
    return buf_append(b, &c, 1);
}

#endif
