/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash table of entries that are also a list, the least recently used first.
 *
 * The slot is a hash of the name, not a number that is given out: it stays the same
 * when an entry was evicted and found again, so what programs were told remains
 * right. 64 bits with a seed: two names do not meet by chance, nor by intent.
 *
 * The root of the tree is a unit "root" on hosts. In a cgroup namespace what looks
 * like the root is our own container, whose name is not to be had from its path.
 */
#include "bpf/cgroup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "agent/base/clock.h"
#include "agent/base/list.h"
#include "bpf/probe.h"

#define N_BUCKETS 4096u
#define ROOT_ID 1u
#define WALK_AGAIN_NS (UINT64_C(1000) * CLOCK_NS_PER_MS)

struct entry {
    struct list by_use;
    struct entry *next; /* of the same bucket */
    struct cgroup_info info;
    char tags[CGROUP_TAGS_MAX];
    char name[CGROUP_NAME_MAX];
    char path[]; /* as long as it is */
};

struct cgroups {
    struct hierarchies mounted;
    const struct hierarchy *used; /* NULL = none */
    int32_t subsys;
    uint64_t seed;
    uint64_t walked_ns;
    bool no_handles; /* only a walk finds names */
    bool is_auto;
    struct list by_use;
    size_t n;
    struct entry *buckets[N_BUCKETS];
};

/* ---- Table --------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= UINT64_C(0xd6e8feb86659fd93);
    x ^= x >> 32;
    return x;
}

static struct entry **bucket_of(struct cgroups *c, uint64_t id)
{
    return &c->buckets[mix(id ^ c->seed) % N_BUCKETS];
}

static struct entry *find(struct cgroups *c, uint64_t id)
{
    struct entry *e = *bucket_of(c, id);

    while (e != NULL && e->info.id != id)
        e = e->next;
    if (e != NULL) {
        list_remove(&e->by_use);
        list_add_tail(&c->by_use, &e->by_use);
    }
    return e;
}

static void forget(struct cgroups *c, struct entry *e)
{
    struct entry **at = bucket_of(c, e->info.id);

    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    list_remove(&e->by_use);
    c->n--;
    free(e);
}

static void forget_all(struct cgroups *c)
{
    for (size_t i = 0; i < N_BUCKETS; i++) {
        while (c->buckets[i] != NULL) {
            struct entry *e = c->buckets[i];

            c->buckets[i] = e->next;
            free(e);
        }
    }
    list_init(&c->by_use);
    c->n = 0;
}

static uint64_t slot_of(const struct cgroups *c, const struct cgroup_name *name)
{
    uint64_t h = c->seed ^ name->kind;

    for (const char *s = name->id; *s != '\0'; s++)
        h = mix(h + (unsigned char)*s);
    return h != 0 ? h : 1;
}

/* What its path says, if it has one. */
static void fill(const struct cgroups *c, struct entry *e)
{
    struct cgroup_info *info = &e->info;
    struct cgroup_name name;

    info->path = e->path;
    info->name = e->name;
    info->tags = e->tags;
    if (e->path[0] == '\0')
        return;
    cgroup_name(&name, e->path);
    if (strcmp(e->path, "/") == 0 && info->id != ROOT_ID) {
        name.kind = CGROUP_CONTAINER;
        (void)snprintf(name.id, sizeof(name.id), "self");
    } else {
        (void)cgroup_name_tags(e->tags, &name);
    }
    info->kind = name.kind;
    info->n_path = name.n_path;
    info->slot = slot_of(c, &name);
    (void)snprintf(e->name, sizeof(e->name), "%s", name.id);
}

/* @path "": nothing is known, and that is remembered. NULL: no memory. */
static struct entry *add(struct cgroups *c, uint64_t id, const char *path)
{
    size_t n = strlen(path);
    struct entry *e = calloc(1, sizeof(*e) + n + 1);
    struct entry **bucket = bucket_of(c, id);

    if (e == NULL)
        return NULL;
    if (c->n >= CGROUPS_MAX)
        forget(c, LIST_ENTRY(list_first(&c->by_use), struct entry, by_use));
    e->info.id = id;
    memcpy(e->path, path, n + 1);
    fill(c, e);
    e->next = *bucket;
    *bucket = e;
    list_add_tail(&c->by_use, &e->by_use);
    c->n++;
    return e;
}

/* ---- Finding names ------------------------------------------------------- */

struct walk {
    struct cgroups *c;
    cgroups_each_fn *fn; /* NULL: none */
    void *arg;
    size_t n;
};

static bool on_walk(void *arg, uint64_t id, const char *path)
{
    struct walk *w = arg;
    struct entry *e = find(w->c, id);

    if (e != NULL && e->path[0] == '\0') {
        forget(w->c, e);
        e = NULL;
    }
    if (e == NULL)
        e = add(w->c, id, path);
    if (e != NULL && w->fn != NULL)
        w->fn(w->arg, &e->info);
    return ++w->n < CGROUPS_MAX;
}

