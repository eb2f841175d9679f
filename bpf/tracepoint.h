/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Putting the programs of an object on their tracepoints, and taking them off.
 *
 * Thread:  a helper thread.
 * Memory:  links are libbpf's, until tracepoint_detach().
 * Promise: all of an object's programs are attached, or none.
 */
#ifndef RETRIEVER_BPF_TRACEPOINT_H
#define RETRIEVER_BPF_TRACEPOINT_H

#include "bpf/loader.h"

struct bpf_link;

#define TRACEPOINT_MAX_LINKS 8

struct tracepoint_links {
    struct bpf_link *link[TRACEPOINT_MAX_LINKS];
    size_t n;
};

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
