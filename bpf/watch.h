/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The environment variables that are watched, and the tag that each becomes.
 * CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER are always the first two; they have
 * tags of their own (cuda.h).
 *
 * Thread:  any; filled once, then read.
 * Memory:  embedded.
 * Promise: pure. No variable that is not in here is ever kept anywhere.
 */
#ifndef RETRIEVER_BPF_WATCH_H
#define RETRIEVER_BPF_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/events.h"

#define WATCH_TAG_BYTES 64u

enum watch_always { WATCH_CUDA, WATCH_CUDA_ORDER, WATCH_FIRST_OWN };

struct watch {
    uint32_t n;
    struct watch_name {
        char name[ENV_NAME_BYTES]; /* zeroes behind it */
        uint32_t n_name;
        char tag[WATCH_TAG_BYTES];
    } v[ENV_MAX_NAMES];
};

enum watch_rc {
    WATCH_NAME_EMPTY = 1,
    WATCH_NAME_LONG,   /* more than 31 bytes */
    WATCH_NAME_EQUALS, /* contains `=`, or a byte that is no text */
    WATCH_TAG_BAD, /* empty, too long, or contains what no key of a tag may */
    WATCH_TWICE,   /* or one of those that are always watched */
    WATCH_FULL     /* more than 8 */
};

void watch_init(struct watch *w);

/** Watch @name and make it the tag @tag. Returns 0 or enum watch_rc; then nothing is
 *  added. */
int watch_add(struct watch *w, const char *name, const char *tag);

/** An item of a list in the configuration: "NAME:tag", or "NAME", whose tag is the
 *  name in lower case. NULL: added, else what is wrong. */
const char *watch_item(struct watch *w, const char *item);

/** Words for enum watch_rc. */
const char *watch_words(int rc);

/** Which one an entry of an environment, "NAME=value" of @n bytes without its NUL,
 *  is; its value begins at .n_name + 1. -1: none. */
int watch_find(const struct watch *w, const char *entry, size_t n);

#endif
