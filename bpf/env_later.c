/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/env_later.h"

static const uint64_t delays_ns[LATER_N] = {
    [LATER_MAPS_1] = 5 * CLOCK_NS_PER_MS,
    [LATER_MAPS_2] = 50 * CLOCK_NS_PER_MS,
    [LATER_MAPS_3] = 500 * CLOCK_NS_PER_MS,
    [LATER_LOOK] = LATER_LOOK_NS,
};

bool later_put(struct later_queues *all, enum later which, uint32_t pid,
               uint64_t now_ns)
{
    struct later_queue *q = &all->v[which];

    if (q->n == LATER_MAX)
        return false;
    q->looks[(q->first + q->n++) & (LATER_MAX - 1)] = (struct later_look){
        .at_ns = now_ns + delays_ns[which],
        .pid = pid,
    };
    return true;
}

bool later_take(struct later_queues *all, uint64_t now_ns, enum later *which,
                uint32_t *pid)
{
    for (int i = 0; i < LATER_N; i++) {
        struct later_queue *q = &all->v[i];

        if (q->n == 0 || q->looks[q->first].at_ns > now_ns)
            continue;
        *which = (enum later)i;
        *pid = q->looks[q->first].pid;
        q->first = (q->first + 1) & (LATER_MAX - 1);
        q->n--;
        return true;
    }
    return false;
}

uint64_t later_next_ns(const struct later_queues *all)
{
    uint64_t next_ns = UINT64_MAX;

    for (int i = 0; i < LATER_N; i++) {
        const struct later_queue *q = &all->v[i];

        if (q->n > 0 && q->looks[q->first].at_ns < next_ns)
            next_ns = q->looks[q->first].at_ns;
    }
    return next_ns;
}
