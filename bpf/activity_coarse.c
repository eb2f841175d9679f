/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /proc/PID/task/TID/schedstat has ns on a CPU and ns waiting for one, children has
 * the processes that this thread made. A thread that was not there at the last
 * reading has done all of it since.
 */
#include "bpf/activity_coarse.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PERIOD_NS UINT64_C(100000000)
#define ACTIVE_SHARE 100u /* this part of a period is activity */
#define MAX_DEPTH 64
#define MS 1e6

struct task {
    uint64_t tid;
    uint64_t busy_ns; /* could run: on a CPU, or waiting for one */
};

struct activity_coarse {
    uint32_t pid;
    char tags[600];
    struct task tasks[ACTIVITY_COARSE_MAX];
    uint32_t n_tasks, n_processes;
    uint64_t read_ns; /* instant of the last reading */
    bool over, active;
    uint64_t active_ns, idle_ns, cpu_ns, n_begun, n_rested; /* not told yet */
};

struct reading {
    struct activity_coarse *c;
    struct task *tasks;
    uint32_t n_tasks, n_processes;
    uint64_t busy_ns, cpu_ns;
};

static bool read_text(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return false;
    n = read(fd, out, size - 1);
    (void)close(fd);
    out[n > 0 ? n : 0] = '\0';
    return n >= 0;
}

static int by_tid(const void *a, const void *b)
{
    const struct task *x = a, *y = b;

    return (x->tid > y->tid) - (x->tid < y->tid);
}

static void add_task(struct reading *r, uint64_t tid, const char *schedstat)
{
    char *end;
    uint64_t cpu_ns = strtoull(schedstat, &end, 10);
    struct task now = {tid, cpu_ns + strtoull(end, NULL, 10)};
    const struct task *old =
        bsearch(&now, r->c->tasks, r->c->n_tasks, sizeof(now), by_tid);
    uint64_t grown_ns = now.busy_ns;

    if (old != NULL && old->busy_ns <= now.busy_ns)
        grown_ns -= old->busy_ns;
    r->busy_ns += grown_ns;
    r->cpu_ns += grown_ns < cpu_ns ? grown_ns : cpu_ns;
    r->tasks[r->n_tasks++] = now;
}

static void add_process(struct reading *r, uint64_t pid, int depth);

static void add_children(struct reading *r, const char *list, int depth)
{
    char *end;

    for (;;) {
        uint64_t pid = strtoull(list, &end, 10);

        if (end == list)
            return;
        add_process(r, pid, depth + 1);
        list = end;
    }
}

static void add_process(struct reading *r, uint64_t pid, int depth)
{
    char path[400], text[4096];
    struct dirent *e;
    DIR *dir;

    (void)snprintf(path, sizeof(path), "/proc/%" PRIu64 "/task", pid);
    dir = depth < MAX_DEPTH ? opendir(path) : NULL;
    if (dir == NULL)
        return;
    r->n_processes++;
    while ((e = readdir(dir)) != NULL && r->n_tasks < ACTIVITY_COARSE_MAX) {
        if (e->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof(path),
                       "/proc/%" PRIu64 "/task/%.20s/schedstat", pid,
                       e->d_name);
        if (!read_text(path, text, sizeof(text)))
            continue;
        add_task(r, strtoull(e->d_name, NULL, 10), text);
        (void)snprintf(path, sizeof(path),
                       "/proc/%" PRIu64 "/task/%.20s/children", pid, e->d_name);
        if (read_text(path, text, sizeof(text)))
            add_children(r, text, depth);
    }
    (void)closedir(dir);
}

static void count(struct activity_coarse *c, const struct reading *r,
                  uint64_t since_ns)
{
    bool active = r->busy_ns >= since_ns / ACTIVE_SHARE;

    c->cpu_ns += r->cpu_ns;
    if (active)
        c->active_ns += since_ns;
    else
        c->idle_ns += since_ns;
    c->n_begun += active && !c->active;
    c->n_rested += !active && c->active;
    c->active = active;
}

static void take(struct activity_coarse *c, uint64_t now_ns)
{
    struct reading r = {.c = c};

    r.tasks = calloc(ACTIVITY_COARSE_MAX, sizeof(*r.tasks));
    if (r.tasks == NULL)
        return; /* the next one counts for both */
    add_process(&r, c->pid, 0);
    c->over = r.n_tasks == 0;
    if (c->read_ns != 0 && !c->over)
        count(c, &r, now_ns - c->read_ns);
    if (r.n_tasks > 0)
        qsort(r.tasks, r.n_tasks, sizeof(*r.tasks), by_tid);
    memcpy(c->tasks, r.tasks, r.n_tasks * sizeof(*r.tasks));
    c->n_tasks = r.n_tasks;
    c->n_processes = r.n_processes;
    c->read_ns = now_ns;
    free(r.tasks);
}

int activity_coarse_open(struct activity_coarse **out, uint32_t pid,
                         const char *container)
{
    struct activity_coarse *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return -ENOMEM;
    c->pid = pid;
    c->active = true; /* it begins by working */
    (void)snprintf(c->tags, sizeof(c->tags),
                   "family:workload,source:schedstat%s%s",
                   container[0] != '\0' ? "," : "", container);
    take(c, 0);
    if (c->over) {
        free(c);
        return -ENOENT;
    }
    *out = c;
    return 0;
}

void activity_coarse_close(struct activity_coarse *c)
{
    free(c);
}

uint64_t activity_coarse_due(struct activity_coarse *c, uint64_t now_ns)
{
    if (!c->over && now_ns - c->read_ns >= PERIOD_NS)
        take(c, now_ns);
    return c->over ? UINT64_MAX : c->read_ns + PERIOD_NS;
}

static void tell(struct lines *out, const char *name, double v,
                 const char *tags)
{
    if (v > 0)
        lines_add(out, name, v, "c", tags);
}

void activity_coarse_collect(struct activity_coarse *c, struct lines *out)
{
    tell(out, "activity.active.time", (double)c->active_ns / MS, c->tags);
    tell(out, "activity.idle.time", (double)c->idle_ns / MS, c->tags);
    tell(out, "activity.cpu.time", (double)c->cpu_ns / MS, c->tags);
    tell(out, "activity.idle_to_active", (double)c->n_begun, c->tags);
    tell(out, "activity.active_to_idle", (double)c->n_rested, c->tags);
    c->active_ns = c->idle_ns = c->cpu_ns = c->n_begun = c->n_rested = 0;
    lines_add(out, "activity.state", c->active && !c->over, "g", c->tags);
    lines_add(out, "activity.threads", c->n_tasks, "g", c->tags);
    lines_add(out, "activity.processes", c->n_processes, "g", c->tags);
}
