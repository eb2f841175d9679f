/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tap's ring to aggregation. The ring is the landing zone: nothing is copied
 * out of it, each record is a transaction that also moves the position, and only
 * behind that is the room given back to the kernel.
 *
 * Beside the position stands how many datagrams each socket's program took, which
 * the kernel counts as dropped by that socket. It is brought up to the position
 * once per stretch of records; what a dead worker had applied and not counted yet
 * still lies in the ring and is counted by its successor.
 */
#include "agent/ingress.h"

#include <string.h>

#define STRETCH 128u /* records before their room is given back */

struct stretch {
    uint32_t n;
    uint32_t taken[LANDING_SOURCES];
};

/* NULL: no program of ours writes such a record. */
static const struct tap_record *check(const struct ingress *g,
                                      const void *record, uint32_t n)
{
    const struct tap_record *r = record;

    if (n < sizeof(*r) || r->n_bytes > n - sizeof(*r) ||
        r->source >= g->sockets->n)
        return NULL;
    switch (g->sockets->entries[r->source].kind) {
    case SOCKET_UDP:
    case SOCKET_UNIXGRAM:
        return r;
    case SOCKET_UNIXSTREAM:
    case SOCKET_CONTROL:
        break;
    }
    return NULL;
}

static void apply(struct ingress *g, const void *record, uint32_t n,
                  uint64_t next, int64_t now_s)
{
    struct landing_tap *t = &g->landing->head->tap;
    const struct tap_record *r = check(g, record, n);

    if (r == NULL) {
        ingest_skip(&g->ingest, &t->pos, (uint32_t)next, TRANSPORT_UDP);
        return;
    }
    ingest_packet(&g->ingest, &t->pos, (uint32_t)next, (const char *)(r + 1),
                  r->n_bytes, g->sockets->entries[r->source].transport, 0,
                  now_s);
    if (__builtin_expect(g->ingest.has_offender, 0))
        ingress_note_offender(g, r->source);
}

static void count(const struct ingress *g, struct stretch *st,
                  const void *record, uint32_t n)
{
    const struct tap_record *r = check(g, record, n);

    st->n++;
    if (r != NULL)
        st->taken[r->source]++;
}

/* Everything before @pos is applied. */
static void settle(struct ingress *g, struct stretch *st, uint64_t pos)
{
    struct landing_tap *t = &g->landing->head->tap;

    if (st->n > 0) {
        region_save(g->region, t->taken, sizeof(t->taken));
        for (uint32_t i = 0; i < LANDING_SOURCES; i++)
            t->taken[i] += st->taken[i];
    }
    region_set(g->region, t->pos, ((struct ingest_pos){(uint32_t)pos, 0}));
    region_set(g->region, t->counted, (uint32_t)pos);
    region_commit(g->region);
    ring_consumed(&g->landing->ring, pos);
    memset(st, 0, sizeof(*st));
}

uint64_t ingress_tap(struct ingress *g, uint64_t end)
{
    struct landing *l = g->landing;
    uint64_t pos = landing_ring_pos(l, l->head->tap.pos.record);
    struct stretch st = {0};
    uint64_t n_all = 0;
    int64_t now_s = 0;
    const void *record;
    uint64_t next;
    uint32_t n;

    if (pos >= end)
        return 0;
    l->head->applying = LANDING_TAP;
    while (pos < end &&
           ring_at(&l->ring, pos, &record, &n, &next) == RING_RECORD) {
        if (st.n == 0) {
            now_s = ingress_now_s(g);
            ingress_touch(g);
        }
        apply(g, record, n, next, now_s);
        count(g, &st, record, n);
        pos = next;
        n_all++;
        if (st.n == STRETCH)
            settle(g, &st, pos);
    }
    l->head->applying = LANDING_NOTHING;
    if (st.n > 0)
        settle(g, &st, pos);
    return n_all;
}

bool ingress_tap_is_done(const struct ingress *g, uint64_t end)
{
    const struct landing *l = g->landing;
    uint64_t pos = landing_ring_pos(l, l->head->tap.pos.record);
    const void *record;
    uint64_t next = pos;
    uint32_t n;

    /* What is left before @end may be records that were withdrawn. */
    return pos >= end ||
           (ring_at(&l->ring, pos, &record, &n, &next) == RING_EMPTY &&
            next >= end);
}

void ingress_tap_give_up(struct ingress *g, uint64_t end)
{
    struct landing *l = g->landing;
    struct ingest_counts *k = g->counts;

    while (!ingress_tap_is_done(g, end)) {
        uint64_t pos = landing_ring_pos(l, l->head->tap.pos.record);
        struct stretch st = {0};
        const void *record;
        uint64_t next;
        uint32_t n;

        if (ring_at(&l->ring, pos, &record, &n, &next) == RING_BUSY) {
            /* Of the socket nothing is known either. */
            region_set(g->region, k->received[TRANSPORT_UDP],
                       k->received[TRANSPORT_UDP] + 1);
            region_set(g->region, k->aggregated, k->aggregated + 1);
            region_set(g->region, k->closed, k->closed + 1);
            region_set(g->region, k->ring_busy, k->ring_busy + 1);
            settle(g, &st, next);
        }
        (void)ingress_tap(g, end);
    }
}

void ingress_tap_recover(struct ingress *g)
{
    struct landing *l = g->landing;
    struct landing_tap *t = &l->head->tap;
    struct landing_place here = {.what = LANDING_TAP, .pos = t->pos};
    uint64_t at = landing_ring_pos(l, t->counted);
    uint64_t pos = landing_ring_pos(l, t->pos.record);
    struct stretch st = {0};
    const void *record;
    uint64_t next;
    uint32_t n;

    while (at < pos &&
           ring_at(&l->ring, at, &record, &n, &next) == RING_RECORD) {
        count(g, &st, record, n);
        at = next;
    }
    if (landing_poisoned(l, &here) &&
        ring_at(&l->ring, pos, &record, &n, &next) == RING_RECORD) {
        ingress_note(g, NOTE_POISON, 0, n);
        ingest_skip(&g->ingest, &t->pos, (uint32_t)next, TRANSPORT_UDP);
        count(g, &st, record, n);
        pos = next;
    }
    /* A record that is applied in part stays where it is. */
    if (t->pos.offset == 0)
        settle(g, &st, pos);
}
