/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's part of env_attach.h: the program (env.bpf.c), and what links it to
 * one file.
 *
 * Thread:  the helper thread.
 * Memory:  the program, once; for each file one descriptor, or a link for each
 *          function and direction.
 * Promise: a refusal leaves what is loaded as it is, and nothing that
 *          attach_unlink() does not remove.
 */
#ifndef RETRIEVER_BPF_ENV_ATTACH_LINK_H
#define RETRIEVER_BPF_ENV_ATTACH_LINK_H

#include "bpf/env_attach.h"

#define ATTACH_MAX_LINKS (2 * ENV_N_FUNCTIONS)

struct bpf_link;

/** All zero: nothing is loaded. */
struct attach_linker {
    struct bpf_object *object;
    enum attach_mode mode;
    struct loader_cause cause; /* of the last attach_link() that failed */
};

/** No file: .multi_fd = -1, all else zero. */
struct attach_links {
    int multi_fd;                            /* ATTACH_MULTI */
    struct bpf_link *perf[ATTACH_MAX_LINKS]; /* the other modes */
};

/** Load the first mode from @mode on that the kernel takes, instead of what is
 *  loaded. @types: as for loader_open(). Returns 0, LOADER_REFUSED (@cause filled)
 *  or -errno. */
int attach_link_load(struct attach_linker *l, const struct attach_opts *o,
                     enum attach_mode mode, const char *types,
                     struct loader_cause *cause);
void attach_link_unload(struct attach_linker *l);

/** Link the file @fd, which is @im. Returns 0 or -errno, some links perhaps made. */
int attach_link(struct attach_linker *l, struct attach_links *to, int fd,
                const struct image *im);
void attach_unlink(struct attach_links *l);

#endif
