/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of cgroups: which container or unit a cgroup id belongs to.
 *
 * Thread:  the helper thread.
 * Memory:  none.
 * Promise: tags are borrowed until the next call.
 */
#ifndef RETRIEVER_BPF_CGROUP_H
#define RETRIEVER_BPF_CGROUP_H

#include <stdint.h>

struct cgroups;

int cgroups_create(struct cgroups **out);

/** DogStatsD tags of its container or unit, "" if there is none. */
const char *cgroups_tags(struct cgroups *c, uint64_t cgid);

/** The hierarchy that ids are of: -1 = v2, else an index in css_set.subsys[]. */
int32_t cgroups_subsys(const struct cgroups *c);

void cgroups_close(struct cgroups *c);

#endif
