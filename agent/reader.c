/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A turn of the reader: wait in epoll, read what is there (bounded per socket),
 * apply and commit it, hand closed parts over.
 *
 * Pacing. Waking up costs more than receiving: under load the reader stays away
 * for half a millisecond after it has emptied the sockets instead of going back
 * to epoll, as long as their buffers hold a multiple of what can come
 * meanwhile. Below about a thousand turns a second, and when nothing comes,
 * it waits in epoll: no wake-ups when idle.
 *
 * What wakes the reader from other threads is an eventfd and no uv_async_t: that one
 * lets its receiver spin until the sender is through, and a real-time reader has
 * interrupted the sender by waking up.
 *
 * What the loop gets goes through a ring; parts that find it full are not lost,
 * they are named by agg_last_closed() and announced when there is room again.
 */
#include "agent/reader.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "agent/privilege.h"
#include "agent/reader_private.h"

#define TURN_CALLS 8u   /* receive calls per datagram socket and turn */
#define STREAM_CALLS 4u /* per connection and turn */
#define ACCEPTS 16u     /* per listener and turn */
#define PACE_MIN_NS 500000u
#define BUSY_GAP_NS 1000000u /* turns closer than this: paced */
#define TICK_MS 1000u
#define STEPS_AT_ONCE 10u /* of the clock; beyond, one each second */

static struct reader *reader_of(uv_handle_t *h)
{
    return h->loop->data;
}

/* ---- To the loop ------------------------------------------------------- */

static bool push_event(struct reader *r, const struct reader_event *ev)
{
    if (spsc_push(&r->events, ev))
        return true;
    /* Say so first and try again: either there is room by now, or the loop has
     * still to take a record and will then see the word. */
    atomic_store(&r->blocked, true);
    return spsc_push(&r->events, ev);
}

/** Announce closed parts, then the answer that waits behind them. */
static void flush_events(struct reader *r)
{
    uint64_t last = agg_last_closed(r->agg);
    bool rang = spsc_n(&r->notes) > 0;

    if (r->sent_seq < last || r->has_answer)
        reader_publish(r);
    while (r->sent_seq < last) {
        struct reader_event ev = {.kind = READER_PART, .seq = r->sent_seq + 1};

        rang = true;
        if (!push_event(r, &ev))
            goto out;
        r->sent_seq++;
    }
    if (r->has_answer) {
        rang = true;
        if (push_event(r, &r->answer))
            r->has_answer = false;
    }
out:
    if (rang)
        (void)uv_async_send(&r->bell);
}

/* ---- Sockets ----------------------------------------------------------- */

static void saw(struct reader *r, enum ingress_rc rc, uint32_t pace_us)
{
    if (rc == INGRESS_IDLE)
        return;
    r->got_data = true;
    if (rc == INGRESS_MORE)
        pace_us = 0;
    if (pace_us < r->pace_us)
        r->pace_us = pace_us;
}

void reader_on_socket(uv_poll_t *h, int status, int events)
{
    struct reader *r = reader_of((uv_handle_t *)h);
    uint32_t source = (uint32_t)(h - r->polls);
    const struct socket_entry *e = &r->opts.sockets->entries[source];

    (void)events;
    reader_check_clock(r);
    if (e->kind == SOCKET_UNIXSTREAM)
        saw(r, ingress_accept(&r->g, source, ACCEPTS), 0);
    else
        saw(r, ingress_datagrams(&r->g, source, r->tapped ? 1 : TURN_CALLS),
            e->pace_us);
    if (status < 0) /* libuv stops a handle that reports an error */
        (void)uv_poll_start(h, UV_READABLE, reader_on_socket);
}

void reader_on_conn(uv_poll_t *h, int status, int events)
{
    struct reader *r = reader_of((uv_handle_t *)h);
    uint32_t conn = (uint32_t)(h - r->conn_polls);

    (void)events;
    reader_check_clock(r);
    saw(r, ingress_stream_read(&r->g, conn, STREAM_CALLS), 0);
    /* libuv stops a handle that reports an error; the read that ends the
     * connection may come behind more data. */
    if (status < 0 && r->conn_watched[conn])
        (void)uv_poll_start(h, UV_READABLE, reader_on_conn);
}

