/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/kernel_waits.h"

#include <string.h>

#include "bpf/sched.h"

_Static_assert(sizeof(struct kernel_wait) == KERNEL_SLOT_BYTES, "a slot");
_Static_assert(KERNEL_WAITS <= KERNEL_RECORDS, "all fit");

#define PLACES (2 * KERNEL_WAITS)

static uint32_t hash(const struct event_runq *ev, uint32_t class)
{
    uint64_t h = ev->hdr.cgid * UINT64_C(0x9e3779b97f4a7c15) + ev->prev_cgid;

    h = h * UINT64_C(0x9e3779b97f4a7c15) + ((uint64_t)ev->flags << 32 | class);
    h *= UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(h >> 32) % PLACES;
}

static bool is_like(const struct kernel_wait *w, const struct event_runq *ev,
                    uint32_t class)
{
    return w->class == class && w->sum.flags == ev->flags &&
           w->sum.hdr.cgid == ev->hdr.cgid && w->sum.prev_cgid == ev->prev_cgid;
}

bool kernel_waits_add(struct kernel_waits *w, const struct event_runq *ev)
{
    uint32_t class = sched_class(ev->latency_ns);
    uint32_t i = hash(ev, class);
    struct kernel_wait *k;

    for (; w->at[i] != 0; i = (i + 1) % PLACES) {
        k = &w->sums[w->at[i] - 1];
        if (!is_like(k, ev, class))
            continue;
        k->sum.latency_ns += ev->latency_ns;
        k->sum.n++;
        return true;
    }
    if (w->n == KERNEL_WAITS)
        return false;
    k = &w->sums[w->n++];
    w->at[i] = (uint16_t)w->n;
    *k = (struct kernel_wait){.sum = *ev, .class = class};
    k->sum.n = 1;
    return true;
}

bool kernel_waits_put(struct kernel_waits *w, struct kernel_link *l)
{
    if (w->n == 0)
        return true;
    if (!kernel_link_put_slots(l, w->sums, w->n))
        return false;
    kernel_link_ring(l->kernel_bell);
    w->n = 0;
    memset(w->at, 0, sizeof(w->at));
    return true;
}
