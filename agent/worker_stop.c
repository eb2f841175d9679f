/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stop machine (lifecycle.c) decides, this executes: what entering a stage
 * means, the receipt, and the instant at which to ask the machine again.
 */
#include "agent/base/log.h"
#include "agent/worker_private.h"

/* How often an `exec` that was told to stop delivers what its job still sends. */
#define HURRIED_FLUSH_MS 1000

/* ---- The stop ----------------------------------------------------------- */

static void on_delivered(void *arg)
{
    struct worker *w = arg;
    struct store_stats st;

    w->facts.delivered = true;
    store_stats(w->store, &st);
    if (st.n_payloads == 0)
        w->facts.unsynced = false; /* nothing is left to wait for */
    worker_advance(w);
}

/* What is on disk outlives everything now: the intake's first refusal is enough. */
static void on_synced(void *arg, int rc)
{
    struct worker *w = arg;

    if (w->life.stage != STAGE_DELIVER)
        return;
    w->facts.unsynced = false;
    if (rc == 0 && store_is_on_disk(w->store))
        forwarder_set_safe(w->forwarder);
    worker_advance(w);
}

/* Nothing more will be tried. With a disk the rest is the next life's, as far as the
 * encoder has written it there meanwhile; without,
 * what the intake refused is counted so, what is still here is counted as late,
 * the part that could not be encoded in time included. */
static void give_up_the_rest(struct worker *w)
{
    if (w->facts.unsynced)
        log_warn(MODULE,
                 "the deadline came before the disk had synced: a power "
                 "loss now may cost what is saved");
    if (store_save_rest(w->store))
        return;
    forwarder_drop_refused(w->forwarder);
    store_drop_rest(w->store, DROP_DEADLINE);
}

static void compose_receipt(struct worker *w)
{
    struct supervision *sup = w->env->sup;
    struct drop_report lost;
    struct own_waits_report waits;
    struct ledger l;
    struct ledger_facts f = {
        .reason = stop_reason_name(atomic_load(&sup->stop_request)),
        .duration_ms = (worker_now_ns() - w->life.stop_at_ns) / MS,
        .stage_ms = w->life.stage_ms,
        .worker_deaths = atomic_load(&sup->worker_deaths),
        .n_upgrades = sup->n_upgrades,
        .lost = losses_get(&w->losses, &lost) ? &lost : NULL,
        .waits = losses_get_waits(&w->losses, &waits) ? &waits : NULL,
    };

    worker_collect(w, &l);
    l.left_for_successor = w->n_left;
    ledger_finish(&l);
    f.exit_status =
        ledger_exit_status(&l, atomic_load(&sup->dropped_before_stop));
    w->exit_status = f.exit_status;
    if (f.exit_status == 4)
        log_error(MODULE, "the ledger does not balance; please report this "
                          "with the receipt below");
    receipt_compose(&sup->receipt, &l, &f);
    if (w->keeper_is_gone)
        receipt_print(&sup->receipt, w->env->run_dir, w->life.deadline_ns);
    else
        worker_ring_keeper(w);
}

static void enter_stage(struct worker *w)
{
    const struct config *c = w->env->config;
    uint64_t end_ns = lifecycle_stage_end_ns(&w->life);

    for (int i = 0; i < STAGE_DONE; i++)
        atomic_store(&w->env->sup->stage_ms[i], w->life.stage_ms[i]);
    atomic_store(&w->env->sup->stage, w->life.stage);
    switch (w->life.stage) {
    case STAGE_DRAIN:
        reader_order(w->reader, READER_DRAIN, end_ns);
        break;
    case STAGE_KERNEL:
        if (w->kernel != NULL)
            kernel_want(w->kernel, KERNEL_STOPPED);
        break;
    case STAGE_CLOSE:
        if (!w->facts.collected)
            log_warn(MODULE, "the last kernel metrics were not read in time");
        if (c->flush_incomplete_buckets)
            reader_order(w->reader, READER_CLOSE_ALL, STOP_TOKEN);
        else
            w->facts.closed = true;
        break;
    case STAGE_DELIVER:
        if (!c->forwarder_stop_wait_for_inflight)
            end_ns = worker_now_ns();
        forwarder_drain(w->forwarder, end_ns, on_delivered, w);
        if (w->env->run_dir >= 0) {
            w->facts.unsynced = true;
            parts_sync(w->parts, on_synced, w);
        }
        break;
    case STAGE_SAVE:
        give_up_the_rest(w);
        break;
    case STAGE_RECEIPT:
        barrier_abort(&w->barrier);
        worker_upgrade_abort(w, "the agent stops");
        compose_receipt(w);
        break;
    case STAGE_DONE:
        worker_begin_teardown(w);
        break;
    case STAGE_NONE:
    case STAGE_LINGER:
    case STAGE_ENCODE:
        break;
    }
}

