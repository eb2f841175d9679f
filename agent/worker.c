/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's main loop: brings the parts up in the order that serves first,
 * carries closed parts from the reader to the encoder and payloads to the
 * forwarder, and hands the keeper's orders to whom they concern.
 *
 * Everything here runs on the loop's thread. What ends the process is one path:
 * the stop's last stage writes the receipt, then each part is closed and the
 * loop runs until no handle is left.
 */
#include "agent/worker.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <uv.h>

#include "agent/base/log.h"
#include "agent/kernel_report.h"
#include "agent/privilege.h"
#include "agent/status.h"
#include "agent/worker_private.h"

#define MINUTE_MS 60000
#define KEY_FILE_POLL_MS 10000
#define KERNEL_FAULTS 2 /* workers that died in the kernel side */

/* ---- The way of the data ------------------------------------------------ */

static void complain(struct worker *w)
{
    struct reader_view view;

    reader_view(w->reader, &view);
    complaints_look(&w->complaints, &view.counts, reader_agg(w->reader),
                    worker_now_ns() / (1000 * MS) + 1);
}

static void on_reader_event(void *arg, const struct reader_event *ev)
{
    struct worker *w = arg;

    if (w->life.stage == STAGE_DONE)
        return; /* the receipt is written, parts are being taken down */
    switch (ev->kind) {
    case READER_PART:
        parts_announce(w->parts, ev->seq);
        complain(w);
        break;
    case READER_CLOSED:
        if (ev->token == STOP_TOKEN)
            w->facts.closed = true;
        else if (ev->token == HURRIED_TOKEN)
            w->hurried_asked = false;
        else
            barrier_closed(&w->barrier, ev->token, ev->n_left == 0);
        break;
    case READER_DRAINED:
        w->facts.drained = true;
        w->n_left = ev->n_left;
        break;
    case READER_PAUSED:
        worker_handover_paused(w, ev->n_left == 0);
        break;
    case READER_TAPPED:
        tapping_tapped(&w->tapping, ev->n_left);
        break;
    case READER_UNTAPPED:
        tapping_untapped(&w->tapping);
        break;
    }
    worker_advance(w);
}

static void on_kernel(void *arg)
{
    struct worker *w = arg;

    if (w->life.stage == STAGE_DONE)
        return;
    worker_handover_collected(w);
    worker_advance(w);
}

/* From earlier lives. */
static void on_restored(void *arg)
{
    struct worker *w = arg;

    forwarder_kick(w->forwarder);
    worker_advance(w);
}

static void on_part_encoded(void *arg, uint64_t seq)
{
    struct worker *w = arg;

    (void)seq;
    if (w->hurried && !w->stopping)
        worker_deliver_hurried(w);
    else
        forwarder_kick(w->forwarder);
    worker_handover_encoded(w);
    barrier_encoded(&w->barrier);
    worker_advance(w);
}

/* ---- Status ------------------------------------------------------------- */

void worker_collect(struct worker *w, struct ledger *l)
{
    struct reader_view view;

    reader_view(w->reader, &view);
    ledger_collect(l, &view, reader_agg(w->reader), w->store);
}

static void take_status(struct worker *w, struct status *s)
{
    const struct supervision *sup = w->env->sup;

    memset(s, 0, sizeof(*s));
    worker_collect(w, &s->ledger);
    s->facts.worker_deaths = atomic_load(&sup->worker_deaths);
    s->facts.n_upgrades = sup->n_upgrades;
    s->facts.lost = losses_get(&w->losses, &s->lost) ? &s->lost : NULL;
    s->facts.waits = losses_get_waits(&w->losses, &s->waits) ? &s->waits : NULL;
    forwarder_stats(w->forwarder, &s->forwarder);
    s->sockets = w->env->sockets;
    s->tapping = &w->tapping;
    s->uptime_s = (worker_now_ns() - sup->started_ns) / (1000 * MS);
    s->no_api_key = w->no_api_key;
    reader_sched(w->reader, &s->sched);
}

static void on_control_status(void *arg, bool json, struct buf *out)
{
    struct worker *w = arg;
    struct status s;

    take_status(w, &s);
    if (json)
        status_write_json(&s, out);
    else
        status_write_text(&s, out);
}

static void on_control_ebpf(void *arg, bool json, struct buf *out)
{
    struct worker *w = arg;

    kernel_report(w->kernel, (enum ebpf_mode)w->env->config->ebpf,
                  &w->kernel_off, json, out);
}

