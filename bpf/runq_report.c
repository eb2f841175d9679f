/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel adds up by cgroup, people ask by container: cgroups with one slot are
 * one group. A group lives from the first value to the next report.
 */
#include "bpf/runq_report.h"

#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/throttle.h"

#define N_BUCKETS 1024u
#define NAMELESS "container:unknown"

static const char *const causes[SCHED_N_CAUSES] = {
    [SCHED_BY_IDLE] = "idle",
    [SCHED_BY_SAME] = "same_container",
    [SCHED_BY_OTHER] = "other_container",
    [SCHED_BY_SYSTEM] = "system_service",
};

struct pair {
    struct pair *next;
    uint64_t culprit; /* slot */
    uint64_t ns;
    char name[CGROUP_NAME_MAX];
};

struct group {
    struct group *next; /* of the same bucket */
    uint64_t slot;
    bool made;
    char tags[CGROUP_TAGS_MAX];
    char *path; /* of the container's own cgroup; NULL = unknown */
    struct pair *pairs;
    uint64_t n_waits, n_voluntary;
    uint64_t wait_ns[SCHED_N_CAUSES];
    uint64_t out[SCHED_N_CAUSES];
    uint64_t n_class[SCHED_N_CLASSES];
};

struct runq_report {
    const struct runq_opts *opts;
    struct cgroups *cgroups;
    struct throttle throttle;
    size_t n_groups, n_pairs;
    uint64_t n_refused; /* values that found no memory or no room */
    struct group *buckets[N_BUCKETS];
};

/* ---- What is reported ------------------------------------------------------ */

static bool any_fits(const char *globs, const struct cgroup_info *info)
{
    char glob[256];

    while (globs != NULL && *globs != '\0') {
        size_t n = strcspn(globs, ", ");

        if (n > 0 && n < sizeof(glob)) {
            memcpy(glob, globs, n);
            glob[n] = '\0';
            if (fnmatch(glob, info->path, 0) == 0 ||
                fnmatch(glob, info->name, 0) == 0)
                return true;
        }
        globs += n;
        globs += *globs != '\0';
    }
    return false;
}

bool runq_report_wants(const struct runq_report *r,
                       const struct cgroup_info *info)
{
    const char *include = r->opts->include;

    if (info->kind == CGROUP_SYSTEM && !r->opts->system)
        return false;
    if (include != NULL && include[0] != '\0' && !any_fits(include, info))
        return false;
    return !any_fits(r->opts->exclude, info);
}

void runq_report_begin(struct runq_report *r, const struct cgroup_info *info)
{
    struct throttle_sums until_now;
    char path[CGROUP_PATH_MAX];

    if (info->n_path == 0 || !runq_report_wants(r, info))
        return;
    (void)snprintf(path, sizeof(path), "%.*s", (int)info->n_path, info->path);
    throttle_read(&r->throttle, cgroups_cpu(r->cgroups), info->slot, path,
                  false, &until_now);
}

/* ---- Groups ---------------------------------------------------------------- */

static struct group *make_group(struct runq_report *r,
                                const struct cgroup_info *info)
{
    struct group *g = NULL;

    if (r->n_groups < RUNQ_MAX_GROUPS)
        g = calloc(1, sizeof(*g));
    if (g == NULL) {
        r->n_refused++;
        return NULL;
    }
    g->slot = info->slot;
    g->made = info->made;
    if (info->n_path > 0)
        g->path = strndup(info->path, info->n_path);
    (void)snprintf(g->tags, sizeof(g->tags), "%s",
                   info->kind != CGROUP_UNKNOWN ? info->tags : NAMELESS);
    g->next = r->buckets[info->slot % N_BUCKETS];
    r->buckets[info->slot % N_BUCKETS] = g;
    r->n_groups++;
    return g;
}

/* NULL: it is not reported. */
static struct group *group_of(struct runq_report *r, uint64_t cgid)
{
    const struct cgroup_info *info = cgroups_find(r->cgroups, cgid);
    struct group *g = r->buckets[info->slot % N_BUCKETS];

    if (!runq_report_wants(r, info))
        return NULL;
    while (g != NULL && g->slot != info->slot)
        g = g->next;
    return g != NULL ? g : make_group(r, info);
}

static void free_pairs(struct group *g)
{
    while (g->pairs != NULL) {
        struct pair *p = g->pairs;

        g->pairs = p->next;
        free(p);
    }
}

static void free_group(struct group *g)
{
    free_pairs(g);
    free(g->path);
    free(g);
}

int runq_report_create(struct runq_report **out, const struct runq_opts *opts,
                       struct cgroups *cgroups)
{
    struct runq_report *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return -ENOMEM;
    r->opts = opts;
    r->cgroups = cgroups;
    *out = r;
    return 0;
}

