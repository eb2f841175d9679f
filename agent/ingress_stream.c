/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unix stream connections: frames of a 4-byte little-endian length and that many
 * bytes. Frames are applied where they lie; one that is not complete waits in
 * the landing zone for the rest.
 *
 * A length of 0 or above stream_max_frame_bytes ends the connection at once: behind
 * it nothing can be found again. The usual cause is a client that sends lines
 * without any length, so that four letters are read as one (such as
 * 779,381,099).
 *
 * Killed between close() and the store that frees the connection, the successor
 * finds `closing` set and a descriptor that is no connection of ours any more:
 * it only finishes the store. Counting the end and setting `closing` are one
 * transaction, so an end is counted once.
 */
#include "agent/ingress.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define HEADER_BYTES 4u

static uint32_t le32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}

static enum transport transport_of(const struct ingress *g,
                                   const struct landing_conn *c)
{
    return g->sockets->entries[c->listener].transport;
}

/* ---- The end of a connection ------------------------------------------- */

static void end(struct ingress *g, uint32_t i, bool partial, bool oversize)
{
    struct landing_conn *c = &g->landing->conns[i];
    struct ingest_counts *n = g->counts;
    enum transport t = transport_of(g, c);

    if (c->closing == 0) {
        if (partial) {
            region_set(g->region, n->received[t], n->received[t] + 1);
            region_set(g->region, n->rejected[DSD_TRUNCATED],
                       n->rejected[DSD_TRUNCATED] + 1);
        }
        if (oversize)
            region_set(g->region, n->stream_oversize, n->stream_oversize + 1);
        region_set(g->region, c->closing, 1);
        region_commit(g->region);
    }
    g->watch.removed(g->watch.arg, i);
    /* In a worker that does not share its predecessor's descriptors the number
     * may mean something else by now. */
    if (sockets_is_conn_of(g->sockets, c->listener, c->fd))
        close(c->fd);
    landing_conn_free(g->landing, i);
    g->n_live--;
    g->accept_paused = false;
}

void ingress_stream_close(struct ingress *g, uint32_t conn)
{
    struct landing_conn *c = &g->landing->conns[conn];
    struct landing_recv *st = landing_state(c);
    uint32_t left = landing_filled(st) - st->pos.record;

    if (left > 0 && c->closing == 0)
        ingress_note(g, NOTE_STREAM_PARTIAL, c->listener, left);
    end(g, conn, left > 0, false);
}

#define SHOWN_BYTES 16u

static void end_bad_length(struct ingress *g, uint32_t conn, uint32_t len,
                           const unsigned char *p, uint32_t n)
{
    struct ingress_note note = {.kind = NOTE_STREAM_LENGTH,
                                .source = g->landing->conns[conn].listener,
                                .value = len};

    note.n_bytes = n < SHOWN_BYTES ? n : SHOWN_BYTES;
    memcpy(note.bytes, p, note.n_bytes);
    (void)spsc_push(g->notes, &note);
    end(g, conn, false, true);
}

/* ---- Frames ------------------------------------------------------------ */

#define PID_UNKNOWN UINT32_MAX

/* Of the process that connected; who got the socket from it sends in its name. */
static struct view tags_of(struct ingress *g, uint32_t conn)
{
    struct ucred peer = {0};
    socklen_t n = sizeof(peer);

    if (g->proctags == NULL)
        return (struct view){0};
    if (g->conn_pids[conn] == 0) {
        g->conn_pids[conn] = PID_UNKNOWN;
        if (getsockopt(g->landing->conns[conn].fd, SOL_SOCKET, SO_PEERCRED,
                       &peer, &n) == 0 &&
            peer.pid > 0)
            g->conn_pids[conn] = (uint32_t)peer.pid;
    }
    if (g->conn_pids[conn] == PID_UNKNOWN)
        return (struct view){0};
    return origin_tags(&g->origin, PROCTAGS_PID, g->conn_pids[conn]);
}

bool ingress_stream_apply(struct ingress *g, uint32_t conn)
{
    struct landing *l = g->landing;
    struct landing_recv *st = landing_state(&l->conns[conn]);
    const unsigned char *half = landing_half(l, conn, st->half);
    uint32_t filled = landing_filled(st);
    enum transport t = transport_of(g, &l->conns[conn]);
    int64_t now_s = ingress_now_s(g);

    agg_set_origin(g->ingest.agg, tags_of(g, conn));
    l->head->applying = LANDING_CONN + conn;
    while (filled - st->pos.record >= HEADER_BYTES) {
        uint32_t at = st->pos.record;
        uint32_t len = le32(half + at);

        if (len == 0 || len > l->max_frame_bytes) {
            l->head->applying = LANDING_NOTHING;
            agg_set_origin(g->ingest.agg, (struct view){0});
            end_bad_length(g, conn, len, half + at, filled - at);
            return false;
        }
        if (filled - at - HEADER_BYTES < len)
            break;
        ingest_packet(&g->ingest, &st->pos, at + HEADER_BYTES + len,
                      (const char *)half + at + HEADER_BYTES, len, t, 0, now_s);
    }
    l->head->applying = LANDING_NOTHING;
    agg_set_origin(g->ingest.agg, (struct view){0});
    ingress_note_offender(g, l->conns[conn].listener);
    return true;
}

/* Bytes of the frame at the position, as far as they are known. */
static uint32_t frame_need(const struct landing *l, uint32_t conn)
{
    const struct landing_recv *st = landing_state(&l->conns[conn]);

    if (landing_filled(st) - st->pos.record < HEADER_BYTES)
        return HEADER_BYTES;
    return HEADER_BYTES +
           le32(landing_half(l, conn, st->half) + st->pos.record);
}

/* One receive call, in which *alive becomes false when the connection is gone.
 * INGRESS_MORE: all the room was filled, there may be more. */
