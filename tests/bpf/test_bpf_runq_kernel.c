/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scheduler's programs as such: each way to load them counts the same, and what
 * they cost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bpf/runq_kernel.h"
#include "tests/bpf/hook_cost.h"
#include "tests/bpf/runq_rig.h"

#define WINDOW_MS 500
#define UNSEEN_MS 1500
#define N_WAITING 8
#define RING_BYTES (1u << 18) /* of the rig */
#define REUSED_TID 31999
#define REUSED_MS 100
#define N_REUSES 8
#define TRIES 4
#define ROUNDS 30
#define BUDGET_NS 250

static struct runq_rig rig;

struct sums {
    uint64_t victim;
    uint64_t sum_ns, by_cause_ns, n_waits, n_class, pair_ns;
    size_t longest; /* class */
    bool gone;
};

static int teardown(void **state)
{
    (void)state;
    runq_rig_close(&rig);
    return 0;
}

static void on_hist(void *arg, uint64_t cgid, const struct sched_hist *delta)
{
    struct sums *s = arg;

    if (cgid != s->victim)
        return;
    s->sum_ns += delta->sum_ns;
    s->n_waits += delta->n_waits;
    for (size_t i = 0; i < SCHED_N_CAUSES; i++)
        s->by_cause_ns += delta->wait_ns[i];
    for (size_t i = 0; i < SCHED_N_CLASSES; i++) {
        s->n_class += delta->n_class[i];
        if (delta->n_class[i] > 0)
            s->longest = i;
    }
}

static void on_pair(void *arg, const struct sched_pair *pair,
                    const struct sched_wait *delta)
{
    struct sums *s = arg;

    if (pair->victim == s->victim)
        s->pair_ns += delta->ns;
}

static bool is_gone(void *arg, uint64_t cgid, bool idle)
{
    const struct sums *s = arg;

    (void)idle;
    return s->gone && cgid == s->victim;
}

static struct runq_kernel *start(const struct runq_kernel_force *force)
{
    struct loader_cause cause = {0};
    struct runq_kernel *k = NULL;
    int rc = runq_kernel_open(&k, &rig.opts.runq, &rig.env, force, &cause);

    if (rc == 0)
        rc = runq_kernel_start(k, &cause);
    if (rc != 0)
        fail_msg("%d %s", rc, cause.why);
    return k;
}

static void counts_like_the_scheduler(const struct runq_kernel_force *force)
{
    struct runq_kernel_sink sink = {NULL, on_hist, on_pair, is_gone};
    double least_ms = 0, most_ms = 0, ours_ms = 0;
    const char *dir;
    uint64_t victim;
    pid_t pid;

    runq_rig_open(&rig, "v2");
    dir = runq_rig_cgroup(&rig, NULL, VICTIM_ID);
    pid = runq_rig_spawn(&rig, WORK_HOG, 0, 0, dir, NULL);
    victim = cgroups_of_pid(rig.cgroups, pid);
    for (int i = 0; i < 3; i++)
        (void)runq_rig_spawn(&rig, WORK_DUTY, 0, 0, NULL, NULL);
    for (int i = 0; i < TRIES; i++) {
        struct sums ignored = {.victim = victim}, sums = ignored;
        struct runq_kernel *k = start(force);
        uint64_t first[2], second[2];

        runq_rig_pass(&rig, 200);
        first[0] = runq_rig_waited_ns(pid);
        sink.arg = &ignored;
        runq_kernel_read(k, &sink);
        first[1] = runq_rig_waited_ns(pid);
        runq_rig_pass(&rig, WINDOW_MS);
        second[0] = runq_rig_waited_ns(pid);
        runq_kernel_stop(k);
        sink.arg = &sums;
        runq_kernel_read(k, &sink);
        second[1] = runq_rig_waited_ns(pid);
        least_ms = (double)(second[0] - first[1]) / 1e6;
        most_ms = (double)(second[1] - first[0]) / 1e6;
        ours_ms = (double)sums.sum_ns / 1e6;
        print_message("%.1f ms, scheduler %.1f to %.1f ms\n", ours_ms, least_ms,
                      most_ms);
        assert_int_equal(sums.sum_ns, sums.by_cause_ns);
        assert_int_equal(sums.n_waits, sums.n_class);
        /* The maps are read one after the other, and only the second time at
         * rest: it is the whole that agrees. */
        assert_true(sums.pair_ns > 0);
        assert_true(sums.pair_ns + ignored.pair_ns <=
                    sums.sum_ns + ignored.sum_ns);

        /* Read to the end, then nothing; forgotten, then new. */
        sums = (struct sums){.victim = victim, .gone = true};
        runq_kernel_read(k, &sink);
        assert_int_equal(sums.n_waits + sums.pair_ns, 0);
        runq_kernel_read(k, &sink);
        assert_int_equal(sums.n_waits + sums.pair_ns, 0);
        runq_kernel_close(k);
        if (most_ms > 0.2 * WINDOW_MS && ours_ms > 0.95 * least_ms &&
            ours_ms < 1.05 * most_ms)
            return;
        print_message("the two were read at different times, again\n");
    }
    fail_msg("%.1f ms, scheduler %.1f to %.1f ms", ours_ms, least_ms, most_ms);
}

