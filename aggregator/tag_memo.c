/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct-mapped. An entry is good until any blob is let go, which seldom happens but
 * between buckets: it needs no holder of its own, whose count a kill would leave
 * behind.
 */
#include "aggregator/tag_memo.h"

#include <errno.h>
#include <stdlib.h>

#include "aggregator/dsd_ahead.h"
#include "aggregator/intern.h"

#define N_ENTRIES 256u

struct entry {
    struct hash128 key;
    uint64_t n_dropped; /* a->n_dropped then */
    uint32_t tagset;    /* 0 = none */
    uint32_t host;
};

struct tag_memo {
    struct entry entries[N_ENTRIES];
};

static struct entry *entry_of(const struct agg *a, struct hash128 key)
{
    return &a->tag_memo->entries[key.lo % N_ENTRIES];
}

int tag_memo_init(struct agg *a)
{
    a->tag_memo = calloc(1, sizeof(*a->tag_memo));
    return a->tag_memo != NULL ? 0 : -ENOMEM;
}

void tag_memo_fini(struct agg *a)
{
    free(a->tag_memo);
    a->tag_memo = NULL;
}

static uint64_t n_mended(const struct agg *a)
{
    const struct ingest_counts *k = &a->head->counts;

    return k->bad_utf8 + k->clipped_tags + k->clipped_hosts;
}

static bool is_good(const struct agg *a, const struct entry *e,
                    struct hash128 key)
{
    return e->tagset != 0 && e->n_dropped == a->n_dropped &&
           e->key.lo == key.lo && e->key.hi == key.hi;
}

void tag_memo_enrich(struct agg *a, struct enriched *out, struct view raw,
                     struct hash128 *key)
{
    static const struct view no_name = {"", 0};
    uint64_t before = n_mended(a);
    const struct entry *e;

    /* The origin's tags count, too: see agg_set_origin(). */
    *key = a->form->hash(&a->spelling, no_name, raw, 0);
    e = entry_of(a, *key);
    if (is_good(a, e, *key)) {
        out->tags = NULL;
        out->n_tags = 0;
        out->tagset = e->tagset;
        out->host = intern_view(a, e->host);
        out->host_ref = e->host;
        return;
    }
    enrich_tags(a, out, raw);
    out->was_mended = n_mended(a) != before;
}

void tag_memo_keep(struct agg *a, const struct enriched *e, struct hash128 key,
                   uint32_t tagset, uint32_t host)
{
    if (e->tagset != 0 || e->was_mended)
        return;
    *entry_of(a, key) = (struct entry){key, a->n_dropped, tagset, host};
}
