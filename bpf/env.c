/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probes notify, the live environment is the truth. An event usually carries the
 * value. Where it cannot (a call that sets only what is unset, a value too long, a
 * call before the probe was there), the process is looked at when the call has
 * surely returned.
 */
#include "bpf/env.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "bpf/cgroup.h"
#include "bpf/env_changes.h"
#include "bpf/env_discover.h"
#include "bpf/env_exec.h"
#include "bpf/env_later.h"
#include "bpf/env_state.h"
#include "bpf/env_table.h"
#include "bpf/environ_aside.h"
#include "bpf/features.h"
#include "bpf/procfs.h"

#define MODULE "env"
#define INITIAL_PID_NS 0xeffffffcu /* its inode, the same on all kernels */

struct env {
    struct env_opts opts;
    struct cgroups *cgroups;
    int watched_fd;
    bool same_ids; /* our pid namespace is the initial one */
    struct images *images;
    struct aside *aside;
    struct env_exec *exec; /* NULL: no table */
    struct attach *attach; /* NULL: no probes */
    struct discover *discover;
    struct env_state *state;
    struct env_changes *changes;
    struct env_rules rules;
    struct later_queues later;
    uint64_t rescan_ns;
    uint64_t n_looks, n_look_errors, n_truncated, n_put_off_lost, n_untagged;
    struct attach_counts told;
    struct environ_values now, start; /* scratch */
};

/* The one place that knows where our options are. */
static const struct env_opts *own_opts(const struct feature_env *env)
{
    return &env->opts->env;
}

/* ---- Tags --------------------------------------------------------------- */

static void publish(struct env *e, const struct env_proc *p)
{
    struct env_text values[ENV_MAX_NAMES] = {{NULL, 0}};
    char tags[ENV_TAGS_BYTES];
    size_t n;

    if (e->opts.proctags == NULL)
        return;
    for (uint32_t i = 0; i < ENV_MAX_NAMES; i++) {
        const struct env_value *v = &p->v[i];

        if (v->known == ENV_IS_SET)
            values[i] = (struct env_text){v->n > 0 ? v->text : "", v->n};
    }
    n = env_tags(&e->rules, values, tags);
    if (proctags_set(e->opts.proctags, p->tgid, p->pid, tags, n, p->as_of_ns) !=
        0)
        e->n_untagged++;
}

/* Tells of the process are heeded up to here. */
static void heed(struct env_proc *p, uint64_t ts_ns)
{
    if (ts_ns > p->as_of_ns)
        p->as_of_ns = ts_ns;
}

static void forget_tags(void *arg, struct env_proc *p)
{
    struct env *e = arg;

    if (e->opts.proctags != NULL)
        proctags_remove(e->opts.proctags, p->tgid, p->pid);
}

/* ---- Looking ------------------------------------------------------------ */

static struct env_id id_of(const struct env *e, uint32_t pid, uint64_t ticks)
{
    return (struct env_id){
        .tgid = e->same_ids ? pid : 0,
        .pid = pid,
        .start_ns = ticks * PROCFS_TICK_NS,
    };
}

static void put_values(struct env *e, struct env_proc *p,
                       const struct environ_values *from,
                       enum env_source source, uint64_t ts_ns)
{
    bool changed = false;

    for (uint32_t i = 0; i < e->opts.watch.n; i++) {
        const struct environ_value *v = &from->v[i];
        /* Or it was told to change, to a value that was not told. */
        bool was_known = p->v[i].known != ENV_UNKNOWN || p->v[i].ts_ns != 0;

        e->n_truncated += v->is_cut;
        if (env_state_set(e->state, p, i, source, ts_ns,
                          v->is_set ? ENV_IS_SET : ENV_IS_UNSET, v->text,
                          v->n) != 0)
            continue;
        changed = true;
        if (i == WATCH_CUDA && was_known)
            env_changes_add(e->changes, p->cgid,
                            v->is_set ? ENV_SET : ENV_UNSET);
    }
    if (changed || p->generation == 0)
        publish(e, p);
}