static void task_storage_counts_right(void **state)
{
    (void)state;
    counts_like_the_scheduler(NULL);
}

static void an_older_kernel_counts_right(void **state)
{
    struct runq_kernel_force force = {.no_storage = true};

    (void)state;
    counts_like_the_scheduler(&force);
}

static void a_large_machine_counts_right(void **state)
{
    struct runq_kernel_force force = {.shared = true};

    (void)state;
    counts_like_the_scheduler(&force);
}

static void without_a_ring_it_counts_right(void **state)
{
    struct runq_kernel_sink sink = {NULL, on_hist, on_pair, is_gone};
    struct sums sums = {0};
    struct sched_stats stats;
    struct runq_kernel *k;
    pid_t pid;

    (void)state;
    runq_rig_open(&rig, "v2");
    rig.env.events_fd = -1;
    rig.opts.runq.voluntary = true;
    k = start(NULL);
    pid = runq_rig_spawn(&rig, WORK_DUTY, 0, 0,
                         runq_rig_cgroup(&rig, NULL, VICTIM_ID), NULL);
    sums.victim = cgroups_of_pid(rig.cgroups, pid);
    sink.arg = &sums;
    runq_rig_pass(&rig, 200);
    runq_kernel_read(k, &sink);
    runq_kernel_stats(k, &stats);
    runq_kernel_close(k);
    assert_true(sums.n_waits > 0);
    assert_int_equal(rig.n_events[EVENT_CGROUP], 0);
    assert_true(stats.n_switches > 0 && stats.n_unknown > 0);
    assert_int_equal(stats.n_negative + stats.n_full, 0);
}

/* Tasks that wait when nobody looks any more, and have run when somebody does again:
 * their stamps are of waits that ended long ago. */
static void a_wait_that_ended_unseen_is_not_one(void **state)
{
    struct runq_kernel_sink sink = {NULL, on_hist, on_pair, is_gone};
    struct sums sums = {0};
    struct loader_cause cause = {0};
    struct runq_kernel *k;
    const char *dir;
    pid_t pid = 0;

    (void)state;
    runq_rig_open(&rig, "v2");
    dir = runq_rig_cgroup(&rig, NULL, VICTIM_ID);
    for (int i = 0; i < N_WAITING; i++)
        pid = runq_rig_spawn(&rig, WORK_DUTY, 0, 0, dir, NULL);
    sums.victim = cgroups_of_pid(rig.cgroups, pid);
    k = start(NULL);
    runq_rig_pass(&rig, WINDOW_MS);
    runq_kernel_stop(k);
    runq_rig_pass(&rig, UNSEEN_MS);
    sink.arg = &sums;
    runq_kernel_read(k, &sink);
    assert_true(sums.n_waits > 0);
    sums.longest = 0;
    assert_int_equal(runq_kernel_start(k, &cause), 0);
    runq_rig_pass(&rig, WINDOW_MS);
    runq_kernel_read(k, &sink);
    runq_kernel_close(k);
    assert_in_range(sums.longest, 1,
                    sched_class(UNSEEN_MS * UINT64_C(1000000)) - 1);
}

