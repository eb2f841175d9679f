/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/activity_kernel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bpf/cgroup.h"
#include "bpf/probe.h"
#include "bpf/procfs.h"

#define MAX_WALKS 64

static void choose_switch(struct bpf_object *o, const struct btf *types)
{
    int task_at;
    bool state_first =
        probe_tracepoint(types, "sched_switch", &task_at) > 0 && task_at == 2;

    tracepoint_want(o, "activity_switch", !state_first);
    tracepoint_want(o, "activity_switch_state", state_first);
}

/* Needed on each walk; made once, since it takes a moment. */
static int make_walk(struct activity_kernel *k, struct loader_cause *cause)
{
    struct bpf_program *p =
        bpf_object__find_program_by_name(k->object, "activity_walk");

    k->walk = p != NULL ? bpf_program__attach_iter(p, NULL) : NULL;
    if (k->walk != NULL)
        return 0;
    loader_explain(cause, "the kernel refused to walk over tasks", errno);
    return LOADER_REFUSED;
}

int activity_kernel_open(struct activity_kernel *k,
                         const struct feature_env *env,
                         uint64_t threshold_ticks, struct loader_cause *cause)
{
    struct activity_config config = {
        .threshold_ticks = threshold_ticks,
        .pidns_inode = procfs_pidns_inode(),
        .subsys = env->cgroups != NULL ? cgroups_subsys(env->cgroups) : -1,
    };
    int rc;

    memset(k, 0, sizeof(*k));
    rc = loader_open(&k->object, LOADER_ACTIVITY, env->types_path, cause);
    if (rc != 0)
        return rc;
    choose_switch(k->object, env->types);
    rc = loader_set_constants(k->object, &config, sizeof(config));
    if (rc == 0)
        rc = loader_share_map(k->object, "life_watched", env->watched_fd);
    if (rc == 0)
        rc = loader_load(k->object, cause);
    if (rc == 0)
        rc = make_walk(k, cause);
    if (rc != 0) {
        activity_kernel_close(k);
        return rc;
    }
    k->families_fd = loader_map(k->object, "families");
    k->walk_fd = loader_map(k->object, "walk");
    k->watched_fd = loader_map(k->object, "life_watched");
    return 0;
}

int activity_kernel_begin(struct activity_kernel *k, uint32_t family,
                          struct loader_cause *cause)
{
    struct activity_family f = {0};
    struct timespec ts;
    uint64_t now;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    now = ((uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec) >>
          ACTIVITY_TICK_SHIFT;
    now &= ACTIVITY_TICKS_MASK;
    f.word = now << ACTIVITY_COUNT_BITS;
    f.active_since_ticks = now;
    if (bpf_map_update_elem(k->families_fd, &family, &f, BPF_ANY) != 0)
        return -errno;
    return k->links.n > 0 ? 0 : tracepoint_attach(&k->links, k->object, cause);
}

uint32_t activity_kernel_family(const struct activity_kernel *k, uint32_t tgid)
{
    struct life_watch w;

    return bpf_map_lookup_elem(k->watched_fd, &tgid, &w) == 0 ? w.family : 0;
}

int activity_kernel_watch(const struct activity_kernel *k, uint32_t tgid,
                          uint32_t family)
{
    struct life_watch w = {.family = family};

    return bpf_map_update_elem(k->watched_fd, &tgid, &w, BPF_ANY) == 0 ? 0
                                                                       : -errno;
}

void activity_kernel_unwatch(const struct activity_kernel *k, uint32_t tgid)
{
    (void)bpf_map_delete_elem(k->watched_fd, &tgid);
}

int activity_kernel_walk(const struct activity_kernel *k, uint32_t ns_tgid,
                         struct activity_walk *out)
{
    struct activity_walk w = {.ns_tgid = ns_tgid};
    uint32_t zero = 0;
    char none[64];
    int fd;

    if (bpf_map_update_elem(k->walk_fd, &zero, &w, BPF_ANY) != 0)
        return -errno;
    fd = bpf_iter_create(bpf_link__fd(k->walk));
    if (fd < 0)
        return -errno;
    while (read(fd, none, sizeof(none)) > 0)
        ; /* the program writes nothing */
    (void)close(fd);
    return bpf_map_lookup_elem(k->walk_fd, &zero, out) == 0 ? 0 : -errno;
}

int activity_kernel_gather(const struct activity_kernel *k)
{
    struct activity_walk w = {.n_new = 1};
    int rc = 0;

    for (int i = 0; rc == 0 && w.n_new > 0 && i < MAX_WALKS; i++)
        rc = activity_kernel_walk(k, 0, &w);
    return rc;
}

int activity_kernel_read(const struct activity_kernel *k, uint32_t family,
                         struct activity_family *out)
{
    return bpf_map_lookup_elem(k->families_fd, &family, out) == 0 ? 0 : -errno;
}

void activity_kernel_detach(struct activity_kernel *k)
{
    tracepoint_detach(&k->links);
}

void activity_kernel_close(struct activity_kernel *k)
{
    tracepoint_detach(&k->links);
    (void)bpf_link__destroy(k->walk);
    loader_close(k->object);
    memset(k, 0, sizeof(*k));
}
