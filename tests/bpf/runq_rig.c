/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bpf/runq_rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "bpf/event_check.h"
#include "tests/bpf/require.h"

#define TOP "retriever-test-runq-"

void runq_rig_require(void)
{
    require_bpf();
    if (!runq_rig_has("v2"))
        skip_for("cgroup2 is not mounted");
}

uint64_t runq_rig_now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- Cgroups --------------------------------------------------------------- */

/* Only folders: the files in them are the kernel's. */
static void remove_tree(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;

    while (d != NULL && (e = readdir(d)) != NULL) {
        char below[600];

        if (e->d_type != DT_DIR || e->d_name[0] == '.')
            continue;
        (void)snprintf(below, sizeof(below), "%s/%s", dir, e->d_name);
        remove_tree(below);
    }
    if (d != NULL)
        (void)closedir(d);
    (void)rmdir(dir);
}

/* Of tests that were killed. */
static void remove_left_behind(const char *mount)
{
    DIR *d = opendir(mount);
    struct dirent *e;

    while (d != NULL && (e = readdir(d)) != NULL) {
        char path[600];
        long pid;

        if (strncmp(e->d_name, TOP, strlen(TOP)) != 0)
            continue;
        pid = strtol(e->d_name + strlen(TOP), NULL, 10);
        (void)snprintf(path, sizeof(path), "%s/%s", mount, e->d_name);
        if (pid == getpid() || kill((pid_t)pid, 0) != 0)
            remove_tree(path);
    }
    if (d != NULL)
        (void)closedir(d);
}

static void each_mount(void (*fn)(const char *mount))
{
    struct hierarchies all;

    assert_int_equal(hierarchies_read(&all), 0);
    for (size_t i = 0; i < all.n; i++)
        fn(all.all[i].mount);
}

static const char *mount_of(const char *name)
{
    static struct hierarchies all;

    assert_int_equal(hierarchies_read(&all), 0);
    for (size_t i = 0; i < all.n; i++) {
        if (hierarchy_is(&all.all[i], name))
            return all.all[i].mount;
    }
    return NULL;
}

const char *runq_rig_cgroup(struct runq_rig *r, const char *in,
                            const char *name)
{
    const char *mount =
        in != NULL ? mount_of(in) : cgroups_hierarchy(r->cgroups)->mount;
    char *dir = r->dirs[r->n_dirs++];

    assert_non_null(mount);
    assert_true(r->n_dirs <= RIG_MAX);
    (void)snprintf(dir, sizeof(r->dirs[0]), "%s/%s", mount, r->top);
    assert_true(mkdir(dir, 0755) == 0 || errno == EEXIST);
    (void)snprintf(dir, sizeof(r->dirs[0]), "%s/%s/%s", mount, r->top, name);
    assert_true(mkdir(dir, 0755) == 0 || errno == EEXIST);
    return dir;
}

void runq_rig_write(const char *dir, const char *file, const char *text)
{
    char path[600];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, file);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        fail_msg("%s: %s", path, strerror(errno));
    (void)close(fd);
}

bool runq_rig_has(const char *hierarchy)
{
    return mount_of(hierarchy) != NULL;
}

const char *runq_rig_quota(struct runq_rig *r, const char *name)
{
    const char *dir =
        runq_rig_cgroup(r, runq_rig_has("cpu") ? "cpu" : "v2", name);
    char top[600];

    if (runq_rig_has("cpu")) {
        runq_rig_write(dir, "cpu.cfs_quota_us", "20000");
        return dir;
    }
    runq_rig_write(mount_of("v2"), "cgroup.subtree_control", "+cpu");
    (void)snprintf(top, sizeof(top), "%s/%s", mount_of("v2"), r->top);
    runq_rig_write(top, "cgroup.subtree_control", "+cpu");
    runq_rig_write(dir, "cpu.max", "20000 100000");
    return NULL;
}

static void join(const char *dir)
{
    if (dir != NULL)
        runq_rig_write(dir, "cgroup.procs", "0");
}

/* Other load must not decide a test. */
static void outweigh(struct runq_rig *r)
{
    const char *mount = mount_of("cpu");
    struct hierarchies all;
    char path[CGROUP_PATH_MAX], dir[600];

    if (mount == NULL)
        return;
    assert_int_equal(hierarchies_read(&all), 0);
    for (size_t i = 0; i < all.n; i++) {
        if (!hierarchy_is(&all.all[i], "cpu") ||
            !hierarchy_path_of_pid(&all.all[i], getpid(), path))
            continue;
        assert_true(
            hierarchy_file(&all.all[i], path, "", r->back, sizeof(r->back)));
    }
    (void)snprintf(dir, sizeof(dir), "%s/%s", mount, r->top);
    assert_true(mkdir(dir, 0755) == 0 || errno == EEXIST);
    runq_rig_write(dir, "cpu.shares", "262144");
    join(dir);
}