static void dump_status(struct worker *w)
{
    struct buf out;

    buf_init(&out, CONTROL_MAX_ANSWER);
    on_control_status(w, true, &out);
    if (out.n > 0)
        out.data[out.n - 1] = '\0';
    log_info(MODULE, "status %s", buf_cstr(&out));
    buf_fini(&out);
}

static void on_control_flush(void *arg, struct control_request *rq)
{
    struct worker *w = arg;

    barrier_ask(&w->barrier, rq);
}

static void on_control_left(void *arg, struct control_request *rq)
{
    struct worker *w = arg;

    barrier_forget(&w->barrier, rq);
    worker_upgrade_forget(w, rq);
}

static void on_control_upgrade(void *arg, struct control_request *rq,
                               uint32_t n)
{
    worker_upgrade_asked(arg, rq, n);
}

static void on_control_version(void *arg, struct buf *out)
{
    const struct worker *w = arg;

    (void)buf_printf(out, "{\"version\":\"%s\",\"upgrades\":%u}\n",
                     RETRIEVER_VERSION, w->env->sup->n_upgrades);
}

void worker_ring_keeper(const struct worker *w)
{
    uint64_t one = 1;

    /* EAGAIN: it has been rung 2^64 times and will look. */
    (void)!write(w->env->sup->to_keeper, &one, sizeof(one));
}

static void on_control_stop(void *arg)
{
    struct worker *w = arg;

    atomic_store(&w->env->sup->command_stop, 1);
    worker_ring_keeper(w);
}

/* The keeper ends last; without it, this process. */
static int on_control_end_fd(void *arg)
{
    const struct worker *w = arg;
    pid_t last = w->keeper_is_gone ? getpid() : w->env->sup->keeper_pid;

    return (int)syscall(SYS_pidfd_open, last, 0U);
}

/* ---- Orders of the keeper ----------------------------------------------- */

static void obey(struct worker *w)
{
    struct supervision *sup = w->env->sup;
    uint32_t n_dump = atomic_load(&sup->n_dump);
    uint64_t flush = atomic_load(&sup->flush_request);
    enum stop_reason reason = atomic_load(&sup->stop_request);

    worker_handover_obey(w);
    if (n_dump != w->dumps_seen) {
        w->dumps_seen = n_dump;
        dump_status(w);
    }
    if (reason != STOP_NONE && !w->stopping) {
        worker_begin_stop(w, reason);
        return;
    }
    if (flush != w->flush_seen && !w->stopping) {
        w->flush_seen = flush;
        worker_begin_hurried(w);
    }
    worker_advance(w); /* hurry, or a descendant fewer */
}

static void on_doorbell(uv_poll_t *p, int status, int events)
{
    struct worker *w = p->data;
    uint64_t n;

    (void)status;
    (void)events;
    while (read(w->env->sup->to_worker, &n, sizeof(n)) > 0)
        ;
    obey(w);
}

static void on_keeper_gone(uv_poll_t *p, int status, int events)
{
    struct worker *w = p->data;
    struct supervision *sup = w->env->sup;
    uint64_t now_ns = worker_now_ns();
    struct signalfd_siginfo si;

    (void)status;
    (void)events;
    if (getppid() == sup->keeper_pid) {
        /* Without pidfd a SIGTERM stands for the keeper's end, and somebody sent
         * it to us as well. */
        while (read(sup->keeper_pidfd, &si, sizeof(si)) > 0)
            ;
        return;
    }
    (void)uv_poll_stop(p);
    w->keeper_is_gone = true;
    worker_handover_keeper_gone(w);
    log_error(MODULE, "the keeper died; delivering what is here and stopping");
    if (atomic_load(&sup->stop_request) == STOP_NONE) {
        atomic_store(&sup->stop_at_ns, now_ns);
        atomic_store(&sup->deadline_ns,
                     now_ns + w->env->config->stop_timeout_ms * MS);
        atomic_store(&sup->stop_request, STOP_KEEPER_GONE);
    }
    obey(w);
}

static void on_key_timer(uv_timer_t *t)
{
    struct worker *w = t->data;
    char *key = NULL;

    if (config_poll_key_file(w->env->config, &w->key_stamp, &key) !=
        CONFIG_KEY_CHANGED)
        return;
    log_info(MODULE, "api_key_file changed: the new key is in use");
    forwarder_set_key(w->forwarder, key);
    w->no_api_key = NULL;
    parts_set_endpoint(w->parts, true);
    explicit_bzero(key, strlen(key));
    free(key);
}

/* ---- Up and down -------------------------------------------------------- */

static void on_closed(void *arg)
{
    struct worker *w = arg;

    w->n_closing--;
}

