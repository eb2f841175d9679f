/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ladder from real time to nothing, against a kernel that refuses as it is told
 * to. What a real one does is in tests/bpf/test_bpf_priority.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "agent/priority.h"

#define RESET_ON_FORK 0x40000000

static struct {
    int rt_errno;  /* of real time; 0 = granted */
    bool pretends; /* says yes and does nothing */
    int nice_from; /* least nice value that is allowed */
    int policy, nice;
    unsigned n_calls;
} kernel;

/* The first fields of what sched_setattr() takes. */
struct attr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t rest[3];
};

static int set_attr(const struct attr *a)
{
    kernel.n_calls++;
    assert_int_equal(a->size, sizeof(*a));
    assert_int_equal(a->flags, 1); /* reset on fork */
    if (kernel.pretends)
        return 0;
    if (a->policy != SCHED_OTHER) {
        assert_int_equal(a->nice, 0);
        errno = kernel.rt_errno;
        if (errno == 0)
            kernel.policy = (int)a->policy | RESET_ON_FORK;
        return errno == 0 ? 0 : -1;
    }
    errno = EPERM;
    if (a->nice < kernel.nice_from)
        return -1;
    kernel.policy = SCHED_OTHER | RESET_ON_FORK;
    kernel.nice = a->nice;
    return 0;
}

long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    const struct attr *a;
    va_list args;
    int pid;

    if (number == SYS_sched_getscheduler)
        return kernel.policy;
    assert_int_equal(number, SYS_sched_setattr);
    va_start(args, number);
    pid = va_arg(args, int);
    a = va_arg(args, const struct attr *);
    va_end(args);
    assert_int_equal(pid, 0);
    return set_attr(a);
}

int __wrap_getpriority(int which, int who);
int __wrap_getpriority(int which, int who)
{
    assert_int_equal(which, PRIO_PROCESS);
    assert_int_equal(who, 0);
    return kernel.nice;
}

static void take(struct priority *p, int policy, int fallback)
{
    const struct priority_request want = {policy, 10, fallback, 200};

    memset(p, 0, sizeof(*p));
    kernel.policy = SCHED_OTHER;
    kernel.nice = kernel.n_calls = 0;
    priority_take(p, &want, NULL, 0);
}

static void each_step_is_tried_in_turn(void **state)
{
    static const struct {
        int fallback, nice_from;
        int want;         /* 0 = nothing was granted */
        unsigned n_calls; /* real time included */
    } steps[] = {
        {-20, -20, -20, 2}, {-20, -19, -10, 3}, {-20, -10, -10, 3},
        {-20, -9, 0, 3},    {-15, -10, -10, 3}, {-10, -9, 0, 2},
        {-5, -5, -5, 2},    {-5, -4, 0, 2},     {5, 0, 5, 2},
        {0, -20, 0, 1},
    };

    (void)state;
    kernel.rt_errno = EPERM;
    kernel.pretends = false;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct priority p;
        struct priority_state s;

        kernel.nice_from = steps[i].nice_from;
        take(&p, SCHED_FIFO, steps[i].fallback);
        s = priority_state(&p);
        assert_true(s.settled);
        assert_int_equal(s.refused, EPERM);
        assert_int_equal(s.nice, steps[i].want);
        assert_int_equal(kernel.nice, steps[i].want);
        assert_int_equal(s.got,
                         steps[i].want != 0 ? PRIORITY_NICE : PRIORITY_USUAL);
        assert_string_equal(priority_requested_name(&p.want), "fifo");
        assert_string_equal(priority_effective_name(&p.want, &s),
                            steps[i].want != 0 ? "nice" : "other");
        assert_int_equal(kernel.n_calls, steps[i].n_calls);
    }
}

static void what_is_granted_is_verified(void **state)
{
    struct priority p;
    struct priority_state s;

    (void)state;
    kernel.rt_errno = 0;
    kernel.pretends = false;
    take(&p, SCHED_RR, -20);
    s = priority_state(&p);
    assert_int_equal(s.got, PRIORITY_REALTIME);
    assert_int_equal(s.refused, 0);
    assert_string_equal(priority_effective_name(&p.want, &s), "rr");
    kernel.pretends = true;
    take(&p, SCHED_RR, -20);
    s = priority_state(&p);
    assert_int_equal(s.got, PRIORITY_USUAL);
    assert_int_equal(s.nice, 0);
    assert_int_equal(s.refused, ENOTSUP);
    assert_string_equal(priority_effective_name(&p.want, &s), "other");
}

static void who_asks_for_nothing_makes_no_call(void **state)
{
    struct priority p;

    (void)state;
    take(&p, SCHED_OTHER, -20);
    assert_int_equal(kernel.n_calls, 0);
    assert_false(priority_state(&p).settled);
    assert_false(priority_breathe(&p, UINT64_C(1) << 60));
    assert_string_equal(priority_requested_name(&p.want), "none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_step_is_tried_in_turn),
        cmocka_unit_test(what_is_granted_is_verified),
        cmocka_unit_test(who_asks_for_nothing_makes_no_call),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