/* ---- Processes ------------------------------------------------------------- */

static void work_for(uint64_t ns)
{
    struct timespec t;
    uint64_t until;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    until = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec + ns;
    do {
        (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    } while ((uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec < until);
}

/* For as long as the kernel sorts that many numbers nobody else gets the CPU, unless
 * the kernel can be preempted. */
static void call_for_long(void)
{
    static gid_t groups[8000];

    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
        groups[i] = (gid_t)(i * 2654435761u >> 1);
    if (setgroups(sizeof(groups) / sizeof(groups[0]), groups) != 0)
        _exit(1);
}

/* After between 3 and 6 ms, so that it meets no clock of the kernel's. */
static void be_late(struct runq_rig *r, int timer)
{
    static uint64_t at_ns, i;
    struct itimerspec at = {.it_value.tv_sec = 0};
    uint64_t n;

    if (at_ns == 0)
        at_ns = runq_rig_now_ns();
    at_ns += 3000000 + i++ * 2654435761u % 3000000;
    at.it_value = (struct timespec){(time_t)(at_ns / 1000000000u),
                                    (long)(at_ns % 1000000000u)};
    if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL) != 0 ||
        read(timer, &n, sizeof(n)) != (ssize_t)sizeof(n))
        _exit(1);
    atomic_fetch_add(r->late_ns, runq_rig_now_ns() - at_ns);
}

_Noreturn static void child(struct runq_rig *r, enum work work, int ready)
{
    struct itimerspec every = {.it_interval.tv_nsec = 10000000,
                               .it_value.tv_nsec = 10000000};
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    uint64_t n;

    (void)timerfd_settime(timer, 0, &every, NULL);
    if (write(ready, "", 1) != 1)
        _exit(1);
    (void)close(ready);
    for (;;) {
        switch (work) {
        case WORK_CALLS:
            call_for_long();
            break;
        case WORK_LATE:
            be_late(r, timer);
            break;
        case WORK_DUTY:
        case WORK_HOG:
            work_for(4000000);
            break;
        }
        if (work == WORK_DUTY && read(timer, &n, sizeof(n)) < 0)
            _exit(1);
    }
}

pid_t runq_rig_spawn(struct runq_rig *r, enum work work, int cpu, int nice,
                     const char *dir, const char *dir2)
{
    int ready[2];
    char c;
    pid_t pid;

    assert_true(r->n_pids < RIG_MAX);
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        join(dir);
        join(dir2);
        if (sched_setaffinity(0, sizeof(set), &set) != 0 ||
            setpriority(PRIO_PROCESS, 0, nice) != 0)
            _exit(1);
        child(r, work, ready[1]);
    }
    r->pids[r->n_pids++] = pid;
    (void)close(ready[1]);
    assert_int_equal(read(ready[0], &c, 1), 1);
    (void)close(ready[0]);
    return pid;
}

void runq_rig_kill(struct runq_rig *r)
{
    while (r->n_pids > 0) {
        pid_t pid = r->pids[--r->n_pids];

        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
    }
}

uint64_t runq_rig_waited_ns(pid_t pid)
{
    char path[64], text[128] = "";
    char *end;
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/%d/schedstat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    (void)close(fd);
    (void)strtoull(text, &end, 10);
    return strtoull(end, NULL, 10);
}

/* ---- The feature ------------------------------------------------------------ */

