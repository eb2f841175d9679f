/* SPDX-License-Identifier: Apache-2.0 */
/*
 * First fit from the bottom keeps the touched part of the range short, and the
 * free stretches long enough to give back. Bodies live for one round trip, or
 * for an outage: neither needs more than a bitmap.
 */
#include "forwarder/store_pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "forwarder/store.h"

#define NO_PAGE UINT32_MAX

static bool bit_get(const uint64_t *map, uint32_t i)
{
    return (map[i / 64] >> (i % 64)) & 1;
}

static void bits_put(uint64_t *map, uint32_t first, uint32_t n, bool on)
{
    for (uint32_t i = first; i < first + n; i++) {
        if (on)
            map[i / 64] |= UINT64_C(1) << (i % 64);
        else
            map[i / 64] &= ~(UINT64_C(1) << (i % 64));
    }
}

int pages_init(struct store_pages *b, struct region *r, unsigned range,
               size_t max_bytes)
{
    size_t n_pages = max_bytes / PAGES_BYTES;
    size_t n_words;

    if (n_pages >= NO_PAGE)
        n_pages = NO_PAGE - 1;
    n_words = n_pages / 64 + 1;
    b->used = calloc(n_words, sizeof(*b->used));
    b->resident = calloc(n_words, sizeof(*b->resident));
    if (b->used == NULL || b->resident == NULL) {
        free(b->used);
        free(b->resident);
        return -ENOMEM;
    }
    b->r = r;
    b->range = range;
    b->n_pages = (uint32_t)n_pages;
    b->n_used = 0;
    pthread_mutex_init(&b->lock, NULL);
    return 0;
}

void pages_fini(struct store_pages *b)
{
    pthread_mutex_destroy(&b->lock);
    free(b->used);
    free(b->resident);
}

static uint32_t n_committed(const struct store_pages *b)
{
    size_t n = region_committed(b->r, b->range) / PAGES_BYTES;

    return n < b->n_pages ? (uint32_t)n : b->n_pages;
}

bool pages_claim(struct store_pages *b, uint32_t block, size_t n)
{
    uint32_t n_pages = pages_for(n);
    uint32_t end = n_committed(b);

    if (n == 0 || block >= end || n_pages > end - block)
        return false;
    for (uint32_t i = block; i < block + n_pages; i++) {
        if (bit_get(b->used, i))
            return false;
    }
    bits_put(b->used, block, n_pages, true);
    bits_put(b->resident, block, n_pages, true);
    b->n_used += n_pages;
    return true;
}

/* Offset of a page in the memfd. */
static off_t page_at(const struct store_pages *b, uint32_t page)
{
    return (off_t)(pages_bytes(b, page) - (unsigned char *)b->r->head);
}

static void punch(struct store_pages *b, uint32_t first, uint32_t n)
{
    region_fresh(b->r, pages_bytes(b, first), (size_t)n * PAGES_BYTES);
    if (fallocate(b->r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  page_at(b, first), (off_t)n * PAGES_BYTES) == 0)
        bits_put(b->resident, first, n, false);
}

void pages_settle(struct store_pages *b)
{
    uint32_t end = n_committed(b);
    uint32_t first = 0;

    bits_put(b->resident, 0, end, true);
    for (uint32_t i = 0; i <= end; i++) {
        if (i < end && !bit_get(b->used, i))
            continue;
        if (i > first)
            punch(b, first, i - first);
        first = i + 1;
    }
}

/* Lowest stretch of @want free pages. */
static uint32_t find_run(const struct store_pages *b, uint32_t want)
{
    uint32_t run = 0;

    for (uint32_t i = 0; i < b->n_pages;) {
        if (i % 64 == 0 && b->used[i / 64] == UINT64_MAX) {
            run = 0;
            i += 64;
            continue;
        }
        if (i % 64 == 0 && b->used[i / 64] == 0 && run + 64 < want &&
            i + 64 <= b->n_pages) {
            run += 64;
            i += 64;
            continue;
        }
        run = bit_get(b->used, i) ? 0 : run + 1;
        i++;
        if (run == want)
            return i - want;
    }
    return NO_PAGE;
}

/* Make pages exist: new ones by growing the range, punched ones by asking for
 * them again. */
static bool populate(struct store_pages *b, uint32_t first, uint32_t n)
{
    uint32_t had = n_committed(b);

    if (region_grow(b->r, b->range, (size_t)(first + n) * PAGES_BYTES))
        return false;
    if (n_committed(b) > had)
        bits_put(b->resident, had, n_committed(b) - had, true);
    for (uint32_t i = first; i < first + n; i++) {
        if (bit_get(b->resident, i))
            continue;
        while (fallocate(b->r->fd, 0, page_at(b, i),
                         (off_t)(first + n - i) * PAGES_BYTES) != 0) {
            if (errno != EINTR)
                return false;
        }
        bits_put(b->resident, i, first + n - i, true);
        break;
    }
    return true;
}

int pages_alloc(struct store_pages *b, size_t n, uint32_t *block)
{
    uint32_t n_pages;
    uint32_t first;
    int rc = STORE_FULL;

    REQUIRE(n > 0);
    if (n > (size_t)b->n_pages * PAGES_BYTES)
        return STORE_FULL;
    n_pages = pages_for(n);
    pthread_mutex_lock(&b->lock);
    first = find_run(b, n_pages);
    if (first != NO_PAGE && populate(b, first, n_pages)) {
        bits_put(b->used, first, n_pages, true);
        b->n_used += n_pages;
        *block = first;
        rc = 0;
    }
    pthread_mutex_unlock(&b->lock);
    return rc;
}

void pages_free(struct store_pages *b, uint32_t first, uint32_t n_pages)
{
    uint32_t lo = first;
    uint32_t hi = first + n_pages;

    pthread_mutex_lock(&b->lock);
    REQUIRE(hi <= b->n_pages && n_pages <= b->n_used);
    bits_put(b->used, first, n_pages, false);
    b->n_used -= n_pages;
    /* Together with its free neighbours, so that many small payloads of an
     * outage go back as well as one large one. */
    while (lo > 0 && !bit_get(b->used, lo - 1) && bit_get(b->resident, lo - 1))
        lo--;
    while (hi < b->n_pages && !bit_get(b->used, hi) && bit_get(b->resident, hi))
        hi++;
    if (hi - lo >= PAGES_PUNCH)
        punch(b, lo, hi - lo);
    pthread_mutex_unlock(&b->lock);
}
