/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /proc/PID/task/TID/schedstat: ns on a CPU, ns waiting for one, turns. Sums of two
 * readings are compared task by task, both sorted by id. A task that is new counts
 * from its birth, if that was after the last reading.
 */
#include "bpf/schedstat.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bpf/procfs.h"
#include "bpf/throttle.h"

struct task {
    uint64_t tid;
    uint64_t wait_ns;
    uint64_t n_turns;
};

struct schedstat {
    struct cgroups *cgroups;
    uint64_t cgid; /* our own; 0 = not known: all processes that we see */
    struct throttle throttle;
    uint64_t pressure_us;
    uint64_t read_ns; /* since boot, of the last reading */
    struct task *tasks;
    size_t n_tasks;
};

/* What one reading adds up. */
struct reading {
    struct schedstat *s;
    struct task *tasks;
    size_t n;
    uint64_t wait_ns, n_turns, n_refused;
};

static uint64_t boot_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool read_file(int dir, const char *name, char *out, size_t size)
{
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return false;
    n = read(fd, out, size - 1);
    (void)close(fd);
    if (n <= 0)
        return false;
    out[n] = '\0';
    return true;
}

static bool is_number(const char *s)
{
    return s[0] != '\0' && s[strspn(s, "0123456789")] == '\0';
}

/* Its start is told in whole ticks; whoever was there at the last reading is not
 * asked. */
static bool is_young(const struct schedstat *s, int task_dir)
{
    uint64_t ticks;

    return procfs_start(task_dir, &ticks) == 0 &&
           (ticks + 1) * PROCFS_TICK_NS > s->read_ns;
}

static int by_tid(const void *a, const void *b)
{
    const struct task *x = a, *y = b;

    return (x->tid > y->tid) - (x->tid < y->tid);
}

