/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who this agent is to the intake: a host name, or, where there is none, a tag
 * that keeps the series of concurrent agents apart.
 *
 * Two agents that send the same series for the same second overwrite each other
 * at the intake. A host name tells them apart; without one the container or task
 * does, and failing that a random id of this life.
 *
 * Thread:  the keeper, before the first fork.
 * Memory:  by value.
 * Promise: never blocks on the network; bytes of /proc and the environment are
 *          bounded and become letters, digits and . - _ : / only.
 */
#ifndef RETRIEVER_AGENT_IDENTITY_H
#define RETRIEVER_AGENT_IDENTITY_H

#include "agent/config.h"

#define IDENTITY_TAG_NAME "retriever_instance:"

struct identity {
    char host[256];         /* "" = none */
    char instance_tag[224]; /* "retriever_instance:..." or "" */
    const char *host_from;  /* for people: "hostname", "system", "none", ... */
    const char *instance_from; /* "instance", "container", "ECS task", ... */
};

/** Where to look; tests give others. */
struct identity_places {
    const char *root; /* before /proc; "" = the system's */
    char *const *env;
};

/** Find both. A hostname_file that cannot be read is logged as a warning and
 *  left out. Returns 0 (nothing about an identity stops an agent). */
int identity_find(struct identity *out, const struct config *c, bool exec_mode);
int identity_find_in(struct identity *out, const struct config *c,
                     bool exec_mode, const struct identity_places *places);
void identity_fini(struct identity *id);

/** What tells identities and intakes apart: a hash of @id and of the intake that @c
 *  names. No key goes into it. */
uint64_t identity_hash(const struct identity *id, const struct config *c);

/** Say on this host (this network namespace) that somebody sends as @id to the
 *  intake that @c names. Returns a descriptor that says so until it is closed;
 *  -EADDRINUSE: somebody does already, and where both send the same series one
 *  overwrites the other, unless they share seconds (seconds.h); or another -errno. */
int identity_claim(const struct identity *id, const struct config *c);

/** The container id in the text of /proc/self/cgroup, else of
 *  /proc/self/mountinfo: 64 hexadecimal digits, 32 and a number (ECS), or a
 *  UUID; the forms the DogStatsD clients look for. Pure; false when there is
 *  none (@out untouched). */
#define IDENTITY_ID_MAX 80
bool identity_container_id(const char *cgroup, const char *mountinfo,
                           char out[IDENTITY_ID_MAX]);

#endif
