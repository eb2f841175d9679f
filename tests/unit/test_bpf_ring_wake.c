/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nobody sleeps while there is something to read: the reader's side of the wake-up
 * protocol (ring.c) and the programs' side (common.bpf.h), as they are, run against
 * each other in each order of steps that an adversary finds.
 *
 * Each party is a coroutine that may be interrupted at each access to what they
 * share. A schedule is a list of choices; all with few interruptions are tried, and
 * many more by chance.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

static void step(void);
static bool skips(const void *p);

#define __atomic_load_n(p, order) (step(), __atomic_load_n(p, order))
#define __atomic_store_n(p, v, order)                                          \
    do {                                                                       \
        step();                                                                \
        if (!skips(p))                                                         \
            __atomic_store_n(p, v, order);                                     \
    } while (0)
#include "bpf/ring.c"
#undef __atomic_load_n
#undef __atomic_store_n

#define __BPF_HELPERS__ /* the one helper is below */
static uint64_t bpf_ringbuf_query(void *ring, uint64_t flags);
#include "bpf/common.bpf.h"

#define N_PROGRAMS 2
#define N_RECORDS 2 /* of each */
#define RECORD 48u
#define SLOT (RECORD + BPF_RINGBUF_HDR_SZ)
#define RING_BYTES 4096u
#define STACK (64u * 1024)
#define MAX_CHOICES 400
#define MANY_TURNS 10 /* by then the reader's timer gives way to programs */
#define MAX_TURNS 40  /* more means that it does not come to rest */
#define TURN_NS 1000000

enum { READER, FIRST_PROGRAM, N_PARTIES = FIRST_PROGRAM + N_PROGRAMS };

static struct {
    ucontext_t scheduler, party[N_PARTIES];
    unsigned char stacks[N_PARTIES][STACK];
    bool done[N_PARTIES];
    unsigned running;
    unsigned n_inside; /* programs between reservation and submission */

    struct ring ring;
    struct ring_control control;
    uint64_t consumer, producer;
    unsigned char data[2 * RING_BYTES];
    bool edge;    /* a wake-up that epoll has not looked at */
    bool asleep;  /* until there is an edge */
    bool resting; /* by the timer: others run meanwhile at no cost */
    unsigned n_turns;
    bool clears_before; /* the wrong variant */
    const char *fault;

    /* The schedule. */
    uint8_t choices[MAX_CHOICES];
    unsigned n_fixed, n_choices, n_interruptions;
    unsigned max_interruptions;
    uint64_t random; /* 0 = by list */
} sim;

/* ---- Scheduling ----------------------------------------------------------- */

static void step(void)
{
    (void)swapcontext(&sim.party[sim.running], &sim.scheduler);
}

static bool skips(const void *p)
{
    return sim.clears_before && p == &sim.control.woken;
}

static uint64_t draw(void)
{
    sim.random ^= sim.random << 13;
    sim.random ^= sim.random >> 7;
    sim.random ^= sim.random << 17;
    return sim.random;
}

static bool all_done(void)
{
    for (unsigned i = FIRST_PROGRAM; i < N_PARTIES; i++) {
        if (!sim.done[i])
            return false;
    }
    return true;
}

static bool runnable(unsigned i)
{
    if (i == READER && sim.asleep && !sim.edge)
        return false;
    if (i == READER && sim.resting && sim.n_turns > MANY_TURNS && !all_done())
        return false;
    return !sim.done[i];
}

/* Goes on with who runs, unless it cannot, or the schedule says otherwise. Returns
 * N_PARTIES when nobody can. */
static unsigned choose(void)
{
    bool forced = !runnable(sim.running);
    bool free = forced || (sim.running == READER && sim.resting);
    unsigned others[N_PARTIES];
    unsigned n = 0;
    unsigned pick = 0;

    if (!forced)
        others[n++] = sim.running;
    for (unsigned i = 0; i < N_PARTIES; i++) {
        if (i != sim.running && runnable(i))
            others[n++] = i;
    }
    if (n == 0)
        return N_PARTIES;
    if (!free && sim.n_interruptions >= sim.max_interruptions)
        return others[0];
    if (n > 1 && sim.n_choices < MAX_CHOICES) {
        if (sim.random != 0)
            pick = draw() % 4 == 0 || free ? (unsigned)(draw() % n) : 0;
        else if (sim.n_choices < sim.n_fixed)
            pick = sim.choices[sim.n_choices];
        sim.choices[sim.n_choices++] = (uint8_t)(pick | n << 4);
    }
    if (!free && pick != 0)
        sim.n_interruptions++;
    return others[pick];
}

