/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagrams: one receive call of up to LANDING_SLOTS messages into the landing
 * zone, applied to the end before the next call. A call that comes back short
 * has emptied the queue, so no further call is spent to hear EAGAIN.
 */
#include "agent/ingress.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

_Static_assert(LANDING_SOURCES >= SOCKETS_MAX, "one place for each socket");

static int fd_limit(void)
{
    struct rlimit lim;
    unsigned kept;

    if (getrlimit(RLIMIT_NOFILE, &lim) != 0 || lim.rlim_cur > INT_MAX)
        return INT_MAX;
    kept = (unsigned)lim.rlim_cur / 4;
    return (int)lim.rlim_cur -
           (int)(kept < LANDING_FDS_KEPT ? kept : LANDING_FDS_KEPT);
}

int ingress_init(struct ingress *g)
{
    uint32_t n = g->landing->n_conns;

    g->fd_limit = fd_limit();
    for (uint32_t i = 0; i < g->sockets->n; i++) {
        const struct socket_entry *e = &g->sockets->entries[i];
        int want = g->proctags != NULL;

        g->socket_ids[i] = ingress_socket_id(e);
        if (e->kind == SOCKET_UNIXGRAM)
            (void)setsockopt(e->fd, SOL_SOCKET, SO_PASSCRED, &want,
                             sizeof(want));
    }
    g->landing->batch->wants_senders = g->proctags != NULL;
    g->free_conns = calloc(n + 1, sizeof(*g->free_conns));
    g->conn_data_ns = calloc(n + 1, sizeof(*g->conn_data_ns));
    g->conn_pids = calloc(n + 1, sizeof(*g->conn_pids));
    if (g->free_conns == NULL || g->conn_data_ns == NULL ||
        g->conn_pids == NULL || origin_init(&g->origin, g->proctags) != 0) {
        ingress_fini(g);
        return -ENOMEM;
    }
    return 0;
}

void ingress_fini(struct ingress *g)
{
    free(g->free_conns);
    free(g->conn_data_ns);
    free(g->conn_pids);
    origin_fini(&g->origin);
    g->free_conns = NULL;
    g->conn_data_ns = NULL;
    g->conn_pids = NULL;
}

void ingress_conn_freed(struct ingress *g, uint32_t conn)
{
    g->free_conns[g->n_free++] = conn;
}

void ingress_note(struct ingress *g, enum ingress_note_kind kind,
                  uint32_t source, int64_t value)
{
    struct ingress_note note = {.kind = kind, .source = source, .value = value};

    (void)spsc_push(g->notes, &note);
}

void ingress_note_offender(struct ingress *g, uint32_t source)
{
    struct ingest *in = &g->ingest;
    struct ingress_note note = {.kind = NOTE_REJECTED,
                                .source = source,
                                .value = in->offender.reason,
                                .n_bytes = in->offender.n};

    if (!in->has_offender)
        return;
    in->has_offender = false;
    memcpy(note.bytes, in->offender.line, in->offender.n);
    (void)spsc_push(g->notes, &note);
}

void ingress_touch(struct ingress *g)
{
    atomic_store_explicit(&g->last_data_ns, clock_mono_ns(&clock_real),
                          memory_order_relaxed);
}

int64_t ingress_now_s(struct ingress *g)
{
    return process_clock_now(g->clock, &clock_real) / CLOCK_NS_PER_S;
}

/* ---- Datagrams --------------------------------------------------------- */

static struct view tags_of(struct ingress *g, uint32_t sender)
{
    return origin_tags(&g->origin, PROCTAGS_PID, sender);
}

/* Slots from the position on that hold a datagram which the kernel did not cut, of
 * one sender if that has tags, which are set. */
static uint32_t list_slots(struct ingress *g,
                           struct dsd_packet r[DSD_AHEAD_LINES])
{
    const struct landing_batch *b = g->landing->batch;
    struct view tags = {0};
    uint32_t first = 0;
    uint32_t n_bytes = 0;
    uint32_t n = 0;

    for (uint32_t i = b->pos.record;
         i < LANDING_SLOTS && n < DSD_AHEAD_LINES && n_bytes < DSD_AHEAD_BYTES;
         i++) {
        if (b->msgs[i].msg_len == LANDING_EMPTY ||
            (b->msgs[i].msg_hdr.msg_flags & MSG_TRUNC) != 0)
            break;
        if (b->wants_senders) {
            uint32_t sender = landing_sender(g->landing, i);

            if (n > 0 && sender != first &&
                (tags.n > 0 || tags_of(g, sender).n > 0))
                break;
            if (n == 0) {
                first = sender;
                tags = tags_of(g, sender);
                agg_set_origin(g->ingest.agg, tags);
            }
        }
        r[n++] = (struct dsd_packet){
            .p = (const char *)landing_slot(g->landing, i),
            .n = b->msgs[i].msg_len,
            .record = i,
            .next = i + 1,
        };
        n_bytes += b->msgs[i].msg_len;
    }
    return n;
}

