/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which processes begin a family, and what their descendants are called. A rule is
 * one line of words `key=value`, parted by blanks or `;`, a value with such in
 * double quotes:
 *
 *   name=agent env=AGENT_MODE=1 sub=claude* skill=skill-* by=process
 *
 * name is what the metrics are tagged with. A process begins a family if all of
 * env, comm, exe, argv0, cgroup and pid that are given fit: env is one variable,
 * pid a number of our own pid namespace, the others are patterns of the shell. sub
 * and skill (8 times each at most) are patterns for names of descendants. by is
 * process, or container: all matches in one container are one family.
 *
 * Thread:  none; pure functions.
 * Memory:  fixed; a value that does not fit is an error.
 * Promise: a rule that was parsed can be matched against any bytes.
 */
#ifndef RETRIEVER_BPF_FAMILY_RULE_H
#define RETRIEVER_BPF_FAMILY_RULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAMILY_MAX_RULES 64
#define FAMILY_MAX_NAMES 8

struct family_rule {
    char name[64];
    char env[128]; /* "" = not asked, here and below */
    char comm[64];
    char exe[128];
    char argv0[128];
    char cgroup[128];
    uint32_t pid;
    bool by_container;
    char sub[FAMILY_MAX_NAMES][64];
    char skill[FAMILY_MAX_NAMES][64];
    uint32_t n_sub, n_skill;
};

/** The rule that holds when none is given: env=AGENT_MODE=1. */
extern const struct family_rule family_rule_default;

/** What is known of a process; strings may be "", none may be NULL. */
struct family_facts {
    const char *comm;
    const char *exe; /* path */
    const char *argv0;
    const char *cgroup;  /* path */
    const char *environ; /* n_environ bytes: NAME=value, NUL, ... */
    size_t n_environ;
    uint32_t pid; /* in our own pid namespace */
};

/** Parse @n lines, at most @max. Returns how many, or -EINVAL: @error (of @size
 *  bytes) names index and key, and *out is not to be used. */
int family_rule_parse_all(struct family_rule *out, size_t max,
                          const char *const *lines, size_t n, char *error,
                          size_t size);

/** The first of @n that fits; NULL. */
const struct family_rule *family_rule_first(const struct family_rule *rules,
                                            size_t n,
                                            const struct family_facts *f);

bool family_rule_matches(const struct family_rule *r,
                         const struct family_facts *f);

enum family_role {
    FAMILY_UNKNOWN,
    FAMILY_AGENT, /* began the family */
    FAMILY_SUB_AGENT,
    FAMILY_TOOL,
    FAMILY_SKILL,
    FAMILY_N_ROLES
};

/** What a descendant is by its names (comm, last part of exe and argv0): skill,
 *  else sub, else a tool. @r NULL: a tool. */
enum family_role family_rule_role(const struct family_rule *r,
                                  const struct family_facts *f);

/** As it stands in a tag. */
const char *family_role_name(enum family_role role);

#endif
