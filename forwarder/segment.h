/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segment files of the payload store: the format and nothing else.
 *
 *   segment = head record*        all numbers little-endian
 *   head    = magic[8] version:4 n_head_bytes:4 life:8 created_s:8 check:8
 *   record  = magic:4 state:4 check:8 order:8 n_bytes:4 n_raw_bytes:4
 *             n_index_bytes:4 kind:1 encoding:1 flags:2 samples:8 points:8
 *             events:8 checks:8 newest_s:8 body index pad
 *
 * pad is zeros up to a multiple of 8. A check is XXH3 (64 bits): the head's over
 * all before it, a record's over all behind it, body and index included. Only the
 * state lies outside of both, so that it can change in place by one write of 4
 * bytes. docs/store.md says the same for people.
 *
 * Thread:  pure functions.
 * Memory:  none but the caller's.
 * Promise: total: any bytes are read as what they are, or named as what is wrong
 *          with them. No key and no host of an intake is ever part of a segment.
 */
#ifndef RETRIEVER_FORWARDER_SEGMENT_H
#define RETRIEVER_FORWARDER_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "forwarder/store.h"

#define SEGMENT_VERSION 1u
#define SEGMENT_HEAD_BYTES 40u
#define SEGMENT_RECORD_BYTES 80u /* before the body */
#define SEGMENT_STATE_AT 4u      /* of the state within a record */
/** No body and no index is longer; lengths beyond are damage. */
#define SEGMENT_MAX_BODY_BYTES (64u << 20)
/** No payload carries more of anything: sums of any number of them hold. */
#define SEGMENT_MAX_LOAD (UINT64_C(1) << 40)

enum segment_rc {
    SEGMENT_FOREIGN = 1, /* not one of ours */
    SEGMENT_NEWER,       /* ours, of a version that this one cannot read */
    SEGMENT_DAMAGED,
    SEGMENT_SHORT /* ends before what it announces */
};

struct segment_head {
    uint64_t life; /* of who wrote it: random, one per life of a keeper */
    int64_t created_s;
};

/* What the state word says; every other value reads as maybe_sent: rather twice
 * than not at all. */
enum record_state {
    RECORD_FROZEN = 1,
    RECORD_MAYBE_SENT = 2,
    RECORD_SETTLED = 3
};

#define RECORD_RESTORED 1u /* flag: came from a life before the writer's */

struct segment_record {
    enum record_state state;
    uint64_t check;
    uint64_t order;
    uint32_t n_bytes, n_raw_bytes, n_index_bytes;
    enum payload_kind kind;
    enum payload_encoding encoding;
    uint16_t flags;
    struct payload_load load;
    int64_t newest_s; /* see struct payload_draft */
};

void segment_head_write(unsigned char to[SEGMENT_HEAD_BYTES],
                        const struct segment_head *h);

/** @n bytes of a file's beginning. Returns 0 or an enum segment_rc. */
int segment_head_read(struct segment_head *h, const unsigned char *p, size_t n);

/** The record's head; its check is computed from @body and @index (of @r's
 *  lengths) and also left in @r. */
void segment_record_write(unsigned char to[SEGMENT_RECORD_BYTES],
                          struct segment_record *r, const void *body,
                          const void *index);

/** A record's head, @left bytes before the end of the file. Returns 0 (body and
 *  index are there, not checked), SEGMENT_SHORT or SEGMENT_DAMAGED. */
int segment_record_read(struct segment_record *r, const unsigned char *p,
                        uint64_t left);

/** Bytes from the record's head to the next one's. */
uint64_t segment_record_size(const struct segment_record *r);

/** A running check of a record: its head, then body and index in any pieces. */
struct segment_check;                             /* opaque */
struct segment_check *segment_check_create(void); /* NULL: no memory */
void segment_check_begin(struct segment_check *c,
                         const unsigned char head[SEGMENT_RECORD_BYTES]);
void segment_check_add(struct segment_check *c, const void *p, size_t n);
uint64_t segment_check_end(const struct segment_check *c);
void segment_check_free(struct segment_check *c);

/** The state word's bytes. */
void segment_state_write(unsigned char to[4], enum record_state s);

#endif
