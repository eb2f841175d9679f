/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs are found among our own descriptors: whoever loads one need not say so
 * here. The kernel counts for nobody else and not always, so one that was loaded since
 * a second began has the runs of that second; one that went before its end is left out.
 */
#include "bpf/programs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "agent/base/num.h"
#include "bpf/features.h"

struct program {
    uint32_t id;
    char name[BPF_OBJ_NAME_LEN];
    uint64_t n_runs, run_ns;
};

struct listed {
    struct program of[PROGRAMS_MAX];
    uint32_t n;
    bool is_whole;
};

struct programs {
    int counting_fd; /* the kernel counts while it is open; -1 = not now */
    uint64_t since_ns, next_ns;
    struct listed before;
    struct listed
        rates; /* per second, one of a name; told when there are some */
};

/* ---- What the kernel has counted ----------------------------------------- */

static struct program *find(struct listed *l, uint32_t id)
{
    for (uint32_t i = 0; i < l->n; i++) {
        if (l->of[i].id == id)
            return &l->of[i];
    }
    return NULL;
}

static void list_one(struct listed *l, int fd)
{
    struct bpf_prog_info info;
    uint32_t n = sizeof(info);
    struct program *p;

    memset(&info, 0, sizeof(info));
    if (bpf_obj_get_info_by_fd(fd, &info, &n) != 0 || find(l, info.id) != NULL)
        return;
    if (l->n == PROGRAMS_MAX) {
        l->is_whole = false;
        return;
    }
    p = &l->of[l->n++];
    p->id = info.id;
    (void)snprintf(p->name, sizeof(p->name), "%s", info.name);
    p->n_runs = info.run_cnt;
    p->run_ns = info.run_time_ns;
}

/* What a descriptor is may change between both looks: then it has no runs. */
static void list(struct listed *l)
{
    static const char program[] = "anon_inode:bpf-prog";
    DIR *d = opendir("/proc/self/fd");
    struct dirent *e;

    l->n = 0;
    l->is_whole = d != NULL;
    while (d != NULL && (e = readdir(d)) != NULL) {
        char what[sizeof(program)];
        uint64_t fd;
        ssize_t n = readlinkat(dirfd(d), e->d_name, what, sizeof(what));

        if (n == (ssize_t)sizeof(program) - 1 &&
            memcmp(what, program, sizeof(program) - 1) == 0 &&
            num_parse_u64(e->d_name, &fd) == 0)
            list_one(l, (int)fd);
    }
    if (d != NULL)
        (void)closedir(d);
}

/* ---- Counting ------------------------------------------------------------- */

static uint64_t per_second(uint64_t n, uint64_t ns)
{
    return (uint64_t)((double)n * 1e9 / (double)ns + 0.5);
}

static void add_rate(struct listed *rates, const struct program *before,
                     const struct program *now, uint64_t ns)
{
    struct program *p = rates->of;

    while (p < rates->of + rates->n && strcmp(p->name, now->name) != 0)
        p++;
    if (p == rates->of + rates->n) {
        *p = (struct program){.id = now->id};
        memcpy(p->name, now->name, sizeof(p->name));
        rates->n++;
    }
    p->n_runs += per_second(now->n_runs - before->n_runs, ns);
    p->run_ns += per_second(now->run_ns - before->run_ns, ns);
}

static void stop_counting(struct programs *s)
{
    if (s->counting_fd >= 0)
        (void)close(s->counting_fd);
    s->counting_fd = -1;
}

/* Where it cannot be counted, or what ran before cannot be told, next time. */
static void begin(struct programs *s, uint64_t now_ns)
{
    s->next_ns = now_ns + PROGRAMS_EVERY_NS;
    s->counting_fd = bpf_enable_stats(BPF_STATS_RUN_TIME);
    if (s->counting_fd < 0)
        return;
    list(&s->before);
    if (!s->before.is_whole) {
        stop_counting(s);
        return;
    }
    s->since_ns = now_ns;
    s->next_ns = now_ns + PROGRAMS_COUNT_NS;
}

static void end(struct programs *s, uint64_t now_ns)
{
    static const struct program none;
    struct listed now;

    list(&now);
    stop_counting(s);
    s->next_ns = s->since_ns + PROGRAMS_EVERY_NS;
    s->rates.n = 0;
    for (uint32_t i = 0; i < now.n; i++) {
        const struct program *before = find(&s->before, now.of[i].id);

        add_rate(&s->rates, before != NULL ? before : &none, &now.of[i],
                 now_ns - s->since_ns);
    }
}

static uint64_t programs_due(void *p, uint64_t now_ns)
{
    struct programs *s = p;

    if (now_ns < s->next_ns)
        return s->next_ns;
    if (s->counting_fd >= 0)
        end(s, now_ns);
    if (s->counting_fd < 0 && now_ns >= s->next_ns)
        begin(s, now_ns);
    return s->next_ns;
}

/* ---- The feature ----------------------------------------------------------- */

static void programs_close(void *p)
{
    struct programs *s = p;

    if (s == NULL)
        return;
    stop_counting(s);
    free(s);
}

static void explain(struct loader_cause *cause, int err)
{
    loader_explain(cause, "the kernel will not count runs of programs", err);
    if (err == EPERM)
        (void)snprintf(cause->remedy, sizeof(cause->remedy),
                       "grant CAP_SYS_ADMIN, or leave ebpf.self_stats false");
}

static int programs_open(void **out, const struct feature_env *env,
                         struct loader_cause *cause)
{
    struct programs *s;
    int fd;

    if (!env->opts->programs.on) {
        (void)snprintf(cause->why, sizeof(cause->why),
                       "ebpf.self_stats is false");
        (void)snprintf(cause->remedy, sizeof(cause->remedy),
                       "set ebpf.self_stats: true, and grant CAP_SYS_ADMIN");
        (void)snprintf(cause->reason, sizeof(cause->reason), LOADER_DISABLED);
        return LOADER_REFUSED;
    }
    fd = bpf_enable_stats(BPF_STATS_RUN_TIME);
    if (fd < 0) {
        explain(cause, errno);
        return LOADER_REFUSED;
    }
    (void)close(fd);
    s = calloc(1, sizeof(*s));
    if (s == NULL)
        return -ENOMEM;
    s->counting_fd = -1;
    *out = s;
    return 0;
}

static void programs_collect(void *p, struct lines *out, bool last)
{
    struct programs *s = p;

    if (last)
        stop_counting(s); /* less than a second is no measure */
    for (uint32_t i = 0; i < s->rates.n; i++) {
        const struct program *r = &s->rates.of[i];
        char tags[64];

        (void)snprintf(tags, sizeof(tags), "program:%s", r->name);
        lines_add(out, "retriever.ebpf.prog.run_cnt", (double)r->n_runs, "g",
                  tags);
        lines_add(out, "retriever.ebpf.prog.run_ns", (double)r->run_ns, "g",
                  tags);
    }
    s->rates.n = 0;
}

const struct feature programs_feature = {
    .name = "programs",
    .what = PROGRAMS_WHAT,
    .capabilities = FEATURE_CAP(CAP_SYS_ADMIN),
    .open = programs_open,
    .collect = programs_collect,
    .due = programs_due,
    .close = programs_close,
};
