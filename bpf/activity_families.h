/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Activity of all families, by kernel programs: what the feature is where these
 * can be loaded.
 *
 * Thread:  the helper thread.
 * Memory:  activity.h says.
 * Promise: that of activity.h.
 */
#ifndef RETRIEVER_BPF_ACTIVITY_FAMILIES_H
#define RETRIEVER_BPF_ACTIVITY_FAMILIES_H

#include "bpf/feature.h"

struct activity_families; /* opaque */

/** As for feature.open(): returns 0, LOADER_REFUSED (@cause filled, or empty for
 *  want of a ring) or -errno. */
int activity_families_open(struct activity_families **out,
                           const struct feature_env *env,
                           struct loader_cause *cause);
void activity_families_event(struct activity_families *a,
                             const struct event_hdr *ev);
void activity_families_collect(struct activity_families *a, struct lines *out,
                               bool last);
void activity_families_close(struct activity_families *a);

#endif
