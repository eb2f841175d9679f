/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the intake would hold, and the ledger. A body that is sent again is the
 * same bytes under the same id, or it is a fault; that it was sent twice is the
 * ledger's `ambiguous` where the kind can double, and is left out otherwise.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "agent/base/buf.h"
#include "agent/intake_payload.h"
#include "agent/intake_store.h"
#include "agent/ledger.h"
#include "forwarder/encode.h"
#include "tests/support/lives_private.h"

#define MAX_PAYLOADS 256u

struct outcome {
    struct buf text;
    struct intake_store store;
    struct lives_sent seen[MAX_PAYLOADS];
    uint64_t hash[MAX_PAYLOADS];
    unsigned n_seen;
    unsigned n_again; /* bodies that may double what the intake holds */
    enum payload_kind kind;
};

static void say(struct outcome *o, const char *fmt, const char *what,
                uint64_t n)
{
    (void)buf_printf(&o->text, fmt, what, n);
}

/* ---- Bodies -------------------------------------------------------------- */

static int put_series(void *arg, const struct intake_series *s)
{
    struct outcome *o = arg;

    intake_store_put(&o->store, s);
    return 0;
}

static int put_item(void *arg, const struct intake_item *item)
{
    struct outcome *o = arg;

    intake_store_item(&o->store,
                      o->kind == PAYLOAD_EVENTS ? &o->store.events
                                                : &o->store.checks,
                      item->json);
    return 0;
}

static void decode(struct outcome *o, const struct lives_sent *head,
                   const unsigned char *body)
{
    static const enum intake_kind kinds[PAYLOAD_N_KINDS] = {INTAKE_SERIES_V2_PB,
                                                            INTAKE_SKETCHES,
                                                            INTAKE_EVENTS,
                                                            INTAKE_CHECKS};
    struct intake_decoder *d = intake_decoder_create();

    REQUIRE(d != NULL && head->kind < PAYLOAD_N_KINDS);
    o->kind = head->kind;
    if (intake_decode(d, kinds[head->kind], body, head->n_bytes, put_series,
                      put_item, o) != 0)
        say(o, "BAD body: %s, id %" PRIu64 "\n", intake_decoder_why(d),
            head->id);
    intake_decoder_close(d);
}

static void take_body(struct outcome *o, const struct lives_sent *head,
                      const unsigned char *body)
{
    uint64_t hash = XXH3_64bits(body, head->n_bytes);

    for (unsigned i = 0; i < o->n_seen; i++) {
        if (o->seen[i].id != head->id)
            continue;
        if (o->hash[i] != hash || o->seen[i].kind != head->kind)
            say(o, "BAD %s: another body under id %" PRIu64 "\n", "payload",
                head->id);
        o->n_again += head->kind != PAYLOAD_SERIES;
        return;
    }
    REQUIRE(o->n_seen < MAX_PAYLOADS);
    o->hash[o->n_seen] = hash;
    o->seen[o->n_seen++] = *head;
    decode(o, head, body);
}

static void take_bodies(struct outcome *o, const unsigned char *p, size_t n)
{
    while (n > 0) {
        struct lives_sent head;

        REQUIRE(n >= sizeof(head));
        memcpy(&head, p, sizeof(head));
        REQUIRE(n - sizeof(head) >= head.n_bytes);
        take_body(o, &head, p + sizeof(head));
        p += sizeof(head) + head.n_bytes;
        n -= sizeof(head) + head.n_bytes;
    }
}

static void take_intake(struct outcome *o, const struct lives *v)
{
    size_t n = atomic_load(&v->shared->n_sent);
    unsigned char *all = malloc(n + 1);

    REQUIRE(all != NULL);
    REQUIRE(pread(v->intake, all, n, 0) == (ssize_t)n);
    take_bodies(o, all, n);
    take_bodies(o, v->sent, v->n_sent);
    free(all);
}

/* ---- Lines --------------------------------------------------------------- */