/* By the task's own clock: what the scheduler adds up is not when a task runs, where
 * the switch was asked for by a wake-up and comes late. */
static void a_wait_ends_when_the_task_runs(void **state)
{
    struct runq_kernel_sink sink = {NULL, on_hist, on_pair, is_gone};
    struct sums ignored = {0}, sums = {0};
    struct runq_kernel *k;
    double ours_ms, late_ms;
    const char *dir;
    uint64_t late_ns;
    pid_t pid;

    (void)state;
    runq_rig_open(&rig, "v2");
    dir = runq_rig_cgroup(&rig, NULL, VICTIM_ID);
    pid = runq_rig_spawn(&rig, WORK_LATE, 0, 0, dir, NULL);
    ignored.victim = sums.victim = cgroups_of_pid(rig.cgroups, pid);
    (void)runq_rig_spawn(&rig, WORK_CALLS, 0, 0, NULL, NULL);
    k = start(NULL);
    runq_rig_pass(&rig, 200);
    sink.arg = &ignored;
    runq_kernel_read(k, &sink);
    late_ns = runq_rig_late_ns(&rig);
    runq_rig_pass(&rig, 3 * WINDOW_MS);
    late_ns = runq_rig_late_ns(&rig) - late_ns;
    sink.arg = &sums;
    runq_kernel_read(k, &sink);
    runq_kernel_close(k);
    ours_ms = (double)sums.sum_ns / 1e6;
    late_ms = (double)late_ns / 1e6;
    print_message("%.1f ms, late by %.1f ms\n", ours_ms, late_ms);
    assert_true(late_ms > 10); /* there was something to wait for */
    assert_true(ours_ms > 0.8 * late_ms && ours_ms < 1.1 * late_ms);
}

/* One that runs for a moment in cgroup @fd, and is woken while it does. */
static void run_briefly(int fd)
{
    pid_t tid = REUSED_TID;
    struct clone_args args = {.flags = CLONE_INTO_CGROUP,
                              .exit_signal = SIGCHLD,
                              .set_tid = (uint64_t)(uintptr_t)&tid,
                              .set_tid_size = 1,
                              .cgroup = (uint64_t)fd};
    long pid = syscall(SYS_clone3, &args, sizeof(args));
    const struct timespec soon = {.tv_nsec = 1};

    if (pid == 0) {
        (void)prctl(PR_SET_TIMERSLACK, 1);
        (void)ppoll(NULL, 0, &soon, NULL); /* over before it sleeps */
        _exit(0);
    }
    assert_int_equal(pid, tid);
    assert_int_equal(waitpid(tid, NULL, 0), tid);
}

/* Before Linux 6.4 stamps go by the number of a task, which others get. */
static void a_new_task_does_not_inherit_a_wait(void **state)
{
    const struct runq_kernel_force force = {.no_storage = true};
    struct runq_kernel_sink sink = {NULL, on_hist, on_pair, is_gone};
    struct sums sums = {0};
    struct runq_kernel *k;
    struct stat st;
    int fd;

    (void)state;
    runq_rig_open(&rig, "v2");
    fd = open(runq_rig_cgroup(&rig, NULL, VICTIM_ID), O_RDONLY | O_CLOEXEC);
    assert_int_equal(fstat(fd, &st), 0);
    sums.victim = st.st_ino; /* of the v2 hierarchy that is the id */
    sink.arg = &sums;
    k = start(&force);
    for (int i = 0; i < N_REUSES; i++) {
        run_briefly(fd);
        runq_rig_pass(&rig, REUSED_MS);
    }
    runq_kernel_read(k, &sink);
    runq_kernel_close(k);
    close(fd);
    assert_true(sums.n_waits >= N_REUSES);
    assert_true(sums.longest < sched_class(REUSED_MS * UINT64_C(1000000)));
}

