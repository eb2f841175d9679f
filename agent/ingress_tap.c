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

static inline bool is_record(const struct tap_record *r, uint32_t n)
{
    return n >= sizeof(*r) && r->n_bytes <= n - sizeof(*r);
}

/* The socket that the record came to; SOCKETS_MAX when it is none of ours, or the
 * record none of our programs'. */
static uint32_t source_of(const struct ingress *g, const struct tap_record *r,
                          uint32_t n)
{
    uint32_t i = 0;

    if (!is_record(r, n) || r->socket == 0)
        return SOCKETS_MAX;
    while (i < g->sockets->n && g->socket_ids[i] != r->socket)
        i++;
    return i < g->sockets->n ? i : SOCKETS_MAX;
}

/* Tags of the process that sent @r; over UDP the number is not dependable. */
static struct view tags_of(struct ingress *g, const struct tap_record *r,
                           uint32_t source)
{
    if (g->sockets->entries[source].kind != SOCKET_UNIXGRAM)
        return (struct view){0};
    return origin_tags(&g->origin, PROCTAGS_TGID, r->tgid);
}

/* Records from @pos on of one socket, and of one sender if that has tags, which are
 * set. Returns how many. Not inlined: here it has all registers. */
static __attribute__((noinline)) uint32_t list(
    struct ingress *g, uint64_t pos, uint64_t end,
    struct dsd_packet p[DSD_AHEAD_LINES], uint32_t *source)
{
    const struct ring ring = g->landing->ring;
    const struct tap_record *first = NULL;
    struct view tags = {0};
    uint32_t n_bytes = 0;
    uint32_t n = 0;

    while (n < DSD_AHEAD_LINES) {
        const struct tap_record *r;
        const void *record;
        uint64_t next;
        uint32_t bytes;

        if (ring_before(&ring, end, pos, &record, &bytes, &next) != RING_RECORD)
            break;
        r = record;
        if (__builtin_expect(first == NULL, 0)) {
            *source = source_of(g, r, bytes);
            if (*source == SOCKETS_MAX)
                break;
            first = r;
            tags = tags_of(g, r, *source);
            agg_set_origin(g->ingest.agg, tags);
        } else if (!is_record(r, bytes) || r->socket != first->socket ||
                   (r->tgid != first->tgid &&
                    (tags.n > 0 || tags_of(g, r, *source).n > 0))) {
            break;
        }
        p[n++] = (struct dsd_packet){.p = (const char *)(r + 1),
                                     .n = r->n_bytes,
                                     .record = (uint32_t)pos,
                                     .next = (uint32_t)next};
        n_bytes += r->n_bytes;
        if (n_bytes >= DSD_AHEAD_BYTES)
            break;
        pos = next;
    }
    return n;
}

/* One record of any sort. */
static void apply_one(struct ingress *g, struct stretch *st, const void *record,
                      uint32_t n, uint64_t next, int64_t now_s)
{
    struct landing *l = g->landing;
    struct landing_tap *t = &l->head->tap;
    struct landing_place here = {.what = LANDING_TAP, .pos = t->pos};
    const struct tap_record *r = record;
    uint32_t source = source_of(g, r, n);
    bool poisoned = landing_is_poisoned(l) && landing_poisoned(l, &here);

    st->n++;
    if (source < SOCKETS_MAX)
        st->taken[source]++;
    if (poisoned || source == SOCKETS_MAX) {
        ingest_skip(&g->ingest, &t->pos, (uint32_t)next,
                    source < SOCKETS_MAX ? g->sockets->entries[source].transport
                                         : TRANSPORT_UDP);
        if (poisoned) {
            ingress_note(g, NOTE_POISON, source < SOCKETS_MAX ? source : 0, n);
            landing_skipped(l);
        }
        return;
    }
    l->head->working = t->pos.record;
    agg_set_origin(g->ingest.agg, tags_of(g, r, source));
    ingest_packet(&g->ingest, &t->pos, (uint32_t)next, (const char *)(r + 1),
                  r->n_bytes, g->sockets->entries[source].transport, 0, now_s);
    if (__builtin_expect(g->ingest.has_offender, 0))
        ingress_note_offender(g, source);
}