void runq_report_close(struct runq_report *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; i < N_BUCKETS; i++) {
        while (r->buckets[i] != NULL) {
            struct group *g = r->buckets[i];

            r->buckets[i] = g->next;
            free_group(g);
        }
    }
    free(r);
}

/* ---- Adding up ------------------------------------------------------------- */

void runq_report_add(struct runq_report *r, uint64_t cgid,
                     const struct sched_hist *delta)
{
    struct group *g = group_of(r, cgid);

    if (g == NULL)
        return;
    g->n_waits += delta->n_waits;
    g->n_voluntary += delta->n_voluntary;
    for (size_t i = 0; i < SCHED_N_CAUSES; i++) {
        g->wait_ns[i] += delta->wait_ns[i];
        g->out[i] += delta->out[i];
    }
    for (size_t i = 0; i < SCHED_N_CLASSES; i++)
        g->n_class[i] += delta->n_class[i];
}

void runq_report_add_pair(struct runq_report *r, const struct sched_pair *pair,
                          const struct sched_wait *delta)
{
    struct group *g = group_of(r, pair->victim);
    const struct cgroup_info *culprit;
    struct pair *p;

    if (g == NULL)
        return;
    culprit = cgroups_find(r->cgroups, pair->culprit);
    for (p = g->pairs; p != NULL; p = p->next) {
        if (p->culprit == culprit->slot)
            break;
    }
    if (p == NULL && r->n_pairs < RUNQ_MAX_PAIRS) {
        p = calloc(1, sizeof(*p));
        if (p != NULL) {
            p->culprit = culprit->slot;
            (void)snprintf(p->name, sizeof(p->name), "%s",
                           culprit->slot != 0 ? culprit->name : "unknown");
            p->next = g->pairs;
            g->pairs = p;
            r->n_pairs++;
        }
    }
    if (p != NULL)
        p->ns += delta->ns;
    else
        r->n_refused++;
}

static uint32_t relation(uint64_t self, const struct cgroup_info *other)
{
    if (self != 0 && self == other->slot)
        return SCHED_BY_SAME;
    return other->kind == CGROUP_CONTAINER ? SCHED_BY_OTHER : SCHED_BY_SYSTEM;
}

void runq_report_event(struct runq_report *r, const struct event_runq *ev)
{
    struct sched_pair pair = {ev->hdr.cgid, ev->prev_cgid};
    struct sched_wait wait = {ev->n, ev->latency_ns};
    uint64_t each_ns = ev->n > 0 ? ev->latency_ns / ev->n : 0;
    uint32_t cause = ev->flags % SCHED_N_CAUSES;
    struct group *g = group_of(r, ev->hdr.cgid);

    if (g != NULL) {
        g->n_waits += ev->n;
        g->wait_ns[cause] += ev->latency_ns;
        g->n_class[sched_class(each_ns)] += ev->n;
        if (cause >= SCHED_BY_OTHER &&
            each_ns > UINT64_C(1000) * r->opts->min_pair_us)
            runq_report_add_pair(r, &pair, &wait);
    }
    if ((ev->flags & SCHED_PREEMPTED) == 0)
        return;
    g = group_of(r, ev->prev_cgid);
    if (g != NULL) {
        uint64_t self = g->slot;

        g->out[relation(self, cgroups_find(r->cgroups, ev->hdr.cgid))] += ev->n;
    }
}

/* ---- Writing --------------------------------------------------------------- */

double runq_report_class_us(uint32_t class)
{
    double low, high;

    if (class == 0)
        return 0.5;
    if (class >= SCHED_N_CLASSES - 1)
        return ldexp(1e-3, SCHED_MAX_LOG2);
    low =
        ldexp(8 + (class - 1) % 8, (int)((class - 1) / 8 + SCHED_MIN_LOG2 - 3));
    high =
        ldexp(9 + (class - 1) % 8, (int)((class - 1) / 8 + SCHED_MIN_LOG2 - 3));
    return sqrt(low * high) * 1e-3;
}

static void add_with(struct lines *out, const char *name, double value,
                     const char *tags, const char *key, const char *word)
{
    char all[CGROUP_TAGS_MAX + CGROUP_NAME_MAX + 32];

    (void)snprintf(all, sizeof(all), "%s%s%s:%s", tags,
                   tags[0] != '\0' ? "," : "", key, word);
    lines_add(out, name, value, "c", all);
}

static int more_ns(const void *a, const void *b)
{
    const struct pair *const *x = a, *const *y = b;

    return ((*x)->ns < (*y)->ns) - ((*x)->ns > (*y)->ns);
}

/* The worst by name, the rest as one. */
static void write_pairs(const struct runq_report *r, const struct group *g,
                        struct lines *out)
{
    struct pair **all;
    uint64_t rest_ns = 0;
    size_t n = 0, i = 0;

