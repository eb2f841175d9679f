/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libbpf looks for each structure that an object names through the names of all types
 * of the kernel, more than a hundred thousand: 15 ms for each object.
 *
 * A structure is copied with what it contains. Its pointers lead nowhere here: no
 * access that is relocated goes through one, since each pointer is an access of its
 * own.
 */
#include "bpf/named_types.h"

#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bpf/loader.h"

#define NAMES_MAX 512u

/* What is asked for: sorted, without flavours (task_struct___state). */
struct names {
    char *v[NAMES_MAX];
    size_t n;
};

struct copy {
    const struct btf *from;
    struct btf *to;
    __u32 *ids; /* there, by id here; 0 = not copied yet */
    int rc;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool can_be_named(const struct btf_type *t)
{
    return t->name_off != 0 &&
           (btf_is_composite(t) || btf_is_any_enum(t) || btf_is_typedef(t));
}

static int add_names(struct names *names, const struct btf *own)
{
    for (__u32 id = 1; id < btf__type_cnt(own); id++) {
        const struct btf_type *t = btf__type_by_id(own, id);
        const char *name, *flavour;

        if (!can_be_named(t))
            continue;
        if (names->n == NAMES_MAX)
            return -E2BIG;
        name = btf__name_by_offset(own, t->name_off);
        flavour = strstr(name, "___");
        names->v[names->n] = flavour != NULL
                                 ? strndup(name, (size_t)(flavour - name))
                                 : strdup(name);
        if (names->v[names->n] == NULL)
            return -ENOMEM;
        names->n++;
    }
    return 0;
}

static int collect_names(struct names *names)
{
    struct loader_cause cause;
    int rc = 0;

    for (int which = 0; rc == 0 && which < LOADER_N; which++) {
        struct bpf_object *o = NULL;

        rc = loader_open(&o, (enum loader_object)which, NULL, &cause);
        if (rc == LOADER_REFUSED)
            rc = -EINVAL;
        if (rc == 0)
            rc = add_names(names, bpf_object__btf(o));
        loader_close(o);
    }
    if (names->n > 0)
        qsort(names->v, names->n, sizeof(names->v[0]), by_name);
    return rc;
}

/* Adding a type moves those that are there, so they are looked up again. */
static struct btf_type *copied(const struct copy *c, __u32 id)
{
    return (struct btf_type *)btf__type_by_id(c->to, id);
}

/* Ends, since nothing contains itself; as deep as structures contain each other.
 * Returns the new id; 0 is void, and what was not copied: then c->rc says why. */
static __u32 copy(struct copy *c, __u32 id)
{
    const struct btf_type *t = btf__type_by_id(c->from, id);
    int to;

    if (id == 0 || c->ids[id] != 0)
        return c->ids[id];
    to = btf__add_type(c->to, c->from, t);
    if (to < 0) {
        c->rc = to;
        return 0;
    }
    c->ids[id] = (__u32)to;
    if (btf_is_ptr(t)) {
        copied(c, (__u32)to)->type = 0;
    } else if (btf_is_mod(t) || btf_is_typedef(t) || btf_is_type_tag(t)) {
        __u32 inner = copy(c, t->type);

        copied(c, (__u32)to)->type = inner;
    } else if (btf_is_array(t)) {
        __u32 inner = copy(c, btf_array(t)->type);
        __u32 index = copy(c, btf_array(t)->index_type);

        btf_array(copied(c, (__u32)to))->type = inner;
        btf_array(copied(c, (__u32)to))->index_type = index;
    } else if (btf_is_composite(t)) {
        for (int i = 0; i < btf_vlen(t); i++) {
            __u32 inner = copy(c, btf_members(t)[i].type);

            btf_members(copied(c, (__u32)to))[i].type = inner;
        }
    }
    return (__u32)to;
}

static void copy_named(struct copy *c, const struct names *names)
{
    for (__u32 id = 1; id < btf__type_cnt(c->from); id++) {
        const struct btf_type *t = btf__type_by_id(c->from, id);
        const char *name;

        if (!can_be_named(t))
            continue;
        name = btf__name_by_offset(c->from, t->name_off);
        if (bsearch(&name, names->v, names->n, sizeof(names->v[0]), by_name) !=
            NULL)
            (void)copy(c, id);
    }
}

static int write_file(struct named_types *t, const struct btf *types)
{
    __u32 n_bytes = 0;
    const void *bytes = btf__raw_data(types, &n_bytes);

    if (bytes == NULL)
        return -ENOMEM;
    t->fd = memfd_create("types", MFD_CLOEXEC);
    if (t->fd < 0)
        return -errno;
    (void)snprintf(t->path, sizeof(t->path), "/proc/self/fd/%d", t->fd);
    if (write(t->fd, bytes, n_bytes) != (ssize_t)n_bytes)
        return -ENOSPC;
    return access(t->path, R_OK) == 0 ? 0 : -errno; /* there may be no /proc */
}

int named_types_create(struct named_types *t, const struct btf *kernel)
{
    struct copy c = {.from = kernel, .to = btf__new_empty()};
    struct names names = {.n = 0};
    int rc = -ENOMEM;

    *t = (struct named_types){.fd = -1};
    c.ids = calloc(btf__type_cnt(kernel), sizeof(c.ids[0]));
    if (c.to == NULL || c.ids == NULL)
        goto out;
    rc = collect_names(&names);
    if (rc != 0)
        goto out;
    copy_named(&c, &names);
    rc = c.rc;
    if (rc == 0)
        rc = write_file(t, c.to);
out:
    for (size_t i = 0; i < names.n; i++)
        free(names.v[i]);
    free(c.ids);
    btf__free(c.to);
    if (rc != 0)
        named_types_close(t);
    return rc;
}

void named_types_close(struct named_types *t)
{
    if (t->fd >= 0)
        (void)close(t->fd);
    t->fd = -1;
}
