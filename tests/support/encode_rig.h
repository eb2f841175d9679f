/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The encoder over a store of its own, fed with items that a test made, and an
 * independent decoder of what comes out (tests/support/decode_payload.py, run as a
 * process of its own).
 *
 * Thread:  one.
 * Memory:  a region for the store, until encode_rig_close().
 * Promise: the decoder shares no code with the encoder.
 */
#ifndef RETRIEVER_TESTS_SUPPORT_ENCODE_RIG_H
#define RETRIEVER_TESTS_SUPPORT_ENCODE_RIG_H

#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "forwarder/encode.h"

#define V(s) ((struct view){s, sizeof(s) - 1})
#define TS 1600000000

/** Stands for a part: an array of items. */
struct part_iter {
    const struct flush_item *items;
    size_t n, at;
    size_t enomem_at; /* 1-based; 0 = never */
};

struct encode_rig {
    struct region r;
    struct store *s;
    struct encoder *e;
    struct encode_config cfg;
    struct encode_result result;
};

void encode_rig_open(struct encode_rig *f, size_t max_bytes);
void encode_rig_close(struct encode_rig *f);

/** A new encoder over @n items, into f->result. Results of encoder_run(). */
int encode_rig_run(struct encode_rig *f, const struct flush_item *items,
                   size_t n);

/** Body of draft @i of the result. */
const unsigned char *encode_rig_body(struct encode_rig *f, size_t i);

/** Samples of all drafts and losses. */
uint64_t encode_rig_samples(const struct encode_result *r);

/** What the decoder prints about the body of draft @i, behind what is in @out. */
void encode_rig_decode(struct encode_rig *f, size_t i, struct buf *out);

/** The rate "a.b" of host "h1" over 10 s, of one sample; the arrays are borrowed. */
struct flush_item encode_rig_rate(const struct view *tags, uint32_t n_tags,
                                  const struct flush_point *points, uint32_t n);

#endif
