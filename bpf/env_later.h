/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is put off: a look at a process some time from now. There are a few delays, so
 * each has a queue of its own, which is in order by itself.
 *
 * Thread:  one.
 * Memory:  LATER_MAX looks of each delay, embedded.
 * Promise: pure: time is an argument.
 */
#ifndef RETRIEVER_BPF_ENV_LATER_H
#define RETRIEVER_BPF_ENV_LATER_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/clock.h"

#define LATER_MAX 1024u /* power of two */
#define LATER_LOOK_NS (20 * (uint64_t)CLOCK_NS_PER_MS)

/** A program's mappings are looked at three times: its loader is done after 5 ms, and
 *  what it loads itself comes later. */
enum later { LATER_MAPS_1, LATER_MAPS_2, LATER_MAPS_3, LATER_LOOK, LATER_N };

struct later_queues {
    struct later_queue {
        struct later_look {
            uint64_t at_ns;
            uint32_t pid;
        } looks[LATER_MAX];
        uint32_t first, n;
    } v[LATER_N];
};

/** False: there is no room. */
bool later_put(struct later_queues *q, enum later which, uint32_t pid,
               uint64_t now_ns);

/** The next that is due. False: none is. */
bool later_take(struct later_queues *q, uint64_t now_ns, enum later *which,
                uint32_t *pid);

/** When the next one will be; UINT64_MAX: there is none. */
uint64_t later_next_ns(const struct later_queues *q);

#endif
