/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Activity of the job of `exec` where no program can be loaded: ten times a second
 * the scheduler's sums of its threads are read from /proc. In a tenth in which they
 * have grown by a hundredth of it the job counts as active.
 *
 * Thread:  the helper thread.
 * Memory:  16 bytes for each of at most ACTIVITY_COARSE_MAX threads.
 * Promise: needs no privilege, and costs nothing once the job has ended. What a thread
 *          does between the last reading and its end is not seen.
 */
#ifndef RETRIEVER_BPF_ACTIVITY_COARSE_H
#define RETRIEVER_BPF_ACTIVITY_COARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "bpf/lines.h"

#define ACTIVITY_COARSE_MAX 4096u

struct activity_coarse; /* opaque */

/** @pid and its descendants; @container: tags, "" = none. Returns 0, -ENOENT (no such
 *  process, or the kernel keeps no sums) or -errno. */
int activity_coarse_open(struct activity_coarse **out, uint32_t pid,
                         const char *container);
void activity_coarse_close(struct activity_coarse *c);

/** Read when it is time. Returns when to come again; UINT64_MAX: the job is over. */
uint64_t activity_coarse_due(struct activity_coarse *c, uint64_t now_ns);

void activity_coarse_collect(struct activity_coarse *c, struct lines *out);

#endif