static int watch_conn(void *arg, uint32_t conn)
{
    struct reader *r = arg;
    uv_poll_t *h = &r->conn_polls[conn];
    int rc = uv_poll_init(&r->loop, h, r->opts.landing->conns[conn].fd);

    if (rc != 0)
        return rc;
    r->conn_watched[conn] = true;
    return uv_poll_start(h, UV_READABLE, reader_on_conn);
}

static void on_conn_closed(uv_handle_t *h)
{
    struct reader *r = reader_of(h);

    ingress_conn_freed(&r->g, (uint32_t)((uv_poll_t *)h - r->conn_polls));
}

static void unwatch_conn(void *arg, uint32_t conn)
{
    struct reader *r = arg;

    if (!r->conn_watched[conn]) {
        ingress_conn_freed(&r->g, conn);
        return;
    }
    r->conn_watched[conn] = false;
    uv_close((uv_handle_t *)&r->conn_polls[conn], on_conn_closed);
}

static bool is_source(const struct socket_entry *e)
{
    return e->kind != SOCKET_CONTROL;
}

static void watch_sockets(struct reader *r)
{
    const struct sockets *s = r->opts.sockets;

    for (uint32_t i = 0; i < s->n; i++) {
        int rc;

        if (!is_source(&s->entries[i]))
            continue;
        rc = uv_poll_init(&r->loop, &r->polls[i], s->entries[i].fd);
        if (rc == 0) {
            r->watched[i] = true;
            rc = uv_poll_start(&r->polls[i], UV_READABLE, reader_on_socket);
        }
        if (rc != 0)
            ingress_note(&r->g, NOTE_RECEIVE_FAILED, i, -rc);
    }
}

void reader_unwatch_sockets(struct reader *r)
{
    for (uint32_t i = 0; i < r->opts.sockets->n; i++) {
        if (r->watched[i])
            (void)uv_poll_stop(&r->polls[i]);
    }
}

/* Out of descriptors, a listener stays readable: not looked at until a
 * connection ends or the next tick. */
static void pause_accept(struct reader *r)
{
    const struct sockets *s = r->opts.sockets;

    if (r->g.accept_paused == r->accept_stopped || r->drained || r->paused)
        return;
    r->accept_stopped = r->g.accept_paused;
    for (uint32_t i = 0; i < s->n; i++) {
        if (!r->watched[i] || s->entries[i].kind != SOCKET_UNIXSTREAM)
            continue;
        if (r->accept_stopped)
            (void)uv_poll_stop(&r->polls[i]);
        else
            (void)uv_poll_start(&r->polls[i], UV_READABLE, reader_on_socket);
    }
}

/* ---- Time -------------------------------------------------------------- */

/* Before data is applied: what came after a step belongs behind it, and a client
 * that reads the same clock may write a time that seems far ahead. A step takes a
 * part, and a part a second: in the long run no more than one each second. */
void reader_check_clock(struct reader *r)
{
    uint64_t now_ns = clock_mono_ns(&clock_real);
    int64_t step_ns;

    if (r->steps_ns > now_ns + STEPS_AT_ONCE * CLOCK_NS_PER_S)
        return;
    step_ns = process_clock_rebase_if_stepped(r->opts.clock, &clock_real);
    if (step_ns == 0)
        return;
    if (r->steps_ns < now_ns)
        r->steps_ns = now_ns;
    r->steps_ns += CLOCK_NS_PER_S;
    agg_clock_stepped(r->agg, ingress_now_s(&r->g));
    (void)uv_timer_stop(&r->bucket); /* its end is elsewhere now */
    ingress_note(&r->g, NOTE_CLOCK_STEPPED, 0, step_ns / CLOCK_NS_PER_S);
}

static void on_bucket(uv_timer_t *t)
{
    struct reader *r = t->data;

    reader_check_clock(r);
    agg_begin(r->agg, ingress_now_s(&r->g));
}

/* The bucket's end is watched only while something would happen there. */
static void arm_bucket(struct reader *r)
{
    const int64_t bucket_ns = AGG_BUCKET_S * CLOCK_NS_PER_S;
    struct agg_stats st;
    int64_t into_ns;

    if (r->paused || uv_is_active((uv_handle_t *)&r->bucket))
        return;
    agg_stats(r->agg, &st);
    if (st.n_contexts == 0 && st.open_samples == 0 && !r->got_data)
        return;
    into_ns = process_clock_now(r->opts.clock, &clock_real) % bucket_ns;
    uv_update_time(&r->loop);
    (void)uv_timer_start(&r->bucket, on_bucket,
                         (uint64_t)((bucket_ns - into_ns) / CLOCK_NS_PER_MS) +
                             1,
                         0);
}

