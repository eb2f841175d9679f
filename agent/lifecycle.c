/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One budget for the whole stop, no shares per stage: what one stage does not use
 * belongs to the next. Only three bounds cut a stage before the deadline: the
 * linger leaves reserve_ns for delivery, a drain whose senders never stop leaves
 * half of that, and the kernel's last values are not waited for longer than
 * LIFECYCLE_KERNEL_NS.
 */
#include "agent/lifecycle.h"

#include <string.h>

#include "agent/base/contract.h"

void lifecycle_init(struct lifecycle *l, const struct lifecycle_config *cfg)
{
    memset(l, 0, sizeof(*l));
    l->cfg = *cfg;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

void lifecycle_begin(struct lifecycle *l, enum stop_stage from,
                     uint64_t stop_at_ns, uint64_t deadline_ns, uint64_t now_ns)
{
    REQUIRE(l->stage == STAGE_NONE);
    l->stop_at_ns = stop_at_ns;
    l->deadline_ns = deadline_ns;
    l->entered_ns = now_ns;
    /* A drain is complete only when a living worker has seen it end, and all
     * later stages may be repeated: so a successor starts at the drain. */
    l->stage = from > STAGE_LINGER ? STAGE_DRAIN : STAGE_LINGER;
}

static uint64_t capped(const struct lifecycle *l, uint64_t cap_ns,
                       uint64_t last_ns)
{
    return cap_ns == 0 ? last_ns : min_u64(last_ns, l->entered_ns + cap_ns);
}

uint64_t lifecycle_stage_end_ns(const struct lifecycle *l)
{
    uint64_t budget = minus(l->deadline_ns, l->stop_at_ns);
    uint64_t reserve = min_u64(l->cfg.reserve_ns, budget / 2);
    uint64_t last = minus(l->deadline_ns, LIFECYCLE_RECEIPT_NS);

    switch (l->stage) {
    case STAGE_LINGER:
        return min_u64(l->stop_at_ns + l->cfg.linger_ns,
                       minus(l->deadline_ns, reserve));
    case STAGE_DRAIN:
        return min_u64(l->entered_ns + LIFECYCLE_DRAIN_NS,
                       minus(l->deadline_ns, reserve / 2));
    case STAGE_KERNEL:
        return capped(l, LIFECYCLE_KERNEL_NS, last);
    case STAGE_CLOSE:
    case STAGE_ENCODE:
        return capped(l, l->cfg.encode_cap_ns, last);
    case STAGE_DELIVER:
        return capped(l, l->cfg.deliver_cap_ns, last);
    case STAGE_NONE:
    case STAGE_SAVE:
    case STAGE_RECEIPT:
    case STAGE_DONE:
        break;
    }
    return UINT64_MAX;
}

/* When the linger ends if nothing more happens. In exec the job's end is known,
 * so quiet alone never counts until it: what is waited for are orphans of the
 * job, as long as there are any and they are not quiet. */
static uint64_t linger_end_ns(const struct lifecycle *l,
                              const struct lifecycle_facts *f)
{
    uint64_t end = lifecycle_stage_end_ns(l);
    uint64_t quiet_from = l->stop_at_ns;

    if (f->hurry || (l->cfg.exec && f->n_descendants == 0))
        return l->entered_ns;
    if (l->cfg.quiet_ns == 0)
        return end;
    if (f->last_data_ns > quiet_from)
        quiet_from = f->last_data_ns;
    return min_u64(end, quiet_from + l->cfg.quiet_ns);
}

static bool stage_over(const struct lifecycle *l,
                       const struct lifecycle_facts *f, uint64_t *next_ns)
{
    bool event = false;

    *next_ns = lifecycle_stage_end_ns(l);
    switch (l->stage) {
    case STAGE_LINGER:
        *next_ns = linger_end_ns(l, f);
        break;
    case STAGE_DRAIN:
        event = f->drained;
        /* The reader keeps the latest instant itself; should it not answer,
         * the deadline ends the stage. */
        *next_ns = minus(l->deadline_ns, LIFECYCLE_RECEIPT_NS);
        break;
    case STAGE_KERNEL:
        event = f->collected;
        break;
    case STAGE_CLOSE:
        event = f->closed;
        break;
    case STAGE_ENCODE:
        event = f->encoded;
        break;
    case STAGE_DELIVER:
        event = f->delivered && !f->unsynced;
        break;
    case STAGE_SAVE:
    case STAGE_RECEIPT:
        event = true;
        break;
    case STAGE_NONE:
    case STAGE_DONE:
        return false;
    }
    return event || f->now_ns >= *next_ns;
}

bool lifecycle_advance(struct lifecycle *l, const struct lifecycle_facts *f,
                       uint64_t *next_ns)
{
    uint64_t spent_ms;

    if (!stage_over(l, f, next_ns))
        return false;
    spent_ms = minus(f->now_ns, l->entered_ns) / 1000000;
    l->stage_ms[l->stage] += (uint32_t)min_u64(spent_ms, UINT32_MAX / 2);
    l->stage++;
    l->entered_ns = f->now_ns;
    return true;
}
