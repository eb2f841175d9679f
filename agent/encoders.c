/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequence numbers are consecutive, so the queue is "wanted" against "next" and
 * cannot overflow. The result of a part lives in the encoder, therefore the
 * thread waits until the loop has committed it: no copy, no second owner. What
 * that costs, one turn of the loop per part, is nothing beside the encoding.
 */
#include "agent/encoders.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/base/contract.h"
#include "agent/base/log.h"
#include "agent/privilege.h"
#include "agent/stamps.h"
#include "aggregator/series.h"

#define MODULE "encoder"
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 2000
/* Parts of one flush come within this. */
#define SYNC_AGE_MS 5000
/* In a stop, until all that is left is on disk and synced. */
#define SYNC_AGAIN_MS 1000

/* What the thread asks of the loop. */
enum call_kind {
    CALL_NONE,
    CALL_ROOM,
    CALL_DISK_ROOM,
    CALL_RESTORE,
    CALL_COMMIT,
    CALL_REWRITE,
    CALL_RENEW,
    CALL_SYNCED
};

struct call {
    enum call_kind kind;
    size_t n_bytes;                     /* CALL_ROOM, CALL_DISK_ROOM */
    uint64_t seq;                       /* CALL_COMMIT */
    const struct encode_result *result; /* CALL_COMMIT */
    struct store_rewrite *written;      /* CALL_REWRITE; NULL: the first */
    int rc; /* the answer; CALL_SYNCED: the question */
};

/* What was on disk when this process started. */
enum disk_phase { DISK_LIST, DISK_READ, DISK_DONE };

struct encoders {
    struct encoders_opts opts;
    struct encode_config cfg;
    struct encoder *encoder;   /* the thread's */
    struct stamps_file stamps; /* the thread's */
    bool stamp_failed;         /* the thread's */
    enum disk_phase phase;     /* the thread's */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;

    /* under the lock */
    uint64_t wanted;
    bool have_endpoint;
    bool stopping;
    bool resting; /* nothing is read from disk or changed there */
    bool sync_wanted;
    bool awaiting;   /* an upgrade's payloads are still to be found on disk */
    bool disk_stuck; /* the folder cannot be looked through now */
    bool ending;
    bool ended;
    struct call call;
    struct store_rewrite *rewrite; /* of the answer to CALL_REWRITE */

    /* the loop's */
    uint64_t done_seq;
    encoders_synced_fn *synced;
    void *synced_arg;
    uv_async_t bell;
    void (*closed)(void *arg);
    void *closed_arg;
};

/* ---- The thread -------------------------------------------------------- */

/* Let the loop do it; it serves calls until the thread has ended. */
static int call_loop(struct encoders *e, struct call c)
{
    int rc;

    pthread_mutex_lock(&e->lock);
    e->call = c;
    (void)uv_async_send(&e->bell);
    while (e->call.kind != CALL_NONE)
        pthread_cond_wait(&e->changed, &e->lock);
    rc = e->call.rc;
    pthread_mutex_unlock(&e->lock);
    return rc;
}

static int make_room(void *arg, size_t n)
{
    return call_loop(arg, (struct call){.kind = CALL_ROOM, .n_bytes = n});
}

enum work { WORK_END, WORK_PART, WORK_SYNC, WORK_DISK };

/* What comes next; a part before all else. @disk: there is something to read from
 * disk meanwhile, but what earlier lives left is not looked for in a stop: it is
 * there for the next one. */
static enum work wait_for_work(struct encoders *e, uint64_t seq, bool disk)
{
    enum work w;

    pthread_mutex_lock(&e->lock);
    for (;;) {
        w = e->ending                               ? WORK_END
            : e->wanted >= seq                      ? WORK_PART
            : e->resting                            ? WORK_END
            : e->sync_wanted                        ? WORK_SYNC
            : disk && (!e->stopping || e->awaiting) ? WORK_DISK
                                                    : WORK_END;
        if (w != WORK_END || e->ending)
            break;
        pthread_cond_wait(&e->changed, &e->lock);
    }
    if (w == WORK_SYNC)
        e->sync_wanted = false;
    pthread_mutex_unlock(&e->lock);
    return w;
}

/* False: the end came first. */
static bool pause_ms(struct encoders *e, unsigned ms)
{
    struct timespec until;
    bool go;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&e->lock);
    while (!e->ending) {
        if (pthread_cond_timedwait(&e->changed, &e->lock, &until) == ETIMEDOUT)
            break;
    }
    go = !e->ending;
    pthread_mutex_unlock(&e->lock);
    return go;
}

