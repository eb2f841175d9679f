/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The maps only ever grow, and are read while programs go on writing: taking values
 * out would lose what is added in between. So each read is compared with the one
 * before. Both are sorted by key; a walk through them side by side gives the
 * differences.
 */
#include "bpf/runq_kernel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bpf/probe.h"

#define HIST_MEMORY_BYTES (16u << 20)
#define HIST_MIN 64u
#define HIST_MAX 4096u
#define PAIRS_MAX 4096u
#define INFO_MAX 8192u
#define SWEEP_FROM (INFO_MAX / 2)
#define N_PROGRAMS 5

/* One map as it was read. Rows of @row_bytes, each begins with its key. */
struct table {
    unsigned char *rows;
    size_t n;
};

struct runq_kernel {
    struct bpf_object *object;
    int links[N_PROGRAMS];
    int hist_fd, info_fd, told_fd, pairs_fd, stats_fd, own_fd, culprits_fd;
    uint64_t n_told;
    uint32_t n_cpus;
    uint32_t max_hist;
    bool is_shared;
    struct table hist, pairs; /* of the last read */
    struct sched_stats stats;
    struct sched_hist *per_cpu; /* room for one value of cg_hist */
};

struct hist_row {
    uint64_t cgid;
    struct sched_hist hist;
};

struct pair_row {
    struct sched_pair pair;
    struct sched_wait wait;
};

static const char *const programs[N_PROGRAMS] = {"sched_wakeup",
                                                 "sched_wakeup_new",
                                                 "cgroup_mkdir", "cgroup_rmdir",
                                                 "sched_switch"};

/* ---- Loading --------------------------------------------------------------- */

static void want_map(struct bpf_object *o, const char *name, bool want)
{
    struct bpf_map *m = bpf_object__find_map_by_name(o, name);

    if (m != NULL)
        (void)bpf_map__set_autocreate(m, want);
}

static void want_program(struct bpf_object *o, const char *name, bool want)
{
    struct bpf_program *p = bpf_object__find_program_by_name(o, name);

    if (p != NULL)
        (void)bpf_program__set_autoload(p, want);
}

/* cg_hist for so many CPUs; is_shared: one sum for all of them. */
static int size_maps(struct runq_kernel *k, bool is_stream, bool force_shared)
{
    struct bpf_map *hist = bpf_object__find_map_by_name(k->object, "cg_hist");
    struct bpf_map *last = bpf_object__find_map_by_name(k->object, "cg_last");
    uint32_t n =
        HIST_MEMORY_BYTES / ((uint32_t)sizeof(struct sched_hist) * k->n_cpus);
    int rc = 0;

    if (hist == NULL || last == NULL)
        return -ENOENT;
    k->is_shared = n < HIST_MIN || force_shared;
    k->max_hist = k->is_shared || n > HIST_MAX ? HIST_MAX : n;
    if (k->is_shared)
        rc = bpf_map__set_type(hist, BPF_MAP_TYPE_HASH);
    if (rc == 0)
        rc = bpf_map__set_max_entries(hist, is_stream ? 1 : k->max_hist);
    if (rc == 0 && !is_stream)
        rc = bpf_map__set_max_entries(last, 1);
    return rc;
}

static int load(struct runq_kernel *k, struct sched_config *cfg,
                const struct feature_env *env, bool state_first,
                bool force_shared, struct loader_cause *cause)
{
    int rc = loader_open(&k->object, LOADER_SCHED, env->types_path, cause);
    int task_at;

    if (rc == 0)
        rc = size_maps(k, cfg->is_stream, force_shared);
    if (rc != 0)
        return rc;
    cfg->is_shared = k->is_shared;
    want_map(k->object, "task_since", cfg->has_storage);
    want_map(k->object, "task_since_lru", !cfg->has_storage);
    want_program(k->object, "sched_switch", !state_first);
    want_program(k->object, "sched_switch_state_first", state_first);
    for (int i = 2; i < 4; i++)
        want_program(k->object, programs[i],
                     cfg->has_ring && probe_tracepoint(env->types, programs[i],
                                                       &task_at) == 2);
    rc = loader_set_constants(k->object, cfg, sizeof(*cfg));
    if (rc == 0 && cfg->has_ring)
        rc = feature_share_events(k->object, env);
    if (rc == 0)
        rc = loader_load(k->object, cause);
    return rc;
}

/* A first stamp is allocated under the lock of a run queue. Before Linux 6.4 that was
 * the general allocator: short of memory, it wakes a thread, for which it wants the
 * same lock. Since then storage has a stock of its own. */
static bool has_safe_storage(const struct btf *types)
{
    return probe_member(types, "bpf_local_storage_map", "storage_ma") ||
           probe_member(types, "bpf_local_storage_map", "use_kmalloc_nolock");
}

