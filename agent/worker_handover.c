/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An upgrade, seen from the two workers.
 *
 * The old one settles what is in flight, tells its reader to rest, encodes what is
 * closed, writes the record and rests itself: from then on its state does not
 * change, so that the record stays true. It holds all sockets, and goes on as if
 * nothing had happened when the keeper takes the order back.
 *
 * The new one attaches the numbers of the record and takes the baton by one store.
 * The old one then ends without a word: everything it had is the other's. The
 * payloads are read afterwards, from a memfd, while the new one serves already.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/json.h"
#include "agent/base/log.h"
#include "agent/worker_private.h"

/* So long the sockets are served on while requests in flight end. One that takes
 * longer may be sent twice, and counts as ambiguous then. For the tap's last senders
 * there is no such limit: what they put into a ring that was left would be lost. It
 * is the keeper that gives up, and takes the order back. */
#define SETTLE_MS 2000
/* And so long the kernel side may take to give what it has. */
#define COLLECT_MS (LIFECYCLE_KERNEL_NS / MS)
/* And so long nobody reads them at most. */
#define REST_MS 5000
/* Who asked before the way back asks again so soon, and is told. */
#define FELL_BACK_NS (5000 * MS)

static bool move_baton(struct baton *b, enum baton_state from,
                       enum baton_state to)
{
    uint32_t expected = from;

    return atomic_compare_exchange_strong(&b->state, &expected, to);
}

static void answer_keeper(struct worker *w, enum handover_answer answer)
{
    atomic_store(&w->env->sup->handover, answer);
    worker_ring_keeper(w);
}

/* ---- The old worker ----------------------------------------------------- */

static void fill_record(struct worker *w, struct handover *h)
{
    const struct worker_env *env = w->env;
    const struct supervision *sup = env->sup;
    struct reader_view view;

    reader_view(w->reader, &view);
    memset(h, 0, sizeof(*h));
    (void)snprintf(h->version, sizeof(h->version), "%s", RETRIEVER_VERSION);
    h->life = env->life;
    h->started_ms = sup->started_ns / MS;
    h->life_start_s = sup->life_start_s;
    h->last_stamp_s = agg_last_stamp(reader_agg(w->reader));
    h->worker_deaths = atomic_load(&sup->worker_deaths);
    h->n_upgrades = sup->n_upgrades + 1;
    h->worker_pid = getpid();
    h->rested_us = w->rested_us;
    h->run_dir = env->run_dir;
    h->doorbell = sup->to_worker;
    h->payloads = env->handover->payloads;
    h->points = env->handover->points;
    h->baton_fd = env->handover->baton_fd;
    h->ingest = view.counts;
    h->books = *store_own(w->store);
    h->restored = *store_restored(w->store);
    h->sockets = *env->sockets;
    /* The next image begins without a tap, and the kernel counts on. */
    for (uint32_t i = 0; i < LANDING_SOURCES; i++)
        h->drops_seen[i] = env->landing->head->drops_seen[i] +
                           env->landing->head->tap.taken[i];
}

static int write_points(struct worker *w)
{
    struct stamps all = {0};
    int rc = stamps_join(&all, w->env->stamps, reader_agg(w->reader));

    if (rc == 0 && ftruncate(w->env->handover->points, 0) != 0)
        rc = -errno;
    if (rc == 0)
        rc = stamps_write(&all, w->env->handover->points);
    stamps_fini(&all);
    return rc;
}

static int write_record(struct worker *w)
{
    const struct handover_files *files = w->env->handover;
    struct handover h;
    int rc;

    if (ftruncate(files->payloads, 0) != 0)
        return -errno;
    rc = store_export(w->store, files->payloads);
    if (rc == 0)
        rc = write_points(w);
    if (rc != 0)
        return rc;
    fill_record(w, &h);
    return handover_write(files->record, &h, w->env->landing);
}

static void give_up(struct worker *w, const char *why)
{
    log_error(MODULE, "no hand-over: %s", why);
    answer_keeper(w, HANDOVER_FAILED); /* which takes the order back */
}

static void offer(struct worker *w)
{
    int rc;

    (void)uv_timer_stop(&w->settle_timer);
    parts_set_resting(w->parts, true);
    forwarder_freeze(w->forwarder);
    rc = write_record(w);

    if (rc != 0) {
        give_up(w, rc == -E2BIG ? "more connections, or bytes of open frames, "
                                  "than a record takes"
                                : strerror(-rc));
        return;
    }
    w->step = STEP_RESTING;
    atomic_store(&w->env->handover->baton->state, BATON_OFFERED);
    answer_keeper(w, HANDOVER_READY);
}