/* What holds for the part that begins. */
static bool take_settings(struct encoders *e)
{
    bool stopping;

    pthread_mutex_lock(&e->lock);
    stopping = e->stopping;
    encoder_set_endpoint(e->encoder, e->have_endpoint);
    pthread_mutex_unlock(&e->lock);
    return stopping;
}

static int encode_once(struct encoders *e, uint64_t seq,
                       struct encode_result *result, struct part_info *info)
{
    struct part_iter *it;
    int rc = part_iter_open(&it, e->opts.agg, seq);

    if (rc != 0)
        return rc;
    part_iter_info(it, info);
    rc = encoder_run(e->encoder, it, take_settings(e), result);
    part_iter_close(it);
    return rc;
}

/* Before the part's payloads can leave. */
static void save_stamps(struct encoders *e, const struct part_info *info)
{
    int rc;

    if (e->stamps.run_dir < 0)
        return;
    rc = stamps_file_add(&e->stamps, e->opts.agg, info->seq, info->stamp_s,
                         info->max_shift);
    if (rc == -EPROTONOSUPPORT)
        e->stamps.run_dir = -1; /* a newer format: the keeper said so */
    else if (rc != 0 && !e->stamp_failed)
        log_warn(MODULE,
                 "the seconds of a part were not written to run_path; the next "
                 "life may replace points cause=%s",
                 strerror(-rc));
    e->stamp_failed = rc != 0;
}

/* The folder is looked through before anything is written to it. While that fails
 * it is tried again with each part, and payloads wait in memory alone. */
static void list_disk(struct encoders *e)
{
    int rc;

    if (e->phase != DISK_LIST)
        return;
    rc = store_list(e->opts.store);
    pthread_mutex_lock(&e->lock);
    e->disk_stuck = rc != 0;
    pthread_mutex_unlock(&e->lock);
    if (rc != 0)
        return;
    (void)call_loop(e, (struct call){.kind = CALL_RESTORE});
    e->phase = DISK_READ;
}

/* Some more of what earlier lives left. */
static void read_disk(struct encoders *e)
{
    bool more = store_read_some(e->opts.store);

    (void)call_loop(e, (struct call){.kind = CALL_RESTORE});
    if (!more)
        e->phase = DISK_DONE;
}

/* Before the part is committed: frozen means on disk. */
static void write_part(struct encoders *e, const struct encode_result *r)
{
    uint64_t need = 0;

    list_disk(e);
    while (store_write_drafts(e->opts.store, r->drafts, r->n_drafts, &need) !=
           0) {
        if (call_loop(e, (struct call){.kind = CALL_DISK_ROOM,
                                       .n_bytes = need}) != 0)
            break;
    }
}

/* What waits for the intake since an earlier flush is made to outlive a power
 * loss; where the intake takes everything at once, nothing ever is. Behind the
 * commit, as it may take long; and not in a stop, which syncs all there is beside
 * delivery. */
static void sync_waiting(struct encoders *e)
{
    bool wanted;

    pthread_mutex_lock(&e->lock);
    wanted = !e->stopping && !e->resting;
    pthread_mutex_unlock(&e->lock);
    if (wanted && store_sync(e->opts.store, SYNC_AGE_MS) != 0)
        (void)call_loop(e, (struct call){.kind = CALL_RENEW});
}

/* One more payload that is in memory alone goes to disk. */
static void write_one(struct encoders *e, struct store_rewrite *w)
{
    uint64_t need = 0;

    while (store_rewrite_write(e->opts.store, w, &need) == STORE_FULL) {
        if (call_loop(e, (struct call){.kind = CALL_DISK_ROOM,
                                       .n_bytes = need}) != 0)
            break;
    }
}

static void write_rest(struct encoders *e)
{
    struct call c = {.kind = CALL_REWRITE};

    store_try_disk_now(e->opts.store);
    list_disk(e);
    for (;;) {
        (void)call_loop(e, c);
        c.written = e->rewrite; /* the loop sets it only when it is asked */
        if (c.written == NULL)
            break;
        write_one(e, c.written);
    }
}

/* The stop's: nothing but this has to do with the disk beside delivery. Where it
 * failed it is tried again for as long as there is time. */
