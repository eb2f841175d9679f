/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The maps of env_table.h, and the programs that fill them when processes begin
 * (env_exec.bpf.c).
 *
 * Thread:  the helper thread.
 * Memory:  4 MiB in the kernel.
 * Promise: where the programs cannot be had (before Linux 5.17) there are the maps all
 *          the same, empty: what is attached to them later finds nothing to change.
 */
#ifndef RETRIEVER_BPF_ENV_EXEC_H
#define RETRIEVER_BPF_ENV_EXEC_H

#include "bpf/loader.h"
#include "bpf/watch.h"

struct env_exec;

/** Make the maps, and load. @ns_inum: of our own pid namespace. @types: as for
 *  loader_open(). Returns 0, though programs were refused, or -errno. */
int env_exec_create(struct env_exec **out, const struct watch *w,
                    uint32_t ns_inum, const char *types);
/** Attach: when whatever tells of later changes is there. Returns 0, LOADER_REFUSED
 *  (@cause filled; that may have been before) or -errno. */
int env_exec_start(struct env_exec *e, struct loader_cause *cause);
/** NULL-safe. */
void env_exec_close(struct env_exec *e);

/** Descriptors, its own. */
int env_exec_table(const struct env_exec *e);
int env_exec_pids(const struct env_exec *e);

#endif