/* Every handle that is the worker's own. */
static void close_handles(struct worker *w)
{
    uv_close((uv_handle_t *)&w->stage_timer, NULL);
    uv_close((uv_handle_t *)&w->hurried_timer, NULL);
    uv_close((uv_handle_t *)&w->key_timer, NULL);
    uv_close((uv_handle_t *)&w->settle_timer, NULL);
    uv_close((uv_handle_t *)&w->doorbell, NULL);
    if (w->has_keeper_gone)
        uv_close((uv_handle_t *)&w->keeper_gone, NULL);
}

/* The encoder reads the reader's memory and the reader is joined, which stops
 * the loop: last. */
static void on_part_closed(void *arg)
{
    struct worker *w = arg;

    if (--w->n_closing > 0 || w->reader == NULL)
        return;
    w->n_closing++;
    reader_order(w->reader, READER_QUIT, 0);
    reader_join(w->reader, on_closed, w);
    w->reader = NULL;
}

void worker_begin_teardown(struct worker *w)
{
    w->n_closing++; /* this function */
    if (w->control != NULL) {
        w->n_closing++;
        control_stop(w->control, on_part_closed, w);
    }
    if (w->kernel != NULL) {
        w->n_closing++;
        kernel_end(w->kernel, on_part_closed, w);
    }
    if (w->parts != NULL) {
        w->n_closing++;
        parts_stop(w->parts, on_part_closed, w);
    }
    if (w->forwarder != NULL) {
        w->n_closing++;
        forwarder_close(w->forwarder, on_part_closed, w);
    }
    if (w->tapping.loop != NULL) {
        w->n_closing++;
        tapping_stop(&w->tapping, on_part_closed, w);
    }
    health_stop(w->health);
    close_handles(w);
    on_part_closed(w);
}

static int start_loop(struct worker *w)
{
    const struct supervision *sup = w->env->sup;
    int rc = uv_loop_init(&w->loop);

    if (rc != 0)
        return rc;
    (void)uv_timer_init(&w->loop, &w->stage_timer);
    (void)uv_timer_init(&w->loop, &w->hurried_timer);
    (void)uv_timer_init(&w->loop, &w->key_timer);
    (void)uv_timer_init(&w->loop, &w->settle_timer);
    w->stage_timer.data = w->hurried_timer.data = w->key_timer.data = w;
    w->settle_timer.data = w;
    w->doorbell.data = w->keeper_gone.data = w;
    rc = uv_poll_init(&w->loop, &w->doorbell, sup->to_worker);
    if (rc == 0)
        rc = uv_poll_start(&w->doorbell, UV_READABLE, on_doorbell);
    if (rc != 0 || sup->keeper_pidfd < 0)
        return rc;
    rc = uv_poll_init(&w->loop, &w->keeper_gone, sup->keeper_pidfd);
    w->has_keeper_gone = rc == 0;
    if (rc == 0)
        rc = uv_poll_start(&w->keeper_gone, UV_READABLE, on_keeper_gone);
    return rc;
}

/* Why there shall be no kernel thread; false: there may be one. */
static bool forbids_kernel(const struct worker_env *env,
                           struct loader_cause *why)
{
    static const struct loader_cause off = {.why = "ebpf.enabled is false",
                                            .remedy = "set ebpf.enabled: auto",
                                            .reason = LOADER_DISABLED};
    static const struct loader_cause faulty = {
        .why = "two workers died in it",
        .remedy = "report it; a restart of the agent tries again",
        .reason = "faulty"};

    if (env->config->ebpf == EBPF_OFF)
        *why = off;
    else if (atomic_load(&env->sup->n_kernel_faults) >= KERNEL_FAULTS)
        *why = faulty;
    else
        return false;
    return true;
}

/* Without it the agent does all the rest. */
/* Without tags to give nobody looks at who sends. */
static void make_proctags(struct worker *w)
{
    struct env_opts *o = &w->wiring.features.env;

    if (o->off || (!o->cuda_tags && w->env->config->ebpf_env_watch.n == 0))
        return;
    if (proctags_create(&w->proctags) != 0)
        log_warn(MODULE, "no memory for tags of processes: they get none");
    o->proctags = w->proctags;
}

/* How the reader is scheduled, where something was asked for: 1 = so. By the kernel
 * thread, which runs only while there is a reader. */
