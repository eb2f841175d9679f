/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which files of a process need a probe: its C library, or itself when it is static.
 * Found by exec, not by watching files being opened, which would cost every system
 * call of the host.
 *
 * Thread:  the helper thread.
 * Memory:  a table of programs seen, fixed.
 * Promise: a process that is gone, or that we may not look at, is no error.
 */
#ifndef RETRIEVER_BPF_ENV_DISCOVER_H
#define RETRIEVER_BPF_ENV_DISCOVER_H

#include "bpf/env_attach.h"

struct discover;

/** Both are borrowed. 0 or -ENOMEM. */
int discover_create(struct discover **out, struct images *images,
                    struct attach *attach);
void discover_close(struct discover *d);

enum discover_flags {
    DISCOVER_MADE = 1, /* something was attached just now: a look at the process
                            tells what it did before */
    DISCOVER_STATIC = 2, /* no need to look at its mappings */
    DISCOVER_SEEN = 4    /* an ordinary program, known already: what it needs is
                            attached, and stays so */
};

/** From the program alone, before its loader has mapped anything. */
unsigned discover_exec(struct discover *d, uint32_t pid);

/** From what is mapped. */
unsigned discover_maps(struct discover *d, uint32_t pid);

/** Programs seen may be different by now. */
void discover_forget(struct discover *d);

#endif
