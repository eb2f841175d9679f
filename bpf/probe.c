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

struct btf *probe_types(void)
{
    return btf__load_vmlinux_btf();
}

void probe_types_free(struct btf *types)
{
    btf__free(types);
}

/* NULL: there is none of that name. */
static const struct btf_type *find(const struct btf *btf, const char *name,
                                   __u32 kind)
{
    int32_t id = btf != NULL ? btf__find_by_name_kind(btf, name, kind) : 0;

    return id > 0 ? btf__type_by_id(btf, (__u32)id) : NULL;
}

static bool is_called(const struct btf *btf, __u32 name_off, const char *name)
{
    const char *s = btf__name_by_offset(btf, name_off);

    return s != NULL && strcmp(s, name) == 0;
}

static int value_of(const struct btf *btf, const char *type, const char *name)
{
    const struct btf_type *t = find(btf, type, BTF_KIND_ENUM);

    for (int i = 0; t != NULL && i < btf_vlen(t); i++) {
        const struct btf_enum *e = btf_enum(t) + i;

        if (is_called(btf, e->name_off, name))
            return e->val;
    }
    return -ENOENT;
}

int probe_enum(const struct btf *types, const char *type, const char *name)
{
    struct btf *own = types == NULL ? probe_types() : NULL;
    int rc = value_of(types != NULL ? types : own, type, name);

    probe_types_free(own);
    return rc;
}

static const struct btf_type *resolved(const struct btf *btf, __u32 id)
{
    const struct btf_type *t = btf__type_by_id(btf, id);

    while (t != NULL && (btf_is_mod(t) || btf_is_typedef(t)))
        t = btf__type_by_id(btf, t->type);
    return t;
}

static bool is_task(const struct btf *btf, __u32 id)
{
    const struct btf_type *t = resolved(btf, id);

    if (t == NULL || !btf_is_ptr(t))
        return false;
    t = resolved(btf, t->type);
    return t != NULL && btf_is_struct(t) &&
           is_called(btf, t->name_off, "task_struct");
}

static int parameters_of(const struct btf *btf, const char *name, int *task_at)
{
    const struct btf_type *t;
    char type[128];
    int n;

    (void)snprintf(type, sizeof(type), "btf_trace_%s", name);
    t = find(btf, type, BTF_KIND_TYPEDEF);
    if (t != NULL)
        t = resolved(btf, t->type);
    if (t != NULL && btf_is_ptr(t))
        t = resolved(btf, t->type);
    if (t == NULL || !btf_is_func_proto(t) || btf_vlen(t) == 0)
        return -ENOENT;
    n = btf_vlen(t) - 1;
    *task_at = -1;
    for (int i = 0; *task_at < 0 && i < n; i++) {
        if (is_task(btf, btf_params(t)[i + 1].type))
            *task_at = i;
    }
    return n;
}

int probe_tracepoint(const struct btf *types, const char *name, int *task_at)
{
    struct btf *own = types == NULL ? probe_types() : NULL;
    int rc = parameters_of(types != NULL ? types : own, name, task_at);

    probe_types_free(own);
    return rc;
}

static bool has_member(const struct btf *btf, const char *type,
                       const char *name)
{
    const struct btf_type *t = find(btf, type, BTF_KIND_STRUCT);

    for (int i = 0; t != NULL && i < btf_vlen(t); i++) {
        if (is_called(btf, btf_members(t)[i].name_off, name))
            return true;
    }
    return false;
}

bool probe_member(const struct btf *types, const char *type, const char *name)
{
    struct btf *own = types == NULL ? probe_types() : NULL;
    bool has = has_member(types != NULL ? types : own, type, name);

    probe_types_free(own);
    return has;
}
