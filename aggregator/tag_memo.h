/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tags of clients were made into, by how they were spelled: most contexts
 * share theirs with others, whose first sights then need not split, clean, sort,
 * normalise and intern them again.
 *
 * Thread:  the reader.
 * Memory:  8 KiB of the process; nothing of it is state.
 * Promise: a hit is what enrich_tags() and intern_ref() would give now, and nothing
 *          would have been counted: what was cut or replaced is never kept.
 */
#ifndef RETRIEVER_AGGREGATOR_TAG_MEMO_H
#define RETRIEVER_AGGREGATOR_TAG_MEMO_H

#include "aggregator/enrich.h"
#include "aggregator/hash.h"
#include "aggregator/layout.h"

/** 0 or -ENOMEM. */
int tag_memo_init(struct agg *a);
void tag_memo_fini(struct agg *a);

/** As enrich_tags(), or by what is known of the same: then out->tagset and
 *  out->host_ref are the blobs, which are not counted yet, and there is no
 *  out->tags. *key is for tag_memo_keep(). */
void tag_memo_enrich(struct agg *a, struct enriched *out, struct view raw,
                     struct hash128 *key);

/** The tags of @e and its host are these blobs, which somebody holds. */
void tag_memo_keep(struct agg *a, const struct enriched *e, struct hash128 key,
                   uint32_t tagset, uint32_t host);

#endif