static int read_live(struct env *e, int proc_fd)
{
    int rc =
        e->opts.live ? aside_read(e->aside, proc_fd, &e->now) : -EOPNOTSUPP;

    e->n_looks++;
    e->n_look_errors += rc != 0;
    return rc;
}

/* What the kernel knows. */
static bool from_table(struct env *e, enum proctags_space space,
                       uint32_t number, uint64_t since_ns,
                       struct environ_values *out, uint64_t *as_of_ns)
{
    return e->opts.proctags != NULL &&
           env_table_values(proctags_env(e->opts.proctags), space, number,
                            since_ns, out, as_of_ns);
}

/* Dated back: a call that is going on has told us already, and not done it yet; and a
 * new program has its variables a little later than it has begun. */
static uint64_t look_ns(void)
{
    return clock_mono_ns(&clock_real) - LATER_LOOK_NS;
}

/* What a process has now. @keep: also one that has what it was started with. */
static struct env_proc *look(struct env *e, uint32_t pid, bool keep)
{
    uint64_t ts_ns = look_ns(), ticks;
    struct env_proc *p = NULL;
    struct env_id id;
    int fd = procfs_open(pid);
    int live, start = -EOPNOTSUPP;

    if (fd < 0)
        return NULL;
    if (procfs_start(fd, &ticks) != 0)
        goto out;
    id = id_of(e, pid, ticks);
    p = env_state_find(e->state, &id);
    live = read_live(e, fd);
    if (live == 0 && e->now.is_void)
        (void)from_table(e, PROCTAGS_PID, pid, 0, &e->now, &ts_ns);
    if (p == NULL || live != 0)
        start = environ_read_start(fd, &e->opts.watch, &e->start);
    if (p == NULL &&
        (keep || (live == 0 && start == 0 &&
                  !environ_same(&e->opts.watch, &e->now, &e->start)))) {
        p = env_state_get(e->state, &id);
        if (p != NULL && p->cgid == 0 && e->cgroups != NULL)
            p->cgid = cgroups_of_pid(e->cgroups, (int)pid);
        life_watched_add(e->watched_fd, id.tgid);
    }
    if (p != NULL && live == 0) {
        heed(p, ts_ns);
        put_values(e, p, &e->now, ENV_FROM_LIVE, ts_ns);
    } else if (p != NULL && start == 0 && p->generation == 0) {
        heed(p, ts_ns);
        put_values(e, p, &e->start, ENV_FROM_START, 0);
    }
    if (p != NULL)
        p->looked_ns = ts_ns;
out:
    (void)close(fd);
    return p;
}

/* ---- What is put off ---------------------------------------------------- */

static void put_off(struct env *e, enum later delay, uint32_t pid)
{
    if (pid != 0 &&
        !later_put(&e->later, delay, pid, clock_mono_ns(&clock_real)))
        e->n_put_off_lost++;
}

static void attached(struct env *e, uint32_t pid, unsigned flags)
{
    if ((flags & DISCOVER_MADE) == 0)
        return;
    put_off(e, LATER_LOOK, pid);
    if (e->same_ids)
        life_watched_add(e->watched_fd, pid);
}

static void do_job(struct env *e, enum later delay, uint32_t pid)
{
    if (delay == LATER_LOOK)
        (void)look(e, pid, false);
    else if (e->attach != NULL)
        attached(e, pid, discover_maps(e->discover, pid));
}

static void scan_one(void *arg, uint32_t pid)
{
    struct env *e = arg;

    attached(e, pid, discover_maps(e->discover, pid));
}

/* Ends that nobody told us of; without probes, also what changed. */
static void check_one(void *arg, struct env_proc *p)
{
    struct env *e = arg;
    struct env_id id = {p->tgid, p->pid, p->start_ticks * PROCFS_TICK_NS};
    uint64_t ticks = 0;
    int fd;

    if (p->gone_ns != 0 || p->pid == 0)
        return;
    fd = procfs_open(p->pid);
    if (fd < 0 || procfs_start(fd, &ticks) != 0 || ticks != p->start_ticks)
        env_state_exit(e->state, &id, clock_mono_ns(&clock_real));
    else if (e->attach == NULL)
        (void)look(e, p->pid, true);
    if (fd >= 0)
        (void)close(fd);
}

