/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this kernel has, asked of its BTF: versions say little, since distributions
 * carry changes back and leave options out.
 *
 * Thread:  a helper thread; each call reads the kernel's BTF, some 10 ms.
 * Memory:  none is kept.
 * Promise: without BTF every answer is -ENOENT.
 */
#ifndef RETRIEVER_BPF_PROBE_H
#define RETRIEVER_BPF_PROBE_H

struct btf;

/** Value of @name in the enumeration @type; -ENOENT. */
int probe_enum(const char *type, const char *name);

/** Parameters of the tracepoint @name; -ENOENT. *task_at: the first of them that
 *  is a pointer to a task, counted from 0; -1 = none. */
int probe_tracepoint(const char *name, int *task_at);

/** The same of a BTF that is read already, for whoever asks often; NULL: none. */
int probe_enum_in(const struct btf *btf, const char *type, const char *name);
int probe_tracepoint_in(const struct btf *btf, const char *name, int *task_at);

#endif
