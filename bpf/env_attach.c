/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which way a kernel allows is found by trying, as long as nothing is attached: a
 * refusal of the first attachment steps down, load and all.
 *
 * libbpf 1.1 does not know links for many uprobes (Linux 6.6), so that one is made
 * by bpf(2) itself; its layout is that of the kernel's union bpf_attr.
 *
 * Files of our own root filesystem stay attached between processes: it is never
 * unmounted while we live, and every `ls` would attach and detach libc.
 */
#include "bpf/env_attach.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/base/log.h"

#define MODULE "env"
#define BUCKETS 4096u
#define TRACE_UPROBE_MULTI 48 /* enum bpf_attach_type of Linux 6.6 */
#define MAX_LINKS (2 * ENV_N_FUNCTIONS)

enum site_state { SITE_FREE, SITE_ATTACHED, SITE_BAD };

struct site {
    enum site_state state;
    bool stays; /* on our own filesystem */
    bool is_marked;
    struct image_key key;
    uint32_t n_pins;
    int multi_fd; /* -1 = none */
    struct bpf_link *links[MAX_LINKS];
};

struct pin {
    struct pin *next;
    uint32_t pid;
    uint32_t site;
    bool is_old; /* of the program before */
};

struct attach {
    struct attach_opts opts;
    enum attach_mode mode;
    struct bpf_object *object;
    struct loader_cause cause;
    dev_t own_dev;
    struct attach_counts counts;
    struct pin *pins[BUCKETS];
    uint32_t n_pins;
    struct site sites[];
};

/* ---- Loading ------------------------------------------------------------ */

static const char *const mode_names[ATTACH_N_MODES] = {
    [ATTACH_MULTI] = "multi",
    [ATTACH_PERF] = "perf",
    [ATTACH_RETURN] = "return",
};

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

static int load_mode(struct attach *a, enum attach_mode mode, const char *types,
                     struct loader_cause *cause)
{
    const struct attach_opts *o = &a->opts;
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
    if (rc == 0)
        rc = loader_load(object, cause);
    if (rc != 0) {
        loader_close(object);
        return rc;
    }
    loader_close(a->object);
    a->object = object;
    a->mode = mode;
    return 0;
}

/* From @mode on, the first that loads. */
static int load_from(struct attach *a, enum attach_mode mode, const char *types,
                     struct loader_cause *cause)
{
    int rc = LOADER_REFUSED;

    for (; rc == LOADER_REFUSED && mode < ATTACH_N_MODES; mode++)
        rc = load_mode(a, mode, types, cause);
    return rc;
}

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
        a->sites[i].multi_fd = -1;
    if (stat("/", &st) == 0)
        a->own_dev = st.st_dev;
    rc = load_from(a, o->best, types, cause);
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
    if (s->multi_fd >= 0)
        (void)close(s->multi_fd);
    for (size_t i = 0; i < MAX_LINKS; i++)
        (void)bpf_link__destroy(s->links[i]);
    *s = (struct site){.state = SITE_FREE, .multi_fd = -1};
}

static int link_multi(struct attach *a, struct site *s, const char *path,
                      const struct image *im)
{
    uint64_t offsets[ENV_N_FUNCTIONS], cookies[ENV_N_FUNCTIONS];
    struct {
        uint32_t prog_fd, target_fd, attach_type, flags;
        uint64_t path, offsets, ref_ctr_offsets, cookies;
        uint32_t n, multi_flags, pid, pad;
    } attr = {
        .prog_fd = (uint32_t)loader_program(a->object, "env_sleeping"),
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
    s->multi_fd = (int)syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));
    return s->multi_fd >= 0 ? 0 : -errno;
}

static int link_perf(struct attach *a, struct site *s, const char *path,
                     const struct image *im)
{
    static const char *const programs[ATTACH_N_MODES][2] = {
        [ATTACH_PERF] = {"env_sleeping", NULL},
        [ATTACH_RETURN] = {"env_entry", "env_return"},
    };
    size_t n = 0;

    for (uint32_t i = 0; i < ENV_N_FUNCTIONS; i++) {
        for (int k = 0; im->offsets[i] != 0 && k < 2; k++) {
            const char *name = programs[a->mode][k];
            LIBBPF_OPTS(bpf_uprobe_opts, opts, .bpf_cookie = i,
                        .retprobe = k == 1);

            if (name == NULL)
                continue;
            s->links[n] = bpf_program__attach_uprobe_opts(
                bpf_object__find_program_by_name(a->object, name), -1, path,
                im->offsets[i], &opts);
            if (s->links[n++] == NULL)
                return -errno;
        }
    }
    return 0;
}

static int link_file(struct attach *a, struct site *s, int fd,
                     const struct image *im)
{
    char path[40];
    int rc;

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (a->mode == ATTACH_MULTI)
        rc = link_multi(a, s, path, im);
    else
        rc = link_perf(a, s, path, im);
    if (rc != 0)
        loader_explain(&a->cause, "a probe was refused", rc);
    if ((rc == -EACCES || rc == -EPERM) && a->mode != ATTACH_MULTI)
        (void)snprintf(a->cause.remedy, sizeof(a->cause.remedy),
                       "grant CAP_SYS_ADMIN; from Linux 6.6 on CAP_BPF and "
                       "CAP_PERFMON are enough");
    return rc;
}

static int attach_site(struct attach *a, struct site *s, int fd,
                       const struct image *im)
{
    struct loader_cause cause;
    int rc = link_file(a, s, fd, im);

    while (rc != 0 && a->counts.n_attached == 0 &&
           a->mode + 1 < ATTACH_N_MODES) {
        detach(a, s);
        if (load_from(a, a->mode + 1, NULL, &cause) != 0)
            break;
        log_debug(MODULE, "fell back to mode=%s cause=\"%s\"",
                  mode_names[a->mode], a->cause.why);
        rc = link_file(a, s, fd, im);
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
    return a->mode;
}

const char *attach_mode_name(enum attach_mode m)
{
    return mode_names[m];
}

const struct loader_cause *attach_cause(const struct attach *a)
{
    return &a->cause;
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
    loader_close(a->object);
    free(a);
}
