/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/contract.h"

#define FIRST_BYTES 256u

void buf_init(struct buf *b, size_t max_bytes)
{
    REQUIRE(max_bytes < SIZE_MAX);
    *b = (struct buf){.max_bytes = max_bytes};
}

void buf_fini(struct buf *b)
{
    free(b->data);
    *b = (struct buf){.max_bytes = b->max_bytes};
}

void buf_clear(struct buf *b)
{
    b->n = 0;
    b->failed = false;
    if (b->data != NULL)
        b->data[0] = '\0';
}

int buf_reserve(struct buf *b, size_t n_more)
{
    size_t need;
    size_t cap;
    char *data;

    if (n_more > b->max_bytes - b->n)
        goto refused;
    need = b->n + n_more + 1; /* the terminator */
    if (need <= b->cap_bytes)
        return 0;
    cap = b->cap_bytes > 0 ? b->cap_bytes : FIRST_BYTES;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    if (cap > b->max_bytes + 1)
        cap = b->max_bytes + 1;
    data = realloc(b->data, cap);
    if (data == NULL)
        goto refused;
    data[b->n] = '\0';
    b->data = data;
    b->cap_bytes = cap;
    return 0;
refused:
    b->failed = true;
    return -ENOMEM;
}

int buf_append(struct buf *b, const void *p, size_t n)
{
    int rc = buf_reserve(b, n);

    if (rc != 0)
        return rc;
    if (n > 0)
        memcpy(b->data + b->n, p, n);
    b->n += n;
    b->data[b->n] = '\0';
    return 0;
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args;
    int n;
    int rc;

    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    REQUIRE(n >= 0); /* a broken format is ours */
    rc = buf_reserve(b, (size_t)n);
    if (rc != 0)
        return rc;
    va_start(args, fmt);
    (void)vsnprintf(b->data + b->n, (size_t)n + 1, fmt, args);
    va_end(args);
    b->n += (size_t)n;
    return 0;
}

void buf_consume(struct buf *b, size_t n)
{
    REQUIRE(n <= b->n);
    if (n == 0)
        return;
    memmove(b->data, b->data + n, b->n - n);
    b->n -= n;
    b->data[b->n] = '\0';
}
