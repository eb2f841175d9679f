/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/feature.h"

#include <errno.h>

int feature_share_events(struct bpf_object *o, const struct feature_env *env)
{
    int rc = env->events_fd >= 0 ? 0 : -ENOENT;

    if (rc == 0)
        rc = loader_share_map(o, "events", env->events_fd);
    if (rc == 0)
        rc = loader_share_map(o, "events_control", env->events_control_fd);
    if (rc == 0)
        rc = loader_share_map(o, "event_stats", env->events_stats_fd);
    return rc;
}
