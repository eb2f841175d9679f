/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real families under the real scheduler. Other programs may keep both CPUs busy,
 * so times are compared with what the family itself measured.
 */
#include "tests/bpf/rig.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bpf/procfs.h"

static struct rig rig;
/* By a variable that only our own families have, and inherit. */
static struct family_rule rule = {.name = "known"};

/* A family that runs, and what its lines have summed up to. */
struct run {
    pid_t pid;
    int in, out;
    double to_active, to_idle, active_ms, idle_ms, n_bursts, cpu_ms;
    double n_exits, n_execs;
    double state, n_threads, n_processes;
    bool begun;
    uint64_t answer[2];
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int open_rig(void **state)
{
    (void)state;
    rig_open(&rig, 1u << 20);
    rig.opts.activity.rules = &rule;
    rig.opts.activity.n_rules = 1;
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    rig_close(&rig);
    return 0;
}

static void add_features(void)
{
    rig_add(&rig, &life_feature);
    rig_add(&rig, &activity_feature);
}

/* bpf_family @what @a @b @c */
static void start(struct run *r, const char *what, const char *a, const char *b,
                  const char *c)
{
    int in[2], out[2];

    memset(r, 0, sizeof(*r));
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    r->pid = fork();
    assert_true(r->pid >= 0);
    if (r->pid == 0) {
        (void)dup2(in[0], 0);
        (void)dup2(out[1], 1);
        for (int fd = 3; fd < 256; fd++)
            (void)close(fd);
        (void)putenv(rule.env);
        (void)execl(FAMILY_PATH, "bpf_family", what, a, b, c, NULL);
        _exit(9);
    }
    (void)close(in[0]);
    (void)close(out[1]);
    r->in = in[1];
    r->out = out[0];
}

static void collect(struct run *r, bool last)
{
    unsigned int n;

    rig_collect(&rig, last);
    r->to_active += rig_sum(&rig, "activity.idle_to_active", NULL, &n);
    r->to_idle += rig_sum(&rig, "activity.active_to_idle", NULL, &n);
    r->active_ms += rig_sum(&rig, "activity.active.time", NULL, &n);
    r->idle_ms += rig_sum(&rig, "activity.idle.time", NULL, &n);
    r->cpu_ms += rig_sum(&rig, "activity.cpu.time", NULL, &n);
    r->n_exits += rig_sum(&rig, "process.exit", NULL, &n);
    r->n_execs += rig_sum(&rig, "process.exec", NULL, &n);
    r->state = rig_sum(&rig, "activity.state", NULL, &n);
    r->begun = n > 0;
    r->n_threads = rig_sum(&rig, "activity.threads", NULL, &n);
    r->n_processes = rig_sum(&rig, "activity.processes", NULL, &n);
}

static bool is_idle(void *arg)
{
    struct run *r = arg;

    collect(r, false);
    return r->begun && r->state == 0;
}

static bool is_gone(void *arg)
{
    struct run *r = arg;

    collect(r, false);
    return r->begun && r->n_processes == 0 && r->n_exits > 0;
}

static bool has_answered(void *arg)
{
    const struct run *r = arg;
    struct pollfd p = {.fd = r->out, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

/* Idle, and all of that is told: what is summed from now on is new. */
static void settle(struct run *r)
{
    struct run fresh = {.pid = r->pid, .in = r->in, .out = r->out};

    assert_true(rig_until(&rig, is_idle, r, 10000));
    fresh.begun = true;
    *r = fresh;
}

static void go(struct run *r)
{
    uint64_t ns = now_ns();

    assert_int_equal(write(r->in, &ns, sizeof(ns)), sizeof(ns));
}

static void get_answer(struct run *r, int timeout_ms)
{
    char line[128];
    char *end;
    ssize_t n;

    assert_true(rig_until(&rig, has_answered, r, timeout_ms));
    n = read(r->out, line, sizeof(line) - 1);
    assert_true(n > 0);
    line[n] = '\0';
    r->answer[0] = strtoull(line, &end, 10);
    r->answer[1] = strtoull(end, NULL, 10);
}

/* Returns its status. */
static int end(struct run *r)
{
    int status;

    (void)close(r->in);
    assert_int_equal(waitpid(r->pid, &status, 0), r->pid);
    (void)close(r->out);
    return status;
}

static bool is_near(const char *what, double got, double want)
{
    bool near = fabs(got - want) <= 0.05 * want;

    (void)fprintf(stderr, "%s: %.1f, the family says %.1f%s\n", what, got, want,
                  near ? "" : " (more than 5 % off)");
    return near;
}

/* What one run of cycles gave, from one idleness to the next. */
struct cycles {
    struct run sums;
    double wall_ms, active_ms;
};

static struct cycles run_cycles(const char *n, const char *active_ms,
                                const char *idle_ms)
{
    struct cycles c;
    struct run *r = &c.sums;
    uint64_t from_ns;

    start(r, "cycles", n, active_ms, idle_ms);
    settle(r);
    from_ns = now_ns();
    go(r);
    get_answer(r, 20000);
    assert_true(rig_until(&rig, is_idle, r, 10000));
    c.wall_ms = (double)(now_ns() - from_ns) / 1e6;
    c.active_ms = (double)r->answer[0] / 1e6;
    assert_int_equal(end(r), 0);
    return c;
}

/* Ten bursts, idleness between and behind them. */
static void times_and_transitions_are_true(void **state)
{
    struct cycles c;

    (void)state;
    add_features();
    for (int i = 0;; i++) {
        c = run_cycles("10", "100", "300");
        if (is_near("active ms", c.sums.active_ms, c.active_ms) &&
            is_near("idle ms", c.sums.idle_ms, c.wall_ms - c.active_ms))
            break;
        (void)fprintf(stderr, "once more: other programs were in the way\n");
        assert_true(i < 3);
    }
    assert_true(c.sums.to_active == 10);
    assert_true(c.sums.to_idle == 10);
    assert_true(c.sums.n_execs == 10); /* /bin/true */
    assert_true(c.sums.n_exits == 10);
    assert_true(c.sums.n_processes == 1);
    assert_true(c.sums.n_threads == 1);
    assert_true(c.sums.cpu_ms > 0 && c.sums.cpu_ms < 4 * c.active_ms);
}

static void short_idleness_is_none(void **state)
{
    struct cycles c;

    (void)state;
    add_features();
    for (int i = 0;; i++) {
        c = run_cycles("6", "40", "20");
        if (c.sums.to_active == 1 && c.sums.to_idle == 1)
            return;
        (void)fprintf(stderr,
                      "once more: 20 ms of rest became more than 50 ms\n");
        assert_true(i < 3);
    }
}

static void a_leader_may_leave_first(void **state)
{
    struct run r;
    unsigned int n;

    (void)state;
    add_features();
    start(&r, "leader", NULL, NULL, NULL);
    settle(&r);
    collect(&r, false);
    assert_true(r.n_processes == 1 && r.n_threads == 1);
    go(&r);
    get_answer(&r, 5000);
    assert_true(rig_until(&rig, is_idle, &r, 5000));
    assert_true(r.to_active == 1 && r.to_idle == 1);
    assert_true(r.n_processes == 1 && r.n_threads == 1);
    assert_int_equal(WEXITSTATUS(end(&r)), 5);
    assert_true(rig_until(&rig, is_gone, &r, 5000));
    assert_true(r.n_exits == 1 && r.n_threads == 0);
    assert_true(r.active_ms > 0);
    r.active_ms = 0; /* nothing of it can run */
    assert_true(rig_until(&rig, is_idle, &r, 5000));
    r.active_ms = 0;
    collect(&r, false);
    assert_true(r.active_ms == 0);
    assert_true(rig_sum(&rig, "activity.state", NULL, &n) == 0);
}

static bool has_passed(void *arg)
{
    const uint64_t *ns = arg;

    return now_ns() >= *ns;
}

/* Active and idle time together are its life, however late one asks. */
static void a_dead_family_has_no_time(void **state)
{
    uint64_t from_ns = now_ns(), later_ns;
    struct run r;
    double life_ms, to_idle;

    (void)state;
    add_features();
    start(&r, "cycles", "1", "20", "1");
    assert_true(rig_until(&rig, is_idle, &r, 10000));
    go(&r);
    get_answer(&r, 10000);
    assert_int_equal(end(&r), 0);
    life_ms = (double)(now_ns() - from_ns) / 1e6;
    assert_true(rig_until(&rig, is_gone, &r, 5000));
    to_idle = r.to_idle;
    later_ns = now_ns() + 4 * ACTIVITY_THRESHOLD_MS * UINT64_C(1000000);
    assert_true(rig_until(&rig, has_passed, &later_ns, 5000));
    collect(&r, false);
    collect(&r, true);
    assert_true(r.active_ms > 20 && r.idle_ms > ACTIVITY_THRESHOLD_MS);
    assert_true(r.active_ms + r.idle_ms <= life_ms);
    assert_true(r.to_idle == to_idle);
}

/* Both have executed before anybody looks, and the parent between them has not: the
 * walk for the root has made the child a member, and nothing else says so. */
static void a_child_whose_exec_is_read_late_is_no_root(void **state)
{
    struct run r = {0};
    int in[2], out[2];
    unsigned int n;
    char c;

    (void)state;
    rig.opts.activity.pid_tags = true;
    add_features();
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    r.pid = fork();
    assert_true(r.pid >= 0);
    if (r.pid == 0) {
        (void)dup2(in[0], 0);
        (void)dup2(out[1], 1);
        (void)close(in[1]);
        (void)putenv(rule.env);
        (void)execl("/bin/sh", "sh", "-c", "(sh -c 'echo; read x'; :); exit 3",
                    NULL);
        _exit(9);
    }
    (void)close(in[0]);
    r.in = in[1];
    r.out = out[0];
    assert_int_equal(read(out[0], &c, 1), 1);
    collect(&r, false);
    assert_true(r.n_processes == 3);
    (void)rig_sum(&rig, "activity.processes", NULL, &n);
    assert_int_equal(n, 1);
    assert_int_equal(WEXITSTATUS(end(&r)), 3);
    (void)close(out[1]);
}

static void count_refused(void *arg, uint32_t pid)
{
    unsigned int *n = arg;
    char path[32];
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/%u/environ", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    *n += fd < 0 && (errno == EACCES || errno == EPERM);
    if (fd >= 0)
        (void)close(fd);
}

/* Kernel threads have none, and there are dozens of them. */
static void only_a_refused_environment_is_unreadable(void **state)
{
    unsigned int n, n_refused = 0;

    (void)state;
    assert_int_equal(procfs_each(count_refused, &n_refused), 0);
    add_features();
    rig_collect(&rig, false);
    assert_true(rig_sum(&rig, "retriever.ebpf.activity.environ_unreadable",
                        NULL, &n) == n_refused);
}

/* All are counted, whether their records found room or not. */
static void a_storm_of_forks_is_counted_exactly(void **state)
{
    struct run r;
    struct event_stats s;

    (void)state;
    add_features();
    start(&r, "storm", "20000", NULL, NULL);
    settle(&r);
    go(&r);
    get_answer(&r, 60000);
    assert_int_equal(end(&r), 0);
    assert_true(rig_until(&rig, is_gone, &r, 5000));
    collect(&r, true);
    s = rig_stats(&rig, EVENT_EXIT);
    (void)fprintf(stderr, "%llu ends, %llu found no room in the ring\n",
                  (unsigned long long)s.sent, (unsigned long long)s.lost);
    assert_true(r.n_exits == 20001);
    assert_int_equal(s.sent, 20001);
    assert_true(r.n_threads == 0 && r.n_processes == 0);
}

static void lost_records_are_told_without_status(void **state)
{
    struct run r;
    unsigned int n;
    double lost;

    (void)state;
    rig_close(&rig);
    (void)open_rig(NULL);
    add_features();
    start(&r, "storm", "20000", NULL, NULL);
    settle(&r);
    go(&r);
    while (!has_answered(&r)) /* nobody drains the ring */
        (void)poll(&(struct pollfd){.fd = r.out, .events = POLLIN}, 1, 10000);
    assert_int_equal(end(&r), 0);
    rig_collect(&rig, true);
    lost = rig_sum(&rig, "process.exit", "exit_code:unknown", &n);
    assert_true(lost > 0);
    assert_true(lost >= (double)rig_stats(&rig, EVENT_EXIT).lost);
    assert_true(rig_sum(&rig, "process.exit", NULL, &n) == 20001);
    assert_true(rig_sum(&rig, "process.exit", "exit_code:3", &n) > 0);
}

/* Started before the features: three processes of three threads, found in /proc,
 * whose root is the eldest. */
static void a_process_without_its_leader_joins(void **state)
{
    struct run r;

    (void)state;
    rig.opts.activity.n_rules = 0;
    start(&r, "leader", NULL, NULL, NULL);
    go(&r);
    get_answer(&r, 5000);
    rig.env.workload_pid = (uint32_t)r.pid;
    add_features();
    settle(&r);
    collect(&r, false);
    assert_true(r.n_processes == 1 && r.n_threads == 1);
    assert_int_equal(WEXITSTATUS(end(&r)), 5);
    assert_true(rig_until(&rig, is_gone, &r, 5000));
    assert_true(r.n_exits == 1 && r.n_threads == 0);
}

static void what_runs_already_joins(void **state)
{
    struct run r;
    unsigned int n;

    (void)state;
    start(&r, "crew", NULL, NULL, NULL);
    get_answer(&r, 5000);
    rig.opts.activity.pid_tags = true;
    add_features();
    settle(&r);
    collect(&r, false);
    assert_true(r.n_processes == 3 && r.n_threads == 9);
    {
        char tags[64];

        (void)snprintf(tags, sizeof(tags), "family:known,root_pid:%d", r.pid);
        (void)rig_sum(&rig, "activity.threads", tags, &n);
        assert_int_equal(n, 1);
    }
    assert_int_equal(end(&r), 0);
    assert_true(rig_until(&rig, is_gone, &r, 5000));
    collect(&r, true);
    assert_true(r.n_exits == 3 && r.n_threads == 0);
    assert_true(r.to_active == 1);
}

static void the_job_is_a_family_by_itself(void **state)
{
    struct run r;
    unsigned int n;

    (void)state;
    rig.opts.activity.n_rules = 0;
    start(&r, "cycles", "3", "20", "100");
    rig.env.workload_pid = (uint32_t)r.pid;
    add_features();
    settle(&r);
    go(&r);
    get_answer(&r, 10000);
    assert_int_equal(end(&r), 0);
    assert_true(rig_until(&rig, is_gone, &r, 5000));
    (void)rig_sum(&rig, "activity.processes", "family:workload", &n);
    assert_int_equal(n, 1);
    assert_true(r.to_active >= 3);
}

static void ends_are_told_with_signal_and_role(void **state)
{
    struct run r;
    unsigned int n;

    (void)state;
    add_features();
    start(&r, "cycles", "1", "1", "1");
    settle(&r);
    assert_int_equal(kill(r.pid, SIGUSR2), 0);
    (void)end(&r);
    assert_true(rig_until(&rig, is_gone, &r, 5000));
    assert_true(r.n_exits == 1);
    (void)rig_sum(&rig, "process.exit",
                  "family:known,process_type:agent,signal:12", &n);
    assert_int_equal(n, 1);
}

/* In a memory cgroup of 16 MiB it wants 64. */
static void the_oom_killer_is_named(void **state)
{
    static const char root[] = "/sys/fs/cgroup/memory";
    static const char dir[] = "/sys/fs/cgroup/memory/retriever_test_oom";
    char path[128];
    struct run r;
    unsigned int n;
    FILE *f;

    (void)state;
    (void)snprintf(path, sizeof(path), "%s/memory.limit_in_bytes", root);
    if (access(path, F_OK) != 0) /* version 2 may have it */
        skip_row("no v1 hierarchy has the memory controller");
    require_row(mkdir(dir, 0700) == 0, "no memory cgroup can be made here");
    (void)snprintf(path, sizeof(path), "%s/memory.limit_in_bytes", dir);
    f = fopen(path, "w");
    if (f != NULL) {
        (void)fputs("16777216", f);
        (void)fclose(f);
    }
    add_features();
    start(&r, "hog", "67108864", NULL, NULL);
    (void)snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
    f = fopen(path, "w");
    if (f != NULL) {
        (void)fprintf(f, "%d", r.pid);
        (void)fclose(f);
    }
    if (rig_until(&rig, is_idle, &r, 10000))
        go(&r);
    (void)end(&r);
    assert_int_equal(rmdir(dir), 0);
    assert_true(rig_until(&rig, is_gone, &r, 5000));
    assert_true(r.n_exits == 1);
    (void)rig_sum(&rig, "process.exit", "signal:9,oom_killed:true", &n);
    assert_int_equal(n, 1);
}

/* Kernel map of the feature, by name; the newest. */
static int find_map(const char *name)
{
    uint32_t id = 0;
    int found = -1;

    while (bpf_map_get_next_id(id, &id) == 0) {
        struct bpf_map_info info = {0};
        uint32_t len = sizeof(info);
        int fd = bpf_map_get_fd_by_id(id);

        if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &len) == 0 &&
            strcmp(info.name, name) == 0) {
            if (found >= 0)
                (void)close(found);
            found = fd;
        } else if (fd >= 0) {
            (void)close(fd);
        }
    }
    return found;
}

/* A task that counts as runnable and sleeps: as if its switch had been missed. */
static void a_miscount_is_repaired(void **state)
{
    struct run r;
    struct activity_family f;
    uint32_t member[8] = {0}, family = 1;
    unsigned int n;
    int members, families, pidfd;

    (void)state;
    add_features();
    start(&r, "cycles", "1", "1", "1");
    settle(&r);
    members = find_map("members");
    families = find_map("families");
    pidfd = (int)syscall(SYS_pidfd_open, r.pid, 0);
    assert_true(members >= 0 && families >= 0 && pidfd >= 0);
    assert_int_equal(bpf_map_lookup_elem(members, &pidfd, member), 0);
    assert_int_equal(member[0], family);
    assert_int_equal(member[1], 0); /* counted */
    member[1] = 1;
    assert_int_equal(bpf_map_update_elem(members, &pidfd, member, BPF_ANY), 0);
    assert_int_equal(bpf_map_lookup_elem(families, &family, &f), 0);
    f.word++;
    assert_int_equal(bpf_map_update_elem(families, &family, &f, BPF_ANY), 0);
    collect(&r, false);
    assert_true(r.state == 1);
    collect(&r, false);
    assert_true(rig_sum(&rig, "retriever.ebpf.activity.repaired", NULL, &n) ==
                1);
    assert_true(rig_until(&rig, is_idle, &r, 5000));
    (void)close(members);
    (void)close(families);
    (void)close(pidfd);
    assert_int_equal(end(&r), 0);
}

static void descendants_are_called_by_their_names(void **state)
{
    struct run r;
    unsigned int n;

    (void)state;
    (void)snprintf(rule.skill[0], sizeof(rule.skill[0]), "tru*");
    rule.n_skill = 1;
    add_features();
    start(&r, "cycles", "2", "1", "1");
    settle(&r);
    go(&r);
    get_answer(&r, 5000);
    rig_collect(&rig, false);
    rule.n_skill = 0;
    assert_true(rig_sum(&rig, "process.exec", "family:known,process_type:skill",
                        &n) == 2);
    assert_true(rig_sum(&rig, "process.exit",
                        "family:known,process_type:skill,exit_code:0",
                        &n) == 2);
    assert_int_equal(end(&r), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_rig, close_rig)
    const struct CMUnitTest tests[] = {
        TEST(times_and_transitions_are_true),
        TEST(short_idleness_is_none),
        TEST(a_leader_may_leave_first),
        TEST(a_dead_family_has_no_time),
        TEST(a_child_whose_exec_is_read_late_is_no_root),
        TEST(only_a_refused_environment_is_unreadable),
        TEST(a_storm_of_forks_is_counted_exactly),
        TEST(lost_records_are_told_without_status),
        TEST(a_process_without_its_leader_joins),
        TEST(what_runs_already_joins),
        TEST(the_job_is_a_family_by_itself),
        TEST(ends_are_told_with_signal_and_role),
        TEST(the_oom_killer_is_named),
        TEST(a_miscount_is_repaired),
        TEST(descendants_are_called_by_their_names),
    };

    require_bpf();
    (void)snprintf(rule.env, sizeof(rule.env), "RETRIEVER_TEST_FAMILY=%d",
                   getpid());
    return cmocka_run_group_tests_name("bpf_activity", tests, NULL, NULL);
}