static void rescan(struct env *e, uint64_t now_ns)
{
    e->rescan_ns = now_ns + e->opts.rescan_s * (uint64_t)CLOCK_NS_PER_S;
    (void)cuda_devices_read(e->opts.root, &e->rules.devices);
    if (e->opts.proctags != NULL)
        env_table_set_rules(proctags_env(e->opts.proctags), &e->rules);
    if (e->attach != NULL) {
        discover_forget(e->discover);
        attach_sweep(e->attach, procfs_lives);
        attach_scan_begin(e->attach);
        (void)procfs_each(scan_one, e);
        attach_scan_end(e->attach);
    }
    env_state_each(e->state, check_one, e);
}

static void asked(void *arg, enum proctags_space space, uint32_t number)
{
    struct env *e = arg;
    struct env_proc *p = space == PROCTAGS_PID
                             ? env_state_by_pid(e->state, number)
                             : env_state_by_tgid(e->state, number);
    /* All records so far are heeded: if it has changed, its record was lost, or it
     * was looked at too early. */
    bool is_late =
        p != NULL && env_table_is_newer(proctags_env(e->opts.proctags), space,
                                        number, p->as_of_ns);

    if (is_late && look_ns() < p->looked_ns + LATER_LOOK_NS)
        return; /* who asks knows what is newer */
    if ((p == NULL || is_late) && (space == PROCTAGS_PID || e->same_ids))
        p = look(e, number, true);
    if (p != NULL)
        publish(e, p);
}

static uint64_t due(void *self, uint64_t now_ns)
{
    struct env *e = self;
    enum later which;
    uint64_t next_ns;
    uint32_t pid;

    if (e->opts.proctags != NULL)
        proctags_asked(e->opts.proctags, asked, e);
    if (now_ns >= e->rescan_ns)
        rescan(e, now_ns);
    while (later_take(&e->later, now_ns, &which, &pid))
        do_job(e, which, pid);
    next_ns = later_next_ns(&e->later);
    return next_ns < e->rescan_ns ? next_ns : e->rescan_ns;
}

/* ---- Records ------------------------------------------------------------ */

/* Before the first change of a process that nothing is known of: what a call removes
 * was there or was not, and only the start knows. */
static bool had_devices(struct env *e, const struct event_env *ev)
{
    const struct env_id id = {ev->hdr.tgid, ev->ns_tgid, ev->start_ns};
    const struct env_proc *p = env_state_find(e->state, &id);
    int fd;
    bool had;

    if (p != NULL &&
        (p->v[WATCH_CUDA].known != ENV_UNKNOWN || p->v[WATCH_CUDA].ts_ns != 0))
        return p->v[WATCH_CUDA].known != ENV_IS_UNSET;
    fd = ev->ns_tgid != 0 ? procfs_open(ev->ns_tgid) : -1;
    if (fd < 0)
        return false;
    had = environ_read_start(fd, &e->opts.watch, &e->start) == 0 &&
          e->start.v[WATCH_CUDA].is_set;
    (void)close(fd);
    return had;
}

/* A call that says nothing new is none: programs clear an empty environment, too. */
static bool is_change(struct env *e, const struct event_env *ev)
{
    if (ev->op == ENV_SET)
        return ev->name_idx == WATCH_CUDA;
    return (ev->op == ENV_CLEAR || ev->name_idx == WATCH_CUDA) &&
           had_devices(e, ev);
}

static void on_env(struct env *e, const struct event_env *ev)
{
    bool changes = is_change(e, ev);
    struct env_proc *p = NULL;
    int rc = env_state_event(e->state, ev, &p);

    e->n_truncated += (ev->flags & ENV_TRUNCATED) != 0;
    if (rc == ENV_LOOK)
        put_off(e, LATER_LOOK, ev->ns_tgid);
    if (p == NULL || (rc != 0 && rc != ENV_SAME))
        return;
    if (rc == 0 && changes)
        env_changes_add(e->changes, ev->hdr.cgid, (enum event_env_op)ev->op);
    heed(p, ev->hdr.ts_ns);
    life_watched_add(e->watched_fd, ev->hdr.tgid);
    publish(e, p);
}

