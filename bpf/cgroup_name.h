/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the path of a cgroup says about who runs there: container runtimes and
 * systemd write their ids into it, each in a form of its own.
 *
 * Thread:  any.
 * Memory:  by value.
 * Promise: total over all strings, of any length; a result is printable as a tag.
 */
#ifndef RETRIEVER_BPF_CGROUP_NAME_H
#define RETRIEVER_BPF_CGROUP_NAME_H

#include <stddef.h>

#define CGROUP_NAME_MAX 128
#define CGROUP_POD_MAX 37
#define CGROUP_TAGS_MAX (CGROUP_NAME_MAX + CGROUP_POD_MAX + 32)

enum cgroup_kind {
    CGROUP_UNKNOWN,
    CGROUP_CONTAINER, /* a container, or a pod as such */
    CGROUP_SYSTEM     /* a unit of systemd, or anything else */
};

struct cgroup_name {
    enum cgroup_kind kind;
    char id[CGROUP_NAME_MAX];     /* container id, pod uid or unit; "root" */
    char pod_uid[CGROUP_POD_MAX]; /* "" = not in a pod */
    size_t n_path; /* the name is that of the cgroup at path[0..n_path) */
};

/** @path begins at the root of the hierarchy: "/system.slice/cron.service". */
void cgroup_name(struct cgroup_name *out, const char *path);

/** DogStatsD tags: container_id, kube_pod_uid or unit. Returns @out. */
char *cgroup_name_tags(char out[CGROUP_TAGS_MAX],
                       const struct cgroup_name *name);

#endif
