/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long containers were held back by their CPU quota: differences of the sums in
 * cpu.stat, of v2 (us) or v1 (ns).
 *
 * Thread:  the helper thread.
 * Memory:  THROTTLE_MAX sums of containers; the one that was read longest ago makes
 *          room.
 * Promise: the first reading of a container that was there before us gives no
 *          values, only what the next is compared with.
 */
#ifndef RETRIEVER_BPF_THROTTLE_H
#define RETRIEVER_BPF_THROTTLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/hierarchy.h"

#define THROTTLE_MAX 1024u

struct throttle_sums {
    uint64_t n_periods; /* in which it was held back */
    uint64_t ns;
};

struct throttle {
    struct {
        uint64_t slot;
        uint64_t round;
        struct throttle_sums sums;
    } seen[THROTTLE_MAX];
    size_t n;
    uint64_t round;
};

/** From the text of cpu.stat. Returns false when it has no quota at all. Pure. */
bool throttle_parse(const char *text, struct throttle_sums *out);

/** Of the cgroup @path since the last call; all zero when there is nothing.
 *  @from_birth: there are no values from before. @cpu may be NULL. */
void throttle_read(struct throttle *t, const struct hierarchy *cpu,
                   uint64_t slot, const char *path, bool from_birth,
                   struct throttle_sums *delta);

#endif