/* Some records from @pos on; returns the position behind them. */
static uint64_t apply(struct ingress *g, struct stretch *st, uint64_t pos,
                      uint64_t end, int64_t now_s)
{
    struct landing *l = g->landing;
    struct dsd_packet p[DSD_AHEAD_LINES];
    uint32_t source = 0;
    const void *record;
    uint32_t n_done = 0;
    uint64_t next;
    uint32_t n;

    if (ingress_may_group(g)) {
        n = list(g, pos, end, p, &source);
        if (n > 0)
            n_done =
                ingest_datagrams(&g->ingest, &l->head->tap.pos, p, n,
                                 &l->head->working,
                                 g->sockets->entries[source].transport, now_s);
        g->n_alone = n_done > 0 ? 0 : DSD_AHEAD_LINES;
    }
    st->n += n_done;
    st->taken[source] += n_done;
    if (__builtin_expect(g->ingest.has_offender, 0) && n_done > 0)
        ingress_note_offender(g, source);
    if (n_done > 0)
        return pos + (uint32_t)(p[n_done - 1].next - (uint32_t)pos);
    if (ring_before(&l->ring, end, pos, &record, &n, &next) == RING_RECORD)
        apply_one(g, st, record, n, next, now_s);
    return next;
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

/* Everything before @pos is applied; of the record there a part may be, which the
 * position knows then. */
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
    if (t->pos.record != (uint32_t)pos) /* behind records that were withdrawn */
        region_set(g->region, t->pos, ((struct ingest_pos){(uint32_t)pos, 0}));
    region_set(g->region, t->counted, (uint32_t)pos);
    region_commit(g->region);
    ring_consumed(&g->landing->ring, pos);
    memset(st, 0, sizeof(*st));
}

/* Records lie in another CPU's cache. Those behind a group of lines are asked for
 * while that is read (dsd_ahead.c), the first ones here. */
#define FIRST_BYTES 2048u
#define LINE_BYTES 64u

static void ask_first(const struct ring *ring, uint64_t pos, uint64_t end)
{
    uint64_t to = pos + FIRST_BYTES < end ? pos + FIRST_BYTES : end;

    for (; pos < to; pos += LINE_BYTES)
        __builtin_prefetch(ring->data + (pos & (ring->n_bytes - 1)));
}

uint64_t ingress_tap(struct ingress *g, uint64_t end)
{
    struct landing *l = g->landing;
    uint64_t pos = landing_ring_pos(l, l->head->tap.pos.record);
    struct stretch st = {0};
    uint64_t n_all = 0;
    int64_t now_s = 0;
    enum ring_rc rc = RING_EMPTY;
    const void *record;
    uint64_t next;
    uint32_t n;

    if (pos >= end)
        return 0;
    ask_first(&l->ring, pos, end);
    l->head->working = l->head->tap.pos.record;
    l->head->applying = LANDING_TAP;
    g->ingest.readable = (struct dsd_readable){(const char *)l->ring.data,
                                               (const char *)l->ring.data +
                                                   ring_memory_bytes(&l->ring)};
    while (pos < end && (rc = ring_before(&l->ring, end, pos, &record, &n,
                                          &next)) == RING_RECORD) {
        if (st.n == 0) {
            now_s = ingress_now_s(g);
            ingress_touch(g);
        }
        pos = apply(g, &st, pos, end, now_s);
        if (st.n >= STRETCH) {
            n_all += st.n;
            settle(g, &st, pos);
        }
    }
    l->head->applying = LANDING_NOTHING;
    g->ingest.readable = (struct dsd_readable){NULL, NULL};
    agg_set_origin(g->ingest.agg, (struct view){0});
    n_all += st.n;
    if (pos < end && rc == RING_EMPTY)
        pos = next; /* what was withdrawn gives its room back, too */
    if (pos != ring_begin(&l->ring))
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
        if (ingress_tap(g, end) == 0 && pos == ring_begin(&l->ring))
            return; /* a ring that nobody can read */
    }
}

void ingress_tap_recover(struct ingress *g)
{
    struct landing *l = g->landing;
    struct landing_tap *t = &l->head->tap;
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
    settle(g, &st, pos);
}
