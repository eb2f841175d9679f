/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What /proc says of a process, for rules that ask.
 *
 * Thread:  one owner of a reader.
 * Memory:  one buffer of PROC_FACTS_BYTES per reader; longer files are cut.
 * Promise: what cannot be read is empty. Nothing of it is kept: the facts are
 *          borrowed until the next call.
 */
#ifndef RETRIEVER_BPF_PROC_FACTS_H
#define RETRIEVER_BPF_PROC_FACTS_H

#include "bpf/family_rule.h"

#define PROC_FACTS_BYTES (128u * 1024u) /* of an environment */

/** What to read; each costs one or two system calls. */
#define PROC_ENVIRON 1u
#define PROC_EXE 2u
#define PROC_ARGV0 4u
#define PROC_CGROUP 8u

struct proc_facts {
    int proc_fd; /* /proc, or a folder like it */
    char comm[64];
    char exe[4096];
    char argv0[4096];
    char cgroup[4096];
    char environ[PROC_FACTS_BYTES];
    uint64_t n_unreadable; /* environments that are there */
};

/** What these rules ask for. */
unsigned int proc_facts_needs(const struct family_rule *rules, size_t n);

/** @proc: "/proc". Returns 0 or -errno. */
int proc_facts_create(struct proc_facts **out, const char *proc);

/** NULL-safe. */
void proc_facts_close(struct proc_facts *p);

/** @pid: in the namespace of that /proc, 0 = not visible there. @comm NULL: read
 *  it, too. */
struct family_facts proc_facts_read(struct proc_facts *p, uint32_t pid,
                                    const char *comm, unsigned int needs);

/** Its parent; 0 = not known. */
uint32_t proc_facts_parent(const struct proc_facts *p, uint32_t pid);

#endif
