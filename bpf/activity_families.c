/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joins three things: the kernel's totals by family number (activity_kernel.h), who
 * descends from whom (lineage.h), and the records of `life`.
 *
 * The kernel decides who is a member, since only there a child is one before it
 * runs. Here a process becomes a root: at its exec, when it fits a rule; or at
 * start, when it is found in /proc. Which of several that fit is the root: the one
 * that is no descendant of another, as AGENT_MODE and its like are inherited with
 * the environment.
 *
 * Records may be lost, the kernel's counts are not. An end or an exec that was
 * counted before the previous report and whose record has not come by this one is
 * told without its status.
 */
#include "bpf/activity_families.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/num.h"
#include "bpf/activity_exits.h"
#include "bpf/activity_kernel.h"
#include "bpf/activity_report.h"
#include "bpf/cgroup.h"
#include "bpf/features.h"
#include "bpf/lineage.h"
#include "bpf/proc_facts.h"

#define EMPTY_NS UINT64_C(30000000000) /* then a family is gone */
#define MAX_FOUND 4096                 /* matches in /proc at start */

/* Counted by the kernel, and how much of it is told. */
struct tally {
    uint64_t told;   /* by records, or without */
    uint64_t before; /* the kernel's count at the previous report */
};

struct family {
    const struct family_rule *rule; /* NULL: the workload */
    uint32_t ns_tgid;               /* of its root */
    char container[512];            /* tags */
    char tags[1024];
    struct activity_shadow shadow;
    struct activity_family now; /* as of this report */
    bool active;
    uint64_t empty_since_ns; /* 0 = it has tasks */
    bool over;               /* this report is its last */
    struct tally execs, exits;
    uint64_t n_execs[FAMILY_N_ROLES]; /* since the previous report */
};

struct activity_families {
    struct feature_env env;
    const struct activity_opts *opts;
    struct activity_kernel kernel;
    struct lineage *lineage;
    struct proc_facts *proc;
    unsigned int needs; /* of the rules */
    uint64_t threshold_ticks;
    struct family *families[ACTIVITY_MAX_FAMILIES]; /* [0] stays NULL */
    uint32_t n_families;
    struct activity_exits exits;
    uint64_t n_refused; /* families */
    uint64_t n_repaired;
    struct {
        uint64_t refused, unreadable, nodes;
    } told;
};

