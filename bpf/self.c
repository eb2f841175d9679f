/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's words only grow; what is written is their growth since the last
 * time.
 */
#include "bpf/self.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/event_check.h"
#include "bpf/event_ring.h"
#include "bpf/features.h"

struct self {
    int stats_fd;
    bool per_cpu;
    uint32_t n_cpus;
    struct event_stats *now;                   /* n_cpus, of one type */
    struct event_stats *before[EVENT_N_TYPES]; /* n_cpus each */
};

static const struct self_opts *opts_of(const struct feature_env *env)
{
    return &env->opts->self;
}

static void self_close(void *p)
{
    struct self *s = p;

    if (s == NULL)
        return;
    free(s->now);
    free(s->before[0]);
    free(s);
}

static int self_open(void **out, const struct feature_env *env,
                     struct loader_cause *cause)
{
    struct self *s;

    (void)cause; /* that of the ring */
    if (env->events_stats_fd < 0)
        return LOADER_REFUSED;
    s = calloc(1, sizeof(*s));
    if (s == NULL)
        return -ENOMEM;
    s->stats_fd = env->events_stats_fd;
    s->per_cpu = opts_of(env)->per_cpu;
    s->n_cpus = event_ring_n_cpus();
    s->now = calloc(s->n_cpus, sizeof(*s->now));
    s->before[0] =
        calloc((size_t)s->n_cpus * EVENT_N_TYPES, sizeof(*s->before[0]));
    if (s->now == NULL || s->before[0] == NULL) {
        self_close(s);
        return -ENOMEM;
    }
    for (uint32_t t = 1; t < EVENT_N_TYPES; t++)
        s->before[t] = s->before[0] + (size_t)t * s->n_cpus;
    *out = s;
    return 0;
}

static void grown(struct event_stats *by, const struct event_stats *now,
                  const struct event_stats *before)
{
    by->sent += now->sent - before->sent;
    by->lost += now->lost - before->lost;
    by->bytes += now->bytes - before->bytes;
}

static void write_growth(struct lines *out, const struct event_stats *by,
                         const char *tags)
{
    if (by->sent == 0)
        return;
    lines_add(out, "retriever.ebpf.events.sent", (double)by->sent, "c", tags);
    lines_add(out, "retriever.ebpf.events.lost", (double)by->lost, "c", tags);
    lines_add(out, "retriever.ebpf.events.bytes", (double)by->bytes, "c", tags);
}

static void write_type(struct self *s, struct lines *out, uint32_t type)
{
    const char *name = event_type_name(type);
    struct event_stats sum = {0};
    char tags[64];

    for (uint32_t i = 0; i < s->n_cpus; i++) {
        struct event_stats one = {0};

        grown(&one, &s->now[i], &s->before[type][i]);
        grown(&sum, &s->now[i], &s->before[type][i]);
        (void)snprintf(tags, sizeof(tags), "type:%s,cpu:%" PRIu32, name, i);
        if (s->per_cpu)
            write_growth(out, &one, tags);
    }
    (void)snprintf(tags, sizeof(tags), "type:%s", name);
    if (!s->per_cpu)
        write_growth(out, &sum, tags);
    memcpy(s->before[type], s->now, s->n_cpus * sizeof(*s->now));
}

static void self_collect(void *p, struct lines *out, bool last)
{
    struct self *s = p;

    (void)last; /* it has no program */
    for (uint32_t type = 1; type < EVENT_N_TYPES; type++) {
        if (event_ring_read(s->stats_fd, type, s->now) == 0)
            write_type(s, out, type);
    }
}

const struct feature self_feature = {
    .name = "self",
    .what = SELF_WHAT,
    .capabilities = FEATURE_CAPS_READ,
    .open = self_open,
    .collect = self_collect,
    .close = self_close,
};
