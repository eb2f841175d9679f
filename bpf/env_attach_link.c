/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libbpf 1.1 does not know links for many uprobes (Linux 6.6), so that one is made
 * by bpf(2) itself; its layout is that of the kernel's union bpf_attr.
 */
#include "bpf/env_attach_link.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TRACE_UPROBE_MULTI 48 /* enum bpf_attach_type of Linux 6.6 */

/* ---- Loading ------------------------------------------------------------ */

static void choose(struct bpf_object *o, enum attach_mode mode)
{
    struct bpf_program *p;

    bpf_object__for_each_program(p, o)
    {
        bool sleeps = strcmp(bpf_program__name(p), "env_sleeping") == 0;

        (void)bpf_program__set_autoload(p, sleeps == (mode != ATTACH_RETURN));
        if (sleeps && mode == ATTACH_MULTI)
            (void)bpf_program__set_expected_attach_type(
                p, (enum bpf_attach_type)TRACE_UPROBE_MULTI);
    }
}

static int load_mode(struct attach_linker *l, const struct attach_opts *o,
                     enum attach_mode mode, const char *types,
                     struct loader_cause *cause)
{
    struct bpf_object *object = NULL;
    int rc = loader_open(&object, LOADER_ENV, types, cause);

    if (rc != 0)
        return rc;
    choose(object, mode);
    rc = loader_set_constants(object, &o->config, sizeof(o->config));
    if (rc == 0)
        rc = loader_share_map(object, "events", o->events_fd);
    if (rc == 0)
        rc = loader_share_map(object, "events_control", o->control_fd);
    if (rc == 0)
        rc = loader_share_map(object, "event_stats", o->stats_fd);
    if (rc == 0 && o->table_fd >= 0)
        rc = loader_share_map(object, "env_table", o->table_fd);
    if (rc == 0)
        rc = loader_load(object, cause);
    if (rc != 0) {
        loader_close(object);
        return rc;
    }
    loader_close(l->object);
    l->object = object;
    l->mode = mode;
    return 0;
}

int attach_link_load(struct attach_linker *l, const struct attach_opts *o,
                     enum attach_mode mode, const char *types,
                     struct loader_cause *cause)
{
    int rc = LOADER_REFUSED;

    for (; rc == LOADER_REFUSED && mode < ATTACH_N_MODES; mode++)
        rc = load_mode(l, o, mode, types, cause);
    return rc;
}

void attach_link_unload(struct attach_linker *l)
{
    loader_close(l->object);
    l->object = NULL;
}

/* ---- One file ----------------------------------------------------------- */

static int link_multi(const struct attach_linker *l, struct attach_links *to,
                      const char *path, const struct image *im)
{
    uint64_t offsets[ENV_N_FUNCTIONS], cookies[ENV_N_FUNCTIONS];
    struct {
        uint32_t prog_fd, target_fd, attach_type, flags;
        uint64_t path, offsets, ref_ctr_offsets, cookies;
        uint32_t n, multi_flags, pid, pad;
    } attr = {
        .prog_fd = (uint32_t)loader_program(l->object, "env_sleeping"),
        .attach_type = TRACE_UPROBE_MULTI,
        .path = (uintptr_t)path,
        .offsets = (uintptr_t)offsets,
        .cookies = (uintptr_t)cookies,
    };

    for (uint32_t i = 0; i < ENV_N_FUNCTIONS; i++) {
        if (im->offsets[i] == 0)
            continue;
        offsets[attr.n] = im->offsets[i];
        cookies[attr.n++] = i;
    }
    to->multi_fd = (int)syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));
    return to->multi_fd >= 0 ? 0 : -errno;
}

static int link_perf(const struct attach_linker *l, struct attach_links *to,
                     const char *path, const struct image *im)
{
    static const char *const programs[ATTACH_N_MODES][2] = {
        [ATTACH_PERF] = {"env_sleeping", NULL},
        [ATTACH_RETURN] = {"env_entry", "env_return"},
    };
    size_t n = 0;

    for (uint32_t i = 0; i < ENV_N_FUNCTIONS; i++) {
        for (int k = 0; im->offsets[i] != 0 && k < 2; k++) {
            const char *name = programs[l->mode][k];
            LIBBPF_OPTS(bpf_uprobe_opts, opts, .bpf_cookie = i,
                        .retprobe = k == 1);

            if (name == NULL)
                continue;
            to->perf[n] = bpf_program__attach_uprobe_opts(
                bpf_object__find_program_by_name(l->object, name), -1, path,
                im->offsets[i], &opts);
            if (to->perf[n++] == NULL)
                return -errno;
        }
    }
    return 0;
}

int attach_link(struct attach_linker *l, struct attach_links *to, int fd,
                const struct image *im)
{
    char path[40];
    int rc;

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (l->mode == ATTACH_MULTI)
        rc = link_multi(l, to, path, im);
    else
        rc = link_perf(l, to, path, im);
    if (rc != 0)
        loader_explain(&l->cause, "a probe was refused", rc);
    if ((rc == -EACCES || rc == -EPERM) && l->mode != ATTACH_MULTI)
        (void)snprintf(l->cause.remedy, sizeof(l->cause.remedy),
                       "grant CAP_SYS_ADMIN; from Linux 6.6 on CAP_BPF and "
                       "CAP_PERFMON are enough");
    return rc;
}

void attach_unlink(struct attach_links *l)
{
    if (l->multi_fd >= 0)
        (void)close(l->multi_fd);
    for (size_t i = 0; i < ATTACH_MAX_LINKS; i++)
        (void)bpf_link__destroy(l->perf[i]);
    *l = (struct attach_links){.multi_fd = -1};
}
