/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/barrier.h"

#include <string.h>

#include "agent/base/contract.h"
#include "agent/base/json.h"

#define STOPPED                                                                \
    "the agent stopped before everything was delivered; its receipt names "    \
    "the "                                                                     \
    "rest"
#define TOO_OFTEN                                                              \
    "more than one flush a second for minutes: the open bucket is sent at "    \
    "its "                                                                     \
    "end"
#define TOKEN_BASE (UINT64_C(1) << 32) /* apart from the stop's token */

void barrier_init(struct barrier *b, struct reader *reader, struct parts *parts,
                  struct forwarder *forwarder, struct store *store)
{
    memset(b, 0, sizeof(*b));
    b->reader = reader;
    b->parts = parts;
    b->forwarder = forwarder;
    b->store = store;
    b->token = TOKEN_BASE;
}

static void begin(struct barrier *b)
{
    memcpy(b->now, b->next, sizeof(b->now));
    b->n_now = b->n_next;
    b->n_next = 0;
    b->running = true;
    b->again = b->closed = b->settling = false;
    b->began_ns = uv_hrtime();
    b->before = *store_counts(b->store);
    b->token++;
    parts_hurry(b->parts, true);
    reader_order(b->reader, READER_FLUSH, b->token);
}

static void answer(struct barrier *b, bool flushed, const char *error)
{
    const struct delivery_counts *d = store_counts(b->store);
    struct buf out;
    struct json j;

    if (b->n_now == 0)
        return;
    buf_init(&out, 4096);
    json_init(&j, &out);
    json_object(&j);
    json_key(&j, "flushed");
    json_bool(&j, flushed);
    json_key(&j, "samples");
    json_u64(&j, d->delivered - b->before.delivered);
    json_key(&j, "points");
    json_u64(&j, d->points_delivered - b->before.points_delivered);
    json_key(&j, "payloads");
    json_u64(&j, d->payloads_sent - b->before.payloads_sent);
    json_key(&j, "ambiguous");
    json_u64(&j, d->payloads_ambiguous - b->before.payloads_ambiguous);
    json_key(&j, "duration_ms");
    json_u64(&j, (uv_hrtime() - b->began_ns) / 1000000);
    if (error != NULL)
        json_member_str(&j, "error", error);
    json_end(&j);
    (void)json_finish(&j);
    (void)buf_putc(&out, '\n');
    for (uint32_t i = 0; i < b->n_now; i++)
        control_answer(b->now[i], out.data, out.n);
    b->n_now = 0;
    buf_fini(&out);
}

/* The barrier under way is over. */
static void finish(struct barrier *b, bool flushed, const char *error)
{
    b->running = b->settling = false;
    answer(b, flushed, error);
    if (b->again)
        begin(b);
    else
        parts_hurry(b->parts, false);
}

static void on_settled(void *arg)
{
    struct barrier *b = arg;

    if (b->settling) /* not aborted meanwhile */
        finish(b, true, NULL);
}

void barrier_ask(struct barrier *b, struct control_request *rq)
{
    REQUIRE(b->n_next < CONTROL_MAX_CLIENTS);
    b->next[b->n_next++] = rq;
    b->again = true;
    if (!b->running)
        begin(b);
}

static void forget(struct control_request **list, uint32_t *n,
                   const struct control_request *rq)
{
    for (uint32_t i = 0; i < *n; i++) {
        if (list[i] == rq)
            list[i--] = list[--*n];
    }
}

void barrier_forget(struct barrier *b, struct control_request *rq)
{
    forget(b->now, &b->n_now, rq);
    forget(b->next, &b->n_next, rq);
}

void barrier_encoded(struct barrier *b)
{
    if (!b->running || !b->closed || b->settling ||
        parts_encoded(b->parts) < b->seq)
        return;
    b->settling = true;
    if (forwarder_when_settled(b->forwarder, on_settled, b) != 0)
        finish(b, false, "out of memory"); /* it is under way, unwatched */
}

void barrier_closed(struct barrier *b, uint64_t token, bool closed)
{
    if (token != b->token || !b->running)
        return;
    if (!closed) {
        finish(b, false, TOO_OFTEN);
        return;
    }
    b->closed = true;
    b->seq = parts_announced(b->parts);
    barrier_encoded(b);
}

void barrier_abort(struct barrier *b)
{
    b->running = b->again = b->settling = false;
    answer(b, false, STOPPED);
    memcpy(b->now, b->next, sizeof(b->now));
    b->n_now = b->n_next;
    b->n_next = 0;
    answer(b, false, STOPPED);
}
