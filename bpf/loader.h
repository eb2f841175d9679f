/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Embedded objects into the kernel: open, choose, set constants, share maps, load;
 * and what to tell people when the kernel refuses.
 *
 * Thread:  a helper thread, one object at a time. Loading takes some 10 to 50 ms, so
 *          never the reader or the loop.
 * Memory:  libbpf's, until loader_close().
 * Promise: nothing here ends the process or prints: a refusal is a result with a
 *          cause and a remedy.
 */
#ifndef RETRIEVER_BPF_LOADER_H
#define RETRIEVER_BPF_LOADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bpf_object;

/** One per *.bpf.c. */
enum loader_object {
    LOADER_TAP,
    LOADER_LIFE,
    LOADER_ACTIVITY,
    LOADER_DROP,
    LOADER_SCHED,
    LOADER_ENV,
    LOADER_ENV_EXEC,
    LOADER_N
};

enum loader_rc {
    LOADER_REFUSED = 1 /* the kernel will not; the cause says why */
};

/** Why something is off, or not whole, and what would help; "" = nothing to say. */
struct loader_cause {
    char why[160];
    char remedy[160];
    char left[120];  /* what there is all the same */
    char reason[24]; /* the same as one word, for a tag */
};

/** cause.reason of what the configuration has switched off: nothing to complain
 *  about. */
#define LOADER_DISABLED "disabled"

/** Words for an errno of bpf(2) or perf_event_open(2) met while doing @what. */
void loader_explain(struct loader_cause *out, const char *what, int err);

/** May this process load programs at all? Takes microseconds. Returns 0,
 *  LOADER_REFUSED (@cause filled) or -errno. *own_tgid (may be NULL) is this process
 *  in the initial namespace, as programs see it; untouched when that is not
 *  known. */
int loader_probe(struct loader_cause *cause, uint32_t *own_tgid);

/** Parse the embedded object. @types: a file with those of the kernel's types that
 *  it names (named_types.h), there until it is loaded; NULL: libbpf searches through
 *  all of them. Returns 0, LOADER_REFUSED (@cause filled) or -errno; *out is
 *  untouched then. */
int loader_open(struct bpf_object **out, enum loader_object which,
                const char *types, struct loader_cause *cause);

/** Between open and load: constants (the one variable of .rodata, @n bytes). */
int loader_set_constants(struct bpf_object *o, const void *p, size_t n);

/** Use the map behind @fd (stays the caller's) as the map @name. */
int loader_share_map(struct bpf_object *o, const char *name, int fd);

/** Returns 0, LOADER_REFUSED (@cause filled) or -errno. */
int loader_load(struct bpf_object *o, struct loader_cause *cause);

/** Descriptor of a loaded program or map of that name, the object's; -ENOENT. */
int loader_program(const struct bpf_object *o, const char *name);
int loader_map(const struct bpf_object *o, const char *name);

/** NULL-safe. Programs that sockets or links hold go on without their object. */
void loader_close(struct bpf_object *o);

#endif
