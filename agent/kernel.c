/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop says what state it wants by one word and the thread's bell; the thread
 * says which one it has reached by another. Both are levels, so no order can be
 * lost or come twice.
 *
 * A feature writes its lines in one go. When the reader has no room for a packet
 * the thread waits for its bell right there, and looks afterwards at whatever else
 * the bell may have rung for.
 */
#include "agent/kernel.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/kernel_follow.h"
#include "agent/kernel_report.h"
#include "agent/privilege.h"
#include "aggregator/agg.h"
#include "bpf/cgroup.h"
#include "bpf/event_ring.h"
#include "bpf/named_types.h"
#include "bpf/probe.h"

#define MODULE "kernel"
/* Before a bucket's end, so that what was measured in it is counted in it. */
#define AHEAD_NS CLOCK_NS_PER_S
#define RECORDS_PER_TURN 4096u

struct kernel {
    struct kernel_opts opts;
    struct kernel_link link;
    pthread_t thread;
    bool started;
    uv_async_t bell; /* on the loop */
    void (*closed)(void *arg);
    void *closed_arg;

    _Atomic uint32_t wanted;  /* enum kernel_state; the loop writes */
    _Atomic uint32_t reached; /* the thread writes */

    /* The thread's. */
    uv_loop_t loop;
    uv_poll_t heard;
    uv_timer_t tick;
    uv_timer_t due; /* what features have put off */
    struct event_ring ring;
    struct feature_env env;
    struct kernel_follow follow;
    uint64_t since_ns[FEATURES_MAX]; /* older records are not its own */
    struct lines lines;
    struct kernel_packet packet;
    struct kernel_record record;
    void *selves[FEATURES_MAX];
    uint64_t n_wrong_told, n_left_out_told;

    pthread_mutex_t lock; /* of what the loop reads */
    struct kernel_feature rows[FEATURES_MAX];
    uint32_t n;
    struct event_stats totals; /* of the ring, as last read */
};

static uint32_t wanted(const struct kernel *k)
{
    return atomic_load(&k->wanted);
}

static void set_busy(struct kernel *k, bool on)
{
    atomic_store(k->opts.busy, on ? 1 : 0);
}

static void reach(struct kernel *k, enum kernel_state state)
{
    atomic_store(&k->reached, state);
    (void)uv_async_send(&k->bell);
}

/* ---- To the reader ------------------------------------------------------ */

/* Waits for room by an event. At the end of the process nobody makes room. */
static void put(void *arg, const char *packet, size_t n)
{
    struct kernel *k = arg;
    struct pollfd bell = {.fd = k->link.kernel_bell, .events = POLLIN};
    bool waited = false;

    k->packet.n = (uint32_t)n;
    memcpy(k->packet.bytes, packet, n);
    while (!kernel_link_put_packet(&k->link, &k->packet)) {
        if (wanted(k) == KERNEL_ENDED)
            break;
        (void)poll(&bell, 1, -1);
        kernel_link_hush(k->link.kernel_bell);
        waited = true;
    }
    if (waited) /* it may have rung for something else as well */
        kernel_link_ring(k->link.kernel_bell);
}

static void write_growth(struct lines *out, const char *name, uint64_t now,
                         uint64_t *told)
{
    if (now > *told)
        lines_add(out, name, (double)(now - *told), "c", "");
    *told = now;
}

/* What the frame itself has to say. */
static void write_own(struct kernel *k)
{
    for (uint32_t i = 0; i < k->n; i++) {
        const struct kernel_feature *f = &k->rows[i];
        char tags[96];

        if (f->opening) /* a stop came first */
            continue;
        (void)snprintf(tags, sizeof(tags), "feature:%s,reason:%s", f->name,
                       f->cause.reason[0] != '\0' ? f->cause.reason
                       : f->on                    ? "ok"
                                                  : "refused");
        lines_add(&k->lines, "retriever.ebpf.feature", f->on ? 1 : 0, "g",
                  tags);
    }
    write_growth(&k->lines, "retriever.ebpf.events.wrong",
                 atomic_load(&k->link.n_wrong), &k->n_wrong_told);
    write_growth(&k->lines, "retriever.ebpf.lines.left_out",
                 k->lines.n_left_out, &k->n_left_out_told);
}

/* Here and not by the loop, which may not read maps on every kernel. */
static void read_totals(struct kernel *k)
{
    struct event_stats totals;

    event_ring_totals(k->ring.stats_fd, &totals);
    (void)pthread_mutex_lock(&k->lock);
    k->totals = totals;
    (void)pthread_mutex_unlock(&k->lock);
}