static void apply_slot(struct ingress *g, enum transport t, int64_t now_s)
{
    struct landing *l = g->landing;
    struct landing_batch *b = l->batch;
    uint32_t i = b->pos.record;
    struct landing_place here = {.what = LANDING_BATCH,
                                 .pos = b->pos,
                                 .seq = b->seq};
    unsigned flags = 0;

    if (landing_is_poisoned(l) && landing_poisoned(l, &here)) {
        ingress_note(g, NOTE_POISON, b->source, b->msgs[i].msg_len);
        ingest_skip(&g->ingest, &b->pos, i + 1, t);
        landing_skipped(l);
        return;
    }
    if ((b->msgs[i].msg_hdr.msg_flags & MSG_TRUNC) != 0)
        flags = INGEST_TRUNCATED;
    l->head->working = i;
    if (b->wants_senders)
        agg_set_origin(g->ingest.agg, tags_of(g, landing_sender(l, i)));
    ingest_packet(&g->ingest, &b->pos, i + 1, (const char *)landing_slot(l, i),
                  b->msgs[i].msg_len, t, flags, now_s);
}

static void apply_batch(struct ingress *g)
{
    struct landing *l = g->landing;
    struct landing_batch *b = l->batch;
    enum transport t = g->sockets->entries[b->source].transport;
    int64_t now_s = ingress_now_s(g);

    l->head->working = b->pos.record;
    l->head->applying = LANDING_BATCH;
    while (b->pos.record < LANDING_SLOTS &&
           b->msgs[b->pos.record].msg_len != LANDING_EMPTY) {
        struct dsd_packet r[DSD_AHEAD_LINES];
        uint32_t n = 0;

        if (ingress_may_group(g)) {
            n = ingest_datagrams(&g->ingest, &b->pos, r, list_slots(g, r),
                                 &l->head->working, t, now_s);
            g->n_alone = n > 0 ? 0 : DSD_AHEAD_LINES;
        }
        if (n == 0)
            apply_slot(g, t, now_s);
        if (__builtin_expect(g->ingest.has_offender, 0))
            ingress_note_offender(g, b->source);
    }
    l->head->applying = LANDING_NOTHING;
    agg_set_origin(g->ingest.agg, (struct view){0});
}

enum ingress_rc ingress_datagrams(struct ingress *g, uint32_t source,
                                  unsigned max_calls)
{
    int fd = g->sockets->entries[source].fd;
    enum ingress_rc rc = INGRESS_IDLE;

    for (unsigned i = 0; i < max_calls; i++) {
        int n;

        landing_arm(g->landing, source);
        n = recvmmsg(fd, g->landing->batch->msgs, LANDING_SLOTS, MSG_DONTWAIT,
                     NULL);
        if (n < 0 && (errno == EINTR || errno == ECONNREFUSED))
            continue; /* an error told to the socket, not a datagram */
        if (n < 0 && errno != EAGAIN)
            ingress_note(g, NOTE_RECEIVE_FAILED, source, errno);
        if (n <= 0)
            return rc;
        ingress_touch(g);
        apply_batch(g);
        rc = INGRESS_SHORT;
        if (n < LANDING_SLOTS)
            return rc;
    }
    return INGRESS_MORE;
}

/* ---- Recovery ---------------------------------------------------------- */

static void recover_conn(struct ingress *g, uint32_t i)
{
    struct landing_conn *c = &g->landing->conns[i];
    struct landing_recv *st = landing_state(c);
    struct landing_place here = {.what = LANDING_CONN + i,
                                 .pos = st->pos,
                                 .seq = st->seq};

    g->n_live++;
    if (c->closing != 0) {
        ingress_stream_close(g, i);
        return;
    }
    if (landing_poisoned(g->landing, &here)) {
        const unsigned char *p =
            landing_half(g->landing, i, st->half) + st->pos.record;
        uint32_t n = (uint32_t)p[0] | (uint32_t)p[1] << 8 |
                     (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;

        ingress_note(g, NOTE_POISON, c->listener, n);
        ingest_skip(&g->ingest, &st->pos, st->pos.record + 4 + n,
                    g->sockets->entries[c->listener].transport);
        landing_skipped(g->landing);
    }
    if (!ingress_stream_apply(g, i))
        return;
    ingress_touch(g);
    g->conn_data_ns[i] =
        atomic_load_explicit(&g->last_data_ns, memory_order_relaxed);
    if (sockets_is_conn_of(g->sockets, c->listener, c->fd))
        (void)ingress_stream_watch(g, i);
    else
        ingress_stream_close(g, i);
}

void ingress_recover(struct ingress *g)
{
    struct landing *l = g->landing;

    landing_populate(l);
    apply_batch(g);
    if (landing_ring_map(l) == 0)
        ingress_tap_recover(g);
    for (uint32_t i = l->n_conns; i-- > 0;) {
        if (l->conns[i].fd < 0)
            g->free_conns[g->n_free++] = i;
    }
    for (uint32_t i = 0; i < l->n_conns; i++) {
        if (l->conns[i].fd >= 0)
            recover_conn(g, i);
    }
}