static void on_rest_timer(uv_timer_t *t)
{
    struct worker *w = t->data;

    if (w->step == STEP_PAUSING || w->step == STEP_ENCODING)
        give_up(w, "what is open was not encoded in time");
}

/* From here on everybody waits: who asks something meanwhile is not heard, and asks
 * the new worker. */
static void rest(struct worker *w)
{
    w->rested_us = worker_now_ns() / 1000;
    uv_update_time(&w->loop);
    (void)uv_timer_start(&w->settle_timer, on_rest_timer, REST_MS, 0);
    if (w->control != NULL)
        control_pause(w->control, true);
    health_stop(w->health); /* its port is the new one's */
    w->health = NULL;
}

static void pause_reader(struct worker *w)
{
    w->step = STEP_PAUSING;
    reader_order(w->reader, READER_PAUSE, 0);
}

void worker_handover_encoded(struct worker *w)
{
    struct reader_view view;

    if (w->step != STEP_ENCODING ||
        parts_encoded(w->parts) != parts_announced(w->parts))
        return;
    reader_view(w->reader, &view);
    if (view.agg.open_samples > 0)
        pause_reader(w); /* there was no room for a part: there is now */
    else
        offer(w);
}

void worker_handover_paused(struct worker *w, bool paused)
{
    if (w->step != STEP_PAUSING)
        return;
    if (!paused) {
        give_up(w,
                "upgrades come faster than the seconds that their parts need");
        return;
    }
    w->step = STEP_ENCODING;
    parts_hurry(w->parts, true);
    worker_handover_encoded(w);
}

static void on_collect_timer(uv_timer_t *t)
{
    struct worker *w = t->data;

    if (w->step != STEP_COLLECTING)
        return;
    log_warn(MODULE, "kernel metrics were not read in time: those of the last "
                     "seconds are missing");
    rest(w);
    pause_reader(w);
}

/* In the link by now: the reader takes them with the order to rest. */
void worker_handover_collected(struct worker *w)
{
    if (w->step != STEP_COLLECTING || !kernel_reached(w->kernel))
        return;
    rest(w);
    pause_reader(w);
}

/* What the kernel side measured lies in maps that end with this process. */
static void settled(struct worker *w)
{
    if (w->step != STEP_SETTLING || !w->requests_settled || !w->tap_settled)
        return;
    w->step = STEP_COLLECTING;
    if (w->kernel != NULL)
        kernel_want(w->kernel, KERNEL_PAUSED);
    uv_update_time(&w->loop);
    (void)uv_timer_start(&w->settle_timer, on_collect_timer, COLLECT_MS, 0);
    worker_handover_collected(w);
}

static void on_requests_settled(void *arg)
{
    struct worker *w = arg;

    w->requests_settled = true;
    settled(w);
}

static void on_tap_settled(void *arg)
{
    struct worker *w = arg;

    w->tap_settled = true;
    settled(w);
}

static void on_settle_timer(uv_timer_t *t)
{
    on_requests_settled(t->data);
}

static void begin(struct worker *w)
{
    log_info(MODULE, "handing over to the new program");
    w->step = STEP_SETTLING;
    w->requests_settled = w->tap_settled = false;
    forwarder_pause(w->forwarder, on_requests_settled, w);
    tapping_settle(&w->tapping, on_tap_settled, w);
    uv_update_time(&w->loop);
    (void)uv_timer_start(&w->settle_timer, on_settle_timer, SETTLE_MS, 0);
}

static void go_on(struct worker *w)
{
    log_info(MODULE, "the hand-over was given up, serving on");
    (void)uv_timer_stop(&w->settle_timer);
    w->step = STEP_NONE;
    tapping_unsettle(&w->tapping);
    reader_order(w->reader, READER_RESUME, 0);
    if (w->kernel != NULL)
        kernel_want(w->kernel, KERNEL_RUNNING);
    parts_hurry(w->parts, false);
    parts_set_resting(w->parts, false);
    forwarder_resume(w->forwarder);
    if (w->control != NULL)
        control_pause(w->control, false);
    if (w->health == NULL && w->env->config->health_port != 0)
        health_start(&w->health, w->env);
}

