/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/life.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>

#include "bpf/cgroup.h"
#include "bpf/features.h"
#include "bpf/probe.h"
#include "bpf/procfs.h"
#include "bpf/tracepoint.h"

#define MAX_WATCHED (1u << 14)

struct life {
    struct bpf_object *object;
    struct tracepoint_links links;
};

int life_watched_create(void)
{
    int fd = bpf_map_create(BPF_MAP_TYPE_HASH, "life_watched", sizeof(uint32_t),
                            sizeof(struct life_watch), MAX_WATCHED, NULL);

    return fd >= 0 ? fd : -errno;
}

void life_watched_add(int watched_fd, uint32_t tgid)
{
    const struct life_watch nothing = {0};

    if (watched_fd >= 0 && tgid != 0)
        (void)bpf_map_update_elem(watched_fd, &tgid, &nothing, BPF_NOEXIST);
}

static int share(struct bpf_object *o, const struct feature_env *env)
{
    int rc = feature_share_events(o, env);

    if (rc == 0)
        rc = loader_share_map(o, "life_watched", env->watched_fd);
    return rc;
}

/* The tracepoint of the OOM killer is a luxury. */
static void choose_victim(struct bpf_object *o, const struct btf *types)
{
    int task_at;
    bool exists = probe_tracepoint(types, "mark_victim", &task_at) > 0;

    tracepoint_want(o, "life_victim", exists && task_at == 0);
    tracepoint_want(o, "life_victim_pid", exists && task_at != 0);
}

static void life_close(void *self)
{
    struct life *l = self;

    if (l == NULL)
        return;
    tracepoint_detach(&l->links);
    loader_close(l->object);
    free(l);
}

static int life_open(void **self, const struct feature_env *env,
                     struct loader_cause *cause)
{
    struct life_config config = {
        .pidns_inode = procfs_pidns_inode(),
        .subsys = env->cgroups != NULL ? cgroups_subsys(env->cgroups) : -1,
        .own_tgid = env->own_tgid,
        .all = env->opts->life.all,
    };
    struct life *l = calloc(1, sizeof(*l));
    int rc = -ENOMEM;

    if (l == NULL)
        goto out;
    if (env->events_fd < 0 || env->watched_fd < 0) {
        rc = LOADER_REFUSED; /* no ring: its cause is known */
        goto out;
    }
    rc = loader_open(&l->object, LOADER_LIFE, env->types_path, cause);
    if (rc != 0)
        goto out;
    choose_victim(l->object, env->types);
    rc = loader_set_constants(l->object, &config, sizeof(config));
    if (rc == 0)
        rc = share(l->object, env);
    if (rc == 0)
        rc = loader_load(l->object, cause);
    if (rc == 0)
        rc = tracepoint_attach(&l->links, l->object, cause);
    if (rc != 0)
        goto out;
    *self = l;
    l = NULL; /* handed over */
out:
    life_close(l);
    return rc;
}

static void life_collect(void *self, struct lines *out, bool last)
{
    (void)self;
    (void)out;
    (void)last;
}

const struct feature life_feature = {
    .name = "life",
    .what = LIFE_WHAT,
    .by_cgroup = true,
    .capabilities = FEATURE_CAPS_READ,
    .open = life_open,
    .collect = life_collect,
    .close = life_close,
};
