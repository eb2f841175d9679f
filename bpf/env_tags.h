/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the watched variables of a process to its tags.
 *
 * Thread:  any; no state.
 * Memory:  the caller's.
 * Promise: pure, and total over all values. Allocates nothing.
 */
#ifndef RETRIEVER_BPF_ENV_TAGS_H
#define RETRIEVER_BPF_ENV_TAGS_H

#include "bpf/cuda.h"
#include "bpf/watch.h"

#define ENV_TAGS_BYTES (CUDA_TAGS_BYTES + ENV_MAX_NAMES * 270)

struct env_rules {
    struct watch watch;
    struct cuda_devices devices;
    enum cuda_semantics semantics;
    bool cuda_tags;
};

/** A value, of the variable at the same place in watch.v. */
struct env_text {
    const char *text; /* not ended by NUL; NULL = it is not set */
    size_t n;
};

/** Tags "a:b,c:d" into @out (ENV_TAGS_BYTES). Returns their length, 0 = none. */
size_t env_tags(const struct env_rules *r,
                const struct env_text values[ENV_MAX_NAMES], char *out);

#endif
