/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel describes each tracepoint by a type, btf_trace_NAME: pointer to a
 * function whose first parameter is not the program's.
 */
#include "bpf/tracepoint.h"

#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>

struct btf *tracepoint_btf(void)
{
    struct btf *b = btf__load_vmlinux_btf();

    return libbpf_get_error(b) == 0 ? b : NULL;
}

static const struct btf_type *follow(const struct btf *btf, __u32 id)
{
    const struct btf_type *t = btf__type_by_id(btf, id);

    while (t != NULL && (btf_is_typedef(t) || btf_is_mod(t)))
        t = btf__type_by_id(btf, t->type);
    return t;
}

/* Its function's type; NULL. */
static const struct btf_type *prototype(const struct btf *btf, const char *name)
{
    char type[128];
    const struct btf_type *t;
    int id;

    if (btf == NULL)
        return NULL;
    (void)snprintf(type, sizeof(type), "btf_trace_%s", name);
    id = btf__find_by_name_kind(btf, type, BTF_KIND_TYPEDEF);
    if (id < 0)
        return NULL;
    t = follow(btf, (__u32)id);
    if (t == NULL || !btf_is_ptr(t))
        return NULL;
    t = follow(btf, t->type);
    return t != NULL && btf_is_func_proto(t) ? t : NULL;
}

bool tracepoint_exists(const struct btf *btf, const char *name)
{
    return prototype(btf, name) != NULL;
}

bool tracepoint_takes(const struct btf *btf, const char *name, unsigned int i,
                      const char *type)
{
    const struct btf_type *t = prototype(btf, name);
    const char *found;

    if (t == NULL || i + 1 >= btf_vlen(t))
        return false;
    t = follow(btf, btf_params(t)[i + 1].type);
    if (t == NULL || !btf_is_ptr(t))
        return false;
    t = follow(btf, t->type);
    if (t == NULL || !btf_is_struct(t))
        return false;
    found = btf__name_by_offset(btf, t->name_off);
    return found != NULL && strcmp(found, type) == 0;
}

void tracepoint_want(struct bpf_object *o, const char *name, bool want)
{
    struct bpf_program *p = bpf_object__find_program_by_name(o, name);

    if (p != NULL)
        (void)bpf_program__set_autoload(p, want);
}

int tracepoint_attach(struct tracepoint_links *l, struct bpf_object *o,
                      struct loader_cause *cause)
{
    struct bpf_program *p;

    bpf_object__for_each_program(p, o)
    {
        struct bpf_link *link;

        if (!bpf_program__autoload(p) ||
            bpf_program__expected_attach_type(p) == BPF_TRACE_ITER)
            continue;
        link = l->n < TRACEPOINT_MAX_LINKS ? bpf_program__attach(p) : NULL;
        if (link == NULL) {
            loader_explain(cause, "a program could not be attached", errno);
            tracepoint_detach(l);
            return LOADER_REFUSED;
        }
        l->link[l->n++] = link;
    }
    return 0;
}

void tracepoint_detach(struct tracepoint_links *l)
{
    for (size_t i = 0; i < l->n; i++)
        (void)bpf_link__destroy(l->link[i]);
    l->n = 0;
}
