/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker that dies of a fault again and again: three times within a minute, though
 * the record that it died at is skipped after the second. Then what it works on is
 * damaged, and a successor would die the same way, for ever.
 *
 * A process of its own encodes what can still be read into the store, part by part,
 * so that its own death costs only what lies behind; a second one does without. What
 * got lost is counted (dropped: damaged), and the next worker begins with an empty
 * ingest region that goes on with the old one's counters. The store has its own
 * checks.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/keeper_private.h"
#include "agent/wiring.h"
#include "aggregator/series.h"

#define MODULE "keeper"
#define WITHIN_NS (60000 * MS_NS)
#define SALVAGE_NS (2000 * MS_NS)

bool keeper_is_faulty(struct keeper *k, int status)
{
    struct salvage *s = &k->salvage;
    uint64_t now_ns = keeper_now_ns();

    if (!keeper_is_fault(status))
        return false;
    s->faults_ns[s->n_faults++ % SALVAGE_FAULTS] = now_ns;
    return s->n_faults >= SALVAGE_FAULTS &&
           now_ns - s->faults_ns[s->n_faults % SALVAGE_FAULTS] < WITHIN_NS;
}

/* ---- The process apart ---------------------------------------------------- */

static int make_room(void *arg, size_t n)
{
    return store_evict(arg, n);
}

/* As in a worker: before the part's payloads can leave. */
static void save_stamps(struct stamps_file *f, const struct agg *agg,
                        const struct part_info *info)
{
    int rc;

    if (f->run_dir < 0)
        return;
    rc = stamps_file_add(f, agg, info->seq, info->stamp_s, info->max_shift);
    if (rc != 0 && rc != -EPROTONOSUPPORT) /* the keeper said so */
        log_warn(MODULE,
                 "the seconds of a part were not written to run_path; the next "
                 "life may replace points cause=%s",
                 strerror(-rc));
    if (rc != 0)
        f->run_dir = -1;
}

static int encode_part(struct agg *agg, struct store *store,
                       struct encoder *encoder, struct stamps_file *stamps,
                       uint64_t seq)
{
    struct encode_result result;
    struct part_info info;
    struct part_iter *it;
    int rc = part_iter_open(&it, agg, seq);

    if (rc != 0)
        return rc;
    part_iter_info(it, &info);
    rc = encoder_run(encoder, it, true, &result);
    part_iter_close(it);
    if (rc == 0)
        save_stamps(stamps, agg, &info);
    if (rc == 0)
        store_commit_part(store, seq, result.drafts, result.n_drafts,
                          result.losses, result.n_losses);
    return rc;
}

static struct agg *encode_rest(struct keeper *k, struct wiring *w,
                               struct store *store)
{
    struct stamps_file stamps = {.run_dir = k->env.run_dir};
    struct process_clock clock;
    struct encoder *encoder;
    struct agg *agg;

    process_clock_init(&clock, &clock_real);
    w->encode.make_room = make_room;
    w->encode.arg = store;
    if (agg_create(&agg, &k->ingest, &w->agg) != 0 ||
        encoder_create(&encoder, store, &w->encode) != 0)
        return NULL;
    for (uint64_t seq = store_encoded_seq(store) + 1;
         seq <= agg_last_closed(agg) &&
         encode_part(agg, store, encoder, &stamps, seq) == 0;
         seq++)
        ;
    agg_release(agg, store_encoded_seq(store));
    agg_close_all(agg, process_clock_now(&clock, &clock_real) / CLOCK_NS_PER_S);
    for (uint64_t seq = store_encoded_seq(store) + 1;
         seq <= agg_last_closed(agg) &&
         encode_part(agg, store, encoder, &stamps, seq) == 0;
         seq++)
        ;
    stamps_file_close(&stamps);
    return agg;
}

/* What has a point already must not get another one. */
static void keep_seconds(const struct keeper *k, const struct agg *agg)
{
    struct stamps all = {0};

    if (stamps_join(&all, &k->stamps, agg) == 0)
        (void)stamps_write(&all, k->salvage.seconds);
    stamps_fini(&all);
}

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* What was aggregated and is in no part that the store has seen. */
static void count_lost(const struct ingest_counts *c, struct store *store)
{
    struct store_stats st;
    struct store_loss lost = {.cause = DROP_DAMAGED};

    store_stats(store, &st);
    lost.load.n_samples =
        minus(c->aggregated, st.accepted.n_samples + c->damaged + c->ring_busy);
    lost.load.n_events = minus(c->events, st.accepted.n_events);
    lost.load.n_checks = minus(c->checks, st.accepted.n_checks);
    store_commit_part(store, store_encoded_seq(store) + 1, NULL, 0, &lost, 1);
    if (lost.load.n_samples > 0)
        log_error(MODULE, "shared memory was damaged, samples were lost n=%ju",
                  (uintmax_t)lost.load.n_samples);
}