static void write_reader_sched(void *arg, struct lines *out)
{
    struct worker *w = arg;
    struct reader_sched s;
    char tags[128];

    if (w->env->config->reader_policy == SCHED_OTHER)
        return;
    reader_sched(w->reader, &s);
    (void)snprintf(tags, sizeof(tags), "requested:%s,effective:%s,reason:%s",
                   s.requested, s.effective,
                   s.cause == PRIORITY_GRANTED ? "ok"
                                               : priority_cause_name(s.cause));
    lines_add(out, "retriever.ebpf.reader.sched",
              strcmp(s.requested, s.effective) == 0, "g", tags);
    if (s.cause != PRIORITY_RUNAWAY || w->demotion_told)
        return;
    w->demotion_told = true;
    lines_add(out, "retriever.ebpf.reader.rt_demoted", 1, "c", "");
}

static void make_kernel(struct worker *w)
{
    const struct worker_env *env = w->env;
    const struct config *c = env->config;
    const struct kernel_opts opts = {
        .loop = &w->loop,
        .changed = on_kernel,
        .write = write_reader_sched,
        .arg = w,
        .features = feature_table,
        .feature_opts = &w->wiring.features,
        .clock = &env->sup->clock,
        .ring_bytes = c->ebpf_ring_bytes,
        .max_delay_ms = c->ebpf_max_delay_ms,
        .workload_pid = env->job_pid,
        .required = c->ebpf == EBPF_ON,
        .busy = &env->sup->kernel_busy,
    };
    int rc;

    losses_watch(&w->losses, env->sockets, &w->wiring.features);
    if (forbids_kernel(env, &w->kernel_off)) {
        if (c->ebpf != EBPF_OFF)
            log_error(MODULE, "kernel metrics are off: %s; %s",
                      w->kernel_off.why, w->kernel_off.remedy);
        return;
    }
    make_proctags(w);
    rc = kernel_create(&w->kernel, &opts);
    if (rc == 0)
        return;
    proctags_close(w->proctags); /* nobody would write it */
    w->proctags = NULL;
    loader_explain(&w->kernel_off, "its memory was not made", rc);
    log_warn(MODULE, "kernel metrics are off: %s", w->kernel_off.why);
}

static int start_reader(struct worker *w)
{
    const struct worker_env *env = w->env;
    const struct config *c = env->config;
    const struct reader_opts opts = {
        .loop = &w->loop,
        .on_event = on_reader_event,
        .arg = w,
        .landing = env->landing,
        .sockets = env->sockets,
        .ingest_region = env->ingest_region,
        .agg = &w->wiring.agg,
        .parser = &w->wiring.parser,
        .eol_required = {[TRANSPORT_UDP] = c->eol_required_udp,
                         [TRANSPORT_UDS] = c->eol_required_uds,
                         [TRANSPORT_UDS_STREAM] = c->eol_required_uds},
        .drop_series = !c->enable_series,
        .drop_sketches = !c->enable_sketches,
        .drop_events = !c->enable_events,
        .drop_checks = !c->enable_checks,
        .quiet_rejects = c->dogstatsd_disable_verbose_logs,
        .clock = &env->sup->clock,
        .proctags = w->proctags,
        .kernel = kernel_link_of(w->kernel),
        .stream_idle_s = c->stream_idle_s,
        .n_keep_conns = env->n_keep_conns,
        .priority = {.policy = c->reader_policy,
                     .rt_priority = c->reader_priority,
                     .nice_fallback = c->nice_fallback,
                     .rttime_ms = c->rttime_ms},
        .serving = &env->sup->serving,
    };

    return reader_start(&w->reader, &opts, store_encoded_seq(w->store));
}

static int start_delivery(struct worker *w)
{
    const struct worker_env *env = w->env;
    const struct parts_opts opts = {
        .reader = w->reader,
        .delay_ns = w->wiring.flush_delay_ns,
        .encoders = {.loop = &w->loop,
                     .store = w->store,
                     .encode = &w->wiring.encode,
                     .run_dir = env->run_dir},
        .on_encoded = on_part_encoded,
        .on_restored = on_restored,
        .arg = w,
    };
    int rc = parts_start(&w->parts, &opts);

    if (rc == 0)
        rc = forwarder_create(&w->forwarder, &w->loop, w->store,
                              &w->wiring.forwarder, env->http_module);
    if (rc != 0)
        return rc;
    forwarder_set_key(w->forwarder, env->config->api_key);
    barrier_init(&w->barrier, w->reader, w->parts, w->forwarder, w->store);
    forwarder_kick(w->forwarder); /* what a predecessor left */
    return 0;
}

