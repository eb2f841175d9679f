/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads protobuf bytes field by field, for the stand-in intake: the opposite
 * of the forwarder's writer and written apart from it, so that the two check
 * each other.
 *
 * Thread:  any; a reader is a plain value.
 * Memory:  none; views point into the caller's bytes.
 * Promise: total for any bytes: never reads outside, never loops without
 *          consuming. Whatever is taken protobuf's own reader takes. Not the
 *          reverse: groups (wire types 3 and 4) and varints of more than 64 bits,
 *          which no writer makes, are refused, too.
 */
#ifndef RETRIEVER_AGENT_PBREAD_H
#define RETRIEVER_AGENT_PBREAD_H

#include <stddef.h>
#include <stdint.h>

struct pbread {
    const uint8_t *p;
    const uint8_t *end;
};

enum pbread_wire {
    PBREAD_VARINT = 0,
    PBREAD_FIXED64 = 1,
    PBREAD_BYTES = 2,
    PBREAD_FIXED32 = 5
};

struct pbread_field {
    uint32_t number;
    enum pbread_wire wire;
    uint64_t value;       /* PBREAD_VARINT, PBREAD_FIXED64, PBREAD_FIXED32 */
    const uint8_t *bytes; /* PBREAD_BYTES: view, valid as long as the input */
    size_t n_bytes;
};

enum pbread_rc { PBREAD_END = 1, PBREAD_BAD };

/** Read over @n bytes at @p (borrowed). */
void pbread_init(struct pbread *r, const uint8_t *p, size_t n);

/** Next field. Returns 0, PBREAD_END behind the last one, or PBREAD_BAD when
 *  the rest is not protobuf. */
int pbread_next(struct pbread *r, struct pbread_field *f);

/** Next element of a packed list of varints. Results as pbread_next(). */
int pbread_varint(struct pbread *r, uint64_t *v);

/** The value of a field of type double (PBREAD_FIXED64). */
double pbread_double(uint64_t bits);

/** The value of a field of type sint32 or sint64. */
int64_t pbread_zigzag(uint64_t v);

#endif