static void save_all(struct encoders *e)
{
    int rc;

    write_rest(e);
    rc = store_sync(e->opts.store, 0);
    if (call_loop(e, (struct call){.kind = CALL_SYNCED, .rc = rc}) == 0 ||
        !pause_ms(e, SYNC_AGAIN_MS))
        return;
    pthread_mutex_lock(&e->lock);
    e->sync_wanted = true;
    pthread_mutex_unlock(&e->lock);
}

/* False: the end came while memory was short; the part stays where it is. */
static bool encode_part(struct encoders *e, uint64_t seq)
{
    struct encode_result result = {0};
    unsigned wait_ms = RETRY_MIN_MS;
    struct part_info info;
    int rc;

    while ((rc = encode_once(e, seq, &result, &info)) == -ENOMEM) {
        log_warn(MODULE, "no memory to encode part=%llu retry_ms=%u",
                 (unsigned long long)seq, wait_ms);
        if (!pause_ms(e, wait_ms))
            return false;
        wait_ms = wait_ms * 2 < RETRY_MAX_MS ? wait_ms * 2 : RETRY_MAX_MS;
    }
    if (rc != 0) {
        /* Nothing to send and nothing to count here: the ledger will say by
         * its balance what is missing. */
        log_error(MODULE, "part=%llu could not be read cause=%s",
                  (unsigned long long)seq, strerror(-rc));
        result = (struct encode_result){0};
    } else {
        save_stamps(e, &info);
    }
    write_part(e, &result);
    (void)call_loop(e, (struct call){.kind = CALL_COMMIT,
                                     .seq = seq,
                                     .result = &result});
    sync_waiting(e);
    return true;
}

static void *run(void *arg)
{
    struct encoders *e = arg;
    uint64_t next = e->done_seq + 1; /* set before the thread was started */
    enum work w;

    (void)privilege_keep(PRIVILEGE_FILES);
    list_disk(e);
    if (e->phase == DISK_READ)
        read_disk(e); /* some at once: a life may be very short */
    do {
        w = wait_for_work(e, next, e->phase == DISK_READ);
        if (w == WORK_PART && !encode_part(e, next++))
            break;
        if (w == WORK_DISK)
            read_disk(e);
        if (w == WORK_SYNC)
            save_all(e);
    } while (w != WORK_END);
    pthread_mutex_lock(&e->lock);
    e->ended = true;
    /* Within the lock: the bell must not be closed before it is rung. */
    (void)uv_async_send(&e->bell);
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

/* ---- The loop ---------------------------------------------------------- */

static void on_bell_closed(uv_handle_t *h)
{
    struct encoders *e = h->data;
    void (*closed)(void *arg) = e->closed;
    void *arg = e->closed_arg;

    encoder_close(e->encoder);
    stamps_file_close(&e->stamps);
    pthread_cond_destroy(&e->changed);
    pthread_mutex_destroy(&e->lock);
    free(e);
    if (closed != NULL)
        closed(arg);
}

static void answer(struct encoders *e, int rc)
{
    pthread_mutex_lock(&e->lock);
    e->call.kind = CALL_NONE;
    e->call.rc = rc;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

static void commit(struct encoders *e, const struct call *c)
{
    const struct encode_result *r = c->result;

    store_commit_part(e->opts.store, c->seq, r->drafts, r->n_drafts, r->losses,
                      r->n_losses);
    e->done_seq = c->seq;
    answer(e, 0);
    e->opts.done(e->opts.arg, e->done_seq);
}

/* The thread goes on with the next one, unless the disk took this one not. */
static void rewrite(struct encoders *e, struct store_rewrite *written)
{
    struct store *s = e->opts.store;
    bool go_on = true;

    if (written != NULL)
        go_on = store_rewrite_end(s, written);
    else
        store_renew_places(s);
    e->rewrite = go_on ? store_rewrite_begin(s) : NULL;
    answer(e, 0);
}

static void synced(struct encoders *e, int rc)
{
    answer(e, rc == 0 && store_is_on_disk(e->opts.store) ? 0 : 1);
    if (e->closed == NULL)
        e->synced(e->synced_arg, rc);
}

static void note_awaited(struct encoders *e)
{
    bool awaiting = store_awaits(e->opts.store);

    pthread_mutex_lock(&e->lock);
    e->awaiting = awaiting;
    pthread_mutex_unlock(&e->lock);
}

static void on_bell(uv_async_t *bell)
{
    struct encoders *e = bell->data;
    struct call c;
    bool ended;
    bool resting;

    pthread_mutex_lock(&e->lock);
    c = e->call;
    ended = e->ended;
    resting = e->resting;
    pthread_mutex_unlock(&e->lock);
    if (resting && e->closed == NULL && c.kind != CALL_COMMIT &&
        c.kind != CALL_ROOM)
        return; /* about the disk: it is answered afterwards */
    switch (c.kind) {
    case CALL_NONE:
        break;
    case CALL_ROOM:
        answer(e, store_evict(e->opts.store, c.n_bytes));
        break;
    case CALL_DISK_ROOM:
        answer(e, store_make_disk_room(e->opts.store, c.n_bytes));
        break;
    case CALL_RESTORE:
        store_restore(e->opts.store);
        note_awaited(e);
        answer(e, 0);
        if (e->opts.restored != NULL)
            e->opts.restored(e->opts.arg);
        break;
    case CALL_COMMIT:
        commit(e, &c);
        break;
    case CALL_REWRITE:
        rewrite(e, c.written);
        break;
    case CALL_RENEW:
        store_renew_places(e->opts.store);
        answer(e, 0);
        break;
    case CALL_SYNCED:
        synced(e, c.rc);
        break;
    }
    if (ended && !uv_is_closing((uv_handle_t *)bell)) {
        pthread_join(e->thread, NULL);
        uv_close((uv_handle_t *)bell, on_bell_closed);
    }
}

/* Signals are the loop's: the thread takes none. */
static int start_thread(struct encoders *e)
{
    sigset_t all, old;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&e->thread, NULL, run, e);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc == 0)
        (void)pthread_setname_np(e->thread, "encoder");
    return -rc;
}