static void collect(struct kernel *k, bool last)
{
    for (uint32_t i = 0; i < k->n; i++) {
        if (k->rows[i].on)
            k->opts.features[i]->collect(k->selves[i], &k->lines, last);
    }
    write_own(k);
    if (k->opts.write != NULL)
        k->opts.write(k->opts.arg, &k->lines);
    lines_flush(&k->lines);
    read_totals(k);
}

/* ---- Records ------------------------------------------------------------ */

/* False: there may be more. */
static bool take_records(struct kernel *k)
{
    const struct event_hdr *ev = (const void *)k->record.bytes;
    unsigned n = 0;

    while (n < RECORDS_PER_TURN &&
           kernel_link_take_record(&k->link, &k->record)) {
        if (ev->type == EVENT_CGROUP && k->env.cgroups != NULL)
            cgroups_note(k->env.cgroups, (const void *)ev);
        for (uint32_t i = 0; i < k->n; i++) {
            if (k->rows[i].on && k->opts.features[i]->event != NULL &&
                ev->ts_ns >= k->since_ns[i])
                k->opts.features[i]->event(k->selves[i], ev);
        }
        n++;
    }
    kernel_link_took_records(&k->link);
    return n < RECORDS_PER_TURN;
}

/* ---- Time and orders ---------------------------------------------------- */

static void on_tick(uv_timer_t *t);

static void arm_tick(struct kernel *k)
{
    const int64_t bucket_ns = AGG_BUCKET_S * CLOCK_NS_PER_S;
    int64_t into_ns =
        (process_clock_now(k->opts.clock, &clock_real) + AHEAD_NS) % bucket_ns;

    uv_update_time(&k->loop);
    (void)uv_timer_start(&k->tick, on_tick,
                         (uint64_t)((bucket_ns - into_ns) / CLOCK_NS_PER_MS) +
                             1,
                         0);
}

static void on_due(uv_timer_t *t);

static void do_due(struct kernel *k)
{
    uint64_t now_ns, next_ns = UINT64_MAX;

    /* Each by a time of its own: what the one before did may have taken long. */
    for (uint32_t i = 0; i < k->n; i++) {
        const struct feature *f = k->opts.features[i];
        uint64_t ns = k->rows[i].on && f->due != NULL
                          ? f->due(k->selves[i], clock_mono_ns(&clock_real))
                          : UINT64_MAX;

        next_ns = ns < next_ns ? ns : next_ns;
    }
    if (next_ns == UINT64_MAX) {
        (void)uv_timer_stop(&k->due);
        return;
    }
    now_ns = clock_mono_ns(&clock_real);
    uv_update_time(&k->loop);
    (void)uv_timer_start(&k->due, on_due,
                         next_ns > now_ns
                             ? (next_ns - now_ns) / CLOCK_NS_PER_MS + 1
                             : 0,
                         0);
}

static void on_due(uv_timer_t *t)
{
    struct kernel *k = t->data;

    set_busy(k, true);
    do_due(k);
    set_busy(k, false);
}

static void follow_containers(struct kernel *k);

static void on_tick(uv_timer_t *t)
{
    struct kernel *k = t->data;

    set_busy(k, true);
    collect(k, false);
    follow_containers(k);
    do_due(k);
    set_busy(k, false);
    arm_tick(k);
}

/* From the state that is to the one that is wanted. */
static void obey(struct kernel *k)
{
    uint32_t to = wanted(k);
    uint32_t from = atomic_load(&k->reached);

    if (to <= KERNEL_OPENING || to == from || from == KERNEL_STOPPED)
        return;
    switch ((enum kernel_state)to) {
    case KERNEL_RUNNING:
        arm_tick(k);
        do_due(k);
        break;
    case KERNEL_PAUSED:
        (void)uv_timer_stop(&k->tick);
        (void)uv_timer_stop(&k->due);
        collect(k, false);
        break;
    case KERNEL_STOPPED:
        (void)uv_timer_stop(&k->tick);
        (void)uv_timer_stop(&k->due);
        while (!take_records(k))
            ;
        collect(k, true);
        break;
    case KERNEL_OPENING:
    case KERNEL_ENDED:
        return;
    }
    reach(k, (enum kernel_state)to);
}

