/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Containers that appear behind the start in another hierarchy of cgroups: when to go
 * there, with what, and the line that says so.
 *
 * Ids of cgroups are numbers of one hierarchy. So the features that know some are opened
 * again (feature.h: by_cgroup), with names and a map of processes that are new, too; who
 * is not closed yet has the old ones, for its last values.
 *
 * Thread:  the kernel thread.
 * Memory:  the names (cgroup.h) twice for a moment.
 * Promise: there is no going to and fro: at most once a minute, and only while the
 *          hierarchy in use has no container.
 */
#ifndef RETRIEVER_AGENT_KERNEL_FOLLOW_H
#define RETRIEVER_AGENT_KERNEL_FOLLOW_H

#include "agent/kernel.h"

struct kernel_follow {
    uint64_t went_ns; /* 0 = never */
    struct cgroups *old_cgroups;
    int old_watched_fd;
};

/** It may come to that: privileges for loading programs are still needed. */
bool kernel_follow_may(const struct feature_env *env);

/** Is it time? Then @env has what is new: features are to be opened again with it, and
 *  kernel_follow_end() closes what was. */
bool kernel_follow_begin(struct kernel_follow *f, struct feature_env *env);

/** Log what came of the features in @rows whose bits are in @which. */
void kernel_follow_end(struct kernel_follow *f, const struct feature_env *env,
                       const struct kernel_feature *rows, uint32_t which);

#endif
