/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which way a kernel allows is found by trying, as long as nothing is attached: a
 * refusal of the first attachment steps down, load and all.
 *
 * Files of our own root filesystem stay attached between processes: it is never
 * unmounted while we live, and every `ls` would attach and detach libc.
 */
#include "bpf/env_attach.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "agent/base/log.h"
#include "bpf/env_attach_link.h"

#define MODULE "env"
#define BUCKETS 4096u

enum site_state { SITE_FREE, SITE_ATTACHED, SITE_BAD };

struct site {
    enum site_state state;
    bool stays; /* on our own filesystem */
    bool is_marked;
    struct image_key key;
    uint32_t n_pins;
    struct attach_links links;
};

struct pin {
    struct pin *next;
    uint32_t pid;
    uint32_t site;
    bool is_old; /* of the program before */
};

struct attach {
    struct attach_opts opts;
    struct attach_linker linker;
    dev_t own_dev;
    struct attach_counts counts;
    struct pin *pins[BUCKETS];
    uint32_t n_pins;
    struct site sites[];
};

static const char *const mode_names[ATTACH_N_MODES] = {
    [ATTACH_MULTI] = "multi",
    [ATTACH_PERF] = "perf",
    [ATTACH_RETURN] = "return",
};

int attach_create(struct attach **out, const struct attach_opts *o,
                  const char *types, struct loader_cause *cause)
{
    struct attach *a =
        calloc(1, sizeof(*a) + o->max_inodes * sizeof(a->sites[0]));
    struct stat st;
    int rc;

    if (a == NULL)
        return -ENOMEM;
    a->opts = *o;
    for (uint32_t i = 0; i < o->max_inodes; i++)
        a->sites[i].links.multi_fd = -1;
    if (stat("/", &st) == 0)
        a->own_dev = st.st_dev;
    rc = attach_link_load(&a->linker, &a->opts, o->best, types, cause);
    if (rc != 0) {
        free(a);
        return rc;
    }
    *out = a;
    return 0;
}

/* ---- One file ----------------------------------------------------------- */

static void detach(struct attach *a, struct site *s)
{
    if (s->state == SITE_ATTACHED)
        a->counts.n_attached--;
    attach_unlink(&s->links);
    *s = (struct site){.state = SITE_FREE, .links.multi_fd = -1};
}

static int attach_site(struct attach *a, struct site *s, int fd,
                       const struct image *im)
{
    struct loader_cause cause;
    struct attach_linker *l = &a->linker;
    int rc = attach_link(l, &s->links, fd, im);

    while (rc != 0 && a->counts.n_attached == 0 &&
           l->mode + 1 < ATTACH_N_MODES) {
        detach(a, s);
        if (attach_link_load(l, &a->opts, l->mode + 1, NULL, &cause) != 0)
            break;
        log_debug(MODULE, "fell back to mode=%s cause=\"%s\"",
                  mode_names[l->mode], l->cause.why);
        rc = attach_link(l, &s->links, fd, im);
    }
    return rc;
}

/* ---- Who uses what ------------------------------------------------------ */

static uint32_t bucket(uint32_t pid)
{
    return pid * 2654435761u >> 20;
}

static struct site *find_site(struct attach *a, struct image_key key)
{
    struct site *free_one = NULL;

    for (uint32_t i = 0; i < a->opts.max_inodes; i++) {
        struct site *s = &a->sites[i];

        if (s->state != SITE_FREE && image_same(s->key, key))
            return s;
        if (free_one == NULL && s->state == SITE_FREE)
            free_one = s;
    }
    return free_one;
}

static bool pin(struct attach *a, struct site *s, uint32_t pid)
{
    uint32_t site = (uint32_t)(s - a->sites);
    struct pin *p = a->pins[bucket(pid)];

    while (p != NULL && (p->pid != pid || p->site != site))
        p = p->next;
    if (p != NULL) {
        p->is_old = false;
        return true;
    }
    if (a->n_pins < ATTACH_MAX_PINS)
        p = malloc(sizeof(*p));
    if (p == NULL)
        return false;
    *p = (struct pin){a->pins[bucket(pid)], pid, site, false};
    a->pins[bucket(pid)] = p;
    a->n_pins++;
    s->n_pins++;
    return true;
}

