/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tap's ring in the reader's loop. Under load it is emptied by a timer, which
 * wakes the reader a hundred times a second instead of once per batch; with little
 * to do each datagram wakes it (ring.h). What overflows lies in the sockets, which
 * are served as before.
 */
#include "agent/reader_private.h"

#include <stdlib.h>
#include <time.h>

#define RING_TIMER_MS 10
#define TURN_SHARE 8u /* a turn takes what fills 1 / so much of the ring */

static void on_ring_timer(uv_timer_t *t);

static uint64_t now_ns(void)
{
    return clock_mono_ns(&clock_real);
}

static struct ring *ring_of(struct reader *r)
{
    return &r->g.landing->ring;
}

static uint64_t take(struct reader *r)
{
    uint64_t n = ingress_tap(&r->g, ring_end(ring_of(r)));

    if (n > 0) {
        r->got_data = true;
        r->pace_us = 0;
    }
    return n;
}

/* To the end, then wait as the ring says. */
static void serve(struct reader *r, bool woken)
{
    struct ring *ring = ring_of(r);
    enum ring_wait wait;

    if (r->paused) /* what comes now was let through too early: not lost, late */
        return;
    reader_check_clock(r);
    ring_alive(ring, now_ns(), false);
    do
        wait = ring_rest(ring, take(r), woken, now_ns());
    while (wait == RING_AGAIN);
    if (wait == RING_SLEEP) {
        (void)uv_timer_stop(&r->ring_timer);
        ring_alive(ring, now_ns(), true);
        return;
    }
    uv_update_time(&r->loop);
    (void)uv_timer_start(&r->ring_timer, on_ring_timer, RING_TIMER_MS, 0);
}

static void on_ring_timer(uv_timer_t *t)
{
    serve(t->data, false);
}

static void on_ring(uv_poll_t *h, int status, int events)
{
    struct reader *r = h->data;

    (void)status;
    (void)events;
    ring_awake(ring_of(r));
    serve(r, true);
}

void reader_watch_ring(struct reader *r)
{
    int rc;

    if (!r->g.landing->has_ring)
        return;
    rc = uv_poll_init(&r->loop, &r->ring_poll, ring_of(r)->wait_fd);
    r->ring_watched = rc == 0;
    r->ring_poll.data = r;
    if (rc == 0)
        rc = uv_poll_start(&r->ring_poll, UV_READABLE, on_ring);
    if (rc != 0)
        ingress_note(&r->g, NOTE_TAP_FAILED, 0, -rc);
    serve(r, false);
}

void reader_tap_turn(struct reader *r)
{
    struct ring *ring = ring_of(r);

    if (r->ring_watched && !r->paused &&
        ring_end(ring) - ring_begin(ring) > ring->n_bytes / TURN_SHARE) {
        ring_alive(ring, now_ns(), false);
        (void)take(r);
    }
}

/* ---- On and off --------------------------------------------------------- */

void reader_tap_resume(struct reader *r)
{
    r->untapped = false;
    reader_tap_on(r);
    if (r->ring_watched)
        serve(r, false);
}

void reader_tap_on(struct reader *r)
{
    const struct sockets *s = r->opts.sockets;

    if (!r->has_tap || !r->ring_watched || r->drained || r->untapped ||
        r->paused || r->tapped)
        return;
    for (uint32_t i = 0; i < s->n; i++) {
        int rc;

        if (r->tap.programs[i] < 0)
            continue;
        rc = tap_attach(&r->tap, i, s->entries[i].fd);
        if (rc == 0)
            r->tapped = true;
        else
            ingress_note(&r->g, NOTE_TAP_FAILED, i, -rc);
    }
}

void reader_tap_off(struct reader *r)
{
    const struct sockets *s = r->opts.sockets;

    if (!r->g.landing->has_ring)
        return;
    for (uint32_t i = 0; i < s->n; i++) {
        int rc = 0;

        if (r->g.socket_ids[i] != 0)
            rc = tap_detach(s->entries[i].fd);
        if (rc != 0)
            ingress_note(&r->g, NOTE_STOP_FAILED, i, -rc);
    }
    r->tapped = false;
}

void reader_tap(struct reader *r, struct tap *t)
{
    r->tap = *t;
    r->has_tap = true;
    free(t);
    reader_tap_on(r);
}

void reader_tap_close(struct reader *r)
{
    if (r->has_tap)
        tap_close(&r->tap);
    r->has_tap = false;
    landing_ring_unmap(r->g.landing);
}

/* ---- The end ------------------------------------------------------------ */

bool reader_tap_sweep(struct reader *r)
{
    uint64_t end;

    if (!r->g.landing->has_ring)
        return true;
    end = ring_end(ring_of(r));
    (void)ingress_tap(&r->g, end);
    return ingress_tap_is_done(&r->g, end);
}

/* A sender is between two instructions of its program, and off its CPU. Behind the
 * grace period there is none; without one nothing tells when it is through. */
void reader_tap_finish(struct reader *r, uint64_t latest_ns)
{
    const struct timespec ms = {.tv_nsec = 1000000};

    while (!reader_tap_sweep(r)) {
        if (now_ns() >= latest_ns) {
            ingress_tap_give_up(&r->g, ring_end(ring_of(r)));
            return;
        }
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ms, NULL);
    }
}