    for (const struct pair *p = g->pairs; p != NULL; p = p->next)
        n++;
    all = n > 0 ? calloc(n, sizeof(struct pair *)) : NULL;
    if (all == NULL)
        return;
    for (struct pair *p = g->pairs; p != NULL; p = p->next)
        all[i++] = p;
    qsort(all, n, sizeof(struct pair *), more_ns);
    for (i = 0; i < n; i++) {
        if (i < r->opts->top_neighbors)
            add_with(out, "runq.neighbor.wait", (double)all[i]->ns / 1e6,
                     g->tags, "neighbor", all[i]->name);
        else
            rest_ns += all[i]->ns;
    }
    if (rest_ns > 0)
        add_with(out, "runq.neighbor.wait", (double)rest_ns / 1e6, g->tags,
                 "neighbor", "other");
    free(all);
}

static void write_throttled(struct runq_report *r, const struct group *g,
                            struct lines *out)
{
    struct throttle_sums delta;

    if (g->path == NULL)
        return;
    throttle_read(&r->throttle, cgroups_cpu(r->cgroups), g->slot, g->path,
                  g->made, &delta);
    if (delta.ns > 0)
        lines_add(out, "runq.throttled.time", (double)delta.ns / 1e6, "c",
                  g->tags);
    if (delta.n_periods > 0)
        lines_add(out, "runq.throttled.periods", (double)delta.n_periods, "c",
                  g->tags);
}

static void write_group(const struct runq_report *r, const struct group *g,
                        struct lines *out)
{
    for (uint32_t i = 0; i < SCHED_N_CLASSES; i++)
        lines_add_many(out, "runq.latency", runq_report_class_us(i),
                       g->n_class[i], g->tags);
    for (size_t i = 0; i < SCHED_N_CAUSES; i++) {
        if (g->wait_ns[i] > 0)
            add_with(out, "runq.wait", (double)g->wait_ns[i] / 1e6, g->tags,
                     "cause", causes[i]);
        if (g->out[i] > 0)
            add_with(out, "sched.switch.out", (double)g->out[i], g->tags,
                     "cause", causes[i]);
    }
    if (r->opts->voluntary && g->n_voluntary > 0)
        lines_add(out, "sched.switch.voluntary", (double)g->n_voluntary, "c",
                  g->tags);
    write_pairs(r, g, out);
}

/* Take what @from has. */
static void merge(struct group *into, struct group *from)
{
    struct pair **end = &into->pairs;

    while (*end != NULL)
        end = &(*end)->next;
    *end = from->pairs;
    from->pairs = NULL;
    into->n_waits += from->n_waits;
    into->n_voluntary += from->n_voluntary;
    for (size_t i = 0; i < SCHED_N_CAUSES; i++) {
        into->wait_ns[i] += from->wait_ns[i];
        into->out[i] += from->out[i];
    }
    for (size_t i = 0; i < SCHED_N_CLASSES; i++)
        into->n_class[i] += from->n_class[i];
}

static int busier(const void *a, const void *b)
{
    const struct group *const *x = a, *const *y = b;

    return ((*x)->n_waits < (*y)->n_waits) - ((*x)->n_waits > (*y)->n_waits);
}

/* All groups out of the table into an array; NULL: none, or no memory (then they
 * stay for the next report). */
static struct group **take_groups(struct runq_report *r, size_t *n)
{
    struct group **all =
        r->n_groups > 0 ? calloc(r->n_groups, sizeof(struct group *)) : NULL;

    *n = 0;
    if (all == NULL)
        return NULL;
    for (size_t i = 0; i < N_BUCKETS; i++) {
        while (r->buckets[i] != NULL) {
            all[*n] = r->buckets[i];
            r->buckets[i] = all[*n]->next;
            (*n)++;
        }
    }
    r->n_groups = 0;
    r->n_pairs = 0;
    return all;
}

void runq_report_write(struct runq_report *r, struct lines *out)
{
    struct group rest = {.tags = "container:other"};
    size_t n, n_merged = 0;
    struct group **all = take_groups(r, &n);

    if (all != NULL)
        qsort(all, n, sizeof(struct group *), busier);
    for (size_t i = 0; all != NULL && i < n; i++) {
        if (i < r->opts->max_containers) {
            write_throttled(r, all[i], out);
            write_group(r, all[i], out);
        } else {
            merge(&rest, all[i]);
            n_merged++;
        }
        free_group(all[i]);
    }
    free(all);
    write_group(r, &rest, out);
    free_pairs(&rest);
    if (n_merged > 0)
        lines_add(out, "retriever.ebpf.runq.merged", (double)n_merged, "c", "");
    if (r->n_refused > 0)
        lines_add(out, "retriever.ebpf.runq.refused", (double)r->n_refused, "c",
                  "");
    r->n_refused = 0;
}
