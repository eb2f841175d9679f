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
#include <sys/stat.h>

#define STRETCH 128u /* records before their room is given back */

struct stretch {
    uint32_t n;
    uint32_t taken[LANDING_SOURCES];
};

uint32_t ingress_socket_id(const struct socket_entry *e)
{
    struct stat st;

    if ((e->kind != SOCKET_UDP && e->kind != SOCKET_UNIXGRAM) ||
        fstat(e->fd, &st) != 0)
        return 0;
    return (uint32_t)st.st_ino;
}

/* The socket that the record came to; SOCKETS_MAX when it is none of ours, or the
 * record none of our programs'. */
static uint32_t source_of(const struct ingress *g, const struct tap_record *r,
                          uint32_t n)
{
    uint32_t i = 0;

    if (n < sizeof(*r) || r->n_bytes > n - sizeof(*r) || r->socket == 0)
        return SOCKETS_MAX;
    while (i < g->sockets->n && g->socket_ids[i] != r->socket)
        i++;
    return i < g->sockets->n ? i : SOCKETS_MAX;
}

static void apply(struct ingress *g, struct stretch *st, const void *record,
                  uint32_t n, uint64_t next, int64_t now_s)
{
    struct landing_tap *t = &g->landing->head->tap;
    const struct tap_record *r = record;
    uint32_t source = source_of(g, r, n);

    st->n++;
    if (__builtin_expect(source == SOCKETS_MAX, 0)) {
        ingest_skip(&g->ingest, &t->pos, (uint32_t)next, TRANSPORT_UDP);
        return;
    }
    st->taken[source]++;
    ingest_packet(&g->ingest, &t->pos, (uint32_t)next, (const char *)(r + 1),
                  r->n_bytes, g->sockets->entries[source].transport, 0, now_s);
    if (__builtin_expect(g->ingest.has_offender, 0))
        ingress_note_offender(g, source);
}

/* As above, for one that is applied already. */
static void count(const struct ingress *g, struct stretch *st,
                  const void *record, uint32_t n)
{
    uint32_t source = source_of(g, record, n);

    st->n++;
    if (source < SOCKETS_MAX)
        st->taken[source]++;
}

/* Everything before @pos is applied. */
static void settle(struct ingress *g, struct stretch *st, uint64_t pos)
{
    struct landing_tap *t = &g->landing->head->tap;
    struct ingest_counts *k = g->counts;

    if (st->n > 0) {
        region_save(g->region, t->taken, sizeof(t->taken));
        region_save(g->region, k->tapped, sizeof(k->tapped));
        for (uint32_t i = 0; i < g->sockets->n; i++) {
            t->taken[i] += st->taken[i];
            k->tapped[g->sockets->entries[i].transport] += st->taken[i];
        }
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
        apply(g, &st, record, n, next, now_s);
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
