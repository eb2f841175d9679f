/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader's priority as the loop sees it. The reader asks and says that there is
 * news; why something was refused is found out here, since that means reading files,
 * and said once.
 */
#include <sched.h>

#include "agent/base/log.h"
#include "agent/reader_private.h"

#define MODULE "reader"

/* What receiving touches: from the head to the end of the datagrams' slots. */
void reader_take_priority(struct reader *r)
{
    const struct landing *l = r->opts.landing;
    const unsigned char *end = landing_slot(l, LANDING_SLOTS);

    priority_take(&r->priority, &r->opts.priority, l->map,
                  (size_t)(end - (const unsigned char *)l->map));
    if (r->opts.priority.policy != SCHED_OTHER)
        (void)uv_async_send(&r->bell);
}

static void say(const struct reader *r, const struct reader_sched *s)
{
    const struct priority_request *want = &r->opts.priority;

    if (s->cause == PRIORITY_GRANTED)
        log_info(MODULE, "reader has real-time priority policy=%s priority=%d",
                 s->effective, want->rt_priority);
    else
        log_warn(MODULE,
                 "real-time priority was %s: %s; remedy: %s requested=%s "
                 "priority=%d effective=%s nice=%d",
                 s->cause == PRIORITY_RUNAWAY ? "taken away" : "refused",
                 priority_cause_text(s->cause), priority_cause_remedy(s->cause),
                 s->requested, want->rt_priority, s->effective, s->nice);
}

void reader_say_priority(struct reader *r)
{
    struct priority_state now = priority_state(&r->priority);
    uint32_t line = now.runaway ? 2 : 1;
    struct reader_sched s;

    if (!now.settled || r->n_said == line)
        return;
    r->n_said = line;
    if (!now.runaway)
        atomic_store(&r->priority_cause,
                     (int)priority_diagnose("", now.refused,
                                            r->opts.priority.rt_priority));
    reader_sched(r, &s);
    say(r, &s);
}

void reader_sched(const struct reader *r, struct reader_sched *out)
{
    const struct priority_request *want = &r->opts.priority;
    struct priority_state s = priority_state(&r->priority);

    *out = (struct reader_sched){
        .requested = priority_requested_name(want),
        .effective = priority_effective_name(want, &s),
        .rt_priority = want->rt_priority,
        .nice = s.nice,
        .cause = s.runaway
                     ? PRIORITY_RUNAWAY
                     : (enum priority_cause)atomic_load(&r->priority_cause),
    };
}