/* ---- Programs, and the kernel's part of the ring ----------------------------- */

static uint64_t bpf_ringbuf_query(void *ring, uint64_t flags)
{
    uint64_t n;

    (void)ring;
    (void)flags;
    step();
    n = sim.producer - sim.consumer;
    step();
    return n;
}

static void emit(void)
{
    uint64_t at = sim.producer;
    uint32_t *word = (void *)&sim.data[at & (RING_BYTES - 1)];
    uint64_t flags;

    sim.n_inside++;
    *word = RECORD | BPF_RINGBUF_BUSY_BIT;
    sim.producer = at + SLOT;
    step();
    flags = ring_wake_flags(NULL, &sim.control);
    step();
    *word = RECORD;
    step();
    if ((flags & BPF_RB_FORCE_WAKEUP) != 0 ||
        ((flags & BPF_RB_NO_WAKEUP) == 0 && sim.consumer == at))
        sim.edge = true;
    sim.n_inside--;
    step();
}

static void program(void)
{
    for (int i = 0; i < N_RECORDS; i++)
        emit();
    sim.done[sim.running] = true;
    step();
}

/* ---- The reader ------------------------------------------------------------- */

/* epoll asks the ring again before it reports: a wake-up whose record is gone by
 * then wakes nobody. */
static bool takes_edge(void)
{
    bool woken = sim.edge && sim.producer != sim.consumer;

    sim.edge = false;
    return woken;
}

static uint64_t drain(struct ring *r)
{
    uint64_t pos = ring_begin(r);
    uint64_t n_records = 0;
    const void *record;
    uint64_t next;
    uint32_t n;

    while (ring_at(r, pos, &record, &n, &next) == RING_RECORD) {
        pos = next;
        n_records++;
    }
    ring_consumed(r, pos);
    return n_records;
}

/* Epoll has looked, and no program is about to say something. */
static void check_timer(void)
{
    if (sim.n_inside == 0 && !sim.edge && sim.control.woken != 0)
        sim.fault = "nobody will be woken before the timer";
}

static bool wait_for(enum ring_wait rest)
{
    bool woken = false;

    switch (rest) {
    case RING_SLEEP:
        while (!woken) {
            sim.asleep = true;
            step(); /* perhaps for ever */
            sim.asleep = false;
            woken = takes_edge();
        }
        break;
    case RING_TIMER:
        sim.resting = true;
        step();
        sim.resting = false;
        woken = takes_edge();
        if (!woken)
            check_timer();
        break;
    case RING_AGAIN:
        break;
    }
    return woken;
}

static void reader(void)
{
    enum ring_wait rest = RING_SLEEP;
    uint64_t now_ns = 0;

    while (sim.n_turns++ < MAX_TURNS && sim.fault == NULL) {
        bool woken = wait_for(rest);
        uint64_t n;

        step();
        if (sim.clears_before)
            sim.control.woken = 0;
        n = drain(&sim.ring);
        now_ns += TURN_NS;
        rest = ring_rest(&sim.ring, n, woken, now_ns);
    }
    if (sim.fault == NULL)
        sim.fault = "does not come to rest";
    sim.done[READER] = true;
    step();
}

/* ---- A schedule --------------------------------------------------------------- */

static void make(unsigned i, void (*run)(void))
{
    (void)getcontext(&sim.party[i]);
    sim.party[i].uc_stack.ss_sp = sim.stacks[i];
    sim.party[i].uc_stack.ss_size = STACK;
    sim.party[i].uc_link = NULL;
    makecontext(&sim.party[i], run, 0);
    sim.done[i] = false;
}

