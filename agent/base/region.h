/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that outlives the worker: a memfd that the keeper maps and every worker
 * inherits at the same address, and the journal that makes changes to it
 * transactions.
 *
 * A kill is not a power loss: all stores that the killed thread retired are seen
 * by its successor, in program order. So a compiler barrier orders the journal,
 * one store commits, and nothing is flushed, fenced or checksummed.
 *
 *   region_save(r, p, n);   copy the old bytes aside, then
 *   *p = ...;               change them in place;
 *   region_commit(r);       one store: the journal is empty again.
 *
 * A successor calls region_rollback() first: the saved bytes go back, newest
 * first, and the region is what it was at the last commit. Bytes that nothing
 * committed points to yet (appended data, tables built aside) need no save.
 *
 * Thread:  exactly one writer per region. Readers on other threads read only
 *          what was handed over to them after a commit.
 * Memory:  address space is reserved at creation; pages come in steps as ranges
 *          grow, never beyond budget_bytes in all. Absolute pointers into a region
 *          are valid in every process forked from its creator.
 * Promise: after a kill at any instruction and region_rollback(), the region
 *          equals its last committed state, except for bytes nothing refers to.
 */
#ifndef RETRIEVER_AGENT_BASE_REGION_H
#define RETRIEVER_AGENT_BASE_REGION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "agent/base/contract.h"

#define REGION_MAX_RANGES 16
#define REGION_JOURNAL_BYTES (256u * 1024)

/* One growable array of the region. In shared memory. */
struct region_range {
    unsigned char *base;
    size_t reserved_bytes;  /* address space */
    size_t committed_bytes; /* pages that exist; the rest must not be touched */
};

struct region_journal {
    _Atomic size_t n_bytes; /* the commit word: 0 = nothing to roll back */
    unsigned char bytes[REGION_JOURNAL_BYTES];
};

/* First pages of the memfd. */
struct region_head {
    uint64_t magic;
    char build[48]; /* program version and layout name */
    size_t budget_bytes;
    size_t committed_bytes; /* of all ranges */
    uint32_t n_ranges;
    struct region_range ranges[REGION_MAX_RANGES];
    struct region_journal journal;
};

struct region_proof;

/* The process's handle; plain data that fork copies. */
struct region {
    struct region_head *head;
    size_t map_bytes;
    int fd;
    struct region_proof *proof;   /* tests only: see region_prove() */
    const unsigned char *outside; /* see region_allow() */
    size_t n_outside;
};

enum region_rc { REGION_FULL = 1 };

struct region_opts {
    const char *name;      /* of the memfd, and part of the build check */
    size_t budget_bytes;   /* pages in all ranges together */
    const size_t *reserve; /* address space per range; n_ranges of them */
    uint32_t n_ranges;
};

/** Create and map; every range starts empty and zeroed. Returns 0 or -errno. */
int region_create(struct region *r, const struct region_opts *opts);

/** Unmap and close. The memory goes when the last process has done so. */
void region_close(struct region *r);

/** Make at least @need_bytes of @range usable (zero when new). Never inside a
 *  transaction. Returns 0, REGION_FULL (budget or address space: fold and count)
 *  or -errno of the kernel's refusal. */
int region_grow(struct region *r, unsigned range, size_t need_bytes);

/** Give back all pages of @range beyond @keep_bytes; they read as zero after
 *  the next region_grow(). Nothing committed may refer to them. */
void region_shrink(struct region *r, unsigned range, size_t keep_bytes);

/** Saves may also name these @n bytes outside the region (a landing zone).
 *  Without this call they may name any address. */
void region_allow(struct region *r, const void *p, size_t n);

/** Undo what was not committed. Returns 0, or -EBADMSG: the journal itself was
 *  scribbled over by the writer that died. What could be undone, newest first, was;
 *  the journal is empty; the region must be checked by whoever attaches next. No
 *  address that the journal names is written outside the region and what
 *  region_allow() added. */
