/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring as the kernel would have filled it, in plain memory: its reader only reads
 * words. All records are there from the beginning; what grows is how far they are
 * reserved.
 *
 * It begins shortly before its position leaves 32 bits, which is where its bytes
 * begin anew, too.
 *
 * Thread:  one per process.
 * Memory:  LIVES_RING_BYTES and three pages, shared.
 * Promise: records never change, but in a judge: there, what was given back is
 *          overwritten, as the kernel would.
 */
#ifndef RETRIEVER_TESTS_SUPPORT_LIVES_RING_H
#define RETRIEVER_TESTS_SUPPORT_LIVES_RING_H

#include "agent/landing.h"

#define LIVES_RING_BYTES 32768u
#define LIVES_RING_SOURCES 2u /* UDP, Unix datagrams */

enum lives_record_kind {
    LIVES_END, /* of a list */
    LIVES_UDP,
    LIVES_GRAM,
    LIVES_FOREIGN,   /* to a socket that is none of ours */
    LIVES_WITHDRAWN, /* by its program */
    LIVES_UNFINISHED /* its program never gets on */
};

struct lives_record {
    enum lives_record_kind kind;
    const char *bytes;
    unsigned n_more; /* the same, so many times more */
};

struct lives_ring {
    uint32_t ids[LIVES_RING_SOURCES]; /* of the sockets, by the caller */
    unsigned char *map;
    size_t words_bytes; /* what lies before the records, and changes */
    int fd;
    uint64_t end; /* of all records */
};

/** Make it the ring of @zone, with @now reserved. False: printed. */
bool lives_ring_open(struct lives_ring *f, struct landing *zone,
                     const struct lives_record *now,
                     const struct lives_record *later);
void lives_ring_close(struct lives_ring *f, struct landing *zone);

/** What comes later is there. */
void lives_ring_go_on(struct lives_ring *f);

/** In a judge: records of its own, those overwritten that the reader gave back. */
bool lives_ring_copy(struct lives_ring *f);

#endif
