/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/base/clock.h"

#include <time.h>

#include "agent/base/contract.h"

static int64_t read_ns(clockid_t id)
{
    struct timespec ts;

    REQUIRE(clock_gettime(id, &ts) == 0);
    return (int64_t)ts.tv_sec * CLOCK_NS_PER_S + ts.tv_nsec;
}

static uint64_t real_mono_ns(const struct clock *c)
{
    (void)c;
    return (uint64_t)read_ns(CLOCK_MONOTONIC);
}

static int64_t real_wall_ns(const struct clock *c)
{
    (void)c;
    return read_ns(CLOCK_REALTIME);
}

const struct clock clock_real = {real_mono_ns, real_wall_ns};

static uint64_t test_mono_ns(const struct clock *c)
{
    return atomic_load(&((const struct test_clock *)c)->mono_ns);
}

static int64_t test_wall_ns(const struct clock *c)
{
    return atomic_load(&((const struct test_clock *)c)->wall_ns);
}

void test_clock_init(struct test_clock *t, uint64_t mono_ns, int64_t wall_ns)
{
    t->clock = (struct clock){test_mono_ns, test_wall_ns};
    atomic_init(&t->mono_ns, mono_ns);
    atomic_init(&t->wall_ns, wall_ns);
}

void test_clock_advance(struct test_clock *t, uint64_t by_ns)
{
    atomic_fetch_add(&t->mono_ns, by_ns);
    atomic_fetch_add(&t->wall_ns, (int64_t)by_ns);
}

void test_clock_step(struct test_clock *t, int64_t by_ns)
{
    atomic_fetch_add(&t->wall_ns, by_ns);
}

static int64_t offset_now(const struct clock *c)
{
    return clock_wall_ns(c) - (int64_t)clock_mono_ns(c);
}

void process_clock_init(struct process_clock *p, const struct clock *c)
{
    atomic_store_explicit(&p->offset_ns, offset_now(c), memory_order_relaxed);
}

int64_t process_clock_now(const struct process_clock *p, const struct clock *c)
{
    return process_clock_at(p, clock_mono_ns(c));
}

int64_t process_clock_rebase_if_stepped(struct process_clock *p,
                                        const struct clock *c)
{
    int64_t offset = offset_now(c);
    int64_t step =
        offset - atomic_load_explicit(&p->offset_ns, memory_order_relaxed);

    if (step >= -PROCESS_CLOCK_STEP_NS && step <= PROCESS_CLOCK_STEP_NS)
        return 0;
    if (clock_wall_ns(c) < CLOCK_PLAUSIBLE_S * CLOCK_NS_PER_S &&
        process_clock_now(p, c) >= CLOCK_PLAUSIBLE_S * CLOCK_NS_PER_S)
        return 0;
    atomic_store_explicit(&p->offset_ns, offset, memory_order_relaxed);
    return step;
}