static int load_any(struct runq_kernel *k, const struct runq_opts *opts,
                    const struct feature_env *env,
                    const struct runq_kernel_force *force,
                    struct loader_cause *cause)
{
    const struct hierarchy *h = cgroups_hierarchy(env->cgroups);
    struct sched_config cfg = {
        .subsys = cgroups_subsys(env->cgroups),
        .hierarchy = h != NULL ? h->id : 0,
        .has_ring = env->events_fd >= 0,
        .has_storage = (force == NULL || !force->no_storage) &&
                       has_safe_storage(env->types),
        .is_stream = opts->stream,
        .want_voluntary = opts->voluntary && !opts->stream,
        .own_tgid = env->own_tgid,
        .min_interval_ns = UINT64_C(1000) * opts->min_interval_us,
        .min_pair_ns = UINT64_C(1000) * opts->min_pair_us,
    };
    bool shared = force != NULL && force->shared;
    int prev_at;
    int rc = probe_tracepoint(env->types, "sched_switch", &prev_at);

    if (opts->own_thread != NULL)
        (void)snprintf((char *)cfg.own_comm, sizeof(cfg.own_comm), "%s",
                       opts->own_thread);
    if (rc < 0 || prev_at < 1 || prev_at > 2) {
        loader_explain(cause, "the kernel does not tell its types", ESRCH);
        return LOADER_REFUSED;
    }
    rc = load(k, &cfg, env, prev_at == 2, shared, cause);
    if (rc == LOADER_REFUSED && cfg.has_storage) {
        loader_close(k->object);
        k->object = NULL;
        cfg.has_storage = 0;
        rc = load(k, &cfg, env, prev_at == 2, shared, cause);
    }
    if (rc == 0)
        *cause = (struct loader_cause){0};
    return rc;
}

int runq_kernel_open(struct runq_kernel **out, const struct runq_opts *opts,
                     const struct feature_env *env,
                     const struct runq_kernel_force *force,
                     struct loader_cause *cause)
{
    struct runq_kernel *k = calloc(1, sizeof(*k));
    int n_cpus = libbpf_num_possible_cpus();
    int rc = -ENOMEM;

    if (k == NULL)
        goto out;
    for (size_t i = 0; i < N_PROGRAMS; i++)
        k->links[i] = -1;
    k->n_cpus = n_cpus > 0 ? (uint32_t)n_cpus : 1;
    k->per_cpu = malloc(k->n_cpus * sizeof(struct sched_hist));
    if (k->per_cpu == NULL)
        goto out;
    rc = load_any(k, opts, env, force, cause);
    if (rc != 0)
        goto out;
    k->hist_fd = loader_map(k->object, "cg_hist");
    k->info_fd = loader_map(k->object, "cg_info");
    k->told_fd = loader_map(k->object, "cg_n_told");
    k->pairs_fd = loader_map(k->object, "wait_pairs");
    k->stats_fd = loader_map(k->object, "sched_stats");
    k->own_fd = loader_map(k->object, "own_waits");
    k->culprits_fd = loader_map(k->object, "own_culprits");
    *out = k;
    k = NULL;
out:
    runq_kernel_close(k);
    return rc;
}

/* The switch last: what it counts as missed was there before us. */
int runq_kernel_start(struct runq_kernel *k, struct loader_cause *cause)
{
    for (size_t i = 0; i < N_PROGRAMS; i++) {
        int fd = loader_program(k->object, programs[i]);

        if (fd < 0 && strcmp(programs[i], "sched_switch") == 0)
            fd = loader_program(k->object, "sched_switch_state_first");
        if (fd < 0)
            continue; /* not on this kernel */
        k->links[i] = bpf_raw_tracepoint_open(NULL, fd);
        if (k->links[i] < 0) {
            loader_explain(cause, "the program could not be attached", errno);
            runq_kernel_stop(k);
            return LOADER_REFUSED;
        }
    }
    return 0;
}

void runq_kernel_stop(struct runq_kernel *k)
{
    for (size_t i = 0; i < N_PROGRAMS; i++) {
        if (k->links[i] >= 0)
            (void)close(k->links[i]);
        k->links[i] = -1;
    }
}

void runq_kernel_close(struct runq_kernel *k)
{
    if (k == NULL)
        return;
    runq_kernel_stop(k);
    loader_close(k->object);
    free(k->hist.rows);
    free(k->pairs.rows);
    free(k->per_cpu);
    free(k);
}

void runq_kernel_tell(struct runq_kernel *k, const struct cgroup_info *info,
                      bool is_silent)
{
    struct sched_info v = {.slot = info->slot,
                           .is_container = info->kind == CGROUP_CONTAINER,
                           .is_silent = is_silent};

    const uint32_t zero = 0;

    if (info->slot == 0 ||
        bpf_map_update_elem(k->info_fd, &info->id, &v, BPF_ANY) != 0)
        return;
    k->n_told++; /* behind it: what tasks remember is older */
    (void)bpf_map_update_elem(k->told_fd, &zero, &k->n_told, BPF_ANY);
}