static void on_fork(struct env *e, const struct event_process *ev)
{
    struct env_id id = {ev->hdr.tgid, ev->ns_tgid, ev->start_ns};
    struct env_proc *p = env_state_fork(e->state, &id, ev->ppid, ev->hdr.cgid);

    if (p != NULL) {
        heed(p, ev->hdr.ts_ns);
        publish(e, p);
    }
    if (e->attach == NULL || ev->ns_tgid == 0)
        return;
    if (e->same_ids)
        attach_fork(e->attach, ev->ppid, ev->ns_tgid);
    else
        attached(e, ev->ns_tgid, discover_maps(e->discover, ev->ns_tgid));
}

/* What it is started with; of who has gone since, only the table tells. */
static bool read_start(struct env *e, const struct event_process *ev,
                       uint64_t *as_of_ns)
{
    bool is_read;
    int fd;

    /* Who writes the record does so first (features.c): what is older is another
     * program's. */
    if (from_table(e, PROCTAGS_TGID, ev->hdr.tgid, ev->hdr.ts_ns, &e->start,
                   as_of_ns))
        return true;
    *as_of_ns = clock_mono_ns(&clock_real);
    fd = procfs_open(ev->ns_tgid);
    is_read = fd >= 0 && environ_read_start(fd, &e->opts.watch, &e->start) == 0;
    if (fd >= 0)
        (void)close(fd);
    return is_read;
}

/* The environment of a new program is that of its start, at this moment. */
static void on_exec(struct env *e, const struct event_process *ev)
{
    struct env_id id = {ev->hdr.tgid, ev->ns_tgid, ev->start_ns};
    uint64_t as_of_ns;
    struct env_proc *p;
    unsigned flags;

    if (ev->ns_tgid == 0)
        return;
    if (e->attach != NULL) {
        attach_renew_begin(e->attach, ev->ns_tgid);
        flags = discover_exec(e->discover, ev->ns_tgid);
        attach_renew_end(e->attach, ev->ns_tgid);
        attached(e, ev->ns_tgid, flags);
        for (int delay = LATER_MAPS_1; delay <= LATER_MAPS_3; delay++) {
            if ((flags & (DISCOVER_STATIC | DISCOVER_SEEN)) == 0)
                put_off(e, (enum later)delay, ev->ns_tgid);
        }
    }
    p = env_state_exec(e->state, &id, ev->hdr.ts_ns);
    if (p == NULL)
        return;
    if (read_start(e, ev, &as_of_ns)) {
        heed(p, as_of_ns);
        put_values(e, p, &e->start, ENV_FROM_START, ev->hdr.ts_ns);
    }
    publish(e, p);
}

static void on_end(struct env *e, const struct event_exit *ev)
{
    struct env_id id = {ev->hdr.tgid, ev->ns_tgid, ev->start_ns};

    if (e->attach != NULL && ev->ns_tgid != 0)
        attach_release(e->attach, ev->ns_tgid);
    env_state_exit(e->state, &id, clock_mono_ns(&clock_real));
}

static void event(void *self, const struct event_hdr *ev)
{
    struct env *e = self;

    switch ((enum event_type)ev->type) {
    case EVENT_ENV:
        on_env(e, (const struct event_env *)(const void *)ev);
        break;
    case EVENT_FORK:
        on_fork(e, (const struct event_process *)(const void *)ev);
        break;
    case EVENT_EXEC:
        on_exec(e, (const struct event_process *)(const void *)ev);
        break;
    case EVENT_EXIT:
        on_end(e, (const struct event_exit *)(const void *)ev);
        break;
    case EVENT_CGROUP: /* all its processes are gone */
        if (e->attach != NULL &&
            ((const struct event_cgroup *)(const void *)ev)->op ==
                CGROUP_REMOVED)
            attach_sweep(e->attach, procfs_lives);
        break;
    case EVENT_NONE:
    case EVENT_RUNQ:
    case EVENT_N_TYPES:
        break;
    }
}

