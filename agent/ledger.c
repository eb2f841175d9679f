/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger reads both regions' counters, walks what is not settled yet, and
 * puts the sums beside each other. Nothing here counts: a counter that only the
 * ledger knew could not be wrong, and so could not prove anything.
 */
#include "agent/ledger.h"

#include <stdio.h>
#include <string.h>

#include "agent/base/json.h"
#include "aggregator/series.h"

/* Samples in parts that are closed and not payloads yet. */
static uint64_t unencoded_samples(const struct agg *agg, uint64_t last,
                                  const struct store *store)
{
    uint64_t sum = 0;

    for (uint64_t seq = store_encoded_seq(store) + 1; seq <= last; seq++) {
        struct part_iter *it;
        struct part_info info;

        if (part_iter_open(&it, agg, seq) != 0)
            continue; /* not there: the balance will say so */
        part_iter_info(it, &info);
        sum += info.n_samples;
        part_iter_close(it);
    }
    return sum;
}

void ledger_collect(struct ledger *out, const struct reader_view *view,
                    const struct agg *agg, const struct store *store)
{
    memset(out, 0, sizeof(*out));
    out->ingest = view->counts;
    out->agg = view->agg;
    out->delivery = *store_counts(store);
    out->restored = *store_restored(store);
    store_stats(store, &out->store);
    for (int t = 0; t < TRANSPORT_N; t++)
        out->received += out->ingest.received[t];
    for (int r = 0; r < DSD_N_RESULTS; r++)
        out->rejected += out->ingest.rejected[r];
    for (int r = 0; r < FILTER_N; r++)
        out->filtered += out->ingest.filtered[r];
    out->delivery.dropped[DROP_DAMAGED] += out->ingest.damaged;
    out->delivery.dropped[DROP_RING_BUSY] += out->ingest.ring_busy;
    for (int c = 0; c < DROP_N; c++)
        out->dropped += out->delivery.dropped[c];
    for (int c = 0; c < DROP_N; c++)
        out->restored_dropped += out->restored.counts.dropped[c];
    out->restored_in_flight = out->store.restored_load.n_samples;
    out->open = out->agg.open_samples;
    out->unencoded = unencoded_samples(agg, view->closed_seq, store);
    out->in_flight = out->unencoded + out->store.load.n_samples;
}

void ledger_finish(struct ledger *l)
{
    uint64_t late = l->open + l->in_flight;

    l->delivery.dropped[DROP_DEADLINE] += late;
    l->dropped += late;
    l->open = l->unencoded = l->in_flight = 0;
    l->restored.counts.dropped[DROP_DEADLINE] += l->restored_in_flight;
    l->restored_dropped += l->restored_in_flight;
    l->restored_in_flight = 0;
}

uint64_t ledger_dropped(const struct ledger *l)
{
    return l->dropped + l->restored_dropped;
}

bool ledger_balances(const struct ledger *l)
{
    return l->received == l->rejected + l->filtered + l->ingest.aggregated &&
           l->ingest.aggregated == l->delivery.delivered + l->delivery.saved +
                                       l->dropped + l->in_flight + l->open &&
           l->restored.accepted.n_samples ==
               l->restored.counts.delivered + l->restored.counts.saved +
                   l->restored_dropped + l->restored_in_flight;
}

int ledger_exit_status(const struct ledger *l, uint64_t dropped_before_stop)
{
    if (!ledger_balances(l))
        return 4;
    return ledger_dropped(l) > dropped_before_stop ||
                   l->open + l->in_flight + l->restored_in_flight > 0
               ? 3
               : 0;
}

static void member_u64(struct json *j, const char *key, uint64_t v)
{
    json_key(j, key);
    json_u64(j, v);
}

static void write_received(const struct ledger *l, struct json *j)
{
    json_key(j, "received");
    json_object(j);
    member_u64(j, "datagrams", l->ingest.datagrams);
    member_u64(j, "bytes", l->ingest.bytes);
    member_u64(j, "samples", l->received);
    member_u64(j, "events", l->ingest.events);
    member_u64(j, "checks", l->ingest.checks);
    json_key(j, "by_transport");
    json_object(j);
    for (int t = 0; t < TRANSPORT_N; t++)
        member_u64(j, transport_name(t), l->ingest.received[t]);
    json_end(j);
    json_end(j);
}

static void write_rejected(const struct ledger *l, struct json *j)
{
    json_key(j, "rejected");
    json_object(j);
    for (int r = DSD_FIRST_REJECT; r < DSD_N_RESULTS; r++) {
        if (l->ingest.rejected[r] > 0)
            member_u64(j, dsd_reject_name(r), l->ingest.rejected[r]);
    }
    json_end(j);
    json_key(j, "filtered");
    json_object(j);
    for (int r = 0; r < FILTER_N; r++) {
        if (l->ingest.filtered[r] > 0)
            member_u64(j, filter_name(r), l->ingest.filtered[r]);
    }
    json_end(j);
}

static void write_dropped(const struct delivery_counts *d, struct json *j)
{
    json_key(j, "dropped");
    json_object(j);
    for (int c = 0; c < DROP_N; c++) {
        if (c != DROP_HTTP && d->dropped[c] > 0)
            member_u64(j, drop_cause_name(c), d->dropped[c]);
    }
    for (int i = 0; i < STORE_N_HTTP_CODES; i++) {
        char key[16];

        if (d->dropped_http[i] == 0)
            continue;
        snprintf(key, sizeof(key), "http_%d", i + 100);
        member_u64(j, key, d->dropped_http[i]);
    }
    json_end(j);
}

