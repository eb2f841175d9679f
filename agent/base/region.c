/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One sparse memfd holds the head and all ranges, each range at a fixed place of
 * its own: growing one never moves another, so references are plain pointers or
 * indices. Pages are asked for with fallocate() before they are touched: a
 * refusal is an error code here and not a SIGBUS in the middle of a
 * transaction.
 */
#include "agent/base/region.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define REGION_MAGIC 0x5265747269657631ULL
#define STEP_MIN (64u * 1024)
#define STEP_MAX (1024u * 1024)

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

int region_create(struct region *r, const struct region_opts *opts)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t head_bytes = round_up(sizeof(struct region_head), page);
    size_t total = head_bytes;
    size_t at = head_bytes;
    void *map = MAP_FAILED;
    int fd;
    int rc;

    REQUIRE(opts->n_ranges <= REGION_MAX_RANGES);
    for (uint32_t i = 0; i < opts->n_ranges; i++)
        total += round_up(opts->reserve[i], page);
    fd = memfd_create(opts->name, MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)total) != 0) {
        rc = -errno;
        goto out;
    }
    map = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
               fd, 0);
    if (map == MAP_FAILED) {
        rc = -errno;
        goto out;
    }
    r->head = map;
    r->map_bytes = total;
    r->fd = fd;
    r->proof = NULL;
    r->outside = NULL;
    r->n_outside = 0;
    r->head->magic = REGION_MAGIC;
    snprintf(r->head->build, sizeof(r->head->build), "%s %s", RETRIEVER_VERSION,
             opts->name);
    r->head->budget_bytes = opts->budget_bytes;
    r->head->n_ranges = opts->n_ranges;
    for (uint32_t i = 0; i < opts->n_ranges; i++) {
        r->head->ranges[i].base = (unsigned char *)map + at;
        r->head->ranges[i].reserved_bytes = round_up(opts->reserve[i], page);
        at += r->head->ranges[i].reserved_bytes;
    }
    fd = -1; /* handed over */
    rc = 0;
out:
    if (fd >= 0)
        close(fd);
    return rc;
}

/* Steps grow with the range: a small agent stays small, a large one does not
 * call the kernel for each 64 KiB. */
static size_t step_for(size_t committed)
{
    size_t step = round_up(committed / 2, STEP_MIN);

    if (step < STEP_MIN)
        return STEP_MIN;
    return step > STEP_MAX ? STEP_MAX : step;
}

int region_grow(struct region *r, unsigned range, size_t need_bytes)
{
    struct region_head *h = r->head;
    struct region_range *g = &h->ranges[range];
    size_t want;
    size_t more;
    off_t at;

    REQUIRE(range < h->n_ranges);
    if (need_bytes <= g->committed_bytes)
        return 0;
    if (need_bytes > g->reserved_bytes)
        return REGION_FULL;
    want = g->committed_bytes + step_for(g->committed_bytes);
    if (want < need_bytes)
        want = round_up(need_bytes, STEP_MIN);
    if (want > g->reserved_bytes)
        want = g->reserved_bytes;
    more = want - g->committed_bytes;
    if (more > h->budget_bytes - h->committed_bytes) {
        want = need_bytes;
        more = want - g->committed_bytes;
        if (more > h->budget_bytes - h->committed_bytes)
            return REGION_FULL;
    }
    at = (off_t)(g->base - (unsigned char *)h) + (off_t)g->committed_bytes;
    while (fallocate(r->fd, 0, at, (off_t)more) != 0) {
        if (errno != EINTR)
            return -errno;
    }
    /* Two stores, no transaction: killed in between, the sum is too small by
     * one step, which the next growth of this range corrects. */
    g->committed_bytes = want;
    h->committed_bytes = 0;
    for (uint32_t i = 0; i < h->n_ranges; i++)
        h->committed_bytes += h->ranges[i].committed_bytes;
    return 0;
}