/* ---- Reading --------------------------------------------------------------- */

static int by_u64(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static int by_pair(const void *a, const void *b)
{
    const struct sched_pair *x = a, *y = b;
    int c = (x->victim > y->victim) - (x->victim < y->victim);

    return c != 0 ? c : (x->culprit > y->culprit) - (x->culprit < y->culprit);
}

static int by_culprit(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct sched_culprit));
}

/* All keys of a map of at most @max, each at the beginning of a row, sorted. A walk
 * begins anew when its key is deleted, so some come twice. */
static struct table list_keys(int fd, size_t key_bytes, size_t row_bytes,
                              size_t max,
                              int (*cmp)(const void *a, const void *b))
{
    struct table t = {0};
    unsigned char key[sizeof(struct sched_culprit)]; /* the largest */
    size_t room = 0, n = 0;
    bool first = true;

    while (t.n < max &&
           bpf_map_get_next_key(fd, first ? NULL : key, key) == 0) {
        first = false;
        if (t.n == room) {
            size_t more = room == 0 ? 64 : 2 * room;
            unsigned char *rows = realloc(t.rows, more * row_bytes);

            if (rows == NULL)
                break; /* the rest is read the next time */
            t.rows = rows;
            room = more;
        }
        memcpy(t.rows + t.n++ * row_bytes, key, key_bytes);
    }
    if (t.n > 0)
        qsort(t.rows, t.n, row_bytes, cmp);
    for (size_t i = 0; i < t.n; i++) {
        const unsigned char *row = t.rows + i * row_bytes;

        if (n == 0 || memcmp(t.rows + (n - 1) * row_bytes, row, key_bytes) != 0)
            memmove(t.rows + n++ * row_bytes, row, row_bytes);
    }
    t.n = n;
    return t;
}

static void add_hist(struct sched_hist *to, const struct sched_hist *from,
                     bool negative)
{
    /* Modulo 2^64 and 2^32, as the kernel adds. */
    uint64_t sign = negative ? ~UINT64_C(0) : 1;
    uint32_t sign32 = (uint32_t)sign;

    to->sum_ns += sign * from->sum_ns;
    to->n_waits += sign32 * from->n_waits;
    to->n_voluntary += sign32 * from->n_voluntary;
    for (size_t i = 0; i < SCHED_N_CAUSES; i++) {
        to->wait_ns[i] += sign * from->wait_ns[i];
        to->out[i] += sign32 * from->out[i];
    }
    for (size_t i = 0; i < SCHED_N_CLASSES; i++)
        to->n_class[i] += sign32 * from->n_class[i];
}

static bool read_hist(struct runq_kernel *k, struct hist_row *row)
{
    uint32_t n = k->is_shared ? 1 : k->n_cpus;

    if (bpf_map_lookup_elem(k->hist_fd, &row->cgid, k->per_cpu) != 0)
        return false;
    memset(&row->hist, 0, sizeof(row->hist));
    for (uint32_t i = 0; i < n; i++)
        add_hist(&row->hist, &k->per_cpu[i], false);
    return true;
}

static bool is_idle(const struct sched_hist *delta)
{
    static const struct sched_hist none;

    return memcmp(delta, &none, sizeof(none)) == 0;
}

/* The row of the last read with that key, from *at on; NULL. */
static void *before(const struct table *t, size_t *at, const void *key,
                    size_t row_bytes, int (*cmp)(const void *a, const void *b))
{
    while (*at < t->n && cmp(t->rows + *at * row_bytes, key) < 0)
        (*at)++;
    if (*at < t->n && cmp(t->rows + *at * row_bytes, key) == 0)
        return t->rows + *at * row_bytes;
    return NULL;
}

static void read_pairs(struct runq_kernel *k,
                       const struct runq_kernel_sink *sink)
{
    struct table now = list_keys(k->pairs_fd, sizeof(struct sched_pair),
                                 sizeof(struct pair_row), PAIRS_MAX, by_pair);
    struct pair_row *rows = (void *)now.rows;
    size_t at = 0, n = 0;

    for (size_t i = 0; i < now.n; i++) {
        struct pair_row row = {.pair = rows[i].pair};
        const struct pair_row *old;
        struct sched_wait delta;

        if (bpf_map_lookup_elem(k->pairs_fd, &row.pair, &row.wait) != 0)
            continue;
        old = before(&k->pairs, &at, &row.pair, sizeof(row), by_pair);
        delta = row.wait;
        /* Less than before: it was evicted, and came again. */
        if (old != NULL && row.wait.n >= old->wait.n) {
            delta.n -= old->wait.n;
            delta.ns -= old->wait.ns;
        }
        if (delta.n > 0)
            sink->pair(sink->arg, &row.pair, &delta);
        if (sink->is_gone(sink->arg, row.pair.victim, delta.n == 0) ||
            sink->is_gone(sink->arg, row.pair.culprit, delta.n == 0))
            (void)bpf_map_delete_elem(k->pairs_fd, &row.pair);
        else
            rows[n++] = row;
    }
    now.n = n;
    free(k->pairs.rows);
    k->pairs = now;
}

