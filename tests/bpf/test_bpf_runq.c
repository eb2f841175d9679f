/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waits for a CPU on this machine: containers made of cgroups, victims and hogs made
 * of processes, on the first CPU that we may use.
 *
 * Other load must not decide a test: whoever takes part is in a group of great weight; what
 * remains is compared with what the scheduler itself says of the same seconds. A row
 * that other load disturbed says so and is run again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <bpf/btf.h>
#include <sched.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bpf/runq_rig.h"
#include "tests/support/skips.h"

#define WINDOW_MS 1000
#define TRIES 4
#define HOGS 24

static struct runq_rig rig;

static int setup(void **state)
{
    (void)state;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    runq_rig_close(&rig);
    return 0;
}

static int cpu(void)
{
    cpu_set_t set;
    int i = 0;

    (void)sched_getaffinity(0, sizeof(set), &set);
    while (!CPU_ISSET(i, &set))
        i++;
    return i;
}

/* Begin with empty sums, and end after a window. */
static void measure(void)
{
    runq_rig_start(&rig);
    runq_rig_pass(&rig, 50);
    runq_rig_collect(&rig, false);
    runq_rig_pass(&rig, WINDOW_MS);
    runq_rig_collect(&rig, true);
    runq_rig_end(&rig);
}

static double waited(const char *who, const char *cause)
{
    char tags[200];

    (void)snprintf(tags, sizeof(tags), "%s%s%s", who, cause[0] ? "," : "",
                   cause);
    return runq_rig_sum(&rig, "runq.wait", tags);
}

static double p99(void)
{
    return runq_rig_percentile(&rig, "runq.latency", VICTIM, 99);
}

/* So many that to wait for them takes much longer than one turn of whatever else
 * runs on this machine. */
static void spawn_hogs(const char *dir)
{
    for (int i = 0; i < HOGS; i++)
        (void)runq_rig_spawn(&rig, WORK_HOG, cpu(), 0, dir, NULL);
}

/* A victim, first alone, then beside hogs in @hogs. */
static void neighbor_row(const char *what, const char *hogs, const char *cause)
{
    double alone_us = 0, share = 0;

    for (int i = 0; i < TRIES; i++) {
        (void)runq_rig_spawn(&rig, WORK_DUTY, cpu(), 0, rig.dirs[0], NULL);
        measure();
        alone_us = p99();
        spawn_hogs(hogs);
        measure();
        runq_rig_kill(&rig);
        share = waited(VICTIM, cause) / waited(VICTIM, "");
        print_message(
            "%s: p99 %.0f us, alone %.0f us; %.0f of %.0f ms are %s\n", what,
            p99(), alone_us, waited(VICTIM, cause), waited(VICTIM, ""), cause);
        if (p99() >= 5 * alone_us && share >= 0.8)
            return;
        print_message("%s: other load disturbed it, again\n", what);
    }
    fail_msg("%s: p99 %.0f us, alone %.0f us, share %.2f", what, p99(),
             alone_us, share);
}

static void a_neighbor_is_named(void **state)
{
    double named, all;

    (void)state;
    runq_rig_open(&rig, "v2");
    (void)runq_rig_cgroup(&rig, NULL, VICTIM_ID);
    neighbor_row("hogs in another container",
                 runq_rig_cgroup(&rig, NULL, HOG_ID), "cause:other_container");
    named =
        runq_rig_sum(&rig, "runq.neighbor.wait", VICTIM ",neighbor:" HOG_ID);
    all = runq_rig_sum(&rig, "runq.neighbor.wait", VICTIM);
    print_message("named: %.0f of %.0f ms\n", named, all);
    assert_true(named >= 0.8 * all && all > 0);
    assert_true(
        runq_rig_sum(&rig, "sched.switch.out",
                     VICTIM ",cause:other_container") >
        runq_rig_sum(&rig, "sched.switch.out", VICTIM ",cause:same_container"));
    assert_true(runq_rig_sum(&rig, "runq.latency", HOG) > 0);
}

static void one_may_be_ones_own_neighbor(void **state)
{
    const char *dir;

    (void)state;
    runq_rig_open(&rig, "v2");
    dir = runq_rig_cgroup(&rig, NULL, VICTIM_ID);
    (void)runq_rig_cgroup(&rig, NULL, VICTIM_ID "/deep");
    (void)dir;
    /* A cgroup below the container's is the same container. */
    neighbor_row("hogs in the same container", rig.dirs[1],
                 "cause:same_container");
    assert_true(runq_rig_sum(&rig, "sched.switch.out",
                             VICTIM ",cause:same_container") > 0);
}

