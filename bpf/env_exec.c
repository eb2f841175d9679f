/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/env_exec.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bpf/tracepoint.h"

struct env_exec {
    int table_fd, pids_fd;
    struct bpf_object *object;
    int loaded; /* 0, or why not */
    struct loader_cause cause;
    struct tracepoint_links links;
};

static int make_map(const char *name, uint32_t n_bytes)
{
    LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);
    int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, name, sizeof(uint32_t), n_bytes,
                            ENV_TABLE_PLACES, &opts);

    return fd >= 0 ? fd : -errno;
}

static void fill(struct env_exec_config *c, const struct watch *w,
                 uint32_t ns_inum)
{
    static const char ones[ENV_NAME_BYTES] = {
        [0 ... ENV_NAME_BYTES - 1] = (char)0xff,
    };

    *c = (struct env_exec_config){.ns_inum = ns_inum, .n_names = w->n};
    for (uint32_t i = 0; i < w->n; i++) {
        const struct watch_name *name = &w->v[i];

        c->n_prefix[i] = name->n_name + 1;
        memcpy(c->prefixes[i], name->name, name->n_name);
        ((char *)c->prefixes[i])[name->n_name] = '=';
        memcpy(c->masks[i], ones, name->n_name + 1);
    }
}

static int load(struct env_exec *e, const struct env_exec_config *config,
                const char *types)
{
    int rc = loader_open(&e->object, LOADER_ENV_EXEC, types, &e->cause);

    if (rc == 0)
        rc = loader_set_constants(e->object, config, sizeof(*config));
    if (rc == 0)
        rc = loader_share_map(e->object, "env_table", e->table_fd);
    if (rc == 0)
        rc = loader_share_map(e->object, "env_pids", e->pids_fd);
    if (rc == 0)
        rc = loader_load(e->object, &e->cause);
    return rc;
}

int env_exec_create(struct env_exec **out, const struct watch *w,
                    uint32_t ns_inum, const char *types)
{
    struct env_exec *e = calloc(1, sizeof(*e));
    struct env_exec_config config;
    int rc;

    if (e == NULL)
        return -ENOMEM;
    e->table_fd = make_map("env_table", sizeof(struct env_place));
    e->pids_fd = make_map("env_pids", sizeof(uint64_t));
    rc = e->table_fd < 0 ? e->table_fd : e->pids_fd < 0 ? e->pids_fd : 0;
    if (rc != 0) {
        env_exec_close(e);
        return rc;
    }
    fill(&config, w, ns_inum);
    e->loaded = load(e, &config, types);
    *out = e;
    return 0;
}

int env_exec_start(struct env_exec *e, struct loader_cause *cause)
{
    if (e->loaded == 0)
        return tracepoint_attach(&e->links, e->object, cause);
    *cause = e->cause;
    return e->loaded;
}

void env_exec_close(struct env_exec *e)
{
    if (e == NULL)
        return;
    tracepoint_detach(&e->links);
    loader_close(e->object);
    if (e->table_fd >= 0)
        (void)close(e->table_fd);
    if (e->pids_fd >= 0)
        (void)close(e->pids_fd);
    free(e);
}

int env_exec_table(const struct env_exec *e)
{
    return e->table_fd;
}

int env_exec_pids(const struct env_exec *e)
{
    return e->pids_fd;
}