static void on_tick(uv_timer_t *t)
{
    struct reader *r = t->data;

    ingress_udp_drops(&r->g);
    if (!r->drained) /* what is still open is the next life's */
        ingress_stream_idle(&r->g);
    r->g.accept_paused = false;
}

static void arm_tick(struct reader *r)
{
    bool idle_watch = r->g.stream_idle_s > 0 && r->g.n_live > 0;

    if (!r->paused && (r->got_data || idle_watch || r->g.accept_paused) &&
        !uv_is_active((uv_handle_t *)&r->tick))
        (void)uv_timer_start(&r->tick, on_tick, TICK_MS, 0);
}

static void pace(struct reader *r)
{
    uint64_t now_ns = clock_mono_ns(&clock_real);
    uint64_t max_ns = (uint64_t)r->pace_us * 1000;

    if (r->got_data && max_ns >= PACE_MIN_NS &&
        now_ns - r->turn_ns < BUSY_GAP_NS) {
        struct timespec ts = {.tv_nsec = PACE_MIN_NS};

        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
        now_ns += PACE_MIN_NS;
    }
    if (priority_breathe(&r->priority, now_ns))
        (void)uv_async_send(&r->bell);
    if (r->got_data)
        r->turn_ns = now_ns;
}

/* ---- Orders ------------------------------------------------------------ */

struct order {
    enum reader_order what;
    uint64_t token;
};

static void answer(struct reader *r, enum reader_event_kind kind,
                   uint64_t token, uint64_t n_left)
{
    r->answer =
        (struct reader_event){.kind = kind, .token = token, .n_left = n_left};
    r->has_answer = true;
}

/* Returns false when a @flush was declined. */
static bool close_all(struct reader *r, bool flush)
{
    if (r->paused) /* what waits in sockets is for others, and not flushed */
        return !flush;
    reader_check_clock(r);
    reader_sweep(r, clock_mono_ns(&clock_real) + READER_CLOSE_SWEEP_NS);
    reader_kernel_apply(r);
    r->kernel.over = r->drained; /* the last closing */
    if (flush && !agg_may_close(r->agg, ingress_now_s(&r->g)))
        return false;
    agg_close_all(r->agg, ingress_now_s(&r->g));
    return true;
}

static void take_orders(struct reader *r)
{
    uint64_t seq = atomic_load(&r->release_seq);
    struct order o;

    if (seq != r->released_seq) {
        r->released_seq = seq;
        agg_release(r->agg, seq);
    }
    r->quit = atomic_load(&r->quit_asked);
    while (!r->has_answer && !r->quit && spsc_pop(&r->orders, &o)) {
        switch (o.what) {
        case READER_CLOSE_ALL:
        case READER_FLUSH:
            answer(r, READER_CLOSED, o.token,
                   close_all(r, o.what == READER_FLUSH) ? 0 : 1);
            break;
        case READER_PAUSE:
            answer(r, READER_PAUSED, o.token, reader_pause(r) ? 0 : 1);
            break;
        case READER_RESUME:
            reader_resume(r);
            if (r->has_tap) /* it may have come while nothing was tapped */
                answer(r, READER_TAPPED, 0, r->tapped);
            break;
        case READER_TAP:
            reader_tap(r, (struct tap *)(uintptr_t)o.token);
            answer(r, READER_TAPPED, 0, r->tapped);
            break;
        case READER_UNTAP:
            r->untapped = true;
            reader_tap_off(r);
            answer(r, READER_UNTAPPED, 0, 0);
            break;
        case READER_DRAIN:
            answer(r, READER_DRAINED, o.token, reader_drain(r, o.token));
            break;
        case READER_RELEASE:
        case READER_QUIT:
            break; /* words, not records: see reader_order() */
        }
        flush_events(r);
    }
}

/* From other threads. */
static void wake(const struct reader *r)
{
    uint64_t one = 1;

    (void)!write(r->wake_fd, &one, sizeof(one));
}

static void on_wake(uv_poll_t *h, int status, int events)
{
    struct reader *r = reader_of((uv_handle_t *)h);
    uint64_t n;

    (void)status;
    (void)events;
    (void)!read(r->wake_fd, &n, sizeof(n));
    flush_events(r);
    take_orders(r);
}

