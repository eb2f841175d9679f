/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/runq.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "bpf/features.h"
#include "bpf/runq_kernel.h"
#include "bpf/runq_report.h"
#include "bpf/schedstat.h"

struct runq {
    struct runq_opts opts;
    struct cgroups *cgroups;
    struct runq_report *report;
    struct runq_kernel *kernel;  /* NULL: schedstat instead */
    struct schedstat *schedstat; /* NULL: kernel instead */
    struct own_waits waits;
};

static const struct runq_opts *opts_of(const struct feature_env *env)
{
    return &env->opts->runq;
}

static void close_all(void *self)
{
    struct runq *q = self;

    if (q == NULL)
        return;
    if (q->opts.closed != NULL)
        q->opts.closed(q->opts.arg);
    runq_kernel_close(q->kernel);
    schedstat_close(q->schedstat);
    runq_report_close(q->report);
    free(q);
}

static void tell(void *arg, const struct cgroup_info *info)
{
    struct runq *q = arg;

    runq_kernel_tell(q->kernel, info, !runq_report_wants(q->report, info));
}

static void tell_first(void *arg, const struct cgroup_info *info)
{
    struct runq *q = arg;

    tell(q, info);
    runq_report_begin(q->report, info);
}

/* Names first: once programs run, who has none is announced by a record. */
static int start(struct runq *q, const struct feature_env *env,
                 struct loader_cause *cause)
{
    int rc = runq_kernel_open(&q->kernel, &q->opts, env, NULL, cause);

    if (rc != 0)
        return rc;
    cgroups_each(q->cgroups, tell_first, q);
    rc = runq_kernel_start(q->kernel, cause);
    if (rc != 0) {
        runq_kernel_close(q->kernel);
        q->kernel = NULL;
    }
    return rc;
}

static int use_hierarchy(struct runq *q, struct loader_cause *cause)
{
    const char *name = q->opts.hierarchy;
    char present[100];

    if (name == NULL || cgroups_use(q->cgroups, name) == 0)
        return 0;
    (void)snprintf(cause->why, sizeof(cause->why),
                   "there is no hierarchy %.40s", name);
    (void)snprintf(cause->remedy, sizeof(cause->remedy),
                   "ebpf.runq.hierarchy: auto, %s",
                   cgroups_present(q->cgroups, present, sizeof(present)));
    (void)snprintf(cause->reason, sizeof(cause->reason), "refused");
    return LOADER_REFUSED;
}

/* Returns 0 or -errno: @cause stays that of the refusal. */
static int fall_back(struct runq *q, struct loader_cause *cause)
{
    int rc = schedstat_open(&q->schedstat, q->cgroups);

    if (rc == 0)
        (void)snprintf(cause->left, sizeof(cause->left),
                       "waits and throttling of the agent's own container, "
                       "from schedstat: no cause, no neighbor");
    return rc;
}

static int open_any(void **self, const struct feature_env *env,
                    struct loader_cause *cause)
{
    struct runq *q;
    int rc = -ENOMEM;

    if (opts_of(env)->off) {
        (void)snprintf(cause->why, sizeof(cause->why),
                       "ebpf.runq.enabled is false");
        (void)snprintf(cause->reason, sizeof(cause->reason), LOADER_DISABLED);
        return LOADER_REFUSED;
    }
    q = env->cgroups != NULL ? calloc(1, sizeof(*q)) : NULL;
    if (q == NULL)
        goto out;
    q->opts = *opts_of(env);
    q->cgroups = env->cgroups;
    if (env->events_fd < 0)
        q->opts.stream = false; /* nowhere to */
    rc = use_hierarchy(q, cause);
    if (rc != 0)
        goto out;
    rc = runq_report_create(&q->report, &q->opts, q->cgroups);
    if (rc == 0)
        rc = start(q, env, cause);
    if (rc == LOADER_REFUSED && fall_back(q, cause) == 0)
        rc = 0;
    if (rc != 0)
        goto out;
    *self = q;
    q = NULL;
out:
    close_all(q);
    return rc;
}

static void on_event(void *self, const struct event_hdr *ev)
{
    struct runq *q = self;

    if (q->kernel == NULL)
        return;
    if (ev->type == EVENT_CGROUP) {
        const struct event_cgroup *c = (const void *)ev;

        cgroups_note(q->cgroups, c);
        tell(q, cgroups_find(q->cgroups, c->id));
    } else if (ev->type == EVENT_RUNQ) {
        runq_report_event(q->report, (const void *)ev);
    }
}

/* ---- Reports --------------------------------------------------------------- */

static void on_hist(void *arg, uint64_t cgid, const struct sched_hist *delta)
{
    struct runq *q = arg;

    runq_report_add(q->report, cgid, delta);
    tell(q, cgroups_find(q->cgroups, cgid)); /* a record may have been lost */
}

static void on_pair(void *arg, const struct sched_pair *pair,
                    const struct sched_wait *delta)
{
    struct runq *q = arg;

    runq_report_add_pair(q->report, pair, delta);
}

static bool is_gone(void *arg, uint64_t cgid, bool idle)
{
    struct runq *q = arg;

    return cgroups_find(q->cgroups, cgid)->removed ||
           (idle && !cgroups_exists(q->cgroups, cgid));
}

static void count(struct lines *out, const char *name, uint64_t n)
{
    if (n > 0)
        lines_add(out, name, (double)n, "c", "");
}

/* The last time, too, programs run on: taking them off waits for the RCU grace periods
 * of a tracepoint that others use as well, 40 ms in all, and is left to close(). */
static void collect(void *self, struct lines *out, bool last)
{
    struct runq *q = self;
    struct runq_kernel_sink sink = {q, on_hist, on_pair, is_gone};
    struct sched_stats stats;

    if (q->schedstat != NULL)
        schedstat_collect(q->schedstat, out);
    if (q->kernel == NULL)
        return;
    (void)last;
    runq_kernel_own(q->kernel, &q->waits);
    if (q->opts.collected != NULL)
        q->opts.collected(q->opts.arg, q);
    runq_kernel_read(q->kernel, &sink);
    runq_report_write(q->report, out);
    runq_kernel_stats(q->kernel, &stats);
    count(out, "retriever.ebpf.runq.missed", stats.n_missed);
    count(out, "retriever.ebpf.runq.hist_full", stats.n_full);
    count(out, "retriever.ebpf.runq.negative", stats.n_negative);
    count(out, "retriever.ebpf.runq.unknown_cgroup", stats.n_unknown);
}

void runq_waits(const void *self, struct own_waits_report *out)
{
    const struct runq *q = self;

    own_waits_report(&q->waits, q->cgroups, out);
}

char *runq_tell_waits(void *self, char *line, size_t size)
{
    struct runq *q = self;

    return own_waits_tell(&q->waits, q->cgroups, line, size);
}

const struct feature runq_feature = {
    .name = "runq",
    .what = "waits for a CPU by container, and who caused them",
    .by_cgroup = true,
    .capabilities = FEATURE_CAPS_READ,
    .open = open_any,
    .event = on_event,
    .collect = collect,
    .close = close_all,
};
