/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/parts.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/base/contract.h"

/* Parts closed at one instant share an entry. More entries than this wait only
 * when buckets end much faster than the delay: then the delay is given up. */
#define MAX_WAITING 16
#define SAME_INSTANT_NS UINT64_C(5000000)

struct waiting {
    uint64_t seq;
    uint64_t due_ns;
};

struct parts {
    struct parts_opts opts;
    struct encoders *encoders;
    uv_timer_t timer;
    struct waiting waiting[MAX_WAITING]; /* ascending in both members */
    unsigned n_waiting;
    uint64_t announced;
    bool hurried;
    bool stopping;
    unsigned n_closing;
    void (*closed)(void *arg);
    void *closed_arg;
};

static void submit_all(struct parts *p)
{
    p->n_waiting = 0;
    (void)uv_timer_stop(&p->timer);
    encoders_submit(p->encoders, p->announced);
}

static void on_timer(uv_timer_t *t);

static void submit_due(struct parts *p)
{
    uint64_t now_ns = uv_hrtime();
    unsigned n_due = 0;

    while (n_due < p->n_waiting && p->waiting[n_due].due_ns <= now_ns)
        n_due++;
    if (n_due > 0) {
        encoders_submit(p->encoders, p->waiting[n_due - 1].seq);
        p->n_waiting -= n_due;
        for (unsigned i = 0; i < p->n_waiting; i++)
            p->waiting[i] = p->waiting[i + n_due];
    }
    if (p->n_waiting > 0) {
        uv_update_time(p->opts.encoders.loop);
        (void)uv_timer_start(&p->timer, on_timer,
                             (p->waiting[0].due_ns - now_ns) / 1000000 + 1, 0);
    }
}

static void on_timer(uv_timer_t *t)
{
    submit_due(t->data);
}

static void on_done(void *arg, uint64_t seq)
{
    struct parts *p = arg;

    if (p->closed != NULL)
        return; /* the last one: a successor, or nobody, releases it */
    reader_order(p->opts.reader, READER_RELEASE, seq);
    p->opts.on_encoded(p->opts.arg, seq);
}

static void on_restored(void *arg)
{
    struct parts *p = arg;

    if (p->closed == NULL)
        p->opts.on_restored(p->opts.arg);
}

int parts_start(struct parts **out, const struct parts_opts *opts)
{
    struct parts *p = calloc(1, sizeof(*p));
    struct encoders_opts eo = opts->encoders;
    int rc;

    if (p == NULL)
        return -ENOMEM;
    p->opts = *opts;
    eo.agg = reader_agg(opts->reader);
    eo.done = on_done;
    eo.restored = opts->on_restored != NULL ? on_restored : NULL;
    eo.arg = p;
    rc = encoders_start(&p->encoders, &eo);
    if (rc != 0) {
        free(p);
        return rc;
    }
    p->announced = encoders_done(p->encoders);
    (void)uv_timer_init(eo.loop, &p->timer);
    p->timer.data = p;
    *out = p;
    return 0;
}

void parts_announce(struct parts *p, uint64_t seq)
{
    uint64_t due_ns = uv_hrtime() + p->opts.delay_ns;
    struct waiting *last;

    REQUIRE(seq > p->announced);
    p->announced = seq;
    if (p->hurried || p->n_waiting == MAX_WAITING) {
        submit_all(p);
        return;
    }
    last = p->n_waiting > 0 ? &p->waiting[p->n_waiting - 1] : NULL;
    if (last != NULL && due_ns - last->due_ns < SAME_INSTANT_NS) {
        last->seq = seq;
        return;
    }
    p->waiting[p->n_waiting++] = (struct waiting){seq, due_ns};
    submit_due(p);
}

void parts_hurry(struct parts *p, bool hurried)
{
    p->hurried = hurried || p->stopping;
    if (p->hurried)
        submit_all(p);
}

void parts_set_stopping(struct parts *p)
{
    p->stopping = true;
    encoders_set_stopping(p->encoders, true);
    parts_hurry(p, true);
}

void parts_set_resting(struct parts *p, bool resting)
{
    encoders_set_resting(p->encoders, resting);
}

void parts_sync(struct parts *p, encoders_synced_fn *fn, void *arg)
{
    encoders_sync(p->encoders, fn, arg);
}

void parts_set_endpoint(struct parts *p, bool have_endpoint)
{
    encoders_set_endpoint(p->encoders, have_endpoint);
}

uint64_t parts_announced(const struct parts *p)
{
    return p->announced;
}

uint64_t parts_encoded(const struct parts *p)
{
    return encoders_done(p->encoders);
}

bool parts_await(struct parts *p)
{
    return encoders_await(p->encoders);
}

static void part_closed(void *arg)
{
    struct parts *p = arg;

    if (--p->n_closing > 0)
        return;
    p->closed(p->closed_arg);
    free(p);
}

static void on_timer_closed(uv_handle_t *t)
{
    part_closed(t->data);
}

void parts_stop(struct parts *p, void (*closed)(void *arg), void *arg)
{
    REQUIRE(p->closed == NULL && closed != NULL);
    p->closed = closed;
    p->closed_arg = arg;
    p->n_closing = 2;
    uv_close((uv_handle_t *)&p->timer, on_timer_closed);
    encoders_stop(p->encoders, part_closed, p);
}
