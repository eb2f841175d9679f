/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The receipt when no worker is left to compose it: what the sockets still hold
 * is taken and counted, then everything that is not delivered is named.
 *
 * This runs in a process of its own: a region that ended the workers may end it,
 * too, and the job's exit code must not hang on it. Then a second one composes
 * the receipt without touching the sockets.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/ingress.h"
#include "agent/keeper_private.h"
#include "agent/ledger.h"
#include "agent/wiring.h"
#include "bpf/tap.h"

#define MODULE "keeper"
#define LAST_RECEIPT_S 1
#define PRINT_NS                                                               \
    (500 * MS_NS)        /* the deadline is over: so long for a full pipe */
#define LAST_CALLS 4096u /* receive calls per source: 32 MiB of datagrams */
#define N_NOTES 16u

static int added(void *arg, uint32_t conn)
{
    (void)arg;
    (void)conn;
    return 0;
}

static void removed(void *arg, uint32_t conn)
{
    ingress_conn_freed(arg, conn);
}

static void stop(const struct socket_entry *e)
{
    if (e->kind == SOCKET_UDP)
        (void)ingress_udp_stop(e->fd);
    else if (e->kind == SOCKET_UNIXGRAM)
        (void)ingress_uds_stop(e->fd);
    else if (e->kind == SOCKET_UNIXSTREAM)
        (void)ingress_listener_stop(e->fd);
}

void keeper_stop_intake(const struct keeper *k)
{
    for (uint32_t i = 0; i < k->sockets.n; i++)
        stop(&k->sockets.entries[i]);
}

static void stop_and_read(struct ingress *g)
{
    for (uint32_t i = 0; i < g->sockets->n; i++) {
        const struct socket_entry *e = &g->sockets->entries[i];

        if (e->kind == SOCKET_UDP || e->kind == SOCKET_UNIXGRAM)
            (void)tap_detach(e->fd);
        if (e->shared_outside)
            continue; /* the successor's */
        stop(e);
        if (e->kind == SOCKET_UNIXSTREAM)
            (void)ingress_accept(g, i, LAST_CALLS);
        else if (e->kind != SOCKET_CONTROL)
            (void)ingress_datagrams(g, i, LAST_CALLS);
    }
    for (uint32_t i = 0; i < g->landing->n_conns; i++) {
        if (g->landing->conns[i].fd < 0)
            continue;
        ingress_stream_stop(g, i);
        (void)ingress_stream_read(g, i, LAST_CALLS);
    }
    if (!g->landing->has_ring)
        return;
    (void)ingress_tap(g, ring_end(&g->landing->ring));
    ingress_tap_give_up(g, ring_end(&g->landing->ring));
}

static int take_the_rest(struct keeper *k, struct agg *agg,
                         const struct dsd_parser_opts *parser)
{
    static struct ingress_note note_mem[N_NOTES];
    struct spsc notes;
    struct ingress g = {
        .ingest = {.region = &k->ingest,
                   .agg = agg,
                   .eol_required =
                       {[TRANSPORT_UDP] = k->config.eol_required_udp,
                        [TRANSPORT_UDS] = k->config.eol_required_uds,
                        [TRANSPORT_UDS_STREAM] = k->config.eol_required_uds},
                   .drop_series = !k->config.enable_series,
                   .drop_sketches = !k->config.enable_sketches,
                   .drop_events = !k->config.enable_events,
                   .drop_checks = !k->config.enable_checks},
        .region = &k->ingest,
        .counts = agg_counts(agg),
        .landing = &k->landing,
        .sockets = &k->sockets,
        .clock = &k->sup->clock,
        .notes = &notes,
        .watch = {.arg = &g, .added = added, .removed = removed},
    };
    int rc = dsd_parser_init(&g.ingest.parser, parser);

    if (rc == 0)
        rc = ingress_init(&g);
    if (rc != 0)
        return rc;
    spsc_init(&notes, note_mem, N_NOTES, sizeof(note_mem[0]));
    ingress_recover(&g);
    stop_and_read(&g);
    ingress_udp_drops(&g);
    return 0;
}

/* What is on disk is the next life's. To write what is in memory alone and to sync
 * may take longer than there is time: the second try goes without. */
static void save_the_rest(struct store *store, bool write)
{
    if (store_list(store) == 0)
        store_restore(store); /* from here on it takes what is not there yet */
    if (write) {
        store_write_rest(store);
        (void)store_sync(store, 0);
    }
    (void)store_save_rest(store);
}

static int compose(struct keeper *k, bool with_sockets)
{
    struct supervision *sup = k->sup;
    struct wiring_store store_wiring;
    uint32_t stage_ms[STAGE_DONE];
    struct ledger_facts f = {
        .reason = stop_reason_name(atomic_load(&sup->stop_request)),
        .duration_ms =
            (keeper_now_ns() - atomic_load(&sup->stop_at_ns)) / MS_NS,
        .stage_ms = stage_ms,
        .worker_deaths = atomic_load(&sup->worker_deaths),
        .n_upgrades = sup->n_upgrades,
    };
    struct wiring w;
    struct agg *agg;
    struct store *store;
    struct reader_view view;
    struct ledger l;

    for (int i = 0; i < STAGE_DONE; i++)
        stage_ms[i] = atomic_load(&sup->stage_ms[i]);
    wiring_store(&store_wiring, &k->env);
    if (wiring_init(&w, &k->env) != 0 ||
        agg_create(&agg, &k->ingest, &w.agg) != 0 ||
        store_open(&store, &k->store, &store_wiring.opts) != 0)
        return 1;
    worker_handover_import(&k->env, store);
    if (with_sockets)
        (void)take_the_rest(k, agg, &w.parser);
    save_the_rest(store, with_sockets);
    reader_view_of(agg, &view);
    ledger_collect(&l, &view, agg, store);
    l.left_for_successor = ingress_left(&k->sockets);
    ledger_finish(&l);
    f.exit_status =
        ledger_exit_status(&l, atomic_load(&sup->dropped_before_stop));
    receipt_compose(&sup->receipt, &l, &f);
    return 0;
}

/* However that process ends, the receipt is ready or not. All signals are
 * blocked: SIGCHLD can be waited for. */
static void compose_apart(struct keeper *k, bool with_sockets)
{
    const struct timespec limit = {.tv_sec = LAST_RECEIPT_S};
    sigset_t child;
    pid_t pid = fork();

    if (pid == 0)
        _exit(compose(k, with_sockets));
    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);
    while (pid > 0 && waitpid(pid, NULL, WNOHANG) == 0) {
        if (sigtimedwait(&child, NULL, &limit) < 0 && errno == EAGAIN)
            (void)kill(pid, SIGKILL);
    }
}

int keeper_last_receipt(struct keeper *k)
{
    struct receipt *r = &k->sup->receipt;

    compose_apart(k, true);
    if (!receipt_is_ready(r)) {
        (void)region_rollback(&k->ingest);
        (void)region_rollback(&k->store);
        compose_apart(k, false);
    }
    if (!receipt_is_ready(r)) {
        log_error(MODULE,
                  "the receipt was not written: shared memory is damaged");
        return 1;
    }
    receipt_print(r, k->env.run_dir, keeper_now_ns() + PRINT_NS);
    return atomic_load(&r->exit_status);
}