void runq_rig_open(struct runq_rig *r, const char *hierarchy)
{
    struct loader_cause cause = {0};

    *r = (struct runq_rig){.opts.runq = RUNQ_OPTS_DEFAULT, .ring.stats_fd = -1};
    each_mount(remove_left_behind);
    (void)snprintf(r->top, sizeof(r->top), TOP "%d", (int)getpid());
    assert_int_equal(cgroups_create(&r->cgroups), 0);
    assert_int_equal(cgroups_use(r->cgroups, hierarchy), 0);
    outweigh(r);
    r->late_ns = mmap(NULL, sizeof(*r->late_ns), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(r->late_ns != MAP_FAILED);
    assert_int_equal(event_ring_create(&r->ring, 1 << 18, &cause), 0);
    r->env = (struct feature_env){
        .opts = &r->opts,
        .events_fd = r->ring.ring.ring_fd,
        .events_control_fd = r->ring.ring.control_fd,
        .events_stats_fd = r->ring.stats_fd,
        .cgroups = r->cgroups,
        .own_tgid = (uint32_t)getpid(),
    };
}

void runq_rig_end(struct runq_rig *r)
{
    runq_feature.close(r->self);
    r->self = NULL;
}

void runq_rig_close(struct runq_rig *r)
{
    runq_rig_kill(r);
    runq_rig_end(r);
    event_ring_close(&r->ring);
    cgroups_close(r->cgroups);
    free(r->text);
    if (r->late_ns != NULL)
        (void)munmap(r->late_ns, sizeof(*r->late_ns));
    if (r->back[0] != '\0')
        join(r->back);
    each_mount(remove_left_behind);
    *r = (struct runq_rig){.ring.stats_fd = -1};
}

void runq_rig_start(struct runq_rig *r)
{
    struct loader_cause cause = {0};
    int rc = runq_feature.open(&r->self, &r->env, &cause);

    if (rc != 0 || cause.why[0] != '\0')
        fail_msg("not open: %d %s; %s", rc, cause.why, cause.remedy);
}

static void drain(struct runq_rig *r)
{
    struct ring *ring = &r->ring.ring;
    uint64_t pos = ring_begin(ring), next;
    const void *record;
    uint32_t n;

    while (ring_at(ring, pos, &record, &n, &next) == RING_RECORD) {
        const struct event_hdr *ev = record;

        assert_true(event_is_whole(record, n));
        r->n_events[ev->type]++;
        if (r->self != NULL)
            runq_feature.event(r->self, ev);
        pos = next;
        ring_consumed(ring, pos);
    }
}

uint64_t runq_rig_late_ns(const struct runq_rig *r)
{
    return atomic_load(r->late_ns);
}

void runq_rig_pass(struct runq_rig *r, int ms)
{
    uint64_t until = runq_rig_now_ns() + (uint64_t)ms * 1000000u;
    uint64_t now;

    while ((now = runq_rig_now_ns()) < until) {
        struct pollfd p = {.fd = r->ring.ring.wait_fd, .events = POLLIN};

        /* At least now and then: in stream mode a record wakes nobody. */
        (void)poll(&p, 1, (int)((until - now) / 1000000u % 20) + 1);
        ring_awake(&r->ring.ring);
        drain(r);
    }
}

static void take(void *arg, const char *packet, size_t n)
{
    struct runq_rig *r = arg;

    r->text = realloc(r->text, r->n_text + n + 1);
    assert_non_null(r->text);
    memcpy(r->text + r->n_text, packet, n);
    r->n_text += n;
    r->text[r->n_text] = '\0';
}

void runq_rig_collect(struct runq_rig *r, bool last)
{
    struct lines *l = malloc(sizeof(*l));

    assert_non_null(l);
    drain(r);
    r->n_text = 0;
    take(r, "", 0);
    lines_init(l, take, r);
    runq_feature.collect(r->self, l, last);
    lines_flush(l);
    assert_int_equal(l->n_left_out, 0);
    free(l);
}

/* ---- Lines ------------------------------------------------------------------ */

static bool has_tags(const char *line, size_t n, const char *tags)
{
    const char *from = memmem(line, n, "|#", 2);
    bool all = true;

    while (all && *tags != '\0') {
        size_t n_tag = strcspn(tags, ",");
        const char *at = from;

        all = false;
        while (!all && at != NULL) {
            size_t left = n - (size_t)(at - line);

            at = memmem(at, left, tags, n_tag);
            if (at != NULL) {
                char before = at[-1], behind = at[n_tag];

                all = (before == '#' || before == ',') &&
                      (behind == ',' || behind == '\n');
                at++;
            }
        }
        tags += n_tag;
        tags += *tags == ',';
    }
    return all;
}

typedef void line_fn(void *arg, double value, double count, char type);

static void each_line(const struct runq_rig *r, const char *name,
                      const char *tags, line_fn *fn, void *arg)
{
    size_t n_name = strlen(name);

    for (const char *line = r->text; line != NULL && *line != '\0';) {
        size_t n = strcspn(line, "\n") + 1;

        if (strncmp(line, name, n_name) == 0 && line[n_name] == ':' &&
            has_tags(line, n, tags)) {
            char *end;
            double value = strtod(line + n_name + 1, &end);
            double count = 1;

            if (strncmp(end + 2, "|@", 2) == 0)
                count = floor(1 / strtod(end + 4, NULL));
            fn(arg, value, count, end[1]);
        }
        line += n;
    }
}

static void add(void *arg, double value, double count, char type)
{
    *(double *)arg += type == 'd' ? count : value;
}

double runq_rig_sum(const struct runq_rig *r, const char *name,
                    const char *tags)
{
    double sum = 0;

    each_line(r, name, tags, add, &sum);
    return sum;
}

struct rank {
    double left, value;
};

/* The classes come in order; of one container only. */
static void walk(void *arg, double value, double count, char type)
{
    struct rank *k = arg;

    (void)type;
    if (k->left > 0)
        k->value = value;
    k->left -= count;
}

double runq_rig_percentile(const struct runq_rig *r, const char *name,
                           const char *tags, double p)
{
    struct rank k = {.left = runq_rig_sum(r, name, tags) * p / 100};

    each_line(r, name, tags, walk, &k);
    return k.value;
}
