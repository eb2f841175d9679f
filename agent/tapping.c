/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/tapping.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/grace.h"
#include "agent/ingress.h"

#define MODULE "tap"
#define UDP_HEADER_BYTES 8
#define WITHOUT_BARRIER_NS 20000000 /* as in reader_drain.c */

const char *tapping_state_name(enum tapping_state s)
{
    switch (s) {
    case TAPPING_OFF:
        return "off";
    case TAPPING_LOADING:
        return "loading";
    case TAPPING_ON:
        return "on";
    }
    return "?";
}

void tapping_counts(const struct tapping *t, struct tapping_counts *out)
{
    const struct ring_control *c = t->control;

    *out = (struct tapping_counts){0};
    if (c == NULL)
        return;
    out->n_full = __atomic_load_n(&c->n_full, __ATOMIC_RELAXED);
    out->n_bypass = __atomic_load_n(&c->n_bypass, __ATOMIC_RELAXED);
}

/* ---- On the thread ------------------------------------------------------- */

static int load(struct tapping *t)
{
    const struct landing_tap *maps = &t->landing->head->tap;
    const struct ring ring = {.ring_fd = maps->ring_fd,
                              .control_fd = maps->control_fd};
    const struct tap_opts opts = {.max_bytes = t->max_bytes,
                                  .sources = t->sources,
                                  .n_sources = t->n_sources};
    struct tap *made = calloc(1, sizeof(*made));
    int rc;

    if (made == NULL)
        return -ENOMEM;
    rc = tap_load(made, &ring, &opts, &t->cause);
    if (rc != 0) {
        free(made);
        return rc;
    }
    t->made = made;
    return 0;
}

/* As in reader_drain.c; this thread has nothing else to do. */
static void wait_grace(void)
{
    const struct timespec ts = {.tv_nsec = WITHOUT_BARRIER_NS};
    struct grace g = {0};

    grace_begin(&g);
    if (grace_await(&g, UINT64_MAX) == GRACE_REFUSED)
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
    grace_fini(&g);
}

static void *run(void *arg)
{
    struct tapping *t = arg;

    (void)pthread_setname_np(pthread_self(), "tap");
    if (t->grace)
        wait_grace();
    else
        t->rc = load(t);
    (void)uv_async_send(&t->done);
    return NULL;
}

/* ---- On the loop --------------------------------------------------------- */

static void on_closed(uv_handle_t *h)
{
    struct tapping *t = h->data;

    t->closed(t->closed_arg);
}

static void finish_stop(struct tapping *t)
{
    if (t->has_done)
        uv_close((uv_handle_t *)&t->done, on_closed);
    else
        t->closed(t->closed_arg);
}

static void settled(struct tapping *t)
{
    void (*fn)(void *arg) = t->settled;

    t->settled = NULL;
    if (fn != NULL)
        fn(t->settled_arg);
}

static void say_off(const struct tapping *t)
{
    log_info(MODULE,
             "datagrams are read from their sockets, the tap is off: %s%s%s",
             t->cause.why, t->cause.remedy[0] != '\0' ? "; " : "",
             t->cause.remedy);
}

static void loaded(struct tapping *t)
{
    struct tap *made = t->made;

    t->made = NULL;
    if (made != NULL) {
        reader_order(t->reader, READER_TAP, (uint64_t)(uintptr_t)made);
        return;
    }
    t->state = TAPPING_OFF;
    if (t->rc != LOADER_REFUSED)
        (void)snprintf(t->cause.why, sizeof(t->cause.why), "%s",
                       strerror(-t->rc));
    say_off(t);
}

static bool start(struct tapping *t, bool grace)
{
    t->grace = grace;
    t->running = t->has_done && pthread_create(&t->thread, NULL, run, t) == 0;
    return t->running;
}

static void begin_grace(struct tapping *t)
{
    t->wants_grace = false;
    if (!start(t, true))
        settled(t);
}

static void on_done(uv_async_t *a)
{
    struct tapping *t = a->data;

    if (!t->running)
        return;
    (void)pthread_join(t->thread, NULL);
    t->running = false;
    if (t->stopping) {
        if (t->made != NULL) { /* nobody is left to take it */
            tap_close(t->made);
            free(t->made);
        }
        finish_stop(t);
        return;
    }
    if (!t->grace)
        loaded(t);
    if (t->wants_grace)
        begin_grace(t);
    else if (t->grace)
        settled(t);
}

/* What outlives this life is tapped only when the ring does. */
static bool is_tapped(const struct tapping_opts *opts,
                      const struct socket_entry *e)
{
    return (e->kind == SOCKET_UDP || e->kind == SOCKET_UNIXGRAM) &&
           (!e->shared_outside || opts->ring_held);
}

/* Asked here: beside the thread a stop may already connect the sockets. */
static void list_sources(struct tapping *t, const struct tapping_opts *opts)
{
    for (uint32_t i = 0; i < opts->sockets->n; i++) {
        const struct socket_entry *e = &opts->sockets->entries[i];

        if (!is_tapped(opts, e))
            continue;
        t->sources[t->n_sources++] =
            (struct tap_source){.source = i,
                                .socket = ingress_socket_id(e),
                                .header_bytes = e->kind == SOCKET_UDP
                                                    ? UDP_HEADER_BYTES
                                                    : 0};
    }
}

void tapping_start(struct tapping *t, const struct tapping_opts *opts)
{
    *t = (struct tapping){.loop = opts->loop,
                          .reader = opts->reader,
                          .landing = opts->landing,
                          .max_bytes = opts->max_bytes};
    list_sources(t, opts);
    /* Without a tap, too: a ring of an earlier life has to be settled. */
    t->has_done = uv_async_init(t->loop, &t->done, on_done) == 0;
    t->done.data = t;
    if (opts->off != NULL) {
        t->cause = *opts->off;
        say_off(t);
    } else if (start(t, false)) {
        t->state = TAPPING_LOADING;
    } else {
        (void)snprintf(t->cause.why, sizeof(t->cause.why),
                       "no thread to load it");
    }
}

void tapping_tapped(struct tapping *t, uint64_t n)
{
    bool was_on = t->state == TAPPING_ON;

    t->state = n > 0 ? TAPPING_ON : TAPPING_OFF;
    t->control = t->landing->ring.control; /* the reader's, while it lives */
    if (was_on && n > 0)
        return;
    if (n > 0)
        log_info(MODULE, "datagrams are tapped; /proc/net/udp shows them as "
                         "drops, kernel_drops of the status does not");
    else
        (void)snprintf(t->cause.why, sizeof(t->cause.why),
                       "no socket took it; see the log");
}

void tapping_settle(struct tapping *t, void (*fn)(void *arg), void *arg)
{
    REQUIRE(t->settled == NULL);
    t->settled = fn;
    t->settled_arg = arg;
    if (t->state == TAPPING_OFF && t->landing->head->tap.ring_fd < 0)
        settled(t);
    else
        reader_order(t->reader, READER_UNTAP, 0);
}

void tapping_untapped(struct tapping *t)
{
    if (t->settled == NULL)
        return;
    /* One thread at a time: it is loading, or waits for a period that began before
     * the programs were detached, for an order which was taken back. */
    t->wants_grace = t->running;
    if (!t->running)
        begin_grace(t);
}

void tapping_unsettle(struct tapping *t)
{
    t->wants_grace = false;
    t->settled = NULL;
}

void tapping_stop(struct tapping *t, void (*closed)(void *arg), void *arg)
{
    t->closed = closed;
    t->closed_arg = arg;
    t->stopping = true;
    t->control = NULL;
    if (!t->running)
        finish_stop(t);
}