static void write_delivery(const struct ledger *l, struct json *j)
{
    const struct delivery_counts *d = &l->delivery;

    member_u64(j, "aggregated", l->ingest.aggregated);
    member_u64(j, "delivered", d->delivered);
    member_u64(j, "saved", d->saved);
    write_dropped(d, j);
    member_u64(j, "in_flight", l->in_flight);
    member_u64(j, "open", l->open);
    member_u64(j, "points", d->points_delivered);
    json_key(j, "payloads");
    json_object(j);
    member_u64(j, "sent", d->payloads_sent);
    member_u64(j, "retried", d->payloads_retried);
    member_u64(j, "ambiguous", d->payloads_ambiguous);
    json_end(j);
    json_key(j, "events");
    json_object(j);
    member_u64(j, "delivered", d->events_delivered);
    member_u64(j, "dropped", d->events_dropped);
    member_u64(j, "rejected", l->ingest.events_rejected);
    json_end(j);
    json_key(j, "checks");
    json_object(j);
    member_u64(j, "delivered", d->checks_delivered);
    member_u64(j, "dropped", d->checks_dropped);
    member_u64(j, "rejected", l->ingest.checks_rejected);
    json_end(j);
}

static void write_beside(const struct ledger *l, const struct ledger_facts *f,
                         struct json *j)
{
    const struct ingest_counts *c = &l->ingest;

    member_u64(j, "folded", c->folded);
    member_u64(j, "delivered_old",
               c->delivered_old + l->delivery.delivered_old +
                   l->restored.counts.delivered_old);
    json_key(j, "kernel_drops");
    json_object(j);
    member_u64(j, "udp", c->kernel_drops[TRANSPORT_UDP]);
    json_end(j);
    json_key(j, "tapped");
    json_object(j);
    member_u64(j, "udp", c->tapped[TRANSPORT_UDP]);
    member_u64(j, "uds", c->tapped[TRANSPORT_UDS]);
    json_end(j);
    member_u64(j, "left_for_successor", l->left_for_successor);
    member_u64(j, "worker_deaths", f->worker_deaths);
    member_u64(j, "upgrades", f->n_upgrades);
    json_key(j, "input");
    json_object(j);
    member_u64(j, "bad_rate", c->bad_rate);
    member_u64(j, "bad_utf8", c->bad_utf8);
    member_u64(j, "clipped_tags", c->clipped_tags);
    member_u64(j, "clipped_hosts", c->clipped_hosts);
    member_u64(j, "type_clashes", c->type_clashes);
    member_u64(j, "hist_capped", c->hist_capped);
    member_u64(j, "truncated_datagrams", c->truncated_datagrams);
    member_u64(j, "stream_refused", c->stream_refused);
    member_u64(j, "stream_oversize", c->stream_oversize);
    json_end(j);
}

/* Left out by an agent that found nothing. */
static void write_restored(const struct ledger *l, struct json *j)
{
    const struct store_books *b = &l->restored;

    if (b->n_payloads == 0 && l->store.disk.n_damaged_bytes == 0)
        return;
    json_key(j, "restored");
    json_object(j);
    member_u64(j, "payloads", b->n_payloads);
    member_u64(j, "samples", b->accepted.n_samples);
    member_u64(j, "delivered", b->counts.delivered);
    member_u64(j, "saved", b->counts.saved);
    write_dropped(&b->counts, j);
    member_u64(j, "in_flight", l->restored_in_flight);
    member_u64(j, "damaged_bytes", l->store.disk.n_damaged_bytes);
    json_end(j);
}

void ledger_write_members(const struct ledger *l,
                          const struct ledger_facts *facts, struct json *j)
{
    write_received(l, j);
    write_rejected(l, j);
    write_delivery(l, j);
    write_restored(l, j);
    write_beside(l, facts, j);
    if (facts->lost != NULL)
        losses_write_members(facts->lost, j);
}

static const char *const stage_names[STAGE_DONE] = {
    [STAGE_LINGER] = "linger", [STAGE_DRAIN] = "drain",
    [STAGE_KERNEL] = "kernel", [STAGE_CLOSE] = "close",
    [STAGE_ENCODE] = "encode", [STAGE_DELIVER] = "deliver",
    [STAGE_SAVE] = "save",
};

int ledger_write_json(const struct ledger *l, const struct ledger_facts *facts,
                      struct buf *out)
{
    struct json j;

    json_init(&j, out);
    json_object(&j);
    json_key(&j, "retriever");
    json_str(&j, RETRIEVER_VERSION);
    member_u64(&j, "receipt", 1);
    json_key(&j, "reason");
    json_str(&j, facts->reason);
    json_key(&j, "balanced");
    json_bool(&j, ledger_balances(l));
    json_key(&j, "exit");
    json_i64(&j, facts->exit_status);
    member_u64(&j, "duration_ms", facts->duration_ms);
    json_key(&j, "stages_ms");
    json_object(&j);
    for (int s = STAGE_LINGER; facts->stage_ms != NULL && s <= STAGE_SAVE; s++)
        member_u64(&j, stage_names[s], facts->stage_ms[s]);
    json_end(&j);
    ledger_write_members(l, facts, &j);
    if (facts->waits != NULL) {
        json_key(&j, "reader");
        json_object(&j);
        losses_write_waits(facts->waits, &j);
        json_end(&j);
    }
    json_end(&j);
    return json_finish(&j);
}
