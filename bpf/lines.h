/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values that the kernel side has measured, as DogStatsD lines: they go the way of
 * every other sample, through the same parser, cells and ledger.
 *
 * Thread:  the helper thread.
 * Memory:  one packet of LINES_PACKET_BYTES, embedded.
 * Promise: a line is never cut: what does not fit a packet begins the next one, and
 *          a line longer than a packet is left out and counted.
 */
#ifndef RETRIEVER_BPF_LINES_H
#define RETRIEVER_BPF_LINES_H

#include <stddef.h>
#include <stdint.h>

#define LINES_PACKET_BYTES 4000u

/** A packet is full: @n bytes of whole lines. Returns when it was taken. */
typedef void lines_take_fn(void *arg, const char *packet, size_t n);

struct lines {
    lines_take_fn *take;
    void *arg;
    char packet[LINES_PACKET_BYTES];
    size_t n;
    uint64_t n_left_out;
};

void lines_init(struct lines *l, lines_take_fn *take, void *arg);

/** @tags: "a:b,c:d", or "". @type: "c", "g" or "d". */
void lines_add(struct lines *l, const char *name, double value,
               const char *type, const char *tags);

/** @count equal values of a distribution; 0 adds nothing. */
void lines_add_many(struct lines *l, const char *name, double value,
                    uint64_t count, const char *tags);

/** Give away what is there. */
void lines_flush(struct lines *l);

/** Copy @in to @out as it may stand in a tag: `,`, `|`, `#` and control characters
 *  become `_`. Cut at @size - 1. Returns @out. */
char *lines_tag(char *out, size_t size, const char *in);

#endif
