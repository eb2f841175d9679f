/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of cgroups: which container or unit is behind the number that the kernel
 * gives.
 *
 * Thread:  the helper thread.
 * Memory:  bounded by the number of cgroups that are remembered.
 * Promise: a cgroup without a name costs a tag, never a value.
 */
#ifndef RETRIEVER_BPF_CGROUP_H
#define RETRIEVER_BPF_CGROUP_H

#include <stdint.h>

struct cgroups;

/** Returns 0 or -errno. */
int cgroups_create(struct cgroups **out);

/** DogStatsD tags of the container or unit of that cgroup; "" = none. Borrowed until
 *  the next call. */
const char *cgroups_tags(struct cgroups *c, uint64_t cgid);

/** -1 = version 2, else the index of the controller in css_set.subsys[]. */
int32_t cgroups_subsys(const struct cgroups *c);

uint64_t cgroups_of_pid(struct cgroups *c, int pid);

/** NULL-safe. */
void cgroups_close(struct cgroups *c);

#endif
