/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts of `env` by container: how often CUDA_VISIBLE_DEVICES changed, and how many
 * devices the process that sees most of them sees.
 *
 * Thread:  one.
 * Memory:  ENV_CHANGES_MAX cgroups between two collections; those beyond count
 *          together, without tags.
 * Promise: no change is lost.
 */
#ifndef RETRIEVER_BPF_ENV_CHANGES_H
#define RETRIEVER_BPF_ENV_CHANGES_H

#include "bpf/events.h"
#include "bpf/lines.h"

#define ENV_CHANGES_MAX 1024u

struct cgroups;
struct env_changes;

int env_changes_create(struct env_changes **out);
void env_changes_close(struct env_changes *c);

void env_changes_add(struct env_changes *c, uint64_t cgid,
                     enum event_env_op op);

/** A process that sees @n devices. */
void env_changes_visible(struct env_changes *c, uint64_t cgid, uint32_t n);

/** Write all of it, and begin anew. @names may be NULL. */
void env_changes_collect(struct env_changes *c, struct cgroups *names,
                         struct lines *out);

#endif
