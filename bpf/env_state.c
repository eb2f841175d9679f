/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two tables of the same processes, by either of their numbers. A process may be
 * known by one only: records bring both, /proc brings ours.
 *
 * A look at a live process is dated back by its caller, so that an event whose
 * effect it may not have seen wins.
 */
#include "bpf/env_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/procfs.h"

#define BUCKETS 16384u /* power of two */

struct env_state {
    struct env_proc *by_tgid[BUCKETS], *by_pid[BUCKETS];
    size_t n, n_bytes;
    uint64_t n_full;
    env_proc_fn *gone;
    void *arg;
};

int env_state_create(struct env_state **out, env_proc_fn *gone, void *arg)
{
    struct env_state *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return -ENOMEM;
    s->gone = gone;
    s->arg = arg;
    *out = s;
    return 0;
}

static uint32_t bucket(uint32_t number)
{
    return number * 2654435761u >> 18;
}

struct env_proc *env_state_by_tgid(struct env_state *s, uint32_t tgid)
{
    struct env_proc *p = tgid != 0 ? s->by_tgid[bucket(tgid)] : NULL;

    while (p != NULL && p->tgid != tgid)
        p = p->next_tgid;
    return p;
}

struct env_proc *env_state_by_pid(struct env_state *s, uint32_t pid)
{
    struct env_proc *p = pid != 0 ? s->by_pid[bucket(pid)] : NULL;

    while (p != NULL && p->pid != pid)
        p = p->next_pid;
    return p;
}

static void link_tgid(struct env_state *s, struct env_proc *p)
{
    p->next_tgid = s->by_tgid[bucket(p->tgid)];
    s->by_tgid[bucket(p->tgid)] = p;
}

static void link_pid(struct env_state *s, struct env_proc *p)
{
    p->next_pid = s->by_pid[bucket(p->pid)];
    s->by_pid[bucket(p->pid)] = p;
}

static void forget_value(struct env_state *s, struct env_value *v)
{
    s->n_bytes -= v->n;
    free(v->text);
    *v = (struct env_value){0};
}

void env_state_remove(struct env_state *s, struct env_proc *p)
{
    struct env_proc **at;

    if (s->gone != NULL)
        s->gone(s->arg, p);
    if (p->tgid != 0) {
        for (at = &s->by_tgid[bucket(p->tgid)]; *at != p;)
            at = &(*at)->next_tgid;
        *at = p->next_tgid;
    }
    if (p->pid != 0) {
        for (at = &s->by_pid[bucket(p->pid)]; *at != p;)
            at = &(*at)->next_pid;
        *at = p->next_pid;
    }
    for (size_t i = 0; i < ENV_MAX_NAMES; i++)
        forget_value(s, &p->v[i]);
    free(p);
    s->n--;
}

struct env_proc *env_state_find(struct env_state *s, const struct env_id *id)
{
    struct env_proc *p = env_state_by_tgid(s, id->tgid);

    if (p == NULL)
        p = env_state_by_pid(s, id->pid);
    if (p != NULL && (p->start_ticks != id->start_ns / PROCFS_TICK_NS ||
                      (id->tgid != 0 && p->tgid != 0 && p->tgid != id->tgid)))
        p = NULL;
    return p;
}

/* Whoever had one of the numbers before. */
static void make_room(struct env_state *s, const struct env_id *id)
{
    struct env_proc *p = env_state_by_tgid(s, id->tgid);

    if (p != NULL)
        env_state_remove(s, p);
    p = env_state_by_pid(s, id->pid);
    if (p != NULL)
        env_state_remove(s, p);
}

struct env_proc *env_state_get(struct env_state *s, const struct env_id *id)
{
    struct env_proc *p = env_state_find(s, id);

    if (p == NULL) {
        make_room(s, id);
        if (s->n < ENV_STATE_MAX_PROCS)
            p = calloc(1, sizeof(*p));
        if (p == NULL) {
            s->n_full++;
            return NULL;
        }
        p->start_ticks = id->start_ns / PROCFS_TICK_NS;
        s->n++;
    }
    if (p->tgid == 0 && id->tgid != 0) {
        p->tgid = id->tgid;
        link_tgid(s, p);
    }
    if (p->pid == 0 && id->pid != 0) {
        p->pid = id->pid;
        link_pid(s, p);
    }
    return p;
}

/* ---- Values ------------------------------------------------------------- */

int env_state_set(struct env_state *s, struct env_proc *p, uint32_t name,
                  enum env_source source, uint64_t ts_ns, enum env_known known,
                  const char *text, size_t n)
{
    struct env_value *v = &p->v[name];
    char *copy = NULL;

    if (known != ENV_IS_SET)
        n = 0;
    if (v->known != ENV_UNKNOWN && ts_ns < v->ts_ns)
        return ENV_SAME;
    if (v->known == known && v->n == n &&
        (n == 0 || memcmp(v->text, text, n) == 0)) {
        v->ts_ns = ts_ns;
        v->source = source;
        return ENV_SAME;
    }
    p->generation++;
    forget_value(s, v);
    if (n > 0) {
        copy = s->n_bytes + n <= ENV_STATE_MAX_BYTES ? malloc(n) : NULL;
        if (copy == NULL) {
            s->n_full++;
            return ENV_FULL;
        }
        memcpy(copy, text, n);
    }
    s->n_bytes += n;
    *v = (struct env_value){
        .known = known,
        .source = known != ENV_UNKNOWN ? source : ENV_FROM_NOWHERE,
        .ts_ns = ts_ns,
        .n = (uint32_t)n,
        .text = copy,
    };
    return 0;
}

