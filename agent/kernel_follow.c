/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/kernel_follow.h"

#include <string.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "bpf/cgroup.h"

#define MODULE "kernel"
#define AGAIN_NS (60 * (uint64_t)CLOCK_NS_PER_S)

/* Without a ring there are no programs, and no ids. */
bool kernel_follow_may(const struct feature_env *env)
{
    return env->events_fd >= 0 && env->cgroups != NULL &&
           cgroups_may_change(env->cgroups);
}

bool kernel_follow_begin(struct kernel_follow *f, struct feature_env *env)
{
    uint64_t now_ns = clock_mono_ns(&clock_real);
    struct cgroups *fresh;

    if (!kernel_follow_may(env) ||
        (f->went_ns != 0 && now_ns - f->went_ns < AGAIN_NS) ||
        !cgroups_outdated(env->cgroups) || cgroups_create(&fresh) != 0)
        return false;
    f->went_ns = now_ns;
    f->old_cgroups = env->cgroups;
    f->old_watched_fd = env->watched_fd;
    env->cgroups = fresh;
    env->watched_fd = life_watched_create();
    return true;
}

/* What is off behind it, by name; NULL: none. */
static const char *refused(const struct kernel_feature *rows, uint32_t which)
{
    for (uint32_t i = 0; i < FEATURES_MAX; i++) {
        if ((which >> i & 1) != 0 && !rows[i].on && !rows[i].opening)
            return rows[i].name;
    }
    return NULL;
}

void kernel_follow_end(struct kernel_follow *f, const struct feature_env *env,
                       const struct kernel_feature *rows, uint32_t which)
{
    const char *to = hierarchy_name(cgroups_hierarchy(env->cgroups));
    const char *off = refused(rows, which);

    cgroups_close(f->old_cgroups);
    if (f->old_watched_fd >= 0)
        (void)close(f->old_watched_fd);
    if (off == NULL)
        log_info(MODULE,
                 "containers are in another hierarchy of cgroups: features "
                 "went there hierarchy=%s",
                 to);
    else
        log_warn(MODULE,
                 "containers are in another hierarchy of cgroups, where a "
                 "feature did not go; set ebpf.runq.hierarchy: %.*s, and "
                 "restart feature=%s hierarchy=%s",
                 (int)strcspn(to, ","), to, off, to);
}
