/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Those of the kernel's types that our programs name, as a file of BTF of some sixty
 * kilobytes: for loader_open(), which finds a type there at once.
 *
 * Thread:  a helper thread; making it takes some 3 ms.
 * Memory:  the file's, which has no name but in /proc, until close().
 * Promise: a program that is loaded with them is the same as with all types; but
 *          for types of modules, which are not found then.
 */
#ifndef RETRIEVER_BPF_NAMED_TYPES_H
#define RETRIEVER_BPF_NAMED_TYPES_H

struct btf;

struct named_types {
    int fd;
    char path[32];
};

/** From the types of the kernel. Returns 0 or -errno; *t is closed then. */
int named_types_create(struct named_types *t, const struct btf *kernel);
void named_types_close(struct named_types *t);

#endif
