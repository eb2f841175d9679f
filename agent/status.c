/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/status.h"

#include <inttypes.h>

#include "agent/base/json.h"

static const char *key_state_name(enum key_state k)
{
    switch (k) {
    case KEY_UNKNOWN:
        return "not validated yet";
    case KEY_VALID:
        return "valid";
    case KEY_INVALID:
        return "refused by the intake";
    case KEY_MISSING:
        return "missing";
    }
    return "?";
}

void status_write_json(const struct status *s, struct buf *out)
{
    struct json j;

    json_init(&j, out);
    json_object(&j);
    json_key(&j, "retriever");
    json_str(&j, RETRIEVER_VERSION);
    json_key(&j, "uptime_s");
    json_u64(&j, s->uptime_s);
    ledger_write_members(&s->ledger, &s->facts, &j);
    json_key(&j, "contexts");
    json_u64(&j, s->ledger.agg.n_contexts);
    json_key(&j, "store");
    json_object(&j);
    json_key(&j, "payloads");
    json_u64(&j, s->ledger.store.n_payloads);
    json_key(&j, "bytes");
    json_u64(&j, s->ledger.store.bytes);
    json_key(&j, "disk_bytes");
    json_u64(&j, s->ledger.store.disk.n_bytes);
    json_key(&j, "disk_failing");
    json_bool(&j, s->ledger.store.disk.failing);
    json_end(&j);
    json_key(&j, "intake");
    json_object(&j);
    json_key(&j, "url");
    json_str(&j, s->forwarder.url);
    json_key(&j, "api_key");
    json_str(&j, s->no_api_key != NULL
                     ? "missing"
                     : key_state_name(s->forwarder.key_state));
    json_key(&j, "failing");
    json_bool(&j, s->forwarder.failing);
    json_key(&j, "last_error");
    json_str(&j, s->forwarder.last_error);
    json_end(&j);
    json_key(&j, "listeners");
    json_array(&j);
    for (uint32_t i = 0; i < s->sockets->n; i++)
        json_str(&j, s->sockets->entries[i].name);
    json_end(&j);
    json_end(&j);
    (void)json_finish(&j);
    (void)buf_putc(out, '\n');
}

static void row(struct buf *out, const char *name, uint64_t v)
{
    (void)buf_printf(out, "  %-22s %" PRIu64 "\n", name, v);
}

static void write_reasons(const struct status *s, struct buf *out)
{
    const struct ledger *l = &s->ledger;

    for (int r = DSD_FIRST_REJECT; r < DSD_N_RESULTS; r++) {
        if (l->ingest.rejected[r] > 0)
            (void)buf_printf(out, "    rejected %-16s %" PRIu64 "\n",
                             dsd_reject_name((enum dsd_result)r),
                             l->ingest.rejected[r]);
    }
    for (int c = 0; c < DROP_N; c++) {
        if (l->delivery.dropped[c] > 0)
            (void)buf_printf(out, "    dropped %-17s %" PRIu64 "\n",
                             drop_cause_name((enum drop_cause)c),
                             l->delivery.dropped[c]);
    }
}

void status_write_text(const struct status *s, struct buf *out)
{
    const struct ledger *l = &s->ledger;

    (void)buf_printf(out, "Retriever %s, up %" PRIu64 " s\n", RETRIEVER_VERSION,
                     s->uptime_s);
    (void)buf_printf(out, "Intake %s, API key %s%s%s\n", s->forwarder.url,
                     s->no_api_key != NULL
                         ? "missing"
                         : key_state_name(s->forwarder.key_state),
                     s->forwarder.failing ? ", failing: " : "",
                     s->forwarder.failing ? s->forwarder.last_error : "");
    (void)buf_puts(out, "Listeners\n");
    for (uint32_t i = 0; i < s->sockets->n; i++)
        (void)buf_printf(out, "  %s\n", s->sockets->entries[i].name);
    (void)buf_puts(out, "Samples\n");
    row(out, "received", l->received);
    row(out, "rejected", l->rejected);
    row(out, "filtered", l->filtered);
    row(out, "aggregated", l->ingest.aggregated);
    row(out, "delivered", l->delivery.delivered);
    row(out, "saved", l->delivery.saved);
    row(out, "dropped", l->dropped);
    row(out, "in flight", l->in_flight);
    row(out, "open", l->open);
    write_reasons(s, out);
    (void)buf_puts(out, "Beside\n");
    row(out, "datagrams", l->ingest.datagrams);
    row(out, "kernel drops (UDP)", l->ingest.kernel_drops[TRANSPORT_UDP]);
    row(out, "contexts", l->agg.n_contexts);
    row(out, "folded", l->ingest.folded);
    row(out, "events", l->ingest.events);
    row(out, "service checks", l->ingest.checks);
    row(out, "payloads sent", l->delivery.payloads_sent);
    row(out, "payloads retried", l->delivery.payloads_retried);
    row(out, "payloads waiting", l->store.n_payloads);
    if (l->restored.n_payloads > 0) {
        row(out, "restored samples", l->restored.accepted.n_samples);
        row(out, "restored, delivered", l->restored.counts.delivered);
        row(out, "restored, in flight", l->restored_in_flight);
    }
    row(out, "worker deaths", s->facts.worker_deaths);
    if (s->facts.lost != NULL)
        losses_write_text(s->facts.lost, out);
}
