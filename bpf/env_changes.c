/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/env_changes.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/cgroup.h"

#define N_OPS (ENV_CLEAR + 1)
#define TAGS_BYTES 1024u

struct row {
    uint64_t cgid;
    uint64_t n_ops[N_OPS];
    bool sees;
    uint32_t n_visible;
};

struct env_changes {
    uint32_t n;
    struct row rows[ENV_CHANGES_MAX + 1]; /* the last: all others */
};

int env_changes_create(struct env_changes **out)
{
    struct env_changes *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return -ENOMEM;
    *out = c;
    return 0;
}

void env_changes_close(struct env_changes *c)
{
    free(c);
}

static struct row *find(struct env_changes *c, uint64_t cgid)
{
    for (uint32_t i = 0; i < c->n; i++) {
        if (c->rows[i].cgid == cgid)
            return &c->rows[i];
    }
    if (cgid == 0 || c->n == ENV_CHANGES_MAX)
        return &c->rows[ENV_CHANGES_MAX];
    c->rows[c->n].cgid = cgid;
    return &c->rows[c->n++];
}

void env_changes_add(struct env_changes *c, uint64_t cgid, enum event_env_op op)
{
    find(c, cgid)->n_ops[op]++;
}

void env_changes_visible(struct env_changes *c, uint64_t cgid, uint32_t n)
{
    struct row *r = find(c, cgid);

    r->sees = true;
    if (n > r->n_visible)
        r->n_visible = n;
}

static void write_row(const struct row *r, struct cgroups *names,
                      struct lines *out)
{
    static const char *const ops[N_OPS] = {
        [ENV_SET] = "op:set",
        [ENV_UNSET] = "op:unset",
        [ENV_CLEAR] = "op:clear",
    };
    const char *container =
        names != NULL && r->cgid != 0 ? cgroups_tags(names, r->cgid) : "";
    char tags[TAGS_BYTES];

    for (int op = 0; op < N_OPS; op++) {
        if (r->n_ops[op] == 0)
            continue;
        (void)snprintf(tags, sizeof(tags), "%s%s%s", ops[op],
                       container[0] != '\0' ? "," : "", container);
        lines_add(out, "cuda.visible_devices.changes", (double)r->n_ops[op],
                  "c", tags);
    }
    if (r->sees)
        lines_add(out, "cuda.visible_devices.count", r->n_visible, "g",
                  container);
}

void env_changes_collect(struct env_changes *c, struct cgroups *names,
                         struct lines *out)
{
    for (uint32_t i = 0; i < c->n; i++)
        write_row(&c->rows[i], names, out);
    write_row(&c->rows[ENV_CHANGES_MAX], names, out);
    memset(c, 0, sizeof(*c));
}