static void the_system_may_be_the_neighbor(void **state)
{
    (void)state;
    runq_rig_open(&rig, "v2");
    (void)runq_rig_cgroup(&rig, NULL, VICTIM_ID);
    neighbor_row("hogs in no container", NULL, "cause:system_service");
    assert_true(
        runq_rig_sum(&rig, "runq.neighbor.wait", VICTIM ",neighbor:root") > 0);
    /* Not asked for, not reported. */
    assert_true(runq_rig_sum(&rig, "runq.latency", "unit:root") == 0);
}

static void a_v1_hierarchy_does_as_well(void **state)
{
    const char *victim, *hogs;

    (void)state;
    if (!runq_rig_has("cpu")) /* version 2 may have it */
        skip_row("no v1 hierarchy has the cpu controller");
    runq_rig_open(&rig, "cpu");
    victim = runq_rig_cgroup(&rig, NULL, VICTIM_ID);
    hogs = runq_rig_cgroup(&rig, NULL, HOG_ID);
    runq_rig_write(victim, "cpu.shares", "128"); /* of 1152 */
    assert_true(cgroups_subsys(rig.cgroups) >= 0);
    neighbor_row("v1: hogs in another container", hogs,
                 "cause:other_container");
    assert_true(runq_rig_sum(&rig, "runq.neighbor.wait",
                             VICTIM ",neighbor:" HOG_ID) > 0);
}

/* Whether programs can tell that a queue was held back (since Linux 6.6). */
static bool kernel_tells_held(void)
{
    struct btf *btf = btf__load_vmlinux_btf();
    const struct btf_type *t = NULL;
    bool found = false;
    int id = btf != NULL
                 ? btf__find_by_name_kind(btf, "cfs_rq", BTF_KIND_STRUCT)
                 : -1;

    if (id > 0)
        t = btf__type_by_id(btf, (__u32)id);
    for (int i = 0; t != NULL && i < btf_vlen(t); i++)
        found |= strcmp(btf__name_by_offset(btf, btf_members(t)[i].name_off),
                        "throttled_clock_self_time") == 0;
    btf__free(btf);
    return found;
}

/* Held back by a quota, a task waits while its CPU has nothing to do, or does what
 * others want: neither is the fault of those. */
static void a_quota_is_no_neighbor(void **state)
{
    const char *dir, *quota;

    (void)state;
    if (!kernel_tells_held())
        skip_row("this kernel does not tell who is held back");
    runq_rig_open(&rig, "v2");
    dir = runq_rig_cgroup(&rig, NULL, VICTIM_ID);
    quota = runq_rig_quota(&rig, VICTIM_ID);
    (void)runq_rig_spawn(&rig, WORK_HOG, cpu(), 0, dir, quota);
    for (int i = 0; i < TRIES; i++) {
        double idle_ms, all_ms, throttled_ms, n;

        runq_rig_start(&rig);
        runq_rig_pass(&rig, 300); /* a first reading, to compare with */
        runq_rig_collect(&rig, false);
        runq_rig_pass(&rig, WINDOW_MS);
        runq_rig_collect(&rig, false);
        runq_rig_end(&rig);
        all_ms = waited(VICTIM, "");
        idle_ms = waited(VICTIM, "cause:idle");
        throttled_ms = runq_rig_sum(&rig, "runq.throttled.time", VICTIM);
        n = runq_rig_sum(&rig, "runq.throttled.periods", VICTIM);
        print_message("quota: waited %.0f ms, %.0f ms of it idle, throttled "
                      "%.0f ms in %.0f periods\n",
                      all_ms, idle_ms, throttled_ms, n);
        /* 80 % of the time, in each period of 100 ms: at least half. */
        if (throttled_ms > 0.4 * WINDOW_MS && n >= 0.005 * WINDOW_MS &&
            idle_ms >= 0.8 * all_ms)
            return;
        print_message("quota: other load disturbed it, again\n");
    }
    fail_msg("the quota is not the cause");
}

/* The two are not read at one instant: the scheduler's sum is read before and behind
 * ours, and the truth lies between. */