/* What was in the ring before lies behind a text that is shorter than its place. The rig
 * looks at each record. */
static void records_are_whole_in_a_ring_that_was_used(void **state)
{
    struct runq_kernel *k;
    const char *top;
    char name[200];

    (void)state;
    runq_rig_open(&rig, "v2");
    top = runq_rig_cgroup(&rig, NULL, VICTIM_ID);
    k = start(NULL);
    memset(name, 'x', sizeof(name));
    for (size_t i = 0; ring_begin(&rig.ring.ring) < 3 * RING_BYTES; i++) {
        char path[512];

        (void)snprintf(path, sizeof(path), "%s/%.*s", top,
                       (int)(1 + i % (sizeof(name) - 1)), name);
        assert_int_equal(mkdir(path, 0755), 0);
        assert_int_equal(rmdir(path), 0);
        if (i % 100 == 99)
            runq_rig_pass(&rig, 1);
    }
    assert_true(rig.n_events[EVENT_CGROUP] > 1000);
    runq_kernel_close(k);
}

static void tell(void *arg, const struct cgroup_info *info)
{
    runq_kernel_tell(arg, info, false);
}

static double least(double a, double b)
{
    return a < b ? a : b;
}

/* What programs may take: where the kernel makes each return from a function slow for
 * safety, as it does for some processors, to call helpers costs a multiple, as to call
 * an empty program does. */
static double budget_ns(double empty)
{
    return 3 * empty > BUDGET_NS ? 3 * empty : BUDGET_NS;
}

/* By turns empty programs and ours, the best of each, until a moment comes in which the
 * machine is not slowed down by others. */
static void a_switch_costs_little(void **state)
{
    double empty = 1e9, ours = 1e10;
    struct pingpong p;

    (void)state;
    runq_rig_open(&rig, "v2");
    rig.env.own_tgid = 0; /* the ball is played by others than the agent */
    assert_int_equal(pingpong_start(&p), 0);
    for (int i = 0; i < ROUNDS && ours - empty >= budget_ns(empty); i++) {
        uint32_t id = hook_cost_last_id();
        struct empty_hooks hooks;
        struct runq_kernel *k;

        assert_int_equal(empty_hooks_on(&hooks), 0);
        empty = least(empty, hook_cost_ns(&p, id));
        empty_hooks_off(&hooks);
        id = hook_cost_last_id();
        k = start(NULL);
        cgroups_each(rig.cgroups, tell, k);
        ours = least(ours, hook_cost_ns(&p, id));
        runq_kernel_close(k);
    }
    pingpong_stop(&p);
    print_message("a switch and a wake-up: %.0f ns in empty programs, %.0f in "
                  "ours\n",
                  empty, ours);
    assert_true(empty > 0 && ours > empty);
    assert_true(ours - empty < budget_ns(empty));
}

int main(void)
{
#define ROW(f) cmocka_unit_test_teardown(f, teardown)
    const struct CMUnitTest tests[] = {
        ROW(task_storage_counts_right),
        ROW(an_older_kernel_counts_right),
        ROW(a_large_machine_counts_right),
        ROW(without_a_ring_it_counts_right),
        ROW(a_wait_that_ended_unseen_is_not_one),
        ROW(a_wait_ends_when_the_task_runs),
        ROW(a_new_task_does_not_inherit_a_wait),
        ROW(records_are_whole_in_a_ring_that_was_used),
        ROW(a_switch_costs_little),
    };

    runq_rig_require();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