int region_rollback(struct region *r);

static inline void *region_base(const struct region *r, unsigned range)
{
    return r->head->ranges[range].base;
}

static inline size_t region_committed(const struct region *r, unsigned range)
{
    return r->head->ranges[range].committed_bytes;
}

/** Nothing is saved since the last commit. */
static inline bool region_clean(const struct region *r)
{
    return atomic_load_explicit(&r->head->journal.n_bytes,
                                memory_order_relaxed) == 0;
}

/** Room left for saves, in bytes; each save takes n rounded up to 8, plus 16. */
static inline size_t region_room(const struct region *r)
{
    return REGION_JOURNAL_BYTES -
           atomic_load_explicit(&r->head->journal.n_bytes,
                                memory_order_relaxed);
}

/** Copy the old bytes at @p aside before they are changed in place. @p may lie
 *  in any memory shared between the workers, not only in @r. */
static inline void region_save(struct region *r, const void *p, size_t n)
{
    struct region_journal *j = &r->head->journal;
    size_t at = atomic_load_explicit(&j->n_bytes, memory_order_relaxed);
    size_t padded = (n + 7) & ~(size_t)7;
    uint64_t tail[2] = {(uint64_t)(uintptr_t)p, n};

    REQUIRE(n > 0 && at + padded + sizeof(tail) <= REGION_JOURNAL_BYTES);
    memcpy(j->bytes + at, p, n);
    memcpy(j->bytes + at + padded, tail, sizeof(tail));
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&j->n_bytes, at + padded + sizeof(tail),
                          memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
}

/** Saves for which there is room, one behind the other: for a loop in which each
 *  instruction counts. Between two of them nothing else is saved or committed. */
struct region_saves {
    struct region_journal *journal;
    size_t at;
};

/** Of at most @n saves of @n_bytes each, a multiple of 8, and no other. */
static inline struct region_saves region_saves_of(const struct region *r,
                                                  size_t n, size_t n_bytes)
{
    struct region_journal *j = &r->head->journal;

    REQUIRE(n_bytes > 0 && n_bytes % 8 == 0 &&
            n * (n_bytes + 16) <= region_room(r));
    return (struct region_saves){j, atomic_load_explicit(&j->n_bytes,
                                                         memory_order_relaxed)};
}

/** As region_save(). */
static inline void region_save_next(struct region_saves *s, const void *p,
                                    size_t n)
{
    struct region_journal *j = s->journal;
    uint64_t tail[2] = {(uint64_t)(uintptr_t)p, n};

    memcpy(j->bytes + s->at, p, n);
    memcpy(j->bytes + s->at + n, tail, sizeof(tail));
    s->at += n + sizeof(tail);
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&j->n_bytes, s->at, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
}

/** Save and set one scalar. */
#define region_set(r, lvalue, value)                                           \
    do {                                                                       \
        region_save((r), &(lvalue), sizeof(lvalue));                           \
        (lvalue) = (value);                                                    \
    } while (0)

void region_proof_commit(struct region *r);
void region_proof_fresh(struct region *r, const void *p, size_t n);

/** The transaction is whole: one store. */
static inline void region_commit(struct region *r)
{
    if (__builtin_expect(r->proof != NULL, 0))
        region_proof_commit(r);
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&r->head->journal.n_bytes, 0, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
}

/** These bytes are about to be written without a save because nothing committed
 *  refers to them. Costs a test of one pointer; only proofs look at it. */
static inline void region_fresh(struct region *r, const void *p, size_t n)
{
    if (__builtin_expect(r->proof != NULL, 0))
        region_proof_fresh(r, p, n);
}

/** Tests: from now on each commit first rolls its own transaction back, compares
 *  the region with the last committed state byte by byte (fresh bytes aside),
 *  aborts with the range and offset when they differ, and only then commits. A
 *  forgotten save fails at once. Single-threaded use only. */
void region_prove(struct region *r);

#endif