void cgroups_each(struct cgroups *c, cgroups_each_fn *fn, void *arg)
{
    struct walk w = {.c = c, .fn = fn, .arg = arg};

    if (c->used != NULL)
        hierarchy_walk(c->used, on_walk, &w);
}

/* One walk names everything; those who ask about cgroups that are gone must not start
 * one each time. */
static bool may_walk(const struct cgroups *c)
{
    return c->walked_ns == 0 ||
           clock_mono_ns(&clock_real) - c->walked_ns >= WALK_AGAIN_NS;
}

static struct entry *find_by_walk(struct cgroups *c, uint64_t id)
{
    c->walked_ns = clock_mono_ns(&clock_real);
    cgroups_each(c, NULL, NULL);
    return find(c, id);
}

/* By handle; finds out whether we may. Returns 0 or -errno. */
static int path_of(struct cgroups *c, uint64_t id, char out[CGROUP_PATH_MAX])
{
    int rc = hierarchy_path(c->used, id, out);

    c->no_handles = rc == -EPERM || rc == -ENOSYS || rc == -EOPNOTSUPP;
    return rc;
}

static const struct cgroup_info unknown = {.path = "", .name = "", .tags = ""};

const struct cgroup_info *cgroups_find(struct cgroups *c, uint64_t id)
{
    struct entry *e = find(c, id);
    char path[CGROUP_PATH_MAX];

    if (e != NULL || c->used == NULL || id == 0)
        return e != NULL ? &e->info : &unknown;
    if (!c->no_handles && path_of(c, id, path) == 0)
        e = add(c, id, path);
    if (e == NULL && c->no_handles && !may_walk(c))
        return &unknown; /* the next time */
    if (e == NULL && c->no_handles)
        e = find_by_walk(c, id);
    if (e == NULL)
        e = add(c, id, "");
    return e != NULL ? &e->info : &unknown;
}

const char *cgroups_tags(struct cgroups *c, uint64_t id)
{
    return cgroups_find(c, id)->tags;
}

uint64_t cgroups_of_pid(struct cgroups *c, int pid)
{
    char path[CGROUP_PATH_MAX];

    if (c->used == NULL || !hierarchy_path_of_pid(c->used, pid, path))
        return 0;
    return hierarchy_id(c->used, path);
}

bool cgroups_exists(struct cgroups *c, uint64_t id)
{
    char path[CGROUP_PATH_MAX];
    const struct entry *e;
    int rc = -EPERM;

    if (c->used == NULL)
        return false;
    if (!c->no_handles)
        rc = path_of(c, id, path);
    if (!c->no_handles)
        return rc == 0;
    e = find(c, id);
    if (e == NULL && may_walk(c))
        e = find_by_walk(c, id);
    else if (e == NULL)
        return true; /* not to be told now */
    return e != NULL && hierarchy_id(c->used, e->path) == id;
}

/* ---- Records ------------------------------------------------------------- */

/* The record's path begins at the root of the whole tree and may be cut: the
 * system's is better, while there is one. */
static struct entry *known(struct cgroups *c, uint64_t id, const char *path)
{
    struct entry *e = find(c, id);
    char own[CGROUP_PATH_MAX];

    if (e != NULL && e->path[0] != '\0')
        return e;
    if (e != NULL)
        forget(c, e);
    if (c->used != NULL && hierarchy_path(c->used, id, own) == 0)
        return add(c, id, own);
    return add(c, id, path);
}

void cgroups_note_made(struct cgroups *c, uint64_t id, const char *path)
{
    struct entry *e = known(c, id, path);

    if (e != NULL)
        e->info.made = true;
}

void cgroups_note_removed(struct cgroups *c, uint64_t id, const char *path)
{
    struct entry *e = known(c, id, path);

    if (e != NULL)
        e->info.removed = true;
}

void cgroups_note(struct cgroups *c, const struct event_cgroup *ev)
{
    char path[sizeof(ev->path) + 1];

    if (c->used == NULL || ev->hierarchy != c->used->id)
        return;
    memcpy(path, ev->path, sizeof(ev->path));
    path[sizeof(ev->path)] = '\0';
    switch (ev->op) {
    case CGROUP_SEEN:
        (void)cgroups_find(c, ev->id);
        break;
    case CGROUP_MADE:
        cgroups_note_made(c, ev->id, path);
        break;
    case CGROUP_REMOVED:
        cgroups_note_removed(c, ev->id, path);
        break;
    default:
        break;
    }
}

/* ---- Hierarchies --------------------------------------------------------- */

static bool count_container(void *arg, uint64_t id, const char *path)
{
    struct cgroup_name name;
    size_t *n = arg;

    (void)id;
    cgroup_name(&name, path);
    *n += name.kind == CGROUP_CONTAINER;
    return *n < CGROUPS_MAX;
}

