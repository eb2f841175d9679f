/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long the agent's own reader waited for a CPU, and because of whom: the answer
 * to why datagrams were lost at its sockets.
 *
 * A reading of the kernel's sums (own_waits_total(), then own_waits_culprit() for
 * each) is compared with the one before.
 *
 * Thread:  the helper thread. A struct own_waits_report is plain data.
 * Memory:  some 16 KiB of culprits, embedded; who made it wait least makes room.
 * Promise: sums and the longest wait are exact. What a culprit that had to make room
 *          had caused counts from anew.
 */
#ifndef RETRIEVER_BPF_OWN_WAITS_H
#define RETRIEVER_BPF_OWN_WAITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/cgroup_name.h"
#include "bpf/sched.h"

#define OWN_WAITS_NAME_MAX (16 + 4 + CGROUP_NAME_MAX)

struct cgroups;

struct own_culprit {
    struct sched_culprit who;
    struct sched_wait read; /* as last read */
    uint64_t ns;            /* since the beginning */
    uint64_t told_ns;
};

struct own_waits {
    struct sched_own total;
    uint64_t told_ns;
    uint32_t n;
    struct own_culprit culprits[SCHED_MAX_CULPRITS];
};

struct own_waits_report {
    uint64_t waited_ns;
    uint64_t longest_ns;
    /* Whoever had the CPU longest right before the reader got it: "COMM in CONTAINER
     * or UNIT", or "our own CPU quota"; "" when that was for less than 1 ms. */
    char because[OWN_WAITS_NAME_MAX];
};

void own_waits_total(struct own_waits *w, const struct sched_own *now);

/** Returns true when it has grown since the last reading. */
bool own_waits_culprit(struct own_waits *w, const struct sched_culprit *who,
                       const struct sched_wait *now);

/** Since the beginning. @cgroups NULL: no names. */
void own_waits_report(const struct own_waits *w, struct cgroups *cgroups,
                      struct own_waits_report *out);

/** One line for people about what was not told yet, which is told now: "" when
 *  that is less than a millisecond. Returns @line. */
char *own_waits_tell(struct own_waits *w, struct cgroups *cgroups, char *line,
                     size_t size);

#endif
