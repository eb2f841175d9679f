/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trees of cgroups that are mounted, and the way from an id of the kernel to a
 * path in one of them.
 *
 * Thread:  one owner.
 * Memory:  by value; at most HIERARCHIES_MAX.
 * Promise: reads what the system says, changes nothing; walks are bounded.
 */
#ifndef RETRIEVER_BPF_HIERARCHY_H
#define RETRIEVER_BPF_HIERARCHY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HIERARCHIES_MAX 20
#define CGROUP_PATH_MAX 1024

struct hierarchy {
    bool v2;
    int32_t id;            /* as in /proc/PID/cgroup; v2: 0 */
    char controllers[128]; /* "cpu,cpuacct"; v2: "" */
    char mount[256];
    char root[256]; /* of the tree, what is mounted: "/", or our own part */
};

struct hierarchies {
    struct hierarchy all[HIERARCHIES_MAX];
    size_t n;
};

/** From the text of /proc/self/mountinfo and /proc/self/cgroup. Pure. */
void hierarchies_parse(struct hierarchies *out, const char *mountinfo,
                       const char *cgroup);

/** The same from /proc. Returns 0 or -errno. */
int hierarchies_read(struct hierarchies *out);

/** The hierarchy is called so ("v2", or one of its controllers). */
bool hierarchy_is(const struct hierarchy *h, const char *name);

/** "v2", or its controllers. */
const char *hierarchy_name(const struct hierarchy *h);

/** Path of the cgroup @id from the root of the tree. Returns 0, -ESTALE (it is
 *  gone), -EPERM (needs CAP_DAC_READ_SEARCH; walk instead) or -errno. */
int hierarchy_path(const struct hierarchy *h, uint64_t id,
                   char out[CGROUP_PATH_MAX]);

/** Id of the cgroup with that path; 0 = there is none (that we can see). */
uint64_t hierarchy_id(const struct hierarchy *h, const char *path);

/** Call @fn for each cgroup, parents first; it returns false to end the walk. */
typedef bool hierarchy_walk_fn(void *arg, uint64_t id, const char *path);
void hierarchy_walk(const struct hierarchy *h, hierarchy_walk_fn *fn,
                    void *arg);

/** Path of @pid in the hierarchy. Returns false when it has none. */
bool hierarchy_path_of_pid(const struct hierarchy *h, int pid,
                           char out[CGROUP_PATH_MAX]);

/** Name of the file @file of the cgroup @path; false when it does not fit. */
bool hierarchy_file(const struct hierarchy *h, const char *path,
                    const char *file, char *out, size_t size);

#endif
