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

static void row(struct buf *out, const char *name, uint64_t v)
{
    (void)buf_printf(out, "  %-22s %" PRIu64 "\n", name, v);
}

static void write_tap_json(const struct tapping *t, struct json *j)
{
    struct tapping_counts c;

    tapping_counts(t, &c);
    json_key(j, "tap");
    json_object(j);
    json_member_str(j, "state", tapping_state_name(t->state));
    json_member_str(j, "why", t->cause.why);
    json_member_str(j, "remedy", t->cause.remedy);
    json_member_u64(j, "ring_full", c.n_full);
    json_member_u64(j, "reader_late", c.n_bypass);
    json_end(j);
}

static void write_tap_text(const struct tapping *t, struct buf *out)
{
    struct tapping_counts c;

    tapping_counts(t, &c);
    (void)buf_printf(out, "Tap %s", tapping_state_name(t->state));
    if (t->state == TAPPING_OFF) {
        (void)buf_printf(out, ": %s%s%s\n", t->cause.why,
                         t->cause.remedy[0] != '\0' ? "; " : "",
                         t->cause.remedy);
        return;
    }
    (void)buf_puts(out, "\n");
    row(out, "past a full ring", c.n_full);
    row(out, "past a late reader", c.n_bypass);
    (void)buf_puts(out,
                   "  tapped datagrams show as drops in /proc/net/udp; what "
                   "was lost is \"kernel drops\" below\n");
}

static void write_reader_json(const struct reader_sched *s,
                              const struct own_waits_report *waits,
                              struct json *j)
{
    json_key(j, "reader");
    json_object(j);
    json_key(j, "sched");
    json_object(j);
    json_member_str(j, "requested", s->requested);
    json_member_u64(j, "priority", (uint64_t)s->rt_priority);
    json_member_str(j, "effective", s->effective);
    json_key(j, "nice");
    json_i64(j, s->nice);
    json_member_str(j, "reason", priority_cause_name(s->cause));
    json_end(j);
    if (waits != NULL)
        losses_write_waits(waits, j);
    json_end(j);
}

static void write_sched_text(const struct reader_sched *s, struct buf *out)
{
    if (s->rt_priority == 0)
        return; /* nothing was asked for */
    (void)buf_printf(out, "Reader scheduled as %s", s->effective);
    if (s->cause == PRIORITY_GRANTED) {
        (void)buf_printf(out, " %d\n", s->rt_priority);
        return;
    }
    if (s->nice != 0)
        (void)buf_printf(out, " %d", s->nice);
    (void)buf_printf(out, " in place of %s %d: %s\n", s->requested,
                     s->rt_priority, priority_cause_text(s->cause));
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
    write_tap_json(s->tapping, &j);
    write_reader_json(&s->sched, s->facts.waits, &j);
    json_end(&j);
    (void)json_finish(&j);
    (void)buf_putc(out, '\n');
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
    write_tap_text(s->tapping, out);
    write_sched_text(&s->sched, out);
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
    if (s->facts.waits != NULL)
        losses_write_waits_text(s->facts.waits, out);
}