static const struct hierarchy *named(const struct cgroups *c, const char *name)
{
    for (size_t i = 0; i < c->mounted.n; i++) {
        if (hierarchy_is(&c->mounted.all[i], name))
            return &c->mounted.all[i];
    }
    return NULL;
}

/* Index in css_set.subsys[] of its first controller; -ENOENT: programs cannot use
 * it (it has none, or the kernel does not say). */
static int32_t subsys_of(const struct hierarchy *h)
{
    char name[sizeof(h->controllers) + sizeof("_cgrp_id")];
    size_t n = strcspn(h->controllers, ",");

    if (h->v2)
        return -1;
    /* The one whose name in /proc is not that of the enumeration. */
    if (n == 5 && memcmp(h->controllers, "blkio", n) == 0)
        return probe_enum(NULL, "cgroup_subsys_id", "io_cgrp_id");
    (void)snprintf(name, sizeof(name), "%.*s_cgrp_id", (int)n, h->controllers);
    return probe_enum(NULL, "cgroup_subsys_id", name);
}

static const char *const order[] = {"v2", "memory", "cpu", "pids"};
#define N_ORDER (sizeof(order) / sizeof(order[0]))

/* *n_containers: so many are in it. */
static const struct hierarchy *choose(const struct cgroups *c,
                                      size_t *n_containers)
{
    const struct hierarchy *best = NULL;
    size_t n_best = 0;

    for (size_t i = 0; i < N_ORDER; i++) {
        const struct hierarchy *h = named(c, order[i]);
        size_t n = 0;

        if (h == NULL)
            continue;
        hierarchy_walk(h, count_container, &n);
        if (best == NULL || n > n_best) {
            best = h;
            n_best = n;
        }
    }
    *n_containers = n_best;
    return best;
}

int cgroups_use(struct cgroups *c, const char *name)
{
    bool is_auto = strcmp(name, "auto") == 0;
    size_t n_containers;
    const struct hierarchy *h =
        is_auto ? choose(c, &n_containers) : named(c, name);
    int32_t subsys = h != NULL ? subsys_of(h) : -1;

    if (subsys < -1 && is_auto) {
        h = named(c, "v2"); /* no BTF, no programs: names are enough */
        subsys = -1;
    }
    if (!is_auto && (h == NULL || subsys < -1))
        return CGROUPS_NO_HIERARCHY;
    forget_all(c);
    c->used = h;
    c->subsys = subsys;
    c->is_auto = is_auto;
    c->walked_ns = 0;
    return 0;
}

static bool find_container(void *arg, uint64_t id, const char *path)
{
    size_t *n = arg;

    (void)count_container(n, id, path);
    return *n == 0;
}

/* Not where the other one merely has more: two that are both in use would take turns. */
bool cgroups_outdated(const struct cgroups *c)
{
    const struct hierarchy *h;
    size_t n = 0;

    if (!cgroups_may_change(c))
        return false;
    hierarchy_walk(c->used, find_container, &n);
    if (n > 0)
        return false;
    h = choose(c, &n);
    return n > 0 && h != c->used && subsys_of(h) >= -1;
}

bool cgroups_may_change(const struct cgroups *c)
{
    bool is_other = false;

    for (size_t i = 0; i < N_ORDER; i++) {
        const struct hierarchy *h = named(c, order[i]);

        is_other |= h != NULL && h != c->used;
    }
    return c->is_auto && c->used != NULL && is_other;
}

char *cgroups_present(const struct cgroups *c, char *out, size_t size)
{
    size_t n = 0;

    out[0] = '\0';
    for (size_t i = 0; i < c->mounted.n && n < size; i++) {
        const struct hierarchy *h = &c->mounted.all[i];

        if (!h->v2 && strncmp(h->controllers, "name=", 5) == 0)
            continue;
        n += (size_t)snprintf(out + n, size - n, "%s%s", n > 0 ? ", " : "",
                              hierarchy_name(h));
    }
    return out;
}

const struct hierarchy *cgroups_hierarchy(const struct cgroups *c)
{
    return c->used;
}

const struct hierarchy *cgroups_cpu(const struct cgroups *c)
{
    const struct hierarchy *h = named(c, "cpu");

    return h != NULL ? h : named(c, "v2");
}

int32_t cgroups_subsys(const struct cgroups *c)
{
    return c->subsys;
}

int cgroups_create(struct cgroups **out)
{
    struct cgroups *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return -ENOMEM;
    list_init(&c->by_use);
    if (getrandom(&c->seed, sizeof(c->seed), GRND_NONBLOCK) < 0)
        c->seed = clock_mono_ns(&clock_real);
    if (hierarchies_read(&c->mounted) != 0)
        c->mounted.n = 0; /* no /proc: no names, nothing else */
    (void)cgroups_use(c, "auto");
    *out = c;
    return 0;
}

void cgroups_close(struct cgroups *c)
{
    if (c == NULL)
        return;
    forget_all(c);
    free(c);
}