static int set_event(struct env_state *s, const struct event_env *e,
                     struct env_proc *p)
{
    const struct env_value *v = &p->v[e->name_idx];

    if (!e->overwrite && v->known == ENV_IS_SET)
        return ENV_SAME;
    if (!e->overwrite && v->known == ENV_UNKNOWN)
        return ENV_LOOK;
    if ((e->flags & (ENV_TRUNCATED | ENV_READ_FAILED)) != 0) {
        (void)env_state_set(s, p, e->name_idx, ENV_FROM_NOWHERE, e->hdr.ts_ns,
                            ENV_UNKNOWN, NULL, 0);
        return ENV_LOOK;
    }
    return env_state_set(s, p, e->name_idx, ENV_FROM_RUNTIME, e->hdr.ts_ns,
                         ENV_IS_SET, e->val, e->val_len);
}

int env_state_event(struct env_state *s, const struct event_env *e,
                    struct env_proc **out)
{
    struct env_id id = {e->hdr.tgid, e->ns_tgid, e->start_ns};
    struct env_proc *p;
    int rc = ENV_SAME;

    if (e->rc != 0 || e->name_idx >= ENV_MAX_NAMES ||
        sizeof(*e) + e->val_len > e->hdr.len)
        return ENV_SAME;
    p = env_state_get(s, &id);
    if (p == NULL)
        return ENV_FULL;
    p->cgid = e->hdr.cgid;
    *out = p;
    switch ((enum event_env_op)e->op) {
    case ENV_SET:
        return set_event(s, e, p);
    case ENV_UNSET:
        return env_state_set(s, p, e->name_idx, ENV_FROM_RUNTIME, e->hdr.ts_ns,
                             ENV_IS_UNSET, NULL, 0);
    case ENV_CLEAR:
        for (uint32_t i = 0; i < ENV_MAX_NAMES; i++) {
            if (env_state_set(s, p, i, ENV_FROM_RUNTIME, e->hdr.ts_ns,
                              ENV_IS_UNSET, NULL, 0) == 0)
                rc = 0;
        }
        break;
    }
    return rc;
}

/* ---- Lives -------------------------------------------------------------- */

static bool is_inherited(const struct env_value *v)
{
    return v->known != ENV_UNKNOWN &&
           (v->source == ENV_FROM_RUNTIME || v->source == ENV_FROM_LIVE);
}

struct env_proc *env_state_fork(struct env_state *s, const struct env_id *child,
                                uint32_t parent_tgid, uint64_t cgid)
{
    struct env_proc *parent = env_state_by_tgid(s, parent_tgid);
    struct env_proc *p = env_state_find(s, child);
    bool any = false;

    for (size_t i = 0; parent != NULL && i < ENV_MAX_NAMES; i++)
        any = any || is_inherited(&parent->v[i]);
    if (!any) {
        if (p == NULL)
            make_room(s, child);
        return NULL;
    }
    p = env_state_get(s, child);
    if (p == NULL)
        return NULL;
    /* making room for the child may have removed a parent that had its number */
    parent = env_state_by_tgid(s, parent_tgid);
    p->cgid = cgid;
    for (uint32_t i = 0; parent != NULL && i < ENV_MAX_NAMES; i++) {
        const struct env_value *v = &parent->v[i];

        if (is_inherited(v))
            (void)env_state_set(s, p, i, v->source, v->ts_ns, v->known, v->text,
                                v->n);
    }
    return p;
}

struct env_proc *env_state_exec(struct env_state *s, const struct env_id *id,
                                uint64_t ts_ns)
{
    struct env_proc *p = env_state_find(s, id);

    if (p == NULL) {
        make_room(s, id);
        return NULL;
    }
    for (size_t i = 0; i < ENV_MAX_NAMES; i++) {
        if (p->v[i].known == ENV_UNKNOWN || p->v[i].ts_ns > ts_ns)
            continue;
        forget_value(s, &p->v[i]);
        p->generation++;
    }
    return p;
}

void env_state_exit(struct env_state *s, const struct env_id *id,
                    uint64_t now_ns)
{
    struct env_proc *p = env_state_find(s, id);

    if (p != NULL && p->gone_ns == 0)
        p->gone_ns = now_ns;
}

void env_state_each(struct env_state *s, env_proc_fn *fn, void *arg)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        struct env_proc *p, *next;

        for (p = s->by_tgid[i]; p != NULL; p = next) {
            next = p->next_tgid;
            fn(arg, p);
        }
        for (p = s->by_pid[i]; p != NULL; p = next) {
            next = p->next_pid;
            if (p->tgid == 0)
                fn(arg, p);
        }
    }
}

struct expiry {
    struct env_state *s;
    uint64_t now_ns;
};

static void expire(void *arg, struct env_proc *p)
{
    struct expiry *x = arg;

    if (p->gone_ns != 0 && x->now_ns - p->gone_ns >= ENV_STATE_KEEP_NS)
        env_state_remove(x->s, p);
}

void env_state_expire(struct env_state *s, uint64_t now_ns)
{
    struct expiry x = {s, now_ns};

    env_state_each(s, expire, &x);
}

static void remove_one(void *arg, struct env_proc *p)
{
    env_state_remove(arg, p);
}

void env_state_close(struct env_state *s)
{
    if (s == NULL)
        return;
    env_state_each(s, remove_one, s);
    free(s);
}

size_t env_state_n(const struct env_state *s)
{
    return s->n;
}

uint64_t env_state_n_full(const struct env_state *s)
{
    return s->n_full;
}
