/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this kernel has, asked of its BTF: versions say little, since distributions
 * carry changes back and leave options out.
 *
 * Thread:  a helper thread; reading the kernel's BTF takes some 20 ms.
 * Memory:  the types, some 6 MiB, for as long as whoever read them keeps them.
 * Promise: without BTF every answer is -ENOENT.
 */
#ifndef RETRIEVER_BPF_PROBE_H
#define RETRIEVER_BPF_PROBE_H

#include <stdbool.h>

struct btf;

/** The kernel's types, for many questions; NULL: it does not tell them. */
struct btf *probe_types(void);
void probe_types_free(struct btf *types);

/* In all of these @types may be NULL: they are read for this one question. */

/** Value of @name in the enumeration @type; -ENOENT. */
int probe_enum(const struct btf *types, const char *type, const char *name);

/** Parameters of the tracepoint @name; -ENOENT. *task_at: the first of them that
 *  is a pointer to a task, counted from 0; -1 = none. */
int probe_tracepoint(const struct btf *types, const char *name, int *task_at);

/** Does the structure @type have the member @name? */
bool probe_member(const struct btf *types, const char *type, const char *name);

#endif