static enum ingress_rc read_once(struct ingress *g, uint32_t conn,
                                 bool to_frame_end, bool *alive)
{
    struct landing_conn *c = &g->landing->conns[conn];
    uint32_t need = frame_need(g->landing, conn);
    struct landing_recv *st = landing_conn_arm(g->landing, conn, need);
    size_t room;
    int n;

    if (st == NULL) {
        ingress_note(g, NOTE_STREAM_MEMORY, c->listener, ENOMEM);
        ingress_stream_close(g, conn);
        *alive = false;
        return INGRESS_IDLE;
    }
    if (to_frame_end)
        st->iov.iov_len = need - (st->base_bytes - st->pos.record);
    room = st->iov.iov_len;
    do {
        n = recvmmsg(c->fd, &st->msg, 1, MSG_DONTWAIT, NULL);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return INGRESS_IDLE;
    if (n < 0 && (errno == ENOMEM || errno == ENOBUFS)) {
        /* The kernel is short of memory for a moment: what the peer sent is still
         * there, and closing would throw it away. */
        ingress_note(g, NOTE_RECEIVE_FAILED, c->listener, errno);
        return INGRESS_IDLE;
    }
    if (n != 1 || st->msg.msg_len == 0) { /* end, or reset by the peer */
        st->msg.msg_len = LANDING_EMPTY;
        ingress_stream_close(g, conn);
        *alive = false;
        return INGRESS_IDLE;
    }
    ingress_touch(g);
    g->conn_data_ns[conn] =
        atomic_load_explicit(&g->last_data_ns, memory_order_relaxed);
    *alive = ingress_stream_apply(g, conn);
    return *alive && st->msg.msg_len == room ? INGRESS_MORE : INGRESS_SHORT;
}

enum ingress_rc ingress_stream_read(struct ingress *g, uint32_t conn,
                                    unsigned max_calls)
{
    enum ingress_rc rc = INGRESS_IDLE;
    bool alive = true;

    for (unsigned i = 0; i < max_calls; i++) {
        enum ingress_rc got = read_once(g, conn, false, &alive);

        if (got != INGRESS_IDLE)
            rc = INGRESS_SHORT;
        if (got != INGRESS_MORE)
            return rc;
    }
    return INGRESS_MORE;
}

bool ingress_stream_finish(struct ingress *g, uint32_t conn)
{
    const struct landing_conn *c = &g->landing->conns[conn];
    bool alive = true;

    while (alive && !landing_at_frame_end(c)) {
        if (read_once(g, conn, true, &alive) == INGRESS_IDLE && alive)
            return false;
    }
    return true;
}

/* ---- Connections ------------------------------------------------------- */

/* Within the transaction that ends it, or one of its own. */
static void count_refused(struct ingress *g)
{
    region_set(g->region, g->counts->stream_refused,
               g->counts->stream_refused + 1);
}

static void refuse(struct ingress *g, uint32_t source, int fd)
{
    close(fd);
    count_refused(g);
    region_commit(g->region);
    ingress_note(g, NOTE_STREAM_REFUSED, source, g->landing->n_conns);
}

static void take(struct ingress *g, uint32_t source, int fd)
{
    uint32_t i;
    int rc;

    if (g->n_free == 0 || fd >= g->fd_limit) {
        refuse(g, source, fd);
        return;
    }
    i = g->free_conns[g->n_free - 1];
    rc = landing_conn_open(g->landing, i, fd, source);
    if (rc != 0) {
        ingress_note(g, NOTE_STREAM_MEMORY, source, -rc);
        refuse(g, source, fd);
        return;
    }
    g->n_free--;
    g->n_live++;
    g->conn_data_ns[i] = clock_mono_ns(&clock_real);
    g->conn_pids[i] = 0;
    (void)ingress_stream_watch(g, i);
}

bool ingress_stream_watch(struct ingress *g, uint32_t conn)
{
    int rc = g->watch.added(g->watch.arg, conn);

    if (rc == 0)
        return true;
    ingress_note(g, NOTE_STREAM_MEMORY, g->landing->conns[conn].listener, -rc);
    count_refused(g);
    ingress_stream_close(g, conn);
    return false;
}

enum ingress_rc ingress_accept(struct ingress *g, uint32_t source, unsigned max)
{
    for (unsigned i = 0; i < max; i++) {
        int fd = accept4(g->sockets->entries[source].fd, NULL, NULL,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            take(g, source, fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno == EAGAIN || errno == EINVAL) /* EINVAL: shut and empty */
            return i == 0 ? INGRESS_IDLE : INGRESS_SHORT;
        ingress_note(g, NOTE_ACCEPT_FAILED, source, errno);
        g->accept_paused = true; /* EMFILE: the poll would come back at once */
        return INGRESS_IDLE;
    }
    return INGRESS_MORE;
}

/* connect() meets ECONNREFUSED from here on; what waits in the backlog is still
 * given by accept(). Closing would reset it. */
int ingress_listener_stop(int fd)
{
    return shutdown(fd, SHUT_RD) == 0 ? 0 : -errno;
}

void ingress_stream_stop(struct ingress *g, uint32_t conn)
{
    (void)shutdown(g->landing->conns[conn].fd, SHUT_RD);
}

void ingress_stream_idle(struct ingress *g)
{
    uint64_t limit_ns = (uint64_t)g->stream_idle_s * UINT64_C(1000000000);
    uint64_t now_ns = clock_mono_ns(&clock_real);

    for (uint32_t i = 0; i < g->landing->n_conns && limit_ns > 0; i++) {
        if (g->landing->conns[i].fd >= 0 &&
            now_ns - g->conn_data_ns[i] > limit_ns)
            ingress_stream_close(g, i);
    }
}