/* What is not needed to serve: failing here is one warning. */
static void start_beside(struct worker *w)
{
    static const struct control_ops ops = {
        .status = on_control_status,
        .ebpf = on_control_ebpf,
        .flush = on_control_flush,
        .upgrade = on_control_upgrade,
        .left = on_control_left,
        .stop = on_control_stop,
        .end_fd = on_control_end_fd,
        .version = on_control_version,
    };
    const struct worker_env *env = w->env;
    const struct tapping_opts tap = {
        .loop = &w->loop,
        .reader = w->reader,
        .sockets = env->sockets,
        .landing = env->landing,
        .max_bytes = env->config->dogstatsd_buffer_bytes,
        .ring_held = env->ring_held,
        .off = env->no_tap,
    };
    int rc = w->kernel != NULL ? kernel_start(w->kernel) : 0;

    if (rc != 0)
        log_warn(MODULE, "kernel metrics are off: %s", strerror(-rc));
    tapping_start(&w->tapping, &tap);
    /* Threads that need more are there; those of health and resolver do not. */
    rc = privilege_keep(PRIVILEGE_LOOP);
    if (rc != 0)
        log_warn(MODULE, "capabilities were not given up: %s", strerror(-rc));
    for (uint32_t i = 0; i < env->sockets->n; i++) {
        const struct socket_entry *e = &env->sockets->entries[i];

        if (e->kind != SOCKET_CONTROL)
            continue;
        rc = control_start(&w->control, &w->loop, e->fd, &ops, w);
        if (rc != 0)
            log_warn(MODULE, "the control socket is not served: %s",
                     uv_strerror(rc));
    }
    if (env->config->health_port != 0)
        health_start(&w->health, env);
    w->key_stamp = env->config->api_key_stamp;
    if (env->config->api_key_file[0] != '\0')
        /* At once: it may have changed since the keeper read it. */
        (void)uv_timer_start(&w->key_timer, on_key_timer, 0, KEY_FILE_POLL_MS);
}

static void say_upgraded(const struct worker_env *env)
{
    const struct handover *h = env->inherited;

    if (h != NULL && atomic_load(&env->sup->worker_deaths) == h->worker_deaths)
        log_info(MODULE, "upgraded, serving again from=%s to=%s after_us=%u",
                 h->version, RETRIEVER_VERSION,
                 (unsigned)(worker_now_ns() / 1000 - h->rested_us));
}

static int start(struct worker *w)
{
    const struct worker_env *env = w->env;
    struct wiring_store store;
    int rc;

    (void)region_rollback(env->store_region);
    wiring_store(&store, env);
    rc = store_open(&w->store, env->store_region, &store.opts);
    if (rc == 0)
        rc = wiring_init(&w->wiring, env);
    if (rc == 0)
        rc = start_loop(w);
    if (rc == 0)
        rc = worker_handover_take(w);
    if (rc == 0)
        make_kernel(w);
    if (rc == 0)
        rc = start_reader(w); /* from here on the sockets are read */
    if (rc == 0 && atomic_load(&env->sup->worker_died_ns) > 0)
        log_info(MODULE, "successor serves after_us=%u",
                 (unsigned)((worker_now_ns() -
                             atomic_load(&env->sup->worker_died_ns)) /
                            1000));
    if (rc == 0)
        say_upgraded(env);
    if (rc == 0)
        worker_handover_import(env, w->store);
    if (rc == 0)
        rc = start_delivery(w);
    if (rc != 0)
        return rc;
    lifecycle_init(&w->life, &w->wiring.lifecycle);
    w->no_api_key = env->no_api_key;
    w->dumps_seen = atomic_load(&env->sup->n_dump);
    w->failures_seen = atomic_load(&env->sup->n_upgrades_failed);
    start_beside(w);
    obey(w);               /* what was ordered before this worker lived */
    worker_ring_keeper(w); /* it serves */
    return 0;
}

int worker_main(const struct worker_env *env)
{
    struct worker *w = calloc(1, sizeof(*w));
    int rc;

    if (w == NULL)
        return 1;
    w->env = env;
    losses_init(&w->losses);
    rc = start(w);
    if (rc != 0) {
        log_error(MODULE, "the worker could not start: %s", strerror(-rc));
        w->exit_status = 1;
        atomic_store(&env->sup->serving, 0);
        if (w->reader == NULL)
            return 1; /* no thread runs: the process ends as it is */
        w->life.stage = STAGE_DONE;
        worker_begin_teardown(w);
    }
    do {
        (void)uv_run(&w->loop, UV_RUN_DEFAULT);
    } while (w->n_closing > 0);
    rc = uv_loop_close(&w->loop);
    if (rc != 0)
        log_error(MODULE, "a handle was left open: %s", uv_strerror(rc));
    kernel_free(w->kernel);
    store_close(w->store);
    wiring_fini(&w->wiring);
    losses_fini(&w->losses);
    proctags_close(w->proctags);
    rc = w->exit_status;
    free(w);
    return rc;
}
