/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of the intake. Sockets that end with us are told to accept nothing
 * more; what they accepted is read to the end. A sender that was past the check
 * inside the kernel when the socket was stopped may still queue its datagram: it
 * does so inside an RCU read section (UDP) or under the socket's lock (Unix), so
 * one grace period later nothing can come any more, and the last read is exact.
 *
 * Sockets that somebody else holds too are never stopped, for that would act on
 * the socket for ever, for the successor as well: they are emptied once.
 * Connections that the service manager will keep are read to the end of a frame,
 * since only what the kernel still holds goes to the next life.
 *
 * The tap is detached first: its program runs before a socket knows that it was
 * stopped. The same grace period ends the programs that were running.
 *
 * All of this may be done again by a successor: each step is idempotent.
 */
#include "agent/reader_private.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#define CALLS 64u /* receive calls per source and round */
#define GRACE_MAX_NS UINT64_C(1000000000)
#define WITHOUT_BARRIER_NS UINT64_C(20000000)
#define FRAME_END_NS UINT64_C(100000000) /* for the rest of frames that began */

static uint64_t now_ns(void)
{
    return clock_mono_ns(&clock_real);
}

static enum ingress_rc sweep_source(struct reader *r, uint32_t i)
{
    const struct socket_entry *e = &r->opts.sockets->entries[i];

    switch (e->kind) {
    case SOCKET_UDP:
    case SOCKET_UNIXGRAM:
        return ingress_datagrams(&r->g, i, CALLS);
    case SOCKET_UNIXSTREAM:
        /* The connections that wait at a held listener are the successor's. */
        return r->drained && e->shared_outside
                   ? INGRESS_IDLE
                   : ingress_accept(&r->g, i, CALLS);
    case SOCKET_CONTROL:
        break;
    }
    return INGRESS_IDLE;
}

static bool sweep_conns(struct reader *r)
{
    struct landing *l = r->opts.landing;
    bool more = false;

    for (uint32_t i = 0; i < l->n_conns && r->g.n_live > 0; i++) {
        if (l->conns[i].fd < 0 || r->conn_kept[i])
            continue;
        if (r->drained)
            ingress_stream_stop(&r->g, i);
        if (ingress_stream_read(&r->g, i, CALLS) == INGRESS_MORE)
            more = true;
    }
    return more;
}

bool reader_sweep(struct reader *r, uint64_t latest_ns)
{
    const struct sockets *s = r->opts.sockets;
    bool done[SOCKETS_MAX] = {false};

    for (;;) {
        bool more = false;

        for (uint32_t i = 0; i < s->n; i++) {
            if (done[i])
                continue;
            done[i] = sweep_source(r, i) != INGRESS_MORE;
            more = more || !done[i];
        }
        more = sweep_conns(r) || more;
        (void)reader_tap_sweep(r);
        if (!more)
            return true;
        if (now_ns() >= latest_ns)
            return false;
        (void)priority_breathe(&r->priority, now_ns());
    }
}

static void stop_sources(struct reader *r)
{
    const struct sockets *s = r->opts.sockets;

    for (uint32_t i = 0; i < s->n; i++) {
        const struct socket_entry *e = &s->entries[i];
        int rc = 0;

        if (e->shared_outside)
            continue;
        switch (e->kind) {
        case SOCKET_UDP:
            rc = ingress_udp_stop(e->fd);
            break;
        case SOCKET_UNIXGRAM:
            rc = ingress_uds_stop(e->fd);
            break;
        case SOCKET_UNIXSTREAM:
            rc = ingress_listener_stop(e->fd);
            break;
        case SOCKET_CONTROL:
            break;
        }
        if (rc != 0)
            ingress_note(&r->g, NOTE_STOP_FAILED, i, -rc);
    }
}

/* Where the call is refused, some further reading stands for it: no event tells when
 * the last sender is through. On a machine whose CPUs are all taken the period has
 * no end; delivering what is here must not wait for it. */
static void wait_for_senders(struct reader *r, uint64_t latest_ns)
{
    uint64_t end_ns = now_ns() + GRACE_MAX_NS;
    int rc;

    grace_begin(&r->grace);
    rc = grace_await(&r->grace, end_ns < latest_ns ? end_ns : latest_ns);
    if (rc == GRACE_LATE)
        ingress_note(&r->g, NOTE_GRACE_LATE, 0,
                     (int64_t)(GRACE_MAX_NS / 1000000));
    if (rc != GRACE_REFUSED)
        return;
    end_ns = now_ns() + WITHOUT_BARRIER_NS;
    if (end_ns > latest_ns)
        end_ns = latest_ns;
    while (now_ns() < end_ns) {
        struct timespec ms = {.tv_nsec = 1000000};

        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ms, NULL);
        (void)reader_sweep(r, end_ns);
    }
}

/* ---- Connections that go on --------------------------------------------- */

/* What they sent so far is taken now: should the unit be stopped for good, the
 * manager throws away what is left. */
static void choose_kept(struct reader *r)
{
    const struct landing *l = r->opts.landing;
    uint32_t n = 0;

    for (uint32_t i = 0; i < l->n_conns && n < r->opts.n_keep_conns; i++) {
        if (l->conns[i].fd < 0 ||
            !r->opts.sockets->entries[l->conns[i].listener].stored)
            continue;
        (void)uv_poll_stop(&r->conn_polls[i]);
        (void)ingress_stream_read(&r->g, i, CALLS);
        r->conn_kept[i] = l->conns[i].fd >= 0;
        n += r->conn_kept[i];
    }
}

/* A client that writes length and content apart is in between for microseconds;
 * one that is later than FRAME_END_NS is closed, and told so. */
static void finish_frames(struct reader *r, uint64_t latest_ns)
{
    const struct timespec ms = {.tv_nsec = 1000000};
    const struct landing *l = r->opts.landing;
    uint64_t end_ns = now_ns() + FRAME_END_NS;
    bool open = true;

    if (end_ns > latest_ns)
        end_ns = latest_ns;
    while (open) {
        bool over = now_ns() >= end_ns;

        open = false;
        for (uint32_t i = 0; i < l->n_conns; i++) {
            if (!r->conn_kept[i] || ingress_stream_finish(&r->g, i))
                continue;
            r->conn_kept[i] = !over; /* the sweep ends it */
            open = open || !over;
        }
        if (open)
            (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ms, NULL);
    }
}

uint64_t reader_drain(struct reader *r, uint64_t latest_ns)
{
    struct landing *l = r->opts.landing;

    reader_unwatch_sockets(r);
    r->drained = true;
    reader_tap_off(r);
    stop_sources(r);
    choose_kept(r);
    finish_frames(r, latest_ns);
    (void)reader_sweep(r, latest_ns);
    wait_for_senders(r, latest_ns);
    (void)reader_sweep(r, latest_ns);
    reader_tap_finish(r, latest_ns);
    for (uint32_t i = 0; i < l->n_conns; i++) {
        if (l->conns[i].fd >= 0 && !r->conn_kept[i])
            ingress_stream_close(&r->g, i);
    }
    ingress_udp_drops(&r->g);
    reader_kernel_drain(r);
    return ingress_left(r->opts.sockets);
}