static void add_task(struct reading *r, int tasks_dir, const char *name)
{
    struct task now = {.tid = strtoull(name, NULL, 10)};
    const struct task *old = NULL;
    int dir = openat(tasks_dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char text[128];
    char *end;

    if (dir < 0)
        return;
    if (r->n >= SCHEDSTAT_MAX_TASKS) {
        r->n_refused++;
        goto out;
    }
    if (!read_file(dir, "schedstat", text, sizeof(text)))
        goto out;
    (void)strtoull(text, &end, 10);
    now.wait_ns = strtoull(end, &end, 10);
    now.n_turns = strtoull(end, &end, 10);
    if (r->s->n_tasks > 0)
        old = bsearch(&now, r->s->tasks, r->s->n_tasks, sizeof(now), by_tid);
    if (old != NULL && now.wait_ns >= old->wait_ns &&
        now.n_turns >= old->n_turns) {
        r->wait_ns += now.wait_ns - old->wait_ns;
        r->n_turns += now.n_turns - old->n_turns;
    } else if (is_young(r->s, dir)) {
        r->wait_ns += now.wait_ns;
        r->n_turns += now.n_turns;
    }
    r->tasks[r->n++] = now;
out:
    (void)close(dir);
}

static bool is_ours(struct schedstat *s, const char *pid)
{
    uint64_t cgid, own;

    if (s->cgid == 0)
        return true;
    cgid = cgroups_of_pid(s->cgroups, (int)strtol(pid, NULL, 10));
    if (cgid == s->cgid)
        return true;
    own = cgroups_find(s->cgroups, s->cgid)->slot;
    return own != 0 && cgroups_find(s->cgroups, cgid)->slot == own;
}

static void add_process(struct reading *r, int proc, const char *pid)
{
    char name[300];
    struct dirent *e;
    DIR *dir;
    int fd;

    (void)snprintf(name, sizeof(name), "%s/task", pid);
    fd = openat(proc, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    dir = fdopendir(fd);
    if (dir == NULL) {
        (void)close(fd);
        return;
    }
    while ((e = readdir(dir)) != NULL) {
        if (is_number(e->d_name))
            add_task(r, fd, e->d_name);
    }
    (void)closedir(dir);
}

static void read_all(struct reading *r)
{
    DIR *proc = opendir("/proc");
    struct dirent *e;

    if (proc == NULL)
        return;
    while ((e = readdir(proc)) != NULL) {
        if (is_number(e->d_name) && is_ours(r->s, e->d_name))
            add_process(r, dirfd(proc), e->d_name);
    }
    (void)closedir(proc);
    qsort(r->tasks, r->n, sizeof(r->tasks[0]), by_tid);
}

/* "some avg10=... total=US" */
static bool read_pressure(struct schedstat *s, uint64_t *us)
{
    const struct hierarchy *h = cgroups_hierarchy(s->cgroups);
    const struct cgroup_info *info = cgroups_find(s->cgroups, s->cgid);
    char name[CGROUP_PATH_MAX + 300], text[512];
    const char *total;

    if (h == NULL || !h->v2 || info->path[0] == '\0' ||
        !hierarchy_file(h, info->path, "cpu.pressure", name, sizeof(name)) ||
        !read_file(AT_FDCWD, name, text, sizeof(text)))
        return false;
    total = strstr(text, "total=");
    if (total == NULL)
        return false;
    *us = strtoull(total + 6, NULL, 10);
    return true;
}

static void read_throttled(struct schedstat *s, struct throttle_sums *delta)
{
    const struct cgroup_info *info = cgroups_find(s->cgroups, s->cgid);
    char path[CGROUP_PATH_MAX];

    *delta = (struct throttle_sums){0};
    (void)snprintf(path, sizeof(path), "%.*s", (int)info->n_path, info->path);
    if (info->path[0] != '\0')
        throttle_read(&s->throttle, cgroups_cpu(s->cgroups), info->slot, path,
                      false, delta);
}

static struct reading take_reading(struct schedstat *s)
{
    struct reading r = {.s = s};
    uint64_t begin_ns = boot_ns();

    r.tasks = calloc(SCHEDSTAT_MAX_TASKS, sizeof(*r.tasks));
    if (r.tasks == NULL)
        return r;
    read_all(&r);
    free(s->tasks);
    s->tasks = realloc(r.tasks, (r.n > 0 ? r.n : 1) * sizeof(*r.tasks));
    if (s->tasks == NULL)
        s->tasks = r.tasks; /* as large as it was */
    s->n_tasks = r.n;
    s->read_ns = begin_ns;
    return r;
}

int schedstat_open(struct schedstat **out, struct cgroups *cgroups)
{
    struct throttle_sums until_now;
    struct schedstat *s;
    char text[128];

    if (!read_file(AT_FDCWD, "/proc/self/schedstat", text, sizeof(text)))
        return -ENOENT;
    s = calloc(1, sizeof(*s));
    if (s == NULL)
        return -ENOMEM;
    s->cgroups = cgroups;
    s->cgid = cgroups_of_pid(cgroups, getpid());
    s->read_ns = UINT64_MAX; /* nobody is young */
    (void)take_reading(s);
    (void)read_pressure(s, &s->pressure_us);
    read_throttled(s, &until_now);
    *out = s;
    return 0;
}

void schedstat_close(struct schedstat *s)
{
    if (s == NULL)
        return;
    free(s->tasks);
    free(s);
}

static void write_cgroup(struct schedstat *s, struct lines *out,
                         const char *tags)
{
    struct throttle_sums t;
    uint64_t us;

    read_throttled(s, &t);
    if (t.ns > 0)
        lines_add(out, "runq.throttled.time", (double)t.ns / 1e6, "c", tags);
    if (t.n_periods > 0)
        lines_add(out, "runq.throttled.periods", (double)t.n_periods, "c",
                  tags);
    if (read_pressure(s, &us)) {
        if (us > s->pressure_us)
            lines_add(out, "runq.pressure.time",
                      (double)(us - s->pressure_us) / 1e3, "c", tags);
        s->pressure_us = us;
    }
}

void schedstat_collect(struct schedstat *s, struct lines *out)
{
    const char *own = cgroups_tags(s->cgroups, s->cgid);
    char tags[CGROUP_TAGS_MAX + 32];
    struct reading r;

    (void)snprintf(tags, sizeof(tags), "%s%ssource:schedstat", own,
                   own[0] != '\0' ? "," : "");
    r = take_reading(s);
    if (r.wait_ns > 0)
        lines_add(out, "runq.wait", (double)r.wait_ns / 1e6, "c", tags);
    if (r.n_turns > 0)
        lines_add(out, "runq.latency.avg",
                  (double)r.wait_ns / 1e3 / (double)r.n_turns, "g", tags);
    if (r.n_refused > 0)
        lines_add(out, "retriever.ebpf.runq.refused", (double)r.n_refused, "c",
                  "");
    write_cgroup(s, out, tags);
}
