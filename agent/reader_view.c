/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What others see of the ingest side, whole: a snapshot published once a turn under
 * a sequence lock. So the words that change with each sample stay plain ones, and
 * nobody waits for the reader or makes it wait.
 */
#include "agent/reader_private.h"

_Static_assert(sizeof(struct reader_view) % sizeof(uint64_t) == 0,
               "copied in words");

void reader_view_of(const struct agg *agg, struct reader_view *out)
{
    out->counts = *agg_counts(agg);
    agg_stats(agg, &out->agg);
    out->closed_seq = agg_last_closed(agg);
}

/* Once a turn: the words that change with each sample stay plain ones. Release
 * and acquire on each word stand for the fences of a sequence lock, and cost
 * nothing. */
void reader_publish(struct reader *r)
{
    uint32_t turn = atomic_load_explicit(&r->view_turn, memory_order_relaxed);
    uint64_t words[READER_VIEW_WORDS];
    struct reader_view v;

    memset(&v, 0, sizeof(v));
    reader_view_of(r->agg, &v);
    memcpy(words, &v, sizeof(v));
    atomic_store_explicit(&r->view_turn, turn + 1, memory_order_relaxed);
    for (size_t i = 0; i < READER_VIEW_WORDS; i++)
        atomic_store_explicit(&r->view[i], words[i], memory_order_release);
    atomic_store_explicit(&r->view_turn, turn + 2, memory_order_release);
}

void reader_view(const struct reader *r, struct reader_view *out)
{
    uint64_t words[READER_VIEW_WORDS];
    uint32_t turn;

    do {
        turn = atomic_load_explicit(&r->view_turn, memory_order_acquire);
        for (size_t i = 0; i < READER_VIEW_WORDS; i++)
            words[i] = atomic_load_explicit(&r->view[i], memory_order_acquire);
    } while (turn % 2 != 0 ||
             turn != atomic_load_explicit(&r->view_turn, memory_order_relaxed));
    memcpy(out, words, sizeof(*out));
}