static void on_heard(uv_poll_t *h, int status, int events)
{
    struct kernel *k = h->data;

    (void)status;
    (void)events;
    kernel_link_hush(k->link.kernel_bell);
    set_busy(k, true);
    if (!take_records(k))
        kernel_link_ring(k->link.kernel_bell);
    if (atomic_load(&k->reached) == KERNEL_RUNNING)
        do_due(k);
    obey(k);
    set_busy(k, false);
}

/* ---- Opening ------------------------------------------------------------ */

static void open_ring(struct kernel *k, struct loader_cause *cause)
{
    struct feature_env *env = &k->env;
    int rc = loader_probe(cause, &env->own_tgid);

    if (rc == 0)
        rc = event_ring_create(&k->ring, k->opts.ring_bytes, cause);
    if (rc < 0)
        loader_explain(cause, "the event ring was not made", rc);
    if (rc != 0)
        return;
    env->events_fd = k->ring.ring.ring_fd;
    env->events_control_fd = k->ring.ring.control_fd;
    env->events_stats_fd = k->ring.stats_fd;
    env->watched_fd = life_watched_create();
    if (env->watched_fd < 0)
        loader_explain(cause, "no map for watched processes was made",
                       env->watched_fd);
    kernel_link_give_ring(&k->link, &k->ring.ring, k->opts.max_delay_ms);
}

/* Who looks into processes, and may not look into those of other users. */
static const struct loader_cause half_blind = {
    .why = "environment, program and memory of other users' processes "
           "are not to be read",
    .left = "our own user's processes; of others, what kernel programs tell",
    .remedy = "grant CAP_SYS_PTRACE",
    .reason = "no_privilege",
};

/* What a feature leaves out, as it is the same for many. */
static void complete(struct loader_cause *cause, const struct feature *f,
                     int rc, const struct loader_cause *no_ring)
{
    if (cause->why[0] == '\0' &&
        (rc == LOADER_REFUSED || cause->left[0] != '\0')) {
        struct loader_cause ring = *no_ring;

        memcpy(ring.left, cause->left, sizeof(ring.left));
        *cause = ring;
    }
    if (strcmp(cause->reason, LOADER_DISABLED) == 0 && cause->remedy[0] == '\0')
        (void)snprintf(cause->remedy, sizeof(cause->remedy),
                       "set ebpf.%s.enabled: auto", f->name);
    if (rc < 0)
        loader_explain(cause, "it was not opened", rc);
    if (rc == 0 && cause->why[0] == '\0' &&
        (f->capabilities & PRIVILEGE(CAP_SYS_PTRACE)) != 0 &&
        !privilege_has(PRIVILEGE(CAP_SYS_PTRACE)))
        *cause = half_blind;
}

static void open_one(struct kernel *k, uint32_t i,
                     const struct loader_cause *no_ring)
{
    const struct feature *f = k->opts.features[i];
    struct loader_cause cause = {.why = ""};
    uint64_t from_ns = clock_mono_ns(&clock_real);
    int rc = f->open(&k->selves[i], &k->env, &cause);

    log_debug(MODULE, "feature=%s was %s took_us=%" PRIu64, f->name,
              rc == 0 ? "opened" : "refused",
              (clock_mono_ns(&clock_real) - from_ns) / 1000);
    complete(&cause, f, rc, no_ring);
    (void)pthread_mutex_lock(&k->lock);
    k->rows[i].cause = cause;
    k->rows[i].on = rc == 0;
    k->rows[i].opening = false;
    (void)pthread_mutex_unlock(&k->lock);
}

static void say(const struct kernel *k)
{
    struct buf line;
    bool whole;

    buf_init(&line, LOG_LINE_BYTES);
    whole = kernel_summary(k->rows, k->n, &line);
    log_write(NULL,
              k->opts.required && !whole ? LOG_LEVEL_WARN : LOG_LEVEL_INFO,
              MODULE, "%s", buf_cstr(&line));
    buf_fini(&line);
}

/* The kernel's types are megabytes, read once more for each object with tracepoints;
 * the allocator would keep them for ever. */