static void on_stage_timer(uv_timer_t *t)
{
    worker_advance(t->data);
}

void worker_advance(struct worker *w)
{
    struct supervision *sup = w->env->sup;
    uint64_t next_ns;

    if (!w->stopping || w->life.stage == STAGE_DONE)
        return;
    for (;;) {
        w->facts.now_ns = worker_now_ns();
        w->facts.last_data_ns = reader_last_data_ns(w->reader);
        w->facts.n_descendants = atomic_load(&sup->n_descendants);
        w->facts.hurry = atomic_load(&sup->hurry) != 0;
        w->facts.collected = kernel_reached(w->kernel);
        w->facts.encoded =
            w->facts.closed &&
            parts_encoded(w->parts) == parts_announced(w->parts) &&
            !parts_await(w->parts);
        if (!lifecycle_advance(&w->life, &w->facts, &next_ns))
            break;
        enter_stage(w);
        if (w->life.stage == STAGE_DONE)
            return;
    }
    if (next_ns == UINT64_MAX)
        return;
    uv_update_time(&w->loop);
    (void)uv_timer_start(&w->stage_timer, on_stage_timer,
                         next_ns > w->facts.now_ns
                             ? (next_ns - w->facts.now_ns) / MS + 1
                             : 0,
                         0);
}

void worker_begin_stop(struct worker *w, enum stop_reason reason)
{
    struct supervision *sup = w->env->sup;
    struct ledger l;

    w->stopping = true;
    (void)uv_timer_stop(&w->hurried_timer);
    log_info(MODULE, "stop began reason=%s budget_ms=%u",
             stop_reason_name(reason),
             (unsigned)((atomic_load(&sup->deadline_ns) -
                         atomic_load(&sup->stop_at_ns)) /
                        MS));
    if (atomic_load(&sup->stage) == STAGE_NONE) {
        worker_collect(w, &l);
        atomic_store(&sup->dropped_before_stop, ledger_dropped(&l));
    }
    for (int i = 0; i < STAGE_DONE; i++) /* of a predecessor */
        w->life.stage_ms[i] = atomic_load(&sup->stage_ms[i]);
    lifecycle_begin(&w->life, atomic_load(&sup->stage),
                    atomic_load(&sup->stop_at_ns),
                    atomic_load(&sup->deadline_ns), worker_now_ns());
    parts_set_stopping(w->parts);
    enter_stage(w);
    worker_advance(w);
}

/* ---- exec: the job was told to stop and goes on ------------------------- */

static void close_hurried(struct worker *w)
{
    if (w->hurried_asked)
        return;
    w->hurried_asked = true;
    reader_order(w->reader, READER_FLUSH, HURRIED_TOKEN);
}

static void on_hurried_timer(uv_timer_t *t)
{
    close_hurried(t->data);
}

/* Not run when the stop has begun its own drain. */
static void on_hurried_over(void *arg)
{
    struct worker *w = arg;

    forwarder_resume(w->forwarder);
}

/* Beyond the deadline of that first request there is no hurry any more. */
void worker_deliver_hurried(struct worker *w)
{
    uint64_t deadline_ns = atomic_load(&w->env->sup->flush_deadline_ns);

    if (worker_now_ns() < deadline_ns)
        forwarder_drain(w->forwarder, deadline_ns, on_hurried_over, w);
    else
        forwarder_kick(w->forwarder);
}

void worker_begin_hurried(struct worker *w)
{
    w->hurried = true;
    parts_set_stopping(w->parts);
    close_hurried(w);
    worker_deliver_hurried(w); /* what waits for a retry already */
    (void)uv_timer_start(&w->hurried_timer, on_hurried_timer, HURRIED_FLUSH_MS,
                         HURRIED_FLUSH_MS);
}
