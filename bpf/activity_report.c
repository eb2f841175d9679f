/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/activity_report.h"

#include "bpf/activity_bucket.h"

#define MS_PER_TICK (1024.0 / 1e6)

/* What the words say as of now, in ticks. */
struct present {
    bool active;
    bool idle; /* for a threshold at least */
    bool dead; /* it has no thread that could wake */
    uint64_t burst, idleness;
};

static struct present look(const struct activity_family *f, uint64_t now_ns,
                           uint64_t threshold_ticks)
{
    uint64_t now = (now_ns >> ACTIVITY_TICK_SHIFT) & ACTIVITY_TICKS_MASK;
    uint64_t slept = f->word >> ACTIVITY_COUNT_BITS;
    struct present p = {0};
    uint64_t until = now;

    p.active = (f->word & ACTIVITY_COUNT_MASK) != 0;
    p.dead = !p.active && f->n_threads <= 0;
    if (p.dead) {
        until = slept; /* when its last thread left the CPU for good */
    } else if (!p.active) {
        p.idleness = (now - slept) & ACTIVITY_TICKS_MASK;
        if (p.idleness > ACTIVITY_TICKS_MASK / 2)
            p.idleness = 0; /* since we asked for the time */
        p.idle = p.idleness >= threshold_ticks;
        until = slept;
    }
    p.burst = (until - f->active_since_ticks) & ACTIVITY_TICKS_MASK;
    if (p.burst > ACTIVITY_TICKS_MASK / 2)
        p.burst = 0;
    return p;
}

/* The kernel's words change while they are read: a sum may be a moment behind what
 * was told. Then nothing is told until it has caught up. */
static uint64_t grown(uint64_t *told, uint64_t now)
{
    uint64_t n = now > *told ? now - *told : 0;

    *told += n;
    return n;
}

static void add_count(struct lines *out, const char *name, double n,
                      const char *tags)
{
    if (n > 0)
        lines_add(out, name, n, "c", tags);
}

static void add_buckets(struct lines *out, const char *name, uint32_t *told,
                        const uint32_t *now, const char *tags)
{
    for (uint32_t i = 0; i < ACTIVITY_BUCKETS; i++) {
        double middle =
            (double)(activity_bucket_at(i) + activity_bucket_at(i + 1)) / 2;

        lines_add_many(out, name, middle * MS_PER_TICK, now[i] - told[i], tags);
        told[i] = now[i];
    }
}

static void add_bursts(struct activity_shadow *s,
                       const struct activity_family *f, const struct present *p,
                       bool last, struct lines *out, const char *tags)
{
    if (s->burst_told && f->n_idle > s->burst_n_idle) {
        s->burst_told = false;
        if (f->bursts[s->burst_bucket] > s->bursts[s->burst_bucket])
            s->bursts[s->burst_bucket]++;
    }
    add_buckets(out, "activity.burst.duration", s->bursts, f->bursts, tags);
    if (s->burst_told || (!p->idle && !p->dead && !last))
        return;
    if (p->dead && p->burst == 0)
        return; /* it never had a thread */
    lines_add(out, "activity.burst.duration", (double)p->burst * MS_PER_TICK,
              "d", tags);
    s->burst_told = true;
    s->burst_bucket = activity_bucket(p->burst);
    s->burst_n_idle = f->n_idle;
}

bool activity_report(struct activity_shadow *s, const struct activity_family *f,
                     uint64_t now_ns, uint64_t threshold_ticks, bool last,
                     struct lines *out, const char *tags)
{
    struct present p = look(f, now_ns, threshold_ticks);

    add_count(out, "activity.idle_to_active",
              (double)grown(&s->n_idle, f->n_idle), tags);
    add_count(out, "activity.active_to_idle",
              (double)grown(&s->n_to_idle, f->n_idle + p.idle), tags);
    add_count(out, "activity.active.time",
              (double)grown(&s->active_ticks, f->active_ticks + p.burst) *
                  MS_PER_TICK,
              tags);
    add_count(out, "activity.idle.time",
              (double)grown(&s->idle_ticks,
                            f->idle_ticks + (p.idle ? p.idleness : 0)) *
                  MS_PER_TICK,
              tags);
    add_count(out, "activity.cpu.time",
              (double)grown(&s->cpu_ns, f->cpu_ns) / 1e6, tags);
    add_bursts(s, f, &p, last, out, tags);
    add_buckets(out, "activity.idle.duration", s->idles, f->idles, tags);
    if (last && p.idle)
        lines_add(out, "activity.idle.duration",
                  (double)p.idleness * MS_PER_TICK, "d", tags);
    return p.active || (!p.idle && !p.dead);
}