void region_shrink(struct region *r, unsigned range, size_t keep_bytes)
{
    struct region_head *h = r->head;
    struct region_range *g = &h->ranges[range];
    size_t keep = round_up(keep_bytes, STEP_MIN);
    size_t had = g->committed_bytes;

    REQUIRE(range < h->n_ranges);
    if (keep >= had)
        return;
    /* The hole first: killed behind a count that already excludes the pages,
     * nobody would make it, and the next growth would find old bytes there. */
    if (fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)(g->base - (unsigned char *)h) + (off_t)keep,
                  (off_t)(had - keep)) != 0)
        memset(g->base + keep, 0, had - keep);
    atomic_signal_fence(memory_order_seq_cst);
    g->committed_bytes = keep;
    h->committed_bytes -= had - keep;
}

void region_allow(struct region *r, const void *p, size_t n)
{
    r->outside = p;
    r->n_outside = n;
}

static bool lies_within(const unsigned char *p, size_t n,
                        const unsigned char *base, size_t n_base)
{
    return p >= base && n <= n_base && (size_t)(p - base) <= n_base - n;
}

/* Committed bytes only: the rest of a range is address space without pages. */
static bool may_restore(const struct region *r, const unsigned char *p,
                        size_t n)
{
    for (uint32_t i = 0; i < r->head->n_ranges; i++) {
        if (lies_within(p, n, region_base(r, i), region_committed(r, i)))
            return true;
    }
    return r->outside == NULL || lies_within(p, n, r->outside, r->n_outside);
}

int region_rollback(struct region *r)
{
    struct region_journal *j = &r->head->journal;
    size_t at = atomic_load_explicit(&j->n_bytes, memory_order_relaxed);
    int rc = at <= sizeof(j->bytes) ? 0 : -EBADMSG;

    while (rc == 0 && at > 0) {
        uint64_t tail[2] = {0};
        size_t padded;

        if (at >= sizeof(tail)) {
            at -= sizeof(tail);
            memcpy(tail, j->bytes + at, sizeof(tail));
        }
        padded = ((size_t)tail[1] + 7) & ~(size_t)7;
        if (tail[1] == 0 || tail[1] > sizeof(j->bytes) || padded > at ||
            !may_restore(r, (unsigned char *)(uintptr_t)tail[0],
                         (size_t)tail[1])) {
            rc = -EBADMSG;
            break;
        }
        at -= padded;
        memcpy((void *)(uintptr_t)tail[0], j->bytes + at, (size_t)tail[1]);
    }
    /* Killed during the rollback, the successor does the whole of it again:
     * restoring is idempotent until this store. */
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&j->n_bytes, 0, memory_order_relaxed);
    return rc;
}

/* ---- Proof: roll each transaction back before it is committed ---------- */

struct span {
    const unsigned char *p;
    size_t n;
};

struct region_proof {
    unsigned char *before[REGION_MAX_RANGES]; /* state at the last commit */
    unsigned char *after[REGION_MAX_RANGES];  /* state to be committed */
    size_t n_bytes[REGION_MAX_RANGES];
    struct span *fresh;
    size_t n_fresh, cap_fresh;
};

static void *must(void *p)
{
    if (p == NULL) {
        fputs("region_prove: out of memory\n", stderr);
        abort();
    }
    return p;
}

static void copy_range(const struct region *r, uint32_t i, unsigned char **to)
{
    size_t n = region_committed(r, i);

    *to = must(realloc(*to, n + 1));
    memcpy(*to, region_base(r, i), n);
}

static bool is_fresh(const struct region_proof *pr, const unsigned char *p)
{
    for (size_t i = 0; i < pr->n_fresh; i++) {
        if (p >= pr->fresh[i].p && p < pr->fresh[i].p + pr->fresh[i].n)
            return true;
    }
    return false;
}