static int by_id(const void *x, const void *y)
{
    const struct lives_sent *a = x;
    const struct lives_sent *b = y;

    return a->id < b->id ? -1 : a->id > b->id;
}

static int by_key(const void *x, const void *y)
{
    const struct stored_series *a = *(struct stored_series *const *)x;
    const struct stored_series *b = *(struct stored_series *const *)y;
    uint32_t n = a->n_key < b->n_key ? a->n_key : b->n_key;
    int c = memcmp(a->key, b->key, n);

    return c != 0 ? c : (a->n_key > b->n_key) - (a->n_key < b->n_key);
}

static void write_point(struct outcome *o, const struct stored_point *p)
{
    (void)buf_printf(&o->text, " %" PRId64 "=%.17g/%u/%d", p->ts_s, p->value,
                     p->interval_s, (int)p->type);
    if (p->sketch == NULL)
        return;
    (void)buf_printf(&o->text, " n=%" PRId64 " %.17g %.17g %.17g",
                     p->sketch->n_values, p->sketch->min, p->sketch->max,
                     p->sketch->avg);
    for (size_t i = 0; i < p->sketch->n_bins; i++)
        (void)buf_printf(&o->text, " %d:%u", p->sketch->bins[i].k,
                         p->sketch->bins[i].n);
}

static void write_series(struct outcome *o)
{
    struct intake_store *s = &o->store;
    struct stored_series **all = malloc((s->n_series + 1) * sizeof(*all));
    size_t n = 0;

    REQUIRE(all != NULL);
    for (size_t i = 0; i < s->cap_series; i++) {
        if (s->table[i] != NULL)
            all[n++] = s->table[i];
    }
    qsort(all, n, sizeof(struct stored_series *), by_key);
    for (size_t i = 0; i < n; i++) {
        (void)buf_printf(&o->text, "series %s [%.*s] @%.*s",
                         all[i]->metric->name, (int)all[i]->n_tags,
                         all[i]->key + all[i]->at_tags, (int)all[i]->n_host,
                         all[i]->key + all[i]->at_host);
        for (size_t k = 0; k < all[i]->n_points; k++)
            write_point(o, &all[i]->points[k]);
        (void)buf_putc(&o->text, '\n');
    }
    free(all);
    if (s->n_replaced > 0)
        say(o, "BAD %s: %" PRIu64 " replaced\n", "points", s->n_replaced);
}

static void write_items(struct outcome *o, const char *what,
                        const struct stored_items *items)
{
    for (size_t i = 0; i < items->n; i++)
        (void)buf_printf(&o->text, "%s %s\n", what, items->json[i]);
    say(o, "%s: %" PRIu64 "\n", what, items->n_seen);
}

static void write_payloads(struct outcome *o)
{
    for (unsigned i = 0; i < o->n_seen; i++)
        o->seen[i].n_bytes = (uint32_t)o->hash[i]; /* sorted along */
    qsort(o->seen, o->n_seen, sizeof(o->seen[0]), by_id);
    for (unsigned i = 0; i < o->n_seen; i++)
        (void)buf_printf(&o->text, "payload %" PRIu64 " kind %u hash %08x\n",
                         o->seen[i].id, o->seen[i].kind, o->seen[i].n_bytes);
}

/* ---- The ledger ---------------------------------------------------------- */

