/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reader at rest: the sockets stay open and fill, nothing is taken from them,
 * every part is closed. What comes next is either another program that reads the
 * same sockets, or reader_resume().
 *
 * The timers rest as well: a bucket's end would close a part of zeros, and a read
 * of the kernel's drop counters would change the ledger, behind the back of who
 * is copying it.
 */
#include "agent/reader_private.h"

static void watch_conns(struct reader *r, bool on)
{
    for (uint32_t i = 0; i < r->opts.landing->n_conns; i++) {
        if (!r->conn_watched[i])
            continue;
        if (on)
            (void)uv_poll_start(&r->conn_polls[i], UV_READABLE, reader_on_conn);
        else
            (void)uv_poll_stop(&r->conn_polls[i]);
    }
}

bool reader_pause(struct reader *r)
{
    if (!r->paused && !agg_may_close(r->agg, ingress_now_s(&r->g)))
        return false;
    if (!r->paused) {
        reader_kernel_apply(r);
        r->paused = true;
        reader_unwatch_sockets(r);
        watch_conns(r, false);
        (void)uv_timer_stop(&r->bucket);
        (void)uv_timer_stop(&r->tick);
        reader_tap_off(r); /* was, and a grace period ago: see READER_UNTAP */
        /* Where the kernel refuses to tell when that is over, a sender may still
         * be writing into the ring. */
        reader_tap_finish(r,
                          clock_mono_ns(&clock_real) + READER_CLOSE_SWEEP_NS);
        ingress_udp_drops(&r->g);
    }
    agg_close_all(r->agg, ingress_now_s(&r->g));
    return true;
}

void reader_resume(struct reader *r)
{
    bool paused = r->paused;

    r->paused = false;
    reader_tap_resume(r);
    if (!paused)
        return;
    r->accept_stopped = false;
    for (uint32_t i = 0; i < r->opts.sockets->n; i++) {
        if (r->watched[i])
            (void)uv_poll_start(&r->polls[i], UV_READABLE, reader_on_socket);
    }
    watch_conns(r, true);
    reader_kernel_apply(r);
    r->got_data = true; /* timers that were due are armed anew */
}