static void sums_are_the_schedulers(void **state)
{
    const char *dir;
    double least_ms = 0, most_ms = 0, ours_ms = 0;
    pid_t pid;

    (void)state;
    runq_rig_open(&rig, "v2");
    dir = runq_rig_cgroup(&rig, NULL, VICTIM_ID);
    pid = runq_rig_spawn(&rig, WORK_DUTY, cpu(), 0, dir, NULL);
    spawn_hogs(NULL);
    for (int i = 0; i < TRIES; i++) {
        uint64_t first[2], second[2];

        runq_rig_start(&rig);
        runq_rig_pass(&rig, 300);
        first[0] = runq_rig_waited_ns(pid);
        runq_rig_collect(&rig, false);
        first[1] = runq_rig_waited_ns(pid);
        runq_rig_pass(&rig, WINDOW_MS);
        second[0] = runq_rig_waited_ns(pid);
        runq_rig_collect(&rig, false);
        second[1] = runq_rig_waited_ns(pid);
        runq_rig_end(&rig);
        least_ms = (double)(second[0] - first[1]) / 1e6;
        most_ms = (double)(second[1] - first[0]) / 1e6;
        ours_ms = waited(VICTIM, "");
        print_message("truth: %.1f ms, scheduler %.1f to %.1f ms\n", ours_ms,
                      least_ms, most_ms);
        if (most_ms > 0.2 * WINDOW_MS && ours_ms > 0.95 * least_ms &&
            ours_ms < 1.05 * most_ms)
            return;
        print_message("truth: again\n");
    }
    fail_msg("%.1f ms, scheduler %.1f to %.1f ms", ours_ms, least_ms, most_ms);
}

static void who_never_sleeps_waits_too(void **state)
{
    const char *dir;

    (void)state;
    runq_rig_open(&rig, "v2");
    dir = runq_rig_cgroup(&rig, NULL, VICTIM_ID);
    (void)runq_rig_spawn(&rig, WORK_HOG, cpu(), 0, dir, NULL);
    spawn_hogs(NULL);
    measure();
    print_message("preempted: %.0f waits\n",
                  runq_rig_sum(&rig, "runq.latency", VICTIM));
    assert_true(runq_rig_sum(&rig, "runq.latency", VICTIM) > 25);
    assert_true(runq_rig_sum(&rig, "sched.switch.out", VICTIM) > 25);
}

/* Made, used and removed between two reports. */
static void a_short_life_has_a_name(void **state)
{
    const char *dir;

    (void)state;
    runq_rig_open(&rig, "v2");
    runq_rig_start(&rig);
    dir = runq_rig_cgroup(&rig, NULL, SHORT_ID);
    (void)runq_rig_spawn(&rig, WORK_DUTY, cpu(), 0, dir, NULL);
    runq_rig_kill(&rig);
    assert_int_equal(rmdir(dir), 0);
    runq_rig_pass(&rig, 30);
    runq_rig_collect(&rig, false);
    assert_true(rig.n_events[EVENT_CGROUP] >= 2);
    assert_true(runq_rig_sum(&rig, "runq.latency", "container_id:" SHORT_ID) >
                0);
    assert_true(runq_rig_sum(&rig, "runq.latency", "container:unknown") == 0);
    /* And is forgotten. */
    runq_rig_collect(&rig, true);
    assert_true(runq_rig_sum(&rig, "runq.latency", "container_id:" SHORT_ID) ==
                0);
}

static void a_stream_has_a_limit(void **state)
{
    const char *dir;
    double n;

    (void)state;
    runq_rig_open(&rig, "v2");
    rig.opts.runq.stream = true;
    rig.opts.runq.min_interval_us = 100000;
    dir = runq_rig_cgroup(&rig, NULL, VICTIM_ID);
    (void)runq_rig_spawn(&rig, WORK_DUTY, cpu(), 0, dir, NULL);
    measure();
    n = runq_rig_sum(&rig, "runq.latency", VICTIM);
    print_message("stream: %.0f records at 10/s\n", n);
    assert_true(n >= 5 && n <= WINDOW_MS / 100.0 + 1);

    rig.opts.runq.min_interval_us = 0;
    spawn_hogs(runq_rig_cgroup(&rig, NULL, HOG_ID));
    measure();
    n = runq_rig_sum(&rig, "runq.latency", VICTIM);
    print_message(
        "stream: %.0f records without limit, %.0f ms behind the hog\n", n,
        waited(VICTIM, "cause:other_container"));
    assert_true(n > 2 * (WINDOW_MS / 100.0));
    assert_true(waited(VICTIM, "cause:other_container") > 0);
    assert_true(runq_rig_sum(&rig, "runq.neighbor.wait",
                             VICTIM ",neighbor:" HOG_ID) > 0);
    assert_true(runq_rig_sum(&rig, "sched.switch.out",
                             VICTIM ",cause:other_container") > 0);
}

