/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One payload body that grows item by item until a limit is near. Used by
 * encoder.c alone.
 *
 * Thread:  the encoder's.
 * Memory:  raw bytes and output, both of the largest body, from body_init() to
 *          body_fini(); pages are touched only as far as they are used.
 * Promise: an item that body_accept() took never makes the body exceed a limit:
 *          the compressed size is bounded before it is known.
 */
#ifndef RETRIEVER_FORWARDER_ENCODE_BODY_H
#define RETRIEVER_FORWARDER_ENCODE_BODY_H

#include "agent/base/buf.h"
#include "forwarder/compress.h"
#include "forwarder/encode.h"
#include "forwarder/pbwrite.h"
#include "forwarder/split.h"

struct body {
    struct compressor *compressor;
    unsigned char *raw;
    unsigned char *out;
    size_t cap; /* of raw */
    int level;
    bool open;
    enum payload_kind kind;
    struct encode_limits limits;
    struct pbwrite w; /* into raw */
    bool too_small;   /* not even the head fits: no item ever does */
    size_t n_fed;     /* bytes of raw that the compressor has */
    size_t item_at;   /* where the item under way began */
    struct buf tail;
    size_t n_sep_bytes;
    uint64_t n_items;
    struct payload_load load;
    struct split_index index;
};

/** @limits: of all kinds. Returns 0 or -ENOMEM. */
int body_init(struct body *b, enum payload_encoding encoding, int level,
              const struct encode_limits limits[PAYLOAD_N_KINDS]);
void body_fini(struct body *b);

/** Start an empty body: @head, then items with @n_sep bytes of comma between
 *  them, then what the caller put into b->tail. Returns 0 or -ENOMEM. */
int body_open(struct body *b, enum payload_kind kind,
              const struct encode_limits *limits, struct view head,
              size_t n_sep);

/** The caller writes one item to the returned writer, then accepts it. */
struct pbwrite *body_item(struct body *b);

/** The item under way stays if the body still fits with it. Returns 0, BODY_FULL
 *  (it is taken back) or -ENOMEM. In an empty body BODY_FULL means: too large for
 *  any. */
enum body_rc { BODY_FULL = 1 };
int body_accept(struct body *b, const struct payload_load *load);

/** Nothing more: compress the rest. The body lies in b->out; its size goes to
 *  *n_bytes, the one before compression to *n_raw_bytes. Returns 0 or -ENOMEM. */
int body_finish(struct body *b, uint32_t *n_bytes, uint32_t *n_raw_bytes);

#endif
