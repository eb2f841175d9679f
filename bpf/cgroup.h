/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of cgroups: from the id that kernel programs see to the container or unit
 * behind it, in the one hierarchy that all programs use.
 *
 * A name is found when it is first asked for. Cgroups that live for milliseconds
 * keep theirs by the records of their making and removal (EVENT_CGROUP).
 *
 * Thread:  the helper thread, for every call.
 * Memory:  at most CGROUPS_MAX entries of at most about 2 KiB; the one that was
 *          least recently asked for makes room.
 * Promise: an id that nothing is known about has no tags; it costs one look-up.
 */
#ifndef RETRIEVER_BPF_CGROUP_H
#define RETRIEVER_BPF_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/cgroup_name.h"
#include "bpf/events.h"
#include "bpf/hierarchy.h"

#define CGROUPS_MAX 8192u

struct cgroups; /* opaque */

struct cgroup_info {
    uint64_t id;
    /* Equal for all cgroups of one container or unit, whatever their depth;
     * 0 = unknown. */
    uint64_t slot;
    enum cgroup_kind kind;
    bool made;    /* after we began to look */
    bool removed; /* its last values are still to come */
    const char *path;
    size_t n_path;    /* so much of it is the container's own cgroup */
    const char *name; /* "" = unknown */
    const char *tags; /* "" = none */
};

/** Look for the hierarchy in which most containers are; when that decides nothing,
 *  v2, else memory, cpu, pids. Returns 0 or -errno. */
int cgroups_create(struct cgroups **out);
void cgroups_close(struct cgroups *c);

enum cgroups_rc { CGROUPS_NO_HIERARCHY = 1 };

/** Use another hierarchy: "v2", a controller of v1, or "auto". Forgets all names, and
 *  ids mean other cgroups from then on: before features are opened. Returns 0 or CGROUPS_NO_HIERARCHY (nothing
 *  changes; cgroups_present() has what there is). */
int cgroups_use(struct cgroups *c, const char *name);

/** With "auto": another hierarchy has containers by now, and the one in use has none;
 *  cgroups_use("auto") would take that one. Walks through both. */
bool cgroups_outdated(const struct cgroups *c);

/** That may come to be: the choice is free, and there is one. */
bool cgroups_may_change(const struct cgroups *c);

/** "v2, cpu, memory": what cgroups_use() would take. Returns @out. */
char *cgroups_present(const struct cgroups *c, char *out, size_t size);

/** The one in use; NULL when no cgroups are mounted. */
const struct hierarchy *cgroups_hierarchy(const struct cgroups *c);

/** Where CPU quotas are; NULL when the cpu controller is not mounted. */
const struct hierarchy *cgroups_cpu(const struct cgroups *c);

/** For programs: -1 = v2 (css_set.dfl_cgrp), else the index in
 *  css_set.subsys[]. */
int32_t cgroups_subsys(const struct cgroups *c);

/** DogStatsD tags of the container or unit; "" = none. Borrowed until the next
 *  call. */
const char *cgroups_tags(struct cgroups *c, uint64_t id);

/** All that is known; never NULL. Borrowed until the next call. */
const struct cgroup_info *cgroups_find(struct cgroups *c, uint64_t id);

/** Id of the cgroup that @pid is in; 0 = not to be seen from here. */
uint64_t cgroups_of_pid(struct cgroups *c, int pid);

/** It exists, as far as can be told. */
bool cgroups_exists(struct cgroups *c, uint64_t id);

/** Name all cgroups that exist, and call @fn for each. */
typedef void cgroups_each_fn(void *arg, const struct cgroup_info *info);
void cgroups_each(struct cgroups *c, cgroups_each_fn *fn, void *arg);

/** What an EVENT_CGROUP record says. */
void cgroups_note_made(struct cgroups *c, uint64_t id, const char *path);
void cgroups_note_removed(struct cgroups *c, uint64_t id, const char *path);
void cgroups_note(struct cgroups *c, const struct event_cgroup *ev);

#endif
