/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feature `life`: FORK, EXEC and EXIT records, for the features that follow
 * processes (life.bpf.c). It has no values of its own.
 *
 * Thread:  the helper thread.
 * Memory:  the map life_watched, 16384 processes, in the kernel.
 * Promise: EXEC of every process but our own; FORK and EXIT, once, of each process
 *          in life_watched and of its descendants. More processes than the map
 *          holds: those beyond have no FORK and EXIT.
 */
#ifndef RETRIEVER_BPF_LIFE_H
#define RETRIEVER_BPF_LIFE_H

#include "bpf/feature.h"

struct life_opts {
    bool all; /* FORK and EXIT of every process */
};

/** Its row of `retriever ebpf status`. */
#define LIFE_WHAT "births, execs and ends of processes, for other features"
extern const struct feature life_feature;

/** The map for feature_env.watched_fd: by __u32 tgid (initial namespace) a struct
 *  life_watch. Who watches adds with BPF_NOEXIST, or BPF_ANY with its family.
 *  Returns the descriptor, the caller's, or -errno. */
int life_watched_create(void);

/** Have EXIT and the children of @tgid told, too; 0, or no map, is fine. */
void life_watched_add(int watched_fd, uint32_t tgid);

#endif