static void give_back_memory(void)
{
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

static void close_one(struct kernel *k, uint32_t i)
{
    if (!k->rows[i].on)
        return;
    k->opts.features[i]->collect(k->selves[i], &k->lines, true);
    k->opts.features[i]->close(k->selves[i]);
    k->since_ns[i] = clock_mono_ns(&clock_real);
    (void)pthread_mutex_lock(&k->lock);
    k->rows[i].on = false;
    k->rows[i].opening = true;
    (void)pthread_mutex_unlock(&k->lock);
}

/* Those of the bits in @which; one that is open is closed first, its last values written.
 * Whoever stops meanwhile does not wait for those that are not open yet. */
static void open_those(struct kernel *k, uint32_t which,
                       const struct loader_cause *no_ring)
{
    struct named_types named = {.fd = -1};
    struct btf *types = NULL;

    if (k->env.events_fd >= 0) /* else there is no program to choose */
        k->env.types = types = probe_types();
    if (types != NULL && named_types_create(&named, types) == 0)
        k->env.types_path = named.path;
    for (uint32_t i = 0; i < k->n; i++) {
        if ((which >> i & 1) == 0)
            continue;
        close_one(k, i);
        if (wanted(k) < KERNEL_STOPPED)
            open_one(k, i, no_ring);
    }
    k->env.types = NULL;
    k->env.types_path = NULL;
    named_types_close(&named);
    probe_types_free(types);
    give_back_memory();
}

static void open_all(struct kernel *k)
{
    struct loader_cause no_ring = {.why = ""};

    k->env = (struct feature_env){
        .opts = k->opts.feature_opts,
        .events_fd = -1,
        .events_control_fd = -1,
        .events_stats_fd = -1,
        .watched_fd = -1,
        .own_tgid = (uint32_t)getpid(),
        .workload_pid = k->opts.workload_pid,
    };
    open_ring(k, &no_ring);
    if (cgroups_create(&k->env.cgroups) != 0)
        k->env.cgroups = NULL;
    open_those(k, (1u << k->n) - 1, &no_ring);
    say(k);
}

/* Bits of those that are on, and know ids of cgroups. */
static uint32_t by_cgroup(const struct kernel *k)
{
    uint32_t which = 0;

    for (uint32_t i = 0; i < k->n; i++) {
        if (k->rows[i].on && k->opts.features[i]->by_cgroup)
            which |= 1u << i;
    }
    return which;
}

/* Containers are in another hierarchy by now. One by one, so that the rest goes on
 * measuring. */
static void follow_containers(struct kernel *k)
{
    const struct loader_cause none = {.why = ""};
    uint32_t which = by_cgroup(k);

    if (which == 0 || !kernel_follow_begin(&k->follow, &k->env))
        return;
    open_those(k, which, &none);
    lines_flush(&k->lines);
    kernel_follow_end(&k->follow, &k->env, k->rows, which);
}

/* CAP_PERFMON: to load programs again, see follow_containers(). */
static void give_up_privileges(const struct kernel *k)
{
    uint64_t needed = 0;

    for (uint32_t i = 0; i < k->n; i++) {
        if (k->rows[i].on)
            needed |= k->opts.features[i]->capabilities;
    }
    if (by_cgroup(k) != 0 && kernel_follow_may(&k->env))
        needed |= PRIVILEGE(CAP_PERFMON);
    (void)privilege_keep(needed);
}

/* ---- Thread ------------------------------------------------------------- */

static void close_handle(uv_handle_t *h, void *arg)
{
    (void)arg;
    if (!uv_is_closing(h))
        uv_close(h, NULL);
}

static void *run(void *arg)
{
    struct kernel *k = arg;

    (void)pthread_setname_np(pthread_self(), "kernel");
    set_busy(k, true);
    open_all(k);
    give_up_privileges(k);
    arm_tick(k);
    do_due(k);
    reach(k, KERNEL_RUNNING);
    obey(k); /* what was asked for meanwhile */
    set_busy(k, false);
    while (wanted(k) != KERNEL_ENDED)
        (void)uv_run(&k->loop, UV_RUN_ONCE);
    set_busy(k, true);
    for (uint32_t i = 0; i < k->n; i++) {
        if (k->rows[i].on)
            k->opts.features[i]->close(k->selves[i]);
    }
    cgroups_close(k->env.cgroups);
    set_busy(k, false);
    uv_walk(&k->loop, close_handle, NULL);
    (void)uv_run(&k->loop, UV_RUN_DEFAULT);
    REQUIRE(uv_loop_close(&k->loop) == 0);
    return NULL;
}

static int init_loop(struct kernel *k)
{
    int rc = uv_loop_init(&k->loop);

    if (rc != 0)
        return rc;
    (void)uv_timer_init(&k->loop, &k->tick);
    (void)uv_timer_init(&k->loop, &k->due);
    rc = uv_poll_init(&k->loop, &k->heard, k->link.kernel_bell);
    if (rc == 0)
        rc = uv_poll_start(&k->heard, UV_READABLE, on_heard);
    k->heard.data = k->tick.data = k->due.data = k;
    if (rc == 0)
        return 0;
    uv_walk(&k->loop, close_handle, NULL);
    (void)uv_run(&k->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&k->loop);
    return rc;
}

/* ---- The loop's side ---------------------------------------------------- */

static void on_bell(uv_async_t *a)
{
    struct kernel *k = a->data;

    k->opts.changed(k->opts.arg);
}

int kernel_create(struct kernel **out, const struct kernel_opts *opts)
{
    struct kernel *k = aligned_alloc(64, (sizeof(*k) + 63) / 64 * 64);
    int rc = -ENOMEM;

    if (k == NULL)
        return rc;
    memset(k, 0, sizeof(*k));
    k->opts = *opts;
    k->ring.ring =
        (struct ring){.ring_fd = -1, .control_fd = -1, .wait_fd = -1};
    k->ring.stats_fd = k->env.watched_fd = -1;
    lines_init(&k->lines, put, k);
    (void)pthread_mutex_init(&k->lock, NULL);
    for (; opts->features[k->n] != NULL; k->n++) {
        REQUIRE(k->n < FEATURES_MAX);
        k->rows[k->n] = (struct kernel_feature){
            .name = opts->features[k->n]->name,
            .what = opts->features[k->n]->what,
            .opening = true,
        };
    }
    rc = kernel_link_init(&k->link);
    if (rc == 0)
        rc = uv_async_init(opts->loop, &k->bell, on_bell);
    if (rc != 0) {
        kernel_free(k);
        return rc;
    }
    k->bell.data = k;
    *out = k;
    return 0;
}

struct kernel_link *kernel_link_of(struct kernel *k)
{
    return k != NULL ? &k->link : NULL;
}

int kernel_start(struct kernel *k)
{
    int rc = init_loop(k);

    if (rc != 0)
        return rc;
    rc = -pthread_create(&k->thread, NULL, run, k);
    if (rc != 0) {
        uv_walk(&k->loop, close_handle, NULL);
        (void)uv_run(&k->loop, UV_RUN_DEFAULT);
        (void)uv_loop_close(&k->loop);
    }
    k->started = rc == 0;
    for (uint32_t i = 0; i < k->n && rc != 0; i++) {
        k->rows[i].opening = false;
        loader_explain(&k->rows[i].cause, "its thread was not started", rc);
    }
    return rc;
}

void kernel_want(struct kernel *k, enum kernel_state state)
{
    if (state < wanted(k) && wanted(k) >= KERNEL_STOPPED)
        return; /* a stop is not taken back */
    atomic_store(&k->wanted, state);
    kernel_link_ring(k->link.kernel_bell);
}

bool kernel_reached(const struct kernel *k)
{
    uint32_t reached;

    if (k == NULL || !k->started)
        return true;
    reached = atomic_load(&k->reached);
    return reached == wanted(k) ||
           (reached == KERNEL_OPENING && wanted(k) > KERNEL_RUNNING);
}

void kernel_status(struct kernel *k, const struct loader_cause *off,
                   struct kernel_status *out)
{
    memset(out, 0, sizeof(*out));
    if (k == NULL) {
        for (; feature_table[out->n] != NULL; out->n++) {
            out->features[out->n].name = feature_table[out->n]->name;
            out->features[out->n].what = feature_table[out->n]->what;
            out->features[out->n].cause = *off;
        }
        return;
    }
    (void)pthread_mutex_lock(&k->lock);
    out->n = k->n;
    memcpy(out->features, k->rows, sizeof(k->rows));
    out->events = k->totals;
    (void)pthread_mutex_unlock(&k->lock);
    out->n_wrong = atomic_load(&k->link.n_wrong);
}

static void on_bell_closed(uv_handle_t *h)
{
    struct kernel *k = h->data;

    if (k->closed != NULL)
        k->closed(k->closed_arg);
}

void kernel_end(struct kernel *k, void (*closed)(void *arg), void *arg)
{
    if (k->started) {
        kernel_want(k, KERNEL_ENDED);
        REQUIRE(pthread_join(k->thread, NULL) == 0);
        k->started = false;
    }
    k->closed = closed;
    k->closed_arg = arg;
    uv_close((uv_handle_t *)&k->bell, on_bell_closed);
}

void kernel_free(struct kernel *k)
{
    if (k == NULL)
        return;
    event_ring_close(&k->ring);
    if (k->env.watched_fd >= 0)
        (void)close(k->env.watched_fd);
    kernel_link_fini(&k->link);
    (void)pthread_mutex_destroy(&k->lock);
    free(k);
}
