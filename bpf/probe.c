/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tracepoint is the type btf_trace_NAME: a pointer to a function whose first
 * parameter is not the program's.
 */
#include "bpf/probe.h"

#include <bpf/btf.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* -ENOENT (or another error) without BTF. */
static int32_t find(const struct btf *btf, const char *name, __u32 kind)
{
    return btf != NULL ? btf__find_by_name_kind(btf, name, kind) : -ENOENT;
}

int probe_enum_in(const struct btf *btf, const char *type, const char *name)
{
    int32_t id = find(btf, type, BTF_KIND_ENUM);
    const struct btf_type *t = id > 0 ? btf__type_by_id(btf, (__u32)id) : NULL;
    int rc = -ENOENT;

    for (int i = 0; t != NULL && rc < 0 && i < btf_vlen(t); i++) {
        const struct btf_enum *e = btf_enum(t) + i;

        if (strcmp(btf__name_by_offset(btf, e->name_off), name) == 0)
            rc = e->val;
    }
    return rc;
}

static const struct btf_type *resolved(const struct btf *btf, __u32 id)
{
    const struct btf_type *t = btf__type_by_id(btf, id);

    while (t != NULL && (btf_is_mod(t) || btf_is_typedef(t)))
        t = btf__type_by_id(btf, t->type);
    return t;
}

static int is_task(const struct btf *btf, __u32 id)
{
    const struct btf_type *t = resolved(btf, id);

    if (t == NULL || !btf_is_ptr(t))
        return 0;
    t = resolved(btf, t->type);
    return t != NULL && btf_is_struct(t) &&
           strcmp(btf__name_by_offset(btf, t->name_off), "task_struct") == 0;
}

int probe_tracepoint_in(const struct btf *btf, const char *name, int *task_at)
{
    const struct btf_type *t = NULL;
    int rc = -ENOENT;
    char type[128];
    int32_t id;

    (void)snprintf(type, sizeof(type), "btf_trace_%s", name);
    id = find(btf, type, BTF_KIND_TYPEDEF);
    if (id > 0)
        t = resolved(btf, (__u32)id);
    if (t != NULL && btf_is_ptr(t))
        t = resolved(btf, t->type);
    if (t != NULL && btf_is_func_proto(t) && btf_vlen(t) > 0) {
        rc = btf_vlen(t) - 1;
        *task_at = -1;
        for (int i = 0; *task_at < 0 && i < rc; i++) {
            if (is_task(btf, btf_params(t)[i + 1].type))
                *task_at = i;
        }
    }
    return rc;
}

int probe_enum(const char *type, const char *name)
{
    struct btf *btf = btf__load_vmlinux_btf();
    int rc = probe_enum_in(btf, type, name);

    btf__free(btf);
    return rc;
}

int probe_tracepoint(const char *name, int *task_at)
{
    struct btf *btf = btf__load_vmlinux_btf();
    int rc = probe_tracepoint_in(btf, name, task_at);

    btf__free(btf);
    return rc;
}
