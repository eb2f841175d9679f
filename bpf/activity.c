/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/activity.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "bpf/activity_coarse.h"
#include "bpf/activity_families.h"
#include "bpf/cgroup.h"
#include "bpf/features.h"

struct activity {
    struct activity_families *families; /* NULL: the job alone, from /proc */
    struct activity_coarse *coarse;     /* NULL: families */
};

static void activity_event(void *self, const struct event_hdr *ev)
{
    struct activity *a = self;

    if (a->families != NULL)
        activity_families_event(a->families, ev);
}

static void activity_collect(void *self, struct lines *out, bool last)
{
    struct activity *a = self;

    if (a->families != NULL)
        activity_families_collect(a->families, out, last);
    else
        activity_coarse_collect(a->coarse, out);
}

static uint64_t activity_due(void *self, uint64_t at_ns)
{
    struct activity *a = self;

    return a->coarse != NULL ? activity_coarse_due(a->coarse, at_ns)
                             : UINT64_MAX;
}

static void activity_close(void *self)
{
    struct activity *a = self;

    if (a == NULL)
        return;
    activity_families_close(a->families);
    activity_coarse_close(a->coarse);
    free(a);
}

/* Returns 0, -ENOENT (there is no job) or -errno: @cause stays that of the refusal. */
static int fall_back(struct activity *a, const struct feature_env *env,
                     struct loader_cause *cause)
{
    const char *tags = "";
    int rc = -ENOENT;

    if (env->workload_pid != 0 && env->cgroups != NULL)
        tags =
            cgroups_tags(env->cgroups,
                         cgroups_of_pid(env->cgroups, (int)env->workload_pid));
    if (env->workload_pid != 0)
        rc = activity_coarse_open(&a->coarse, env->workload_pid, tags);
    if (rc == 0)
        (void)snprintf(cause->left, sizeof(cause->left),
                       "the job of exec alone, from schedstat: no ends of "
                       "processes");
    return rc;
}

static int activity_open(void **self, const struct feature_env *env,
                         struct loader_cause *cause)
{
    struct activity *a;
    int rc;

    if (env->opts->activity.off) {
        (void)snprintf(cause->why, sizeof(cause->why),
                       "ebpf.activity.enabled is false");
        (void)snprintf(cause->reason, sizeof(cause->reason), LOADER_DISABLED);
        return LOADER_REFUSED;
    }
    a = calloc(1, sizeof(*a));
    if (a == NULL)
        return -ENOMEM;
    rc = activity_families_open(&a->families, env, cause);
    if (rc == LOADER_REFUSED && fall_back(a, env, cause) == 0)
        rc = 0;
    if (rc != 0) {
        activity_close(a);
        return rc;
    }
    *self = a;
    return 0;
}

const struct feature activity_feature = {
    .name = "activity",
    .what = "work and idleness of process families",
    .by_cgroup = true,
    /* Hooks are attached with the first family; rules look into processes. */
    .capabilities = FEATURE_CAPS_READ | FEATURE_CAP(CAP_PERFMON) |
                    FEATURE_CAP(CAP_SYS_PTRACE),
    .open = activity_open,
    .event = activity_event,
    .collect = activity_collect,
    .due = activity_due,
    .close = activity_close,
};
