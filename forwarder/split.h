/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index behind each body in its block, and what it is for: cutting a payload
 * in two between items without knowing its format.
 *
 *   index = head tail sep n_groups { items raw samples points } * n_groups
 *
 * all of them unsigned LEB128 varints. The raw body is @head bytes, the items
 * with @sep bytes between each two, @tail bytes. A group is a run of whole items;
 * its raw bytes count the separator before each item but the body's first. A
 * group holds one item until the body has more than SPLIT_MAX_GROUPS.
 *
 * Thread:  pure functions.
 * Memory:  the index is of fixed size whatever the body; split_body() takes the
 *          raw body and the two halves from the heap and gives the first back.
 * Promise: the loads of the halves add up to the load of the whole, or nothing
 *          is split.
 */
#ifndef RETRIEVER_FORWARDER_SPLIT_H
#define RETRIEVER_FORWARDER_SPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "forwarder/store.h"

#define SPLIT_MAX_GROUPS 256
/* Of one index as written. */
#define SPLIT_MAX_INDEX_BYTES ((SPLIT_MAX_GROUPS + 1) * 4 * 10)

struct split_group {
    uint64_t n_items, n_raw_bytes, n_samples, n_points;
};

struct split_index {
    uint32_t n_head_bytes, n_tail_bytes, n_sep_bytes;
    uint32_t n_groups;
    uint64_t n_per_group; /* items in each group but the last; a power of two */
    struct split_group groups[SPLIT_MAX_GROUPS];
};

/** An empty body. */
void split_index_init(struct split_index *x, uint32_t n_head_bytes,
                      uint32_t n_sep_bytes, uint32_t n_tail_bytes);

/** One more item of @n_raw_bytes, separator before it included. */
void split_index_add(struct split_index *x, size_t n_raw_bytes,
                     uint64_t n_samples, uint64_t n_points);

/** Returns the bytes written to @to (room for SPLIT_MAX_INDEX_BYTES). */
size_t split_index_write(const struct split_index *x, unsigned char *to);

/** Total: false for anything that no split_index_write() wrote. */
bool split_index_read(struct split_index *x, const unsigned char *p, size_t n);

struct split_half {
    unsigned char *bytes; /* body, then index; from the heap */
    uint32_t n_bytes, n_raw_bytes, n_index_bytes;
    struct payload_load load;
};

/** Cut @p, whose body is followed by @n_index_bytes of index, nearest the middle.
 *  Returns 0 and both halves (each to be given to split_half_fini()), -ENOMEM,
 *  -EBADMSG (body and index do not agree) or SPLIT_ONE_GROUP. */
enum split_rc { SPLIT_ONE_GROUP = 1 };
int split_body(const struct payload *p, uint32_t n_index_bytes,
               struct split_half out[2]);
void split_half_fini(struct split_half *h);

#endif
