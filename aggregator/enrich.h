/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From what a client wrote to what is sent: host and internal tags taken out,
 * configured tags added, invalid UTF-8 replaced, the intake's limits applied.
 *
 * Thread:  the reader.
 * Memory:  one scratch allocated at start; results borrow from it and from the
 *          packet until the next call.
 * Promise: tags come out sorted, unique, not empty, at most ENRICH_MAX_TAGS of
 *          at most ENRICH_MAX_TAG_BYTES; what was cut or replaced is counted.
 */
#ifndef RETRIEVER_AGGREGATOR_ENRICH_H
#define RETRIEVER_AGGREGATOR_ENRICH_H

#include "aggregator/layout.h"

#define ENRICH_MAX_TAGS 100
#define ENRICH_MAX_TAG_BYTES 200
#define ENRICH_MAX_HOST_BYTES 255
#define ENRICH_MAX_NAME_BYTES 350

struct enriched {
    struct view name;
    struct view host;
    const struct view *tags;
    uint32_t n_tags;
    /* From tag_memo.h: blobs that hold tags and host already; tagset 0: none. */
    uint32_t tagset, host_ref;
    bool was_mended; /* something was cut or replaced, and counted */
};

/** 0 or -ENOMEM. */
int enrich_init(struct agg *a);
void enrich_fini(struct agg *a);

/** Forget the texts of earlier calls: once per line. */
void enrich_begin(struct agg *a);

/** Client tags @raw and configured tags to out->tags and out->host. */
void enrich_tags(struct agg *a, struct enriched *out, struct view raw);

/** Name with its prefixes to out->name. @copy: as the distribution copy of a
 *  histogram. false: the intake would refuse it (DSD_NAME). */
bool enrich_name(struct agg *a, struct enriched *out, struct view raw,
                 bool copy, uint32_t suffix_bytes);

/** Valid UTF-8 of at most @max bytes: @raw itself, or a copy. */
struct view enrich_text(struct agg *a, struct view raw, uint32_t max,
                        uint64_t *cut_counter);

#endif
