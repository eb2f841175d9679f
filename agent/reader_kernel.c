/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader's end of the kernel side.
 *
 * Packets of lines are applied like datagrams, one transaction or more each, with a
 * position of their own in the landing zone: a successor finds none of them, since
 * they lie in the memory of the process, so it begins at 0. A stop takes them with
 * its order to close, which came behind them; what comes later is not taken, or it
 * would lie in a bucket that nobody closes.
 *
 * Records of the event ring are only checked and handed on; those of single waits are
 * added up first, and go on being added up while the kernel thread does not come. When
 * there is no room for more they stay in the ring: so they are lost in one place alone,
 * the kernel, where that is counted.
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/kernel_link.h"
#include "agent/kernel_waits.h"
#include "agent/reader_private.h"
#include "bpf/ring.h"

#define RECORDS_PER_TURN 4096u

/* ---- Packets ------------------------------------------------------------ */

void reader_kernel_apply(struct reader *r)
{
    struct reader_kernel *k = &r->kernel;
    struct ingress *g = &r->g;
    unsigned n = 0;
    int64_t now_s;

    if (r->opts.kernel == NULL || k->over)
        return;
    now_s = ingress_now_s(g);
    while (n < KERNEL_PACKETS &&
           kernel_link_take_packet(r->opts.kernel, k->packet)) {
        ingest_packet(&g->ingest, &g->landing->head->kernel_pos, 0,
                      k->packet->bytes, k->packet->n, TRANSPORT_KERNEL, 0,
                      now_s);
        if (g->ingest.has_offender)
            ingress_note_offender(g, NOTE_OF_KERNEL);
        n++;
    }
    if (n == 0)
        return;
    r->got_data = true;
    kernel_link_took_packets(r->opts.kernel);
}

void reader_kernel_ask(struct reader *r)
{
    if (!r->g.origin.asked)
        return;
    r->g.origin.asked = false;
    if (r->opts.kernel != NULL)
        kernel_link_ring(r->opts.kernel->kernel_bell);
}

/* ---- Records ------------------------------------------------------------ */

/* Returns whether all that was added up is on its way. */
static bool forward_waits(struct reader *r)
{
    struct reader_kernel *k = &r->kernel;

    k->late = !kernel_waits_put(k->waits, r->opts.kernel);
    return !k->late;
}

/* False: there was no room for it. */
static bool forward(struct reader *r, const void *record, uint32_t n)
{
    const struct event_hdr *h = record;
    struct kernel_link *l = r->opts.kernel;

    if (!event_is_whole(record, n)) {
        atomic_fetch_add(&l->n_wrong, 1);
        return true;
    }
    if (h->type == EVENT_RUNQ)
        return kernel_waits_add(r->kernel.waits, record) ||
               (forward_waits(r) && kernel_waits_add(r->kernel.waits, record));
    memcpy(r->kernel.record->bytes, record, n);
    return kernel_link_put_record(l, r->kernel.record);
}

/* Returns the number of records that were handed on, RECORDS_PER_TURN at most. */
static unsigned forward_all(struct reader *r)
{
    struct reader_kernel *k = &r->kernel;
    uint64_t pos = ring_begin(k->ring);
    uint64_t next = pos;
    enum ring_rc rc = RING_RECORD;
    const void *record;
    unsigned n = 0;
    uint32_t bytes;

    k->full = false;
    while (n < RECORDS_PER_TURN) {
        rc = ring_at(k->ring, pos, &record, &bytes, &next);
        if (rc != RING_RECORD)
            break;
        k->full = !forward(r, record, bytes);
        if (k->full)
            break;
        pos = next;
        n++;
    }
    ring_consumed(k->ring, rc == RING_EMPTY ? next : pos);
    (void)forward_waits(r);
    if (n > 0) {
        atomic_fetch_add(&r->opts.kernel->n_records, n);
        kernel_link_ring(r->opts.kernel->kernel_bell);
    }
    return n;
}

static void read_ring(struct reader *r, bool woken);

static void on_ring_timer(uv_timer_t *t)
{
    read_ring(t->data, false);
}

static void come_back(struct reader *r, uint64_t ms)
{
    uv_update_time(&r->loop);
    (void)uv_timer_start(&r->kernel.timer, on_ring_timer, ms, 0);
}

static void read_ring(struct reader *r, bool woken)
{
    struct reader_kernel *k = &r->kernel;
    unsigned n = forward_all(r);

    (void)uv_timer_stop(&k->timer);
    if (k->full)
        return; /* our bell says when to go on */
    if (n == RECORDS_PER_TURN) {
        come_back(r, 0);
        return;
    }
    switch (ring_rest(k->ring, n, woken, clock_mono_ns(&clock_real))) {
    case RING_AGAIN:
        come_back(r, 0);
        break;
    case RING_TIMER:
        come_back(r, atomic_load(&r->opts.kernel->max_delay_ms));
        break;
    case RING_SLEEP:
        break;
    }
}

static void on_ring(uv_poll_t *h, int status, int events)
{
    struct reader *r = h->data;

    (void)status;
    (void)events;
    ring_awake(r->kernel.ring);
    read_ring(r, true);
}

static void watch_ring(struct reader *r)
{
    struct reader_kernel *k = &r->kernel;
    struct ring *ring = atomic_load(&r->opts.kernel->ring);

    if (k->ring != NULL || ring == NULL ||
        uv_poll_init(&r->loop, &k->ring_poll, ring->wait_fd) != 0)
        return;
    k->ring = ring;
    k->ring_poll.data = r;
    (void)uv_poll_start(&k->ring_poll, UV_READABLE, on_ring);
    read_ring(r, false);
}

void reader_kernel_drain(struct reader *r)
{
    struct reader_kernel *k = &r->kernel;

    if (k->ring == NULL)
        return;
    __atomic_store_n(&k->ring->control->off, 1, __ATOMIC_RELAXED);
    read_ring(r, false);
}

/* ---- Up and down -------------------------------------------------------- */

static void on_bell(uv_poll_t *h, int status, int events)
{
    struct reader *r = h->data;

    (void)status;
    (void)events;
    kernel_link_hush(r->opts.kernel->reader_bell);
    watch_ring(r);
    if (r->kernel.full || r->kernel.late)
        read_ring(r, false);
    if (r->paused)
        return;
    reader_check_clock(r);
    reader_kernel_apply(r);
}

int reader_kernel_init(struct reader *r)
{
    struct reader_kernel *k = &r->kernel;
    int rc;

    r->opts.landing->head->kernel_pos = (struct ingest_pos){0};
    if (r->opts.kernel == NULL)
        return 0;
    k->packet = calloc(1, sizeof(*k->packet));
    k->record = calloc(1, sizeof(*k->record));
    k->waits = calloc(1, sizeof(*k->waits));
    if (k->packet == NULL || k->record == NULL || k->waits == NULL)
        return -ENOMEM;
    (void)uv_timer_init(&r->loop, &k->timer);
    rc = uv_poll_init(&r->loop, &k->bell, r->opts.kernel->reader_bell);
    if (rc != 0)
        return rc;
    k->bell.data = k->timer.data = r;
    return uv_poll_start(&k->bell, UV_READABLE, on_bell);
}

void reader_kernel_fini(struct reader *r)
{
    free(r->kernel.packet);
    free(r->kernel.record);
    free(r->kernel.waits);
}