static void what_is_excluded_is_silent(void **state)
{
    const char *dir;

    (void)state;
    runq_rig_open(&rig, "v2");
    rig.opts.runq.exclude = "b*";
    dir = runq_rig_cgroup(&rig, NULL, VICTIM_ID);
    (void)runq_rig_spawn(&rig, WORK_DUTY, cpu(), 0, dir, NULL);
    spawn_hogs(runq_rig_cgroup(&rig, NULL, HOG_ID));
    measure();
    assert_true(runq_rig_sum(&rig, "runq.latency", VICTIM) > 0);
    assert_true(runq_rig_sum(&rig, "runq.latency", HOG) == 0);
    assert_true(runq_rig_sum(&rig, "runq.neighbor.wait",
                             VICTIM ",neighbor:" HOG_ID) > 0);
}

static void a_wrong_hierarchy_is_refused(void **state)
{
    struct loader_cause cause = {0};

    (void)state;
    runq_rig_open(&rig, "auto");
    rig.opts.runq.hierarchy = "cpuz";
    assert_int_equal(runq_feature.open(&rig.self, &rig.env, &cause),
                     LOADER_REFUSED);
    assert_null(rig.self);
    assert_non_null(strstr(cause.why, "cpuz"));
    assert_non_null(strstr(cause.remedy,
                           cgroups_hierarchy(rig.cgroups)->v2 ? "v2" : "cpu"));
    rig.opts.runq.hierarchy = "v2";
    runq_rig_start(&rig);
}

/* Others may run containers here, too: then there is nothing to be seen. */
static void auto_goes_where_containers_are_when_it_has_none(void **state)
{
    struct cgroups *c;
    const char *late;

    (void)state;
    runq_rig_open(&rig, "auto");
    c = rig.cgroups;
    if (!runq_rig_has("cpu") || !cgroups_hierarchy(c)->v2 ||
        cgroups_outdated(c)) {
        print_message("skipped: containers, or no v1 hierarchy with cpu\n");
        skip();
        return;
    }
    assert_true(cgroups_may_change(c));
    late = runq_rig_cgroup(&rig, "cpu", VICTIM_ID);
    assert_true(cgroups_outdated(c));
    assert_int_equal(cgroups_use(c, "auto"), 0);
    assert_true(hierarchy_is(cgroups_hierarchy(c), "cpu"));
    assert_false(cgroups_outdated(c));
    /* Both have some: it stays, whichever has more. */
    (void)runq_rig_cgroup(&rig, "v2", VICTIM_ID);
    (void)runq_rig_cgroup(&rig, "v2", HOG_ID);
    assert_false(cgroups_outdated(c));
    assert_int_equal(rmdir(late), 0);
    assert_true(cgroups_outdated(c));
    /* What was asked for by name is not left. */
    assert_int_equal(cgroups_use(c, "cpu"), 0);
    assert_false(cgroups_outdated(c) || cgroups_may_change(c));
}

/* In a process of its own, which gives up its privileges. */
static void without_privilege_schedstat_stands_in(void **state)
{
    int status;
    pid_t pid;

    (void)state;
    runq_rig_open(&rig, "v2");
    spawn_hogs(NULL);
    pid = fork();
    if (pid == 0) {
        struct loader_cause cause = {0};
        bool ok;

        if (setresuid(65534, 65534, 65534) != 0)
            _exit(2);
        if (runq_feature.open(&rig.self, &rig.env, &cause) != 0)
            _exit(3);
        runq_rig_pass(&rig, 200);
        runq_rig_collect(&rig, true);
        ok = cause.why[0] != '\0' &&
             runq_rig_sum(&rig, "runq.wait", "source:schedstat") > 0 &&
             runq_rig_sum(&rig, "runq.latency", "") == 0;
        runq_rig_end(&rig);
        _exit(ok ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
#define ROW(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        ROW(a_neighbor_is_named),
        ROW(one_may_be_ones_own_neighbor),
        ROW(the_system_may_be_the_neighbor),
        ROW(a_v1_hierarchy_does_as_well),
        ROW(a_quota_is_no_neighbor),
        ROW(sums_are_the_schedulers),
        ROW(who_never_sleeps_waits_too),
        ROW(a_short_life_has_a_name),
        ROW(a_stream_has_a_limit),
        ROW(what_is_excluded_is_silent),
        ROW(a_wrong_hierarchy_is_refused),
        ROW(auto_goes_where_containers_are_when_it_has_none),
        ROW(without_privilege_schedstat_stands_in),
    };

    runq_rig_require();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