/* ---- Thread ------------------------------------------------------------ */

static void close_handle(uv_handle_t *h, void *arg)
{
    (void)arg;
    if (!uv_is_closing(h))
        uv_close(h, NULL);
}

static void *run(void *arg)
{
    struct reader *r = arg;

    (void)pthread_setname_np(pthread_self(), READER_THREAD);
    reader_take_priority(r);
    (void)privilege_keep(r->opts.priority.policy != SCHED_OTHER ? PRIVILEGE_NICE
                                                                : 0);
    ingress_recover(&r->g);
    watch_sockets(r);
    reader_watch_ring(r);
    reader_publish(r);
    atomic_store(r->opts.serving, 1);
    (void)sem_post(&r->served);
    r->got_data = true; /* what was recovered may need a bucket's end */
    while (!r->quit) {
        pause_accept(r);
        arm_bucket(r);
        arm_tick(r);
        take_orders(r);
        reader_tap_turn(r);
        reader_kernel_ask(r);
        flush_events(r);
        reader_publish(r);
        pace(r);
        if (r->quit)
            break;
        r->got_data = false;
        r->pace_us = UINT32_MAX;
        (void)uv_run(&r->loop, UV_RUN_ONCE);
    }
    uv_walk(&r->loop, close_handle, NULL);
    (void)uv_run(&r->loop, UV_RUN_DEFAULT);
    REQUIRE(uv_loop_close(&r->loop) == 0);
    reader_tap_close(r);
    grace_fini(&r->grace);
    return NULL;
}

/* ---- The loop's side --------------------------------------------------- */

static void on_bell(uv_async_t *a)
{
    struct reader *r = a->data;
    struct ingress_note note;
    struct reader_event ev;

    reader_say_priority(r);
    while (spsc_pop(&r->notes, &note))
        reader_log_note(r->opts.sockets, &note, r->opts.quiet_rejects);
    while (spsc_pop(&r->events, &ev))
        r->opts.on_event(r->opts.arg, &ev);
    if (atomic_exchange(&r->blocked, false))
        wake(r);
}

/* The loop has not run yet: its handles close here, not in the thread. */
static void drop_loop(struct reader *r)
{
    uv_walk(&r->loop, close_handle, NULL);
    (void)uv_run(&r->loop, UV_RUN_DEFAULT);
    REQUIRE(uv_loop_close(&r->loop) == 0);
}

static int init_loop(struct reader *r)
{
    int rc;

    r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->wake_fd < 0)
        return -errno;
    rc = uv_loop_init(&r->loop);
    if (rc != 0)
        return rc;
    r->loop.data = r;
    rc = uv_poll_init(&r->loop, &r->wake, r->wake_fd);
    if (rc != 0) {
        (void)uv_loop_close(&r->loop);
        return rc;
    }
    (void)uv_poll_start(&r->wake, UV_READABLE, on_wake);
    (void)uv_timer_init(&r->loop, &r->bucket);
    r->bucket.data = r;
    (void)uv_timer_init(&r->loop, &r->tick);
    r->tick.data = r;
    (void)uv_timer_init(&r->loop, &r->ring_timer);
    r->ring_timer.data = r;
    rc = reader_kernel_init(r);
    if (rc != 0)
        drop_loop(r);
    return rc;
}

static int init_ingress(struct reader *r, uint64_t encoded_seq)
{
    const struct reader_opts *o = &r->opts;
    struct ingress *g = &r->g;
    int rc;

    (void)region_rollback(o->ingest_region);
    rc = agg_create(&r->agg, o->ingest_region, o->agg);
    if (rc != 0)
        return rc;
    rc = dsd_parser_init(&g->ingest.parser, o->parser);
    if (rc != 0)
        return rc;
    g->ingest.region = o->ingest_region;
    g->ingest.agg = r->agg;
    memcpy(g->ingest.eol_required, o->eol_required, sizeof(o->eol_required));
    g->ingest.drop_series = o->drop_series;
    g->ingest.drop_sketches = o->drop_sketches;
    g->ingest.drop_events = o->drop_events;
    g->ingest.drop_checks = o->drop_checks;
    g->region = o->ingest_region;
    g->counts = agg_counts(r->agg);
    g->landing = o->landing;
    g->sockets = o->sockets;
    g->clock = o->clock;
    g->notes = &r->notes;
    g->proctags = o->proctags;
    g->watch = (struct ingress_watch){r, watch_conn, unwatch_conn};
    g->stream_idle_s = o->stream_idle_s;
    if (encoded_seq > 0)
        agg_release(r->agg, encoded_seq);
    r->sent_seq = r->released_seq = encoded_seq;
    atomic_init(&r->release_seq, encoded_seq);
    return ingress_init(g);
}

