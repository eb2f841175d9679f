/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tracepoints of the running kernel: which there are, what they are called with,
 * and putting programs on them. Asked from BTF, never from a version number:
 * distributions move things between versions.
 *
 * Thread:  a helper thread.
 * Memory:  links are libbpf's, until tracepoint_detach().
 * Promise: a kernel without BTF has none.
 */
#ifndef RETRIEVER_BPF_TRACEPOINT_H
#define RETRIEVER_BPF_TRACEPOINT_H

#include "bpf/loader.h"

struct bpf_link;
struct btf;

#define TRACEPOINT_MAX_LINKS 8

struct tracepoint_links {
    struct bpf_link *link[TRACEPOINT_MAX_LINKS];
    size_t n;
};

/** BTF of the running kernel, the caller's to btf__free(); NULL. */
struct btf *tracepoint_btf(void);

/** @btf NULL: has none. */
bool tracepoint_exists(const struct btf *btf, const char *name);

/** Parameter @i of the tracepoint is a pointer to a struct @type. */
bool tracepoint_takes(const struct btf *btf, const char *name, unsigned int i,
                      const char *type);

/** Load program @name of @o, or leave it out; between open and load. */
void tracepoint_want(struct bpf_object *o, const char *name, bool want);

/** Attach each program of @o that was loaded and has a place to go to by itself
 *  (iterators: tracepoint_want() does not matter, they have none). Returns 0 or
 *  LOADER_REFUSED (@cause filled; nothing stays attached). */
int tracepoint_attach(struct tracepoint_links *l, struct bpf_object *o,
                      struct loader_cause *cause);

/** Detach all; fine when there is none. */
void tracepoint_detach(struct tracepoint_links *l);

#endif