/* ---- Values ------------------------------------------------------------- */

static void count_visible(void *arg, struct env_proc *p)
{
    struct env *e = arg;
    const struct env_value *v = &p->v[WATCH_CUDA];
    struct cuda_list list;

    if (p->gone_ns != 0 || v->known != ENV_IS_SET)
        return;
    cuda_parse(v->text, v->n, &e->rules.devices, e->opts.semantics, &list);
    env_changes_visible(e->changes, p->cgid,
                        list.is_all ? e->rules.devices.n : list.n);
}

static void add_count(struct lines *out, const char *name, uint64_t n)
{
    if (n > 0)
        lines_add(out, name, (double)n, "c", "");
}

static void collect_own(struct env *e, struct lines *out)
{
    struct attach_counts c = e->told;

    if (e->attach != NULL)
        attach_count(e->attach, &c);
    lines_add(out, "retriever.ebpf.env.attached_inodes", c.n_attached, "g", "");
    lines_add(out, "retriever.ebpf.env.processes",
              (double)env_state_n(e->state), "g", "");
    add_count(out, "retriever.ebpf.env.attach_errors",
              c.n_errors - e->told.n_errors);
    add_count(out, "retriever.ebpf.env.no_room",
              c.n_full - e->told.n_full + e->n_put_off_lost + e->n_untagged);
    add_count(out, "retriever.ebpf.env.truncated", e->n_truncated);
    add_count(out, "retriever.ebpf.env.live_reads", e->n_looks);
    add_count(out, "retriever.ebpf.env.live_read_errors", e->n_look_errors);
    e->told = c;
    e->n_put_off_lost = e->n_untagged = 0;
    e->n_truncated = e->n_looks = e->n_look_errors = 0;
}

static void stop(struct env *e)
{
    discover_close(e->discover);
    attach_close(e->attach);
    e->discover = NULL;
    e->attach = NULL;
    e->told.n_attached = 0;
}

/* The last time, too, probes are left to close(): each takes a grace period of the
 * kernel to remove, and what they tell from now on changes no value. */
static void collect(void *self, struct lines *out, bool last)
{
    struct env *e = self;

    (void)last;
    if (e->opts.proctags != NULL)
        proctags_asked(e->opts.proctags, asked, e);
    env_state_expire(e->state, clock_mono_ns(&clock_real));
    env_state_each(e->state, count_visible, e);
    env_changes_collect(e->changes, e->cgroups, out);
    collect_own(e, out);
}

static void close_all(void *self)
{
    struct env *e = self;

    if (e == NULL)
        return;
    if (e->opts.proctags != NULL)
        env_table_unmap(proctags_env(e->opts.proctags));
    stop(e);
    env_exec_close(e->exec);
    env_state_close(e->state);
    env_changes_close(e->changes);
    aside_close(e->aside);
    images_close(e->images);
    free(e);
}

/* ---- Opening ------------------------------------------------------------ */

/* Without it new processes are known a little later. */
static void open_table(struct env *e, const char *types)
{
    if (env_exec_create(&e->exec, &e->opts.watch, procfs_pidns_inode(),
                        types) == 0 &&
        e->opts.proctags != NULL)
        (void)env_table_map(proctags_env(e->opts.proctags),
                            env_exec_table(e->exec),
                            e->same_ids ? -1 : env_exec_pids(e->exec));
}

/* Behind the probes: a change that nobody tells of would leave the table wrong. */
static void start_table(struct env *e)
{
    struct loader_cause cause = {.why = ""};

    if (e->exec != NULL && env_exec_start(e->exec, &cause) != 0)
        log_debug(MODULE, "first datagrams go without tags cause=\"%s\"",
                  cause.why);
}