static int init_memory(struct reader *r)
{
    size_t n = r->opts.landing->n_conns + 1u;

    r->conn_polls = calloc(n, sizeof(*r->conn_polls));
    r->conn_watched = calloc(n, sizeof(*r->conn_watched));
    r->conn_kept = calloc(n, sizeof(*r->conn_kept));
    r->order_mem = calloc(READER_RING, sizeof(struct order));
    if (r->conn_polls == NULL || r->conn_watched == NULL ||
        r->conn_kept == NULL || r->order_mem == NULL)
        return -ENOMEM;
    (void)sem_init(&r->served, 0, 0);
    spsc_init(&r->orders, r->order_mem, READER_RING, sizeof(struct order));
    spsc_init(&r->events, r->event_mem, READER_RING, sizeof(r->event_mem[0]));
    spsc_init(&r->notes, r->note_mem, READER_RING, sizeof(r->note_mem[0]));
    return 0;
}

static void destroy(struct reader *r)
{
    if (r == NULL)
        return;
    reader_kernel_fini(r);
    ingress_fini(&r->g);
    dsd_parser_fini(&r->g.ingest.parser);
    agg_close(r->agg);
    free(r->conn_polls);
    free(r->conn_watched);
    free(r->conn_kept);
    free(r->order_mem);
    if (r->wake_fd >= 0)
        (void)close(r->wake_fd);
    free(r);
}

static void on_failed_bell_closed(uv_handle_t *h)
{
    destroy(h->data);
}

int reader_start(struct reader **out, const struct reader_opts *opts,
                 uint64_t encoded_seq)
{
    struct reader *r = calloc(1, sizeof(*r));
    int rc = -ENOMEM;

    if (r == NULL)
        return rc;
    r->opts = *opts;
    r->wake_fd = -1;
    rc = init_memory(r);
    if (rc == 0)
        rc = init_ingress(r, encoded_seq);
    if (rc == 0)
        rc = init_loop(r);
    if (rc != 0) {
        destroy(r);
        return rc;
    }
    rc = uv_async_init(opts->loop, &r->bell, on_bell);
    if (rc != 0) {
        drop_loop(r);
        destroy(r);
        return rc;
    }
    r->bell.data = r;
    rc = -pthread_create(&r->thread, NULL, run, r);
    if (rc != 0) {
        drop_loop(r);
        uv_close((uv_handle_t *)&r->bell, on_failed_bell_closed);
        return rc;
    }
    while (sem_wait(&r->served) != 0) /* EINTR */
        ;
    reader_say_priority(r); /* while the loop has what was refused, or not */
    *out = r;
    return 0;
}

void reader_order(struct reader *r, enum reader_order order, uint64_t token)
{
    struct order o = {.what = order, .token = token};

    /* As words they find room whatever waits in the ring: a drain may last
     * while many parts are encoded, and the end must not wait for the loop to
     * take an event, since the loop waits for the end. */
    if (order == READER_QUIT)
        atomic_store(&r->quit_asked, true);
    else if (order == READER_RELEASE)
        atomic_store(&r->release_seq, token);
    else
        REQUIRE(spsc_push(&r->orders, &o));
    wake(r);
}

uint64_t reader_last_data_ns(const struct reader *r)
{
    return atomic_load_explicit(&r->g.last_data_ns, memory_order_relaxed);
}

const struct agg *reader_agg(const struct reader *r)
{
    return r->agg;
}

/* ---- The end ----------------------------------------------------------- */

static void on_bell_closed(uv_handle_t *h)
{
    struct reader *r = h->data;
    void (*closed)(void *arg) = r->closed;
    void *arg = r->closed_arg;

    destroy(r);
    if (closed != NULL)
        closed(arg);
}

void reader_join(struct reader *r, void (*closed)(void *arg), void *arg)
{
    REQUIRE(pthread_join(r->thread, NULL) == 0);
    r->closed = closed;
    r->closed_arg = arg;
    uv_close((uv_handle_t *)&r->bell, on_bell_closed);
}