static void write_ledger(struct outcome *o, const struct ledger *l)
{
    const struct ingest_counts *in = &l->ingest;
    const struct delivery_counts *out = &l->delivery;

    if (!ledger_balances(l))
        say(o, "BAD %s does not balance%.0" PRIu64 "\n", "ledger", 0);
    if (l->open != 0 || l->in_flight != 0 || l->dropped != in->ring_busy)
        (void)buf_printf(&o->text,
                         "BAD left: open %" PRIu64 " in flight %" PRIu64
                         " dropped %" PRIu64 "\n",
                         l->open, l->in_flight, l->dropped);
    if (o->n_again > out->payloads_ambiguous)
        say(o, "BAD %s: %" PRIu64 " sent again and not counted\n", "payloads",
            o->n_again - out->payloads_ambiguous);
    for (int t = 0; t < TRANSPORT_N; t++) {
        say(o, "received %s %" PRIu64 "\n", transport_name(t), in->received[t]);
        say(o, "tapped %s %" PRIu64 "\n", transport_name(t), in->tapped[t]);
    }
    for (int r = 0; r < DSD_N_RESULTS; r++)
        (void)buf_printf(&o->text, "rejected %d %" PRIu64 "\n", r,
                         in->rejected[r]);
    say(o, "%s %" PRIu64 "\n", "datagrams", in->datagrams);
    say(o, "%s %" PRIu64 "\n", "bytes", in->bytes);
    say(o, "%s %" PRIu64 "\n", "aggregated", in->aggregated);
    say(o, "%s %" PRIu64 "\n", "folded", in->folded);
    say(o, "%s %" PRIu64 "\n", "closed", in->closed);
    say(o, "%s %" PRIu64 "\n", "contexts", l->agg.n_contexts);
    say(o, "%s %" PRIu64 "\n", "aliases", l->agg.n_aliases);
    say(o, "%s %" PRIu64 "\n", "delivered", out->delivered);
    say(o, "%s %" PRIu64 "\n", "points", out->points_delivered);
    say(o, "%s %" PRIu64 "\n", "events", out->events_delivered);
    say(o, "%s %" PRIu64 "\n", "checks", out->checks_delivered);
    say(o, "%s %" PRIu64 "\n", "sent", out->payloads_sent);
    say(o, "%s %" PRIu64 "\n", "refused connections", in->stream_refused);
    say(o, "%s %" PRIu64 "\n", "unfinished in the ring", in->ring_busy);
}

/* What the kernel counts as dropped, and room that it does not get back. */
static void write_ring(struct outcome *o, const struct landing *l)
{
    const struct landing_tap *t = &l->head->tap;

    if (!l->has_ring)
        return;
    for (uint64_t i = 0; i < LIVES_RING_SOURCES; i++)
        (void)buf_printf(&o->text, "taken of %" PRIu64 ": %u\n", i,
                         t->taken[i]);
    say(o, "%s %" PRIu64 "\n", "read to", t->pos.record);
    say(o, "%s %" PRIu64 "\n", "counted to", t->counted);
    if (ring_begin(&l->ring) != ring_end(&l->ring))
        say(o, "BAD %s: %" PRIu64 " bytes\n", "room in the ring",
            ring_end(&l->ring) - ring_begin(&l->ring));
}

static void read_ledger(struct lives *v, struct ledger *l)
{
    struct agg_config cfg;
    struct reader_view view;
    struct store *store;
    struct agg *agg;

    lives_agg_config(v, &cfg);
    REQUIRE(store_open(&store, &v->k.store,
                       &(struct store_opts){.max_bytes = 1u << 20}) == 0);
    REQUIRE(agg_create(&agg, &v->k.ingest, &cfg) == 0);
    reader_view_of(agg, &view);
    ledger_collect(l, &view, agg, store);
    v->n_parts = agg_last_closed(agg) - v->base_seq;
    agg_close(agg);
    store_close(store);
}

char *lives_outcome(struct lives *v)
{
    struct outcome *o = calloc(1, sizeof(*o));
    struct ledger l;
    char *text;

    REQUIRE(o != NULL);
    buf_init(&o->text, 4u << 20);
    intake_store_init(&o->store, 64u << 20, 1);
    take_intake(o, v);
    read_ledger(v, &l);
    write_series(o);
    write_items(o, "event", &o->store.events);
    write_items(o, "check", &o->store.checks);
    write_payloads(o);
    write_ledger(o, &l);
    write_ring(o, &v->k.landing);
    REQUIRE(!o->text.failed);
    text = strdup(buf_cstr(&o->text));
    REQUIRE(text != NULL);
    buf_fini(&o->text);
    intake_store_fini(&o->store);
    free(o);
    return text;
}