static const struct activity_opts *options(const struct feature_env *env)
{
    return &env->opts->activity;
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* ---- Families ------------------------------------------------------------ */

static void name_family(const struct activity_families *a, struct family *f)
{
    char name[64], pid[32] = "";

    (void)lines_tag(name, sizeof(name),
                    f->rule != NULL ? f->rule->name : "workload");
    if (a->opts->pid_tags)
        (void)snprintf(pid, sizeof(pid), ",root_pid:%u", f->ns_tgid);
    (void)snprintf(f->tags, sizeof(f->tags), "family:%s%s%s%s", name,
                   f->container[0] != '\0' ? "," : "", f->container, pid);
}

static bool has_threads(const struct activity_families *a, uint32_t i)
{
    struct activity_family f;

    return activity_kernel_read(&a->kernel, i, &f) == 0 && f.n_threads > 0;
}

/* That of a container, or 0. The account of a dead one is closed: its time until
 * now would be told as idleness. */
static uint32_t find_by_container(const struct activity_families *a,
                                  const struct family_rule *rule,
                                  const char *container)
{
    if (rule == NULL || !rule->by_container || container[0] == '\0')
        return 0;
    for (uint32_t i = 1; i < ACTIVITY_MAX_FAMILIES; i++) {
        if (a->families[i] != NULL && a->families[i]->rule == rule &&
            strcmp(a->families[i]->container, container) == 0 &&
            has_threads(a, i))
            return i;
    }
    return 0;
}

/* Returns its number, or 0: refused, and counted. */
static uint32_t new_family(struct activity_families *a,
                           const struct family_rule *rule, uint32_t ns_tgid,
                           const char *container)
{
    struct loader_cause cause;
    struct family *f;
    uint32_t i = 1;

    while (i < ACTIVITY_MAX_FAMILIES && a->families[i] != NULL)
        i++;
    f = i < ACTIVITY_MAX_FAMILIES ? calloc(1, sizeof(*f)) : NULL;
    if (f == NULL || activity_kernel_begin(&a->kernel, i, &cause) != 0) {
        a->n_refused++;
        free(f);
        return 0;
    }
    f->rule = rule;
    f->ns_tgid = ns_tgid;
    (void)snprintf(f->container, sizeof(f->container), "%s", container);
    name_family(a, f);
    a->families[i] = f;
    a->n_families++;
    return i;
}

/* Returns the number of the family that it began or joined; 0 = none. */
static uint32_t begin(struct activity_families *a, struct lineage_id id,
                      uint32_t ns_tgid, uint64_t cgid,
                      const struct family_rule *rule)
{
    struct cgroups *cgroups = a->env.cgroups;
    const char *container = cgroups != NULL ? cgroups_tags(cgroups, cgid) : "";
    uint32_t family = find_by_container(a, rule, container);
    struct activity_family f;

    if (family == 0)
        family = new_family(a, rule, ns_tgid, container);
    if (family == 0)
        return 0;
    (void)lineage_root(a->lineage, id, family, rule, now_ns());
    if (activity_kernel_watch(&a->kernel, id.tgid, family) != 0)
        a->n_refused++; /* the map is full: it has no members */
    (void)activity_kernel_gather(&a->kernel);
    /* It may have ended before it was watched: then nobody removes it. */
    if (activity_kernel_read(&a->kernel, family, &f) == 0 &&
        f.n_processes == 0 && f.n_exits == 0)
        activity_kernel_unwatch(&a->kernel, id.tgid);
    return family;
}

/* ---- What runs already --------------------------------------------------- */

struct found {
    uint32_t pid;
    const struct family_rule *rule;
};

static struct found *find_pid(struct found *all, size_t n, uint32_t pid)
{
    for (size_t i = 0; i < n; i++) {
        if (all[i].pid == pid)
            return &all[i];
    }
    return NULL;
}

static size_t find_matches(struct activity_families *a, struct found *all,
                           size_t max)
{
    DIR *dir = opendir("/proc");
    struct dirent *e;
    size_t n = 0;

    while (dir != NULL && n < max && (e = readdir(dir)) != NULL) {
        const struct family_rule *rule;
        struct family_facts facts;
        uint64_t pid;

        if (num_parse_u64(e->d_name, &pid) != 0 || pid > INT32_MAX ||
            pid == (uint64_t)getpid())
            continue;
        facts = proc_facts_read(a->proc, (uint32_t)pid, NULL, a->needs);
        rule = family_rule_first(a->opts->rules, a->opts->n_rules, &facts);
        if (rule != NULL)
            all[n++] = (struct found){(uint32_t)pid, rule};
    }
    if (dir != NULL)
        (void)closedir(dir);
    return n;
}

/* The process of this id, unless it belongs to a family. Returns the number of the
 * family that it began; 0 = none. */
static uint32_t begin_running(struct activity_families *a, uint32_t ns_tgid,
                              const struct family_rule *rule)
{
    struct activity_walk w;

    if (activity_kernel_walk(&a->kernel, ns_tgid, &w) != 0 || w.tgid == 0 ||
        activity_kernel_family(&a->kernel, w.tgid) != 0)
        return 0;
    return begin(a, (struct lineage_id){w.tgid, w.start_ns}, ns_tgid, w.cgid,
                 rule);
}

static void begin_all_running(struct activity_families *a)
{
    struct found *all = calloc(MAX_FOUND, sizeof(*all));
    size_t n;

    if (all == NULL)
        return;
    n = find_matches(a, all, MAX_FOUND);
    for (size_t i = 0; i < n; i++) {
        struct found *top = &all[i];
        uint32_t pid = all[i].pid;

        for (int hops = 0; hops < LINEAGE_MAX_HOPS && pid > 1; hops++) {
            struct found *f;

            pid = proc_facts_parent(a->proc, pid);
            f = find_pid(all, n, pid);
            if (f != NULL)
                top = f;
        }
        (void)begin_running(a, top->pid, top->rule);
    }
    free(all);
}

/* ---- Records ------------------------------------------------------------- */

static struct family *family_at(const struct activity_families *a, uint32_t i)
{
    return i < ACTIVITY_MAX_FAMILIES ? a->families[i] : NULL;
}

static void on_member(struct activity_families *a,
                      const struct event_process *e, uint32_t family)
{
    struct family *f = family_at(a, family);
    const struct lineage_node *n;
    unsigned int needs = 0;
    struct family_facts facts;
    char comm[17];

    if (f == NULL)
        return;
    if (e->hdr.type == EVENT_EXEC && f->rule != NULL &&
        f->rule->n_sub + f->rule->n_skill > 0)
        needs = PROC_EXE | PROC_ARGV0;
    (void)snprintf(comm, sizeof(comm), "%.16s", e->comm);
    facts = proc_facts_read(a->proc, e->ns_tgid, comm, needs);
    n = lineage_member(a->lineage,
                       (struct lineage_id){e->hdr.tgid, e->start_ns}, e->ppid,
                       family, &facts, now_ns());
    if (e->hdr.type == EVENT_EXEC) {
        f->n_execs[n != NULL ? n->role : FAMILY_UNKNOWN]++;
        f->execs.told += e->family != 0;
    }
}

static void on_exec(struct activity_families *a, const struct event_process *e)
{
    struct lineage_id id = {e->hdr.tgid, e->start_ns};
    uint32_t family = lineage_family(a->lineage, id, e->ppid, e->family);
    const struct family_rule *rule;
    struct family_facts facts;
    char comm[17];

    /* It was no member yet at its exec; since then its root may have been found. */
    if (family == 0)
        family = activity_kernel_family(&a->kernel, id.tgid);
    if (family == 0 && a->env.workload_pid != 0 &&
        e->ns_tgid == a->env.workload_pid) {
        family = begin(a, id, e->ns_tgid, e->hdr.cgid, NULL);
    } else if (family == 0 && a->opts->n_rules > 0) {
        (void)snprintf(comm, sizeof(comm), "%.16s", e->comm);
        facts = proc_facts_read(a->proc, e->ns_tgid, comm, a->needs);
        rule = family_rule_first(a->opts->rules, a->opts->n_rules, &facts);
        if (rule != NULL)
            family = begin(a, id, e->ns_tgid, e->hdr.cgid, rule);
    }
    if (family != 0)
        on_member(a, e, family);
}

static void on_exit_record(struct activity_families *a,
                           const struct event_exit *e)
{
    struct lineage_id id = {e->hdr.tgid, e->start_ns};
    const struct lineage_node *n = lineage_find(a->lineage, id);
    struct family *f = family_at(a, e->family);
    char comm[17];
    struct family_facts facts = {.comm = comm,
                                 .exe = "",
                                 .argv0 = "",
                                 .cgroup = ""};

    if (f != NULL) {
        (void)snprintf(comm, sizeof(comm), "%.16s", e->comm);
        activity_exits_add(&a->exits, e->family,
                           n != NULL ? n->role
                                     : family_rule_role(f->rule, &facts),
                           e->exit_code, e->flags);
        f->exits.told++;
    }
    lineage_exit(a->lineage, id, now_ns());
}

void activity_families_event(struct activity_families *a,
                             const struct event_hdr *ev)
{
    if (ev->type == EVENT_EXEC)
        on_exec(a, (const struct event_process *)(const void *)ev);
    else if (ev->type == EVENT_FORK)
        on_member(a, (const struct event_process *)(const void *)ev,
                  ((const struct event_process *)(const void *)ev)->family);
    else if (ev->type == EVENT_EXIT)
        on_exit_record(a, (const struct event_exit *)(const void *)ev);
}

/* ---- Reports ------------------------------------------------------------- */

static void add_count(struct lines *out, const char *name, uint64_t n,
                      const char *tags)
{
    if (n > 0)
        lines_add(out, name, (double)n, "c", tags);
}

/* What the kernel counted and no record told: since the previous report there was
 * time enough for them. @last: there is none left. */
static uint64_t untold(struct tally *t, uint64_t now, bool last)
{
    uint64_t due = last ? now : t->before;
    uint64_t n = due > t->told ? due - t->told : 0;

    t->told += n;
    t->before = now;
    return n;
}

static void report_processes(struct activity_families *a, uint32_t i,
                             struct lines *out, bool last)
{
    struct family *f = a->families[i];
    char tags[1200];

    f->n_execs[FAMILY_UNKNOWN] += untold(&f->execs, f->now.n_execs, last);
    for (int role = 0; role < FAMILY_N_ROLES; role++) {
        (void)snprintf(tags, sizeof(tags), "%s,process_type:%s", f->tags,
                       family_role_name((enum family_role)role));
        add_count(out, "process.exec", f->n_execs[role], tags);
        f->n_execs[role] = 0;
    }
    activity_exits_report(&a->exits, i, out, f->tags);
    (void)snprintf(tags, sizeof(tags),
                   "%s,process_type:unknown,exit_code:unknown", f->tags);
    add_count(out, "process.exit", untold(&f->exits, f->now.n_exits, last),
              tags);
}

/* Families with equal tags are one gauge: written at the first of them. */
static void report_gauges(const struct activity_families *a, uint32_t i,
                          struct lines *out)
{
    const char *tags = a->families[i]->tags;
    int64_t n_threads = 0, n_processes = 0;
    bool active = false;

    for (uint32_t k = 1; k < ACTIVITY_MAX_FAMILIES; k++) {
        const struct family *f = a->families[k];

        if (f == NULL || (k != i && strcmp(f->tags, tags) != 0))
            continue;
        if (k < i)
            return;
        n_threads += f->now.n_threads;
        n_processes += f->now.n_processes;
        active |= f->active && f->now.n_threads > 0;
    }
    lines_add(out, "activity.state", active, "g", tags);
    lines_add(out, "activity.threads", (double)n_threads, "g", tags);
    lines_add(out, "activity.processes", (double)n_processes, "g", tags);
}

static void report_self(struct activity_families *a, struct lines *out)
{
    uint64_t unreadable = a->proc->n_unreadable;
    uint64_t nodes = lineage_n_refused(a->lineage);

    add_count(out, "retriever.ebpf.activity.repaired", a->n_repaired, "");
    add_count(out, "retriever.ebpf.activity.families_refused",
              a->n_refused - a->told.refused, "");
    add_count(out, "retriever.ebpf.activity.processes_refused",
              nodes - a->told.nodes, "");
    add_count(out, "retriever.ebpf.activity.environ_unreadable",
              unreadable - a->told.unreadable, "");
    a->n_repaired = 0;
    a->told.refused = a->n_refused;
    a->told.nodes = nodes;
    a->told.unreadable = unreadable;
}

/* It has been without a task for so long that it is gone. */
static void look_for_end(struct family *f, uint64_t now)
{
    if (f->now.n_threads > 0)
        f->empty_since_ns = 0;
    else if (f->empty_since_ns == 0)
        f->empty_since_ns = now;
    f->over = f->empty_since_ns != 0 && now - f->empty_since_ns >= EMPTY_NS;
}

static void report_family(struct activity_families *a, uint32_t i,
                          struct lines *out, bool last)
{
    struct family *f = a->families[i];
    struct activity_family was = f->now;
    uint64_t now;

    if (activity_kernel_read(&a->kernel, i, &f->now) != 0)
        f->now = was;
    a->n_repaired += f->now.n_repaired - was.n_repaired;
    now = now_ns();
    look_for_end(f, now);
    f->active = activity_report(&f->shadow, &f->now, now, a->threshold_ticks,
                                last || f->over, out, f->tags);
    report_processes(a, i, out, last);
}

static void forget_ended(struct activity_families *a)
{
    for (uint32_t i = 1; i < ACTIVITY_MAX_FAMILIES; i++) {
        if (a->families[i] == NULL || !a->families[i]->over)
            continue;
        free(a->families[i]);
        a->families[i] = NULL;
        a->n_families--;
    }
}

/* The programs stay where they are, also for the last time: taking one off a
 * tracepoint that another one shares waits for a grace period of RCU, ten
 * milliseconds and more, which a stop does not have. What they count behind this is
 * told by nobody. */
void activity_families_collect(struct activity_families *a, struct lines *out,
                               bool last)
{
    if (a->n_families > 0)
        (void)activity_kernel_gather(&a->kernel);
    for (uint32_t i = 1; i < ACTIVITY_MAX_FAMILIES; i++) {
        if (a->families[i] != NULL)
            report_family(a, i, out, last);
    }
    activity_exits_clear(&a->exits);
    for (uint32_t i = 1; i < ACTIVITY_MAX_FAMILIES; i++) {
        if (a->families[i] != NULL)
            report_gauges(a, i, out);
    }
    forget_ended(a);
    lineage_expire(a->lineage, now_ns());
    report_self(a, out);
}

/* ---- Open and close ------------------------------------------------------ */

void activity_families_close(struct activity_families *a)
{
    if (a == NULL)
        return;
    activity_kernel_close(&a->kernel);
    lineage_close(a->lineage);
    proc_facts_close(a->proc);
    for (uint32_t i = 0; i < ACTIVITY_MAX_FAMILIES; i++)
        free(a->families[i]);
    free(a);
}

int activity_families_open(struct activity_families **out,
                           const struct feature_env *env,
                           struct loader_cause *cause)
{
    struct activity_families *a = calloc(1, sizeof(*a));
    uint64_t threshold_ms;
    int rc = -ENOMEM;

    if (a == NULL)
        goto out;
    a->env = *env;
    a->opts = options(env);
    if (env->watched_fd < 0) {
        rc = LOADER_REFUSED; /* no ring: its cause is known */
        goto out;
    }
    a->needs = proc_facts_needs(a->opts->rules, a->opts->n_rules);
    threshold_ms = a->opts->idle_threshold_ms != 0 ? a->opts->idle_threshold_ms
                                                   : ACTIVITY_THRESHOLD_MS;
    a->threshold_ticks = threshold_ms * 1000000 >> ACTIVITY_TICK_SHIFT;
    rc = lineage_create(&a->lineage, LINEAGE_MAX_NODES);
    if (rc == 0)
        rc = proc_facts_create(&a->proc, "/proc");
    if (rc == 0)
        rc = activity_kernel_open(&a->kernel, env, a->threshold_ticks, cause);
    if (rc != 0)
        goto out;
    if (env->workload_pid != 0)
        (void)begin_running(a, env->workload_pid, NULL);
    if (a->opts->n_rules > 0)
        begin_all_running(a);
    *out = a;
    a = NULL; /* handed over */
out:
    activity_families_close(a);
    return rc;
}
