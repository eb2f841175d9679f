/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time: where it is read, and how the process turns it into bucket time.
 *
 * struct clock is a source of instants: the kernel's, or one that a test sets.
 * struct process_clock is wall time that does not jump: the wall time at start
 * plus monotonic time since. Buckets are chosen by it, so a stepped wall clock
 * neither doubles nor skips a bucket; with new data and at a bucket's end the
 * owner asks whether the wall clock went elsewhere and then re-bases.
 *
 * Thread:  a clock may be read by any thread. A process clock has one owner
 *          that initialises and re-bases it; any thread may read it.
 * Memory:  plain data, embedded; a process clock may lie in shared memory.
 * Promise: between two re-bases process time never goes backwards and runs as
 *          CLOCK_MONOTONIC does.
 */
#ifndef RETRIEVER_AGENT_BASE_CLOCK_H
#define RETRIEVER_AGENT_BASE_CLOCK_H

#include <stdatomic.h>
#include <stdint.h>

#define CLOCK_NS_PER_S INT64_C(1000000000)
#define CLOCK_NS_PER_MS INT64_C(1000000)

/** A difference of more than this between wall and process time is a step. */
#define PROCESS_CLOCK_STEP_NS CLOCK_NS_PER_S

/** 2024-01-01: a wall clock before that has not been set since the machine was
 *  started. A fixed instant, so that builds can be repeated. */
#define CLOCK_PLAUSIBLE_S INT64_C(1704067200)

struct clock {
    uint64_t (*mono_ns)(const struct clock *c); /* since some fixed instant */
    int64_t (*wall_ns)(const struct clock *c);  /* since 1970 */
};

/** CLOCK_MONOTONIC and CLOCK_REALTIME. */
extern const struct clock clock_real;

static inline uint64_t clock_mono_ns(const struct clock *c)
{
    return c->mono_ns(c);
}

static inline int64_t clock_wall_ns(const struct clock *c)
{
    return c->wall_ns(c);
}

/** A clock that stands still until it is told to move; pass &t->clock. */
struct test_clock {
    struct clock clock;
    _Atomic uint64_t mono_ns;
    _Atomic int64_t wall_ns;
};

void test_clock_init(struct test_clock *t, uint64_t mono_ns, int64_t wall_ns);

/** Time passes: both instants go forward. */
void test_clock_advance(struct test_clock *t, uint64_t by_ns);

/** Somebody sets the wall clock: only that instant moves, either way. */
void test_clock_step(struct test_clock *t, int64_t by_ns);

struct process_clock {
    _Atomic int64_t offset_ns; /* process time - monotonic time */
};

/** Process time becomes the present wall time of @c. */
void process_clock_init(struct process_clock *p, const struct clock *c);

/** Process time, ns since 1970, of the instant @mono_ns. */
static inline int64_t process_clock_at(const struct process_clock *p,
                                       uint64_t mono_ns)
{
    return (int64_t)mono_ns +
           atomic_load_explicit(&p->offset_ns, memory_order_relaxed);
}

/** Process time now, ns since 1970. */
int64_t process_clock_now(const struct process_clock *p, const struct clock *c);

/** Take the wall time again if it differs by more than PROCESS_CLOCK_STEP_NS.
 *  Returns the step in ns (negative: the wall clock went back), 0 = none. A wall
 *  clock that lost its time (not plausible) is not followed. By the owner. */
int64_t process_clock_rebase_if_stepped(struct process_clock *p,
                                        const struct clock *c);

#endif