int encoders_start(struct encoders **out, const struct encoders_opts *opts)
{
    struct encoders *e = calloc(1, sizeof(*e));
    pthread_condattr_t attr;
    int rc;

    if (e == NULL)
        return -ENOMEM;
    e->opts = *opts;
    e->stamps.run_dir = opts->run_dir;
    e->cfg = *opts->encode;
    e->cfg.make_room = make_room;
    e->cfg.arg = e;
    e->have_endpoint = opts->encode->have_endpoint;
    e->done_seq = store_encoded_seq(opts->store);
    e->awaiting = store_awaits(opts->store);
    e->phase = store_has_disk(opts->store) ? DISK_LIST : DISK_DONE;
    rc = encoder_create(&e->encoder, opts->store, &e->cfg);
    if (rc == 0)
        rc = uv_async_init(opts->loop, &e->bell, on_bell);
    if (rc != 0) {
        encoder_close(e->encoder);
        free(e);
        return rc;
    }
    e->bell.data = e;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&e->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&e->lock, NULL);
    rc = start_thread(e);
    if (rc != 0)
        uv_close((uv_handle_t *)&e->bell, on_bell_closed); /* frees */
    else
        *out = e;
    return rc;
}

void encoders_submit(struct encoders *e, uint64_t seq)
{
    pthread_mutex_lock(&e->lock);
    if (seq > e->wanted)
        e->wanted = seq;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

void encoders_set_stopping(struct encoders *e, bool stopping)
{
    pthread_mutex_lock(&e->lock);
    e->stopping = stopping;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

void encoders_set_resting(struct encoders *e, bool resting)
{
    pthread_mutex_lock(&e->lock);
    e->resting = resting;
    pthread_cond_broadcast(&e->changed);
    (void)uv_async_send(&e->bell); /* a call may wait for its answer */
    pthread_mutex_unlock(&e->lock);
}

void encoders_set_endpoint(struct encoders *e, bool have_endpoint)
{
    pthread_mutex_lock(&e->lock);
    e->have_endpoint = have_endpoint;
    pthread_mutex_unlock(&e->lock);
}

bool encoders_await(struct encoders *e)
{
    bool awaiting;

    pthread_mutex_lock(&e->lock);
    awaiting = e->awaiting && !e->disk_stuck;
    pthread_mutex_unlock(&e->lock);
    return awaiting;
}

void encoders_sync(struct encoders *e, encoders_synced_fn *fn, void *arg)
{
    e->synced = fn;
    e->synced_arg = arg;
    pthread_mutex_lock(&e->lock);
    e->sync_wanted = true;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

uint64_t encoders_done(const struct encoders *e)
{
    return e->done_seq;
}

void encoders_stop(struct encoders *e, void (*closed)(void *arg), void *arg)
{
    REQUIRE(e->closed == NULL && closed != NULL);
    e->closed = closed;
    e->closed_arg = arg;
    pthread_mutex_lock(&e->lock);
    e->ending = true;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}
