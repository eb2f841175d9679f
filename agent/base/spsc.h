/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring of fixed-size records between two threads: one puts, one takes.
 *
 * Thread:  spsc_push() by one thread, spsc_pop() by one thread; spsc_n() by any.
 * Memory:  the caller's, n_records * record_bytes; nothing is allocated.
 * Promise: no lock and no wait on either side; records arrive whole and in
 *          order; a full ring refuses and the caller keeps its record.
 */
#ifndef RETRIEVER_AGENT_BASE_SPSC_H
#define RETRIEVER_AGENT_BASE_SPSC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "agent/base/contract.h"

struct spsc {
    unsigned char *records;
    size_t mask; /* n_records - 1 */
    size_t record_bytes;
    /* Each side writes a line of its own. Positions run on and wrap around with
     * size_t; their difference is the number of records. */
    _Alignas(64) _Atomic size_t pushed;
    _Alignas(64) _Atomic size_t popped;
};

/** @mem holds @n_records (a power of two) records of @record_bytes and stays the
 *  caller's; both threads must see the initialised ring before they start. */
static inline void spsc_init(struct spsc *s, void *mem, size_t n_records,
                             size_t record_bytes)
{
    REQUIRE(n_records > 0 && (n_records & (n_records - 1)) == 0);
    s->records = (unsigned char *)mem;
    s->mask = n_records - 1;
    s->record_bytes = record_bytes;
    atomic_init(&s->pushed, 0);
    atomic_init(&s->popped, 0);
}

/** Copy in @n records that lie behind one another: who finds the first finds all.
 *  False: there is not room for all, nothing happened. */
static inline bool spsc_push_n(struct spsc *s, const void *records, size_t n)
{
    size_t at = atomic_load_explicit(&s->pushed, memory_order_relaxed);
    size_t used = at - atomic_load_explicit(&s->popped, memory_order_acquire);

    if (used + n > s->mask + 1)
        return false;
    for (size_t i = 0; i < n; i++)
        memcpy(s->records + ((at + i) & s->mask) * s->record_bytes,
               (const unsigned char *)records + i * s->record_bytes,
               s->record_bytes);
    atomic_store_explicit(&s->pushed, at + n, memory_order_release);
    return true;
}

/** Copy one record in. False: the ring is full, nothing happened. */
static inline bool spsc_push(struct spsc *s, const void *record)
{
    return spsc_push_n(s, record, 1);
}

/** Copy the oldest record out. False: the ring is empty, @record untouched. */
static inline bool spsc_pop(struct spsc *s, void *record)
{
    size_t at = atomic_load_explicit(&s->popped, memory_order_relaxed);

    if (at == atomic_load_explicit(&s->pushed, memory_order_acquire))
        return false;
    memcpy(record, s->records + (at & s->mask) * s->record_bytes,
           s->record_bytes);
    atomic_store_explicit(&s->popped, at + 1, memory_order_release);
    return true;
}

/** Records inside; exact only when one side is at rest. */
static inline size_t spsc_n(const struct spsc *s)
{
    size_t popped = atomic_load_explicit(&s->popped, memory_order_acquire);

    return atomic_load_explicit(&s->pushed, memory_order_acquire) - popped;
}

#endif