int attach_use(struct attach *a, int fd, const struct image *im, uint32_t pid)
{
    struct site *s = find_site(a, im->key);
    bool made = false;

    if (s == NULL) {
        a->counts.n_full++;
        return ATTACH_FULL;
    }
    if (s->state == SITE_BAD)
        return ATTACH_BAD;
    if (s->state == SITE_FREE) {
        int rc = attach_site(a, s, fd, im);

        if (rc != 0)
            detach(a, s);
        s->key = im->key;
        s->stays = im->key.dev == a->own_dev;
        if (rc != 0) {
            s->state = SITE_BAD;
            a->counts.n_errors++;
            return ATTACH_BAD;
        }
        s->state = SITE_ATTACHED;
        a->counts.n_attached++;
        made = true;
    }
    s->is_marked = true;
    if (!s->stays && !pin(a, s, pid)) {
        if (s->n_pins == 0)
            detach(a, s);
        a->counts.n_full++;
        return ATTACH_FULL;
    }
    return made ? ATTACH_MADE : 0;
}

static void unpin(struct attach *a, struct pin **at)
{
    struct pin *p = *at;
    struct site *s = &a->sites[p->site];

    *at = p->next;
    free(p);
    a->n_pins--;
    if (--s->n_pins == 0)
        detach(a, s);
}

static void release(struct attach *a, uint32_t pid, bool only_old)
{
    struct pin **at = &a->pins[bucket(pid)];

    while (*at != NULL) {
        if ((*at)->pid == pid && ((*at)->is_old || !only_old))
            unpin(a, at);
        else
            at = &(*at)->next;
    }
}

void attach_release(struct attach *a, uint32_t pid)
{
    release(a, pid, false);
}

void attach_renew_begin(struct attach *a, uint32_t pid)
{
    for (struct pin *p = a->pins[bucket(pid)]; p != NULL; p = p->next)
        p->is_old = p->is_old || p->pid == pid;
}

void attach_renew_end(struct attach *a, uint32_t pid)
{
    release(a, pid, true);
}

void attach_fork(struct attach *a, uint32_t parent, uint32_t child)
{
    attach_release(a, child); /* whose exit we missed */
    for (struct pin *p = a->pins[bucket(parent)]; p != NULL; p = p->next) {
        if (p->pid == parent && !pin(a, &a->sites[p->site], child))
            a->counts.n_full++;
    }
}

void attach_sweep(struct attach *a, bool (*lives)(uint32_t pid))
{
    for (uint32_t i = 0; i < BUCKETS; i++) {
        struct pin **at = &a->pins[i];

        while (*at != NULL) {
            if (!lives((*at)->pid))
                unpin(a, at);
            else
                at = &(*at)->next;
        }
    }
}

void attach_scan_begin(struct attach *a)
{
    for (uint32_t i = 0; i < a->opts.max_inodes; i++) {
        a->sites[i].is_marked = false;
        if (a->sites[i].state == SITE_BAD)
            detach(a, &a->sites[i]);
    }
}

void attach_scan_end(struct attach *a)
{
    for (uint32_t i = 0; i < a->opts.max_inodes; i++) {
        struct site *s = &a->sites[i];

        if (s->state == SITE_ATTACHED && s->stays && !s->is_marked)
            detach(a, s);
    }
}

void attach_count(const struct attach *a, struct attach_counts *out)
{
    *out = a->counts;
}

enum attach_mode attach_mode_of(const struct attach *a)
{
    return a->linker.mode;
}

const char *attach_mode_name(enum attach_mode m)
{
    return mode_names[m];
}

const struct loader_cause *attach_cause(const struct attach *a)
{
    return &a->linker.cause;
}

void attach_close(struct attach *a)
{
    if (a == NULL)
        return;
    for (uint32_t i = 0; i < BUCKETS; i++) {
        while (a->pins[i] != NULL)
            unpin(a, &a->pins[i]);
    }
    for (uint32_t i = 0; i < a->opts.max_inodes; i++)
        detach(a, &a->sites[i]);
    attach_link_unload(&a->linker);
    free(a);
}
