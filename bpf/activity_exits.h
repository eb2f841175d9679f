/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ends of processes between two reports, by family, role and status.
 *
 * Thread:  one owner.
 * Memory:  ACTIVITY_MAX_EXITS kinds, embedded.
 * Promise: every end is counted; beyond the bound without its status.
 */
#ifndef RETRIEVER_BPF_ACTIVITY_EXITS_H
#define RETRIEVER_BPF_ACTIVITY_EXITS_H

#include "bpf/events.h"
#include "bpf/family_rule.h"
#include "bpf/lines.h"

#define ACTIVITY_MAX_EXITS 1024u

struct activity_exit {
    uint32_t family;
    enum family_role role;
    uint16_t code; /* as wait(2) tells it */
    uint16_t flags;
    uint64_t n;
};

struct activity_exits {
    struct activity_exit kind[ACTIVITY_MAX_EXITS];
    size_t n_kinds;
    uint64_t n_beyond[ACTIVITY_MAX_FAMILIES];
};

void activity_exits_add(struct activity_exits *e, uint32_t family,
                        enum family_role role, uint16_t code, uint16_t flags);

/** Write those of @family, with its @tags. */
void activity_exits_report(const struct activity_exits *e, uint32_t family,
                           struct lines *out, const char *tags);

void activity_exits_clear(struct activity_exits *e);

#endif
