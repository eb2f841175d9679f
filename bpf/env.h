/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feature `env`: what CUDA_VISIBLE_DEVICES and other watched variables are in each
 * process now, not when it was started, as tags of what it sends and as metrics.
 *
 * Thread:  the helper thread; readers of `proctags` are elsewhere.
 * Memory:  env_state.h, env_attach.h and image.h say; 4,096 postponed looks.
 * Promise: only watched variables are kept, and their values stand in no log. With no
 *          right to attach, a look at live processes is what is left, and with no
 *          right to that nothing is known.
 */
#ifndef RETRIEVER_BPF_ENV_H
#define RETRIEVER_BPF_ENV_H

#include "bpf/cuda.h"
#include "bpf/env_attach.h"
#include "bpf/feature.h"
#include "bpf/proctags.h"
#include "bpf/watch.h"

#define ENV_DEFAULT_MAX_INODES 256u
#define ENV_DEFAULT_RESCAN_S 60u

struct env_opts {
    bool off;
    struct watch watch;
    uint32_t max_inodes; /* 1..4096 */
    uint32_t rescan_s;   /* 5..3600 */
    bool live;           /* look at processes' memory */
    bool cuda_tags;
    enum cuda_semantics semantics;
    const char *root;          /* of /proc/driver/nvidia; "" */
    struct proctags *proctags; /* borrowed; NULL = none */
    enum attach_mode best;     /* ATTACH_MULTI, less in tests */
};

static inline void env_opts_init(struct env_opts *o)
{
    *o = (struct env_opts){
        .max_inodes = ENV_DEFAULT_MAX_INODES,
        .rescan_s = ENV_DEFAULT_RESCAN_S,
        .live = true,
        .cuda_tags = true,
        .root = "",
    };
    watch_init(&o->watch);
}

extern const struct feature env_feature;

#endif