void worker_handover_obey(struct worker *w)
{
    struct supervision *sup = w->env->sup;
    bool ordered = atomic_load(&sup->handover_order) != 0;

    if (w->step == STEP_RESTING &&
        atomic_load(&w->env->handover->baton->state) == BATON_TAKEN)
        _exit(0);
    if (ordered && w->step == STEP_NONE && !w->stopping) {
        begin(w);
    } else if (!ordered && w->step != STEP_NONE) {
        if (w->step == STEP_RESTING)
            atomic_store(&w->env->handover->baton->state, BATON_HELD);
        go_on(w);
    }
    if (atomic_load(&sup->n_upgrades_failed) != w->failures_seen) {
        w->failures_seen = atomic_load(&sup->n_upgrades_failed);
        worker_upgrade_abort(w, sup->upgrade_error);
    }
}

void worker_handover_keeper_gone(struct worker *w)
{
    if (w->step == STEP_RESTING &&
        !move_baton(w->env->handover->baton, BATON_OFFERED, BATON_KEPT))
        _exit(0); /* the new worker serves, and delivers all of it */
    atomic_store(&w->env->sup->handover_order, 0);
    if (w->step != STEP_NONE)
        go_on(w);
}

/* ---- The new worker ------------------------------------------------------ */

int worker_handover_take(struct worker *w)
{
    const struct worker_env *env = w->env;
    const struct handover *h = env->inherited;
    struct baton *b;
    uint64_t one = 1;

    if (h == NULL)
        return 0;
    b = env->inherited_files->baton;
    if (!move_baton(b, BATON_OFFERED, BATON_TAKEN) &&
        atomic_load(&b->state) != BATON_TAKEN) {
        log_error(MODULE, "the old worker serves on: this one ends");
        return -EALREADY;
    }
    if (h->doorbell >= 0 && write(h->doorbell, &one, sizeof(one)) < 0)
        log_error(MODULE, "the old worker was not told to end: %s",
                  strerror(errno));
    return 0;
}

void worker_handover_import(const struct worker_env *env, struct store *s)
{
    const struct handover *h = env->inherited;
    struct stat st;
    int rc;

    if (h == NULL)
        return;
    store_adopt_counts(s, &h->books, &h->restored);
    if (fstat(h->payloads, &st) == 0 && st.st_size == 0)
        return; /* a predecessor did */
    rc = store_import(s, h->payloads);
    if (rc != 0)
        log_error(MODULE,
                  "payloads of the old program were not all read cause=%s",
                  strerror(-rc));
    (void)!ftruncate(h->payloads, 0); /* its memory is free */
}

/* ---- Who asked for it ---------------------------------------------------- */

static void answer(struct control_request *rq, bool upgraded, const char *error)
{
    struct buf out;
    struct json j;

    buf_init(&out, 1024);
    json_init(&j, &out);
    json_object(&j);
    json_member_bool(&j, "upgraded", upgraded);
    json_member_str(&j, "version", RETRIEVER_VERSION);
    if (error != NULL)
        json_member_str(&j, "error", error);
    json_end(&j);
    (void)json_finish(&j);
    (void)buf_putc(&out, '\n');
    control_answer(rq, out.data, out.n);
    buf_fini(&out);
}

void worker_upgrade_asked(struct worker *w, struct control_request *rq,
                          uint32_t n)
{
    struct supervision *sup = w->env->sup;

    if (n < sup->n_upgrades) {
        answer(rq, true, NULL);
    } else if (sup->fell_back_ns != 0 &&
               worker_now_ns() - sup->fell_back_ns < FELL_BACK_NS) {
        sup->fell_back_ns = 0; /* said; a further request is a new one */
        answer(rq, false, "the new program could not go on; see the log");
    } else if (w->env->handover == NULL) {
        answer(rq, false,
               w->env->exec_mode
                   ? "`exec` is not upgraded: it ends with its job"
                   : "an upgrade needs `keeper: on`");
    } else if (w->stopping) {
        answer(rq, false, "the agent stops");
    } else {
        w->upgrades[w->n_upgrades++] = rq;
        atomic_store(&sup->command_upgrade, 1);
        worker_ring_keeper(w);
    }
}

void worker_upgrade_forget(struct worker *w, const struct control_request *rq)
{
    for (uint32_t i = 0; i < w->n_upgrades; i++) {
        if (w->upgrades[i] == rq)
            w->upgrades[i--] = w->upgrades[--w->n_upgrades];
    }
}

void worker_upgrade_abort(struct worker *w, const char *why)
{
    while (w->n_upgrades > 0)
        answer(w->upgrades[--w->n_upgrades], false, why);
}