static int salvage(struct keeper *k, bool try_to_read)
{
    struct wiring_store store_wiring;
    struct salvage *s = &k->salvage;
    struct agg_start start = {0};
    struct ingest_counts counts;
    struct store *store;
    int64_t last_stamp_s = 0;
    struct agg *agg = NULL;
    struct wiring w;

    wiring_store(&store_wiring, &k->env);
    if (wiring_init(&w, &k->env) != 0 ||
        store_open(&store, &k->store, &store_wiring.opts) != 0)
        return 1;
    worker_handover_import(&k->env, store);
    if (try_to_read) {
        agg = encode_rest(k, &w, store);
        if (agg != NULL)
            keep_seconds(k, agg);
    }
    (void)region_rollback(&k->ingest);
    if (!agg_peek(&k->ingest, &counts, &last_stamp_s))
        return 1;
    count_lost(&counts, store);
    start.counts = counts;
    start.seq = store_encoded_seq(store);
    w.agg.start = &start;
    if (w.agg.last_stamp_s < last_stamp_s)
        w.agg.last_stamp_s = last_stamp_s;
    w.agg.life_start_s = clock_wall_ns(&clock_real) / CLOCK_NS_PER_S;
    return agg_create(&agg, &s->fresh, &w.agg) != 0;
}

/* ---- The keeper ------------------------------------------------------------ */

static void fork_salvage(struct keeper *k)
{
    struct salvage *s = &k->salvage;
    int rc = keeper_make_ingest(k, &s->fresh);

    s->seconds = memfd_create("retriever-seconds", MFD_CLOEXEC);
    s->pid = rc == 0 ? fork() : -1;
    if (s->pid == 0)
        _exit(salvage(k, s->n_tries == 0));
    s->n_tries++;
    s->until_ns = keeper_now_ns() + SALVAGE_NS;
    if (s->pid > 0)
        return;
    log_error(MODULE, "no memory to begin anew: %s",
              strerror(rc != 0 ? -rc : errno));
    region_close(&s->fresh);
    s->pid = 0;
    k->restart_ns = keeper_now_ns() + 1000 * MS_NS; /* as it is */
}

void keeper_salvage_begin(struct keeper *k)
{
    log_error(MODULE,
              "workers died of faults %d times within a minute: what can "
              "be read is saved, the rest begins anew",
              SALVAGE_FAULTS);
    k->salvage.n_tries = 0;
    k->salvage.n_faults = 0;
    memset(k->salvage.faults_ns, 0, sizeof(k->salvage.faults_ns));
    fork_salvage(k);
}

static void take_seconds(struct keeper *k)
{
    struct stamps all = {0};

    if (k->salvage.seconds < 0)
        return;
    if (stamps_read(&all, k->salvage.seconds, 0) == 0) {
        stamps_fini(&k->stamps);
        k->stamps = all;
    }
    close(k->salvage.seconds);
    k->salvage.seconds = -1;
}

bool keeper_salvage_reaped(struct keeper *k, pid_t pid, int status)
{
    struct salvage *s = &k->salvage;

    if (s->pid == 0 || pid != s->pid)
        return false;
    s->pid = 0;
    take_seconds(k);
    (void)region_rollback(&k->store);
    (void)region_rollback(&k->ingest);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        fd_set_remove(&k->kept, k->ingest.fd);
        region_close(&k->ingest);
        k->ingest = s->fresh;
        fd_set_add(&k->kept, k->ingest.fd);
        s->fresh = (struct region){.fd = -1};
        keeper_allow_landing(k);
        log_warn(MODULE, "a new worker begins with fresh memory");
        k->restart_ns = keeper_now_ns();
        return true;
    }
    region_close(&s->fresh);
    if (s->n_tries < 2) {
        fork_salvage(k);
        return true;
    }
    log_error(MODULE, "shared memory was damaged beyond repair");
    k->restart_ns = keeper_now_ns() + 1000 * MS_NS;
    return true;
}

void keeper_salvage_look(struct keeper *k)
{
    if (k->salvage.pid > 0 && keeper_now_ns() >= k->salvage.until_ns)
        (void)kill(k->salvage.pid, SIGKILL); /* its end is reaped */
}

void keeper_salvage_abort(struct keeper *k)
{
    struct salvage *s = &k->salvage;

    if (s->pid > 0) {
        (void)kill(s->pid, SIGKILL);
        (void)waitpid(s->pid, NULL, 0);
        s->pid = 0;
        (void)region_rollback(&k->store);
        (void)region_rollback(&k->ingest);
    }
}