static void compare_range(struct region *r, uint32_t i)
{
    struct region_proof *pr = r->proof;
    const unsigned char *now = region_base(r, i);
    size_t n = pr->n_bytes[i];

    if (n > region_committed(r, i))
        n = region_committed(r, i); /* shrunk since */
    if (memcmp(now, pr->before[i], n) == 0)
        return;
    for (size_t k = 0; k < n; k++) {
        if (now[k] == pr->before[i][k] || is_fresh(pr, now + k))
            continue;
        fprintf(stderr,
                "region_prove: range %u byte %zu was changed without "
                "region_save() or region_fresh()\n",
                i, k);
        abort();
    }
}

void region_proof_fresh(struct region *r, const void *p, size_t n)
{
    struct region_proof *pr = r->proof;

    if (pr->n_fresh == pr->cap_fresh) {
        pr->cap_fresh = pr->cap_fresh * 2 + 64;
        pr->fresh =
            must(realloc(pr->fresh, pr->cap_fresh * sizeof(*pr->fresh)));
    }
    pr->fresh[pr->n_fresh++] = (struct span){p, n};
}

/* The new values of everything saved, in journal layout: what lies outside the
 * region (a position in the landing zone) is put back from here. */
static unsigned char *copy_new_values(const struct region *r, size_t n)
{
    const struct region_journal *j = &r->head->journal;
    unsigned char *copy = must(malloc(n + 1));
    size_t at = n;

    memcpy(copy, j->bytes, n);
    while (at > 0) {
        uint64_t tail[2];

        at -= sizeof(tail);
        memcpy(tail, j->bytes + at, sizeof(tail));
        at -= ((size_t)tail[1] + 7) & ~(size_t)7;
        memcpy(copy + at, (const void *)(uintptr_t)tail[0], (size_t)tail[1]);
    }
    return copy;
}

static void put_new_values(const unsigned char *copy, size_t at)
{
    while (at > 0) {
        uint64_t tail[2];

        at -= sizeof(tail);
        memcpy(tail, copy + at, sizeof(tail));
        at -= ((size_t)tail[1] + 7) & ~(size_t)7;
        memcpy((void *)(uintptr_t)tail[0], copy + at, (size_t)tail[1]);
    }
}

void region_proof_commit(struct region *r)
{
    struct region_proof *pr = r->proof;
    size_t n =
        atomic_load_explicit(&r->head->journal.n_bytes, memory_order_relaxed);
    unsigned char *new_values = copy_new_values(r, n);

    for (uint32_t i = 0; i < r->head->n_ranges; i++)
        copy_range(r, i, &pr->after[i]);
    (void)region_rollback(r);
    for (uint32_t i = 0; i < r->head->n_ranges; i++)
        compare_range(r, i);
    put_new_values(new_values, n);
    free(new_values);
    for (uint32_t i = 0; i < r->head->n_ranges; i++) {
        memcpy(region_base(r, i), pr->after[i], region_committed(r, i));
        copy_range(r, i, &pr->before[i]);
        pr->n_bytes[i] = region_committed(r, i);
    }
    pr->n_fresh = 0;
}

void region_prove(struct region *r)
{
    REQUIRE(region_clean(r) && r->proof == NULL);
    r->proof = must(calloc(1, sizeof(*r->proof)));
    for (uint32_t i = 0; i < r->head->n_ranges; i++) {
        copy_range(r, i, &r->proof->before[i]);
        r->proof->n_bytes[i] = region_committed(r, i);
    }
}

static void free_proof(struct region_proof *pr)
{
    if (pr == NULL)
        return;
    for (uint32_t i = 0; i < REGION_MAX_RANGES; i++) {
        free(pr->before[i]);
        free(pr->after[i]);
    }
    free(pr->fresh);
    free(pr);
}

void region_close(struct region *r)
{
    if (r->head == NULL)
        return;
    free_proof(r->proof);
    r->proof = NULL;
    munmap(r->head, r->map_bytes);
    close(r->fd);
    r->head = NULL;
    r->fd = -1;
}