static void read_hists(struct runq_kernel *k,
                       const struct runq_kernel_sink *sink)
{
    struct table now = list_keys(k->hist_fd, sizeof(uint64_t),
                                 sizeof(struct hist_row), k->max_hist, by_u64);
    struct hist_row *rows = (void *)now.rows;
    size_t at = 0, n = 0;

    for (size_t i = 0; i < now.n; i++) {
        struct hist_row *row = &rows[i];
        const struct hist_row *old;
        struct sched_hist delta;

        if (!read_hist(k, row))
            continue;
        delta = row->hist;
        old = before(&k->hist, &at, &row->cgid, sizeof(*row), by_u64);
        if (old != NULL)
            add_hist(&delta, &old->hist, true);
        if (!is_idle(&delta))
            sink->hist(sink->arg, row->cgid, &delta);
        if (sink->is_gone(sink->arg, row->cgid, is_idle(&delta))) {
            (void)bpf_map_delete_elem(k->hist_fd, &row->cgid);
            (void)bpf_map_delete_elem(k->info_fd, &row->cgid);
        } else if (n++ != i) {
            rows[n - 1] = *row;
        }
    }
    now.n = n;
    free(k->hist.rows);
    k->hist = now;
}

/* Names of cgroups that are gone, when their removal was not heard of. */
static void sweep_names(struct runq_kernel *k,
                        const struct runq_kernel_sink *sink)
{
    struct table t = list_keys(k->info_fd, sizeof(uint64_t), sizeof(uint64_t),
                               INFO_MAX, by_u64);
    const uint64_t *ids = (const void *)t.rows;

    for (size_t i = 0; t.n > SWEEP_FROM && i < t.n; i++) {
        if (sink->is_gone(sink->arg, ids[i], true))
            (void)bpf_map_delete_elem(k->info_fd, &ids[i]);
    }
    free(t.rows);
}

void runq_kernel_read(struct runq_kernel *k,
                      const struct runq_kernel_sink *sink)
{
    read_pairs(k, sink);
    read_hists(k, sink);
    sweep_names(k, sink);
}

/* Those who are quiet go when there is little room left: nobody else is in their
 * way for ever. */
void runq_kernel_own(struct runq_kernel *k, struct own_waits *w)
{
    struct table t =
        list_keys(k->culprits_fd, sizeof(struct sched_culprit),
                  sizeof(struct sched_culprit), SCHED_MAX_CULPRITS, by_culprit);
    const struct sched_culprit *who = (const void *)t.rows;
    struct sched_own total;
    struct sched_wait now;
    uint32_t zero = 0;

    if (bpf_map_lookup_elem(k->own_fd, &zero, &total) == 0)
        own_waits_total(w, &total);
    for (size_t i = 0; i < t.n; i++) {
        if (bpf_map_lookup_elem(k->culprits_fd, &who[i], &now) == 0 &&
            !own_waits_culprit(w, &who[i], &now) &&
            t.n > SCHED_MAX_CULPRITS / 2)
            (void)bpf_map_delete_elem(k->culprits_fd, &who[i]);
    }
    free(t.rows);
}

void runq_kernel_stats(struct runq_kernel *k, struct sched_stats *delta)
{
    struct sched_stats *all = calloc(k->n_cpus, sizeof(*all));
    struct sched_stats sum = {0};
    uint32_t zero = 0;

    *delta = sum;
    if (all == NULL || bpf_map_lookup_elem(k->stats_fd, &zero, all) != 0)
        goto out;
    for (uint32_t i = 0; i < k->n_cpus; i++) {
        sum.n_switches += all[i].n_switches;
        sum.n_missed += all[i].n_missed;
        sum.n_full += all[i].n_full;
        sum.n_negative += all[i].n_negative;
        sum.n_unknown += all[i].n_unknown;
    }
    *delta = (struct sched_stats){
        .n_switches = sum.n_switches - k->stats.n_switches,
        .n_missed = sum.n_missed - k->stats.n_missed,
        .n_full = sum.n_full - k->stats.n_full,
        .n_negative = sum.n_negative - k->stats.n_negative,
        .n_unknown = sum.n_unknown - k->stats.n_unknown,
    };
    k->stats = sum;
out:
    free(all);
}
