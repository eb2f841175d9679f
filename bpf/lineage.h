/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who descends from whom in the families, and what each process is in its own.
 * Membership itself lies in the kernel; this knows names and parents.
 *
 * Thread:  one owner; pure, time is an argument.
 * Memory:  at most as many nodes as asked for, allocated once. When they are all
 *          used the one that died first goes; when all live, a newcomer is refused
 *          and counted.
 * Promise: a process is its tgid and its start, which count as equal within 10 ms:
 *          /proc knows it no better. The dead are found for LINEAGE_KEEP_NS more.
 *          No chain of parents, not even a circle, is climbed for more than 64
 *          steps.
 */
#ifndef RETRIEVER_BPF_LINEAGE_H
#define RETRIEVER_BPF_LINEAGE_H

#include "agent/base/list.h"
#include "bpf/family_rule.h"

#define LINEAGE_MAX_NODES 8192u
#define LINEAGE_MAX_HOPS 64
#define LINEAGE_KEEP_NS UINT64_C(30000000000)

struct lineage;

struct lineage_id {
    uint32_t tgid;
    uint64_t start_ns;
};

/** Read by all; written by lineage.c alone. */
struct lineage_node {
    struct lineage_id id;
    struct lineage_node *parent; /* NULL = none that is known */
    uint32_t family;
    enum family_role role;
    const struct family_rule *rule; /* of a root; NULL = it has none */
    uint64_t died_ns;               /* 0 = lives */
    struct list by_id, age, children, sibling;
};

/** Returns 0 or -ENOMEM. */
int lineage_create(struct lineage **out, size_t max_nodes);

/** NULL-safe. */
void lineage_close(struct lineage *l);

/** The family of a process by what is known: the kernel's word (@family, 0 = it has
 *  none), else its own node's, else that of its parent. 0: none, and a rule may
 *  make it a root. */
uint32_t lineage_family(const struct lineage *l, struct lineage_id id,
                        uint32_t ppid, uint32_t family);

/** It begins @family by @rule (borrowed; may be NULL). Known already: it changes
 *  what it is. Returns the node, NULL when there is no room. */
const struct lineage_node *lineage_root(struct lineage *l, struct lineage_id id,
                                        uint32_t family,
                                        const struct family_rule *rule,
                                        uint64_t now_ns);

/** A process of @family, born of @ppid or become another program: what it is
 *  follows from its names (@facts). A root that becomes another program stays the
 *  root. NULL: no room. */
const struct lineage_node *lineage_member(struct lineage *l,
                                          struct lineage_id id, uint32_t ppid,
                                          uint32_t family,
                                          const struct family_facts *facts,
                                          uint64_t now_ns);

/** NULL: not known. Also the dead. */
const struct lineage_node *lineage_find(const struct lineage *l,
                                        struct lineage_id id);

/** The one that lives; NULL. */
const struct lineage_node *lineage_alive(const struct lineage *l,
                                         uint32_t tgid);

/** The nearest that began a family, itself included; NULL. */
const struct lineage_node *lineage_find_root(const struct lineage_node *n);

/** Its children go to its parent. */
void lineage_exit(struct lineage *l, struct lineage_id id, uint64_t now_ns);

/** Forget those who died long ago. */
void lineage_expire(struct lineage *l, uint64_t now_ns);

size_t lineage_n_nodes(const struct lineage *l);

/** Newcomers that found no room. */
uint64_t lineage_n_refused(const struct lineage *l);

#endif