/* NULL, or what went wrong. @polled: the ring was busy before. */
static const char *play(bool polled)
{
    sim.consumer = sim.producer = 0;
    sim.control =
        (struct ring_control){.mode = polled ? RING_POLLED : RING_WAKE,
                              .wake_at_bytes = 2 * SLOT};
    sim.ring = (struct ring){.ring_fd = -1,
                             .control_fd = -1,
                             .wait_fd = -1,
                             .control = &sim.control,
                             .consumer = &sim.consumer,
                             .producer = &sim.producer,
                             .data = sim.data,
                             .n_bytes = RING_BYTES};
    sim.edge = polled; /* begin with a turn */
    sim.asleep = sim.resting = false;
    sim.n_turns = 0;
    sim.fault = NULL;
    sim.n_inside = sim.n_choices = sim.n_interruptions = 0;
    make(READER, reader);
    for (unsigned i = FIRST_PROGRAM; i < N_PARTIES; i++)
        make(i, program);
    sim.running = FIRST_PROGRAM;
    for (;;) {
        unsigned next = choose();

        if (next == N_PARTIES || sim.done[READER])
            break;
        sim.running = next;
        (void)swapcontext(&sim.scheduler, &sim.party[next]);
    }
    if (sim.fault == NULL && !all_done())
        sim.fault = "a program hangs";
    if (sim.fault == NULL && sim.producer != sim.consumer)
        sim.fault = "asleep beside a record";
    return sim.fault;
}

/* The next list of choices in depth first order; false: that was the last. */
static bool next_schedule(void)
{
    unsigned n = sim.n_choices;

    while (n > 0) {
        unsigned pick = sim.choices[n - 1] & 15u;
        unsigned of = sim.choices[n - 1] >> 4;

        if (pick + 1 < of) {
            for (unsigned i = 0; i < n - 1; i++)
                sim.choices[i] &= 15u;
            sim.choices[n - 1] = (uint8_t)(pick + 1);
            sim.n_fixed = n;
            return true;
        }
        n--;
    }
    return false;
}

/* Faults among all schedules with at most @n interruptions. */
static unsigned explore(unsigned n, bool clears_before, unsigned *n_played,
                        const char **fault)
{
    unsigned n_faults = 0;

    sim.clears_before = clears_before;
    sim.max_interruptions = n;
    sim.random = 0;
    for (int polled = 0; polled < 2; polled++) {
        sim.n_fixed = 0;
        do {
            const char *why = play(polled != 0);

            (*n_played)++;
            if (why != NULL) {
                n_faults++;
                *fault = why;
            }
        } while (next_schedule());
    }
    return n_faults;
}

static void no_wake_up_is_lost_in_any_order(void **state)
{
    const char *fault = NULL;
    unsigned n_played = 0;

    (void)state;
    if (explore(1, false, &n_played, &fault) != 0)
        fail_msg("%s", fault);
    print_message("%u schedules\n", n_played);
    assert_true(n_played > 1000);
}

static void nor_in_many_by_chance(void **state)
{
    const char *seed = getenv("RETRIEVER_TEST_SEED");
    uint64_t random = seed != NULL ? strtoull(seed, NULL, 10) : 1;

    (void)state;
    sim.clears_before = false;
    sim.max_interruptions = MAX_CHOICES;
    sim.random = random * UINT64_C(0x9e3779b97f4a7c15) | 1;
    for (unsigned i = 0; i < 3000; i++) {
        const char *why = play(i % 2 != 0);

        if (why != NULL)
            fail_msg("%s (schedule %u)", why, i);
    }
}

/* The adversary is good enough to find what was wrong once. */
static void cleared_before_the_drain_it_fails(void **state)
{
    const char *fault = NULL;
    unsigned n_played = 0;

    (void)state;
    assert_true(explore(1, true, &n_played, &fault) > 0);
    assert_string_equal(fault, "nobody will be woken before the timer");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_wake_up_is_lost_in_any_order),
        cmocka_unit_test(nor_in_many_by_chance),
        cmocka_unit_test(cleared_before_the_drain_it_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
