/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the scheduler's programs cost: ns for one switch and one wake-up, beside a
 * bare one and one with empty programs in the same run; how much of that the kernel
 * counts inside of the programs; and how long a report takes. Needs CAP_SYS_ADMIN.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "bpf/runq_kernel.h"
#include "tests/bpf/hook_cost.h"

#define ROUNDS 8

static const struct {
    const char *what;
    bool is_silent;
    struct runq_kernel_force force;
} cases[] = {
    {"tasks that are not reported", .is_silent = true},
    {"reported tasks", .is_silent = false},
    {"reported, before Linux 5.13", .force.no_storage = true},
    {"reported, more than 300 CPUs", .force.shared = true},
};

static struct runq_opts opts = RUNQ_OPTS_DEFAULT;
static struct runq_kernel *kernel;
static bool is_silent;

static void tell(void *arg, const struct cgroup_info *info)
{
    (void)arg;
    runq_kernel_tell(kernel, info, is_silent);
}

static void on_hist(void *arg, uint64_t cgid, const struct sched_hist *delta)
{
    (void)arg;
    (void)cgid;
    (void)delta;
}

static void on_pair(void *arg, const struct sched_pair *pair,
                    const struct sched_wait *delta)
{
    (void)arg;
    (void)pair;
    (void)delta;
}

static bool is_gone(void *arg, uint64_t cgid, bool idle)
{
    (void)arg;
    (void)cgid;
    (void)idle;
    return false;
}

static double least(double a, double b)
{
    return a < b ? a : b;
}

/* ns for one switch and one wake-up, the least of all rounds. */
struct cost {
    double bare;
    double empty,
        empty_inside; /* the second: in programs, and in counting that */
    double ours, ours_inside;
    double read_us;
};

static void measure_empty(struct cost *c, const struct pingpong *p)
{
    uint32_t id = hook_cost_last_id();
    struct empty_hooks hooks;

    if (empty_hooks_on(&hooks) != 0)
        return;
    c->empty = least(c->empty, pingpong_ns(p));
    c->empty_inside = least(c->empty_inside, hook_cost_ns(p, id));
    empty_hooks_off(&hooks);
}

static void measure_read(struct cost *c)
{
    struct runq_kernel_sink sink = {NULL, on_hist, on_pair, is_gone};
    struct timespec a, b;

    (void)clock_gettime(CLOCK_MONOTONIC, &a);
    runq_kernel_read(kernel, &sink);
    (void)clock_gettime(CLOCK_MONOTONIC, &b);
    c->read_us = least(c->read_us, (double)(b.tv_sec - a.tv_sec) * 1e6 +
                                       (double)(b.tv_nsec - a.tv_nsec) / 1e3);
}

/* Returns false when programs cannot be loaded. */
static bool run(size_t i, struct cgroups *cgroups, const struct pingpong *p)
{
    struct feature_env env = {.events_fd = -1, .cgroups = cgroups};
    struct cost c = {1e9, 1e9, 1e9, 1e9, 1e9, 1e9};

    for (int round = 0; round < ROUNDS; round++) {
        struct loader_cause cause = {0};
        uint32_t id;

        c.bare = least(c.bare, pingpong_ns(p));
        measure_empty(&c, p);
        id = hook_cost_last_id();
        if (runq_kernel_open(&kernel, &opts, &env, &cases[i].force, &cause) !=
            0) {
            printf("no programs: %s; %s\n", cause.why, cause.remedy);
            return false;
        }
        is_silent = cases[i].is_silent;
        cgroups_each(cgroups, tell, NULL);
        if (runq_kernel_start(kernel, &cause) != 0) {
            printf("not attached: %s\n", cause.why);
            runq_kernel_close(kernel);
            return false;
        }
        c.ours = least(c.ours, pingpong_ns(p));
        c.ours_inside = least(c.ours_inside, hook_cost_ns(p, id));
        measure_read(&c);
        runq_kernel_close(kernel);
    }
    printf("%-28s bare %5.0f ns, +%4.0f (empty programs +%4.0f); in programs "
           "%4.0f (empty %4.0f); read in %.0f us\n",
           cases[i].what, c.bare, c.ours - c.bare, c.empty - c.bare,
           c.ours_inside, c.empty_inside, c.read_us);
    return true;
}

int main(void)
{
    struct cgroups *cgroups;
    struct pingpong p;

    if (cgroups_create(&cgroups) != 0 || pingpong_start(&p) != 0)
        return 1;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (!run(i, cgroups, &p))
            break;
    }
    pingpong_stop(&p);
    cgroups_close(cgroups);
    return 0;
}