static int open_probes(struct env *e, const struct feature_env *env,
                       struct loader_cause *cause)
{
    struct attach_opts o = {
        .events_fd = env->events_fd,
        .control_fd = env->events_control_fd,
        .stats_fd = env->events_stats_fd,
        .table_fd = e->exec != NULL ? env_exec_table(e->exec) : -1,
        .max_inodes = e->opts.max_inodes,
        .best = e->opts.best,
        .config = {.ns_inum = procfs_pidns_inode(),
                   .own_tgid = env->own_tgid,
                   .subsys =
                       env->cgroups != NULL ? cgroups_subsys(env->cgroups) : -1,
                   .n_names = e->opts.watch.n},
    };
    int rc;

    if (env->events_fd < 0)
        return LOADER_REFUSED; /* the ring's cause says why */
    for (uint32_t i = 0; i < e->opts.watch.n; i++)
        memcpy(o.config.names[i], e->opts.watch.v[i].name, ENV_NAME_BYTES);
    rc = attach_create(&e->attach, &o, env->types_path, cause);
    if (rc == 0)
        rc = discover_create(&e->discover, e->images, e->attach);
    return rc;
}

/* Nothing could be attached at all: that is a refusal, not many errors. */
static int check_probes(struct env *e, struct loader_cause *cause)
{
    struct attach_counts c;

    attach_count(e->attach, &c);
    if (c.n_attached > 0 || c.n_errors == 0)
        return 0;
    *cause = *attach_cause(e->attach);
    return LOADER_REFUSED;
}

static int open_all(void **self, const struct feature_env *env,
                    struct loader_cause *cause)
{
    struct env *e;
    int rc;

    if (own_opts(env)->off) {
        (void)snprintf(cause->why, sizeof(cause->why),
                       "ebpf.env.enabled is false");
        (void)snprintf(cause->reason, sizeof(cause->reason), LOADER_DISABLED);
        return LOADER_REFUSED;
    }
    e = calloc(1, sizeof(*e));
    if (e == NULL)
        return -ENOMEM;
    e->opts = *own_opts(env);
    e->cgroups = env->cgroups;
    e->watched_fd = env->watched_fd;
    e->same_ids = procfs_pidns_inode() == INITIAL_PID_NS;
    e->rules = (struct env_rules){
        .watch = e->opts.watch,
        .semantics = e->opts.semantics,
        .cuda_tags = e->opts.cuda_tags,
    };
    open_table(e, env->types_path);
    rc = images_create(&e->images);
    if (rc == 0)
        rc = aside_create(&e->aside, &e->opts.watch);
    if (rc == 0)
        rc = env_state_create(&e->state, forget_tags, e);
    if (rc == 0)
        rc = env_changes_create(&e->changes);
    if (rc == 0)
        rc = open_probes(e, env, cause);
    if (rc == 0) {
        rescan(e, clock_mono_ns(&clock_real));
        rc = check_probes(e, cause);
    }
    if (rc == LOADER_REFUSED && e->opts.live) {
        stop(e); /* looking at processes is left */
        rescan(e, clock_mono_ns(&clock_real));
        (void)snprintf(cause->left, sizeof(cause->left),
                       "who sends is looked at every ebpf.env.rescan_s; other "
                       "users' processes with CAP_SYS_PTRACE");
        rc = 0;
    }
    if (rc != 0) {
        close_all(e);
        return rc;
    }
    if (e->attach != NULL) {
        start_table(e);
        log_debug(MODULE, "attached mode=%s",
                  attach_mode_name(attach_mode_of(e->attach)));
    }
    *self = e;
    return 0;
}

const struct feature env_feature = {
    .name = "env",
    .what = "CUDA_VISIBLE_DEVICES and other variables as they change",
    .by_cgroup = true,
    /* Attaches to each new C library, before Linux 6.6 by perf_event_open(2). */
    .capabilities = FEATURE_CAPS_READ | FEATURE_CAP(CAP_PERFMON) |
                    FEATURE_CAP(CAP_SYS_PTRACE) | FEATURE_CAP(CAP_SYS_ADMIN) |
                    FEATURE_CAP(CAP_CHECKPOINT_RESTORE),
    .open = open_all,
    .event = event,
    .collect = collect,
    .due = due,
    .close = close_all,
};
