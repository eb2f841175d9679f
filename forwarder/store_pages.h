/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of the store region for payload bodies: first fit over a bitmap.
 *
 * Which pages are taken is private to the process: a successor learns it from
 * the committed entries (pages_claim()), so pages that an encoder had filled
 * and nobody committed are free again by themselves.
 *
 * Thread:  any but the reader, for alloc and free (a mutex; the only one that
 *          grows ranges of the store region). init, claim and settle: alone.
 * Memory:  two bits per page here; pages exist from their first use until a free
 *          stretch of PAGES_PUNCH or more goes back to the kernel.
 * Promise: a page is asked for before it is touched: a refusal is STORE_FULL and
 *          never a SIGBUS.
 */
#ifndef RETRIEVER_FORWARDER_STORE_PAGES_H
#define RETRIEVER_FORWARDER_STORE_PAGES_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/region.h"

#define PAGES_BYTES 4096u
#define PAGES_PUNCH 16u

struct store_pages {
    struct region *r;
    unsigned range;
    uint32_t n_pages;   /* in all */
    uint32_t n_used;    /* under the lock */
    uint64_t *used;     /* bit per page: allocated */
    uint64_t *resident; /* bit per page: exists in the memfd */
    pthread_mutex_t lock;
};

/** Pages that @n bytes take. */
static inline uint32_t pages_for(size_t n)
{
    return (uint32_t)((n + PAGES_BYTES - 1) / PAGES_BYTES);
}

/** All pages free. Returns 0 or -ENOMEM. */
int pages_init(struct store_pages *b, struct region *r, unsigned range,
               size_t max_bytes);
void pages_fini(struct store_pages *b);

/** Recovery: a committed entry holds @n bytes at @block. False: out of bounds, or
 *  another one holds a part of them. */
bool pages_claim(struct store_pages *b, uint32_t block, size_t n);
/** After the last claim: everything else goes back to the kernel. */
void pages_settle(struct store_pages *b);

/** Returns 0 and *block (a page number), or STORE_FULL (= 1). */
int pages_alloc(struct store_pages *b, size_t n, uint32_t *block);
/** Free @n_pages pages from page @first on. */
void pages_free(struct store_pages *b, uint32_t first, uint32_t n_pages);

static inline unsigned char *pages_bytes(const struct store_pages *b,
                                         uint32_t block)
{
    return (unsigned char *)region_base(b->r, b->range) +
           (size_t)block * PAGES_BYTES;
}

#endif
