/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layout of the memfd: head | connections | datagram slots | halves.
 *
 * Datagrams. A batch is over when pos.record stands behind the last message with
 * a length. Only then are the lengths emptied, and only when all are empty does
 * the position go back to 0: killed anywhere in between, there is nothing to
 * apply twice.
 *
 * Streams. The number of received bytes is base_bytes + msg_len, where the kernel
 * stores msg_len. Adding one to the other in place would take two stores, so the
 * next receive call gets a state of its own (base, position, half) and the store
 * of `cur` makes it the valid one. The buffer has two halves for the same
 * reason: an incomplete frame at the end of one is copied to the start of the
 * other, and the old bytes stay valid until the switch.
 */
#include "agent/landing.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define WINDOW_MIN (16u * 1024)
#define WARM_CONNS 16u /* so many connections keep their first window */

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Orders stores as a kill sees them: a compiler barrier is enough. */
static void in_order(void)
{
    atomic_signal_fence(memory_order_seq_cst);
}

static void touch(void *p, size_t n)
{
    if (n == 0 || madvise(p, n, MADV_POPULATE_WRITE) == 0)
        return;
    for (size_t i = 0; i < n; i += page_bytes()) {
        volatile unsigned char *b = (unsigned char *)p + i;

        *b = *b;
    }
}

/* Pages that exist: a refusal is an error here and not a SIGBUS later. */
static int provide(const struct landing *l, void *p, size_t n)
{
    off_t at = (off_t)((unsigned char *)p - (unsigned char *)l->map);

    while (fallocate(l->fd, 0, at, (off_t)n) != 0) {
        if (errno != EINTR)
            return -errno;
    }
    touch(p, n);
    return 0;
}

static void init_batch(struct landing_batch *b, unsigned char *slots,
                       uint32_t buffer_bytes, uint32_t slot_bytes)
{
    b->slots = slots;
    b->slot_bytes = slot_bytes;
    for (uint32_t i = 0; i < LANDING_SLOTS; i++) {
        b->iovs[i].iov_base = slots + (size_t)i * slot_bytes;
        b->iovs[i].iov_len = buffer_bytes;
        b->msgs[i].msg_hdr.msg_iov = &b->iovs[i];
        b->msgs[i].msg_hdr.msg_iovlen = 1;
        b->msgs[i].msg_hdr.msg_control = b->controls[i];
        b->msgs[i].msg_len = LANDING_EMPTY;
    }
}

int landing_create(struct landing *l, const struct landing_opts *opts)
{
    size_t page = page_bytes();
    uint32_t slot_bytes = (uint32_t)round_up(opts->buffer_bytes + 8u, 64);
    size_t head_bytes = round_up(sizeof(struct landing_head), page);
    size_t conns_bytes =
        round_up(opts->n_conns * sizeof(struct landing_conn), page);
    size_t slots_bytes = round_up((size_t)slot_bytes * LANDING_SLOTS, page);
    size_t fixed_bytes = head_bytes + conns_bytes + slots_bytes;
    size_t half_bytes = round_up(opts->max_frame_bytes + 8u, page);
    size_t total = fixed_bytes + half_bytes * 2 * opts->n_conns;
    unsigned char *map = MAP_FAILED;
    int rc;
    int fd;

    fd = memfd_create("retriever-landing", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)total) == 0)
        map = mmap(NULL, total, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (map == MAP_FAILED) {
        rc = -errno;
        close(fd);
        return rc;
    }
    *l = (struct landing){
        .head = (struct landing_head *)map,
        .batch = &((struct landing_head *)map)->batch,
        .conns = (struct landing_conn *)(map + head_bytes),
        .halves = map + fixed_bytes,
        .half_bytes = half_bytes,
        .n_conns = opts->n_conns,
        .max_frame_bytes = opts->max_frame_bytes,
        .map = map,
        .map_bytes = total,
        .fd = fd,
    };
    rc = provide(l, map, fixed_bytes);
    if (rc != 0) {
        landing_close(l);
        return rc;
    }
    init_batch(l->batch, map + head_bytes + conns_bytes, opts->buffer_bytes,
               slot_bytes);
    l->head->tap.ring_fd = l->head->tap.control_fd = -1;
    for (uint32_t i = 0; i < l->n_conns; i++)
        l->conns[i].fd = -1;
    return 0;
}

void landing_close(struct landing *l)
{
    if (l->map == NULL)
        return;
    landing_ring_unmap(l);
    if (l->head->tap.ring_fd >= 0) {
        close(l->head->tap.ring_fd);
        close(l->head->tap.control_fd);
    }
    munmap(l->map, l->map_bytes);
    close(l->fd);
    *l = (struct landing){.fd = -1};
}

void landing_populate(struct landing *l)
{
    touch(l->map, (size_t)(l->halves - (unsigned char *)l->map));
    for (uint32_t i = 0; i < l->n_conns; i++) {
        if (l->conns[i].fd < 0)
            continue;
        touch(landing_half(l, i, 0), l->conns[i].window_bytes);
        touch(landing_half(l, i, 1), l->conns[i].window_bytes);
    }
}

void landing_arm(struct landing *l, uint32_t source)
{
    struct landing_batch *b = l->batch;

    for (uint32_t i = 0; i < LANDING_SLOTS; i++) {
        b->msgs[i].msg_len = LANDING_EMPTY;
        b->msgs[i].msg_hdr.msg_controllen =
            b->wants_senders ? LANDING_CONTROL_BYTES : 0;
    }
    in_order();
    b->pos = (struct ingest_pos){0, 0};
    b->source = source;
    b->seq++;
    in_order();
}

uint32_t landing_sender(const struct landing *l, uint32_t i)
{
    struct msghdr *h = &l->batch->msgs[i].msg_hdr;
    const struct cmsghdr *c = CMSG_FIRSTHDR(h);
    struct ucred who;

    if (c == NULL || c->cmsg_level != SOL_SOCKET ||
        c->cmsg_type != SCM_CREDENTIALS || c->cmsg_len < CMSG_LEN(sizeof(who)))
        return 0;
    memcpy(&who, CMSG_DATA(c), sizeof(who));
    return who.pid > 0 ? (uint32_t)who.pid : 0;
}

/* ---- The tap's ring ----------------------------------------------------- */

int landing_ring_map(struct landing *l)
{
    const struct landing_tap *t = &l->head->tap;
    int rc;

    if (l->has_ring)
        return 0;
    if (t->ring_fd < 0)
        return -ENOENT;
    rc = ring_open(&l->ring, t->ring_fd, t->control_fd);
    l->has_ring = rc == 0;
    return rc;
}

int landing_ring_take(struct landing *l, int ring_fd, int control_fd)
{
    struct landing_tap *t = &l->head->tap;
    int rc;

    REQUIRE(t->ring_fd < 0);
    t->ring_fd = ring_fd;
    t->control_fd = control_fd;
    rc = landing_ring_map(l);
    if (rc != 0) {
        t->ring_fd = t->control_fd = -1;
        return rc;
    }
    t->pos = (struct ingest_pos){(uint32_t)ring_begin(&l->ring), 0};
    t->counted = t->pos.record;
    landing_ring_unmap(l);
    return 0;
}

uint32_t landing_ring_unread(struct landing *l, uint32_t id)
{
    uint32_t n_unread = 0;
    const void *record;
    uint64_t next, pos;
    uint32_t n;

    if (id == 0 || landing_ring_map(l) != 0)
        return 0;
    pos = ring_begin(&l->ring);
    while (ring_at(&l->ring, pos, &record, &n, &next) == RING_RECORD) {
        const struct tap_record *r = record;

        n_unread += n >= sizeof(*r) && r->socket == id;
        pos = next;
    }
    landing_ring_unmap(l);
    return n_unread;
}

void landing_ring_unmap(struct landing *l)
{
    if (l->has_ring)
        ring_close(&l->ring, true);
    l->has_ring = false;
}

/* ---- Stream connections ------------------------------------------------ */

static void init_state(const struct landing *l, uint32_t i,
                       struct landing_recv *st, uint32_t half, uint32_t base)
{
    memset(&st->msg.msg_hdr, 0, sizeof(st->msg.msg_hdr));
    st->half = half;
    st->base_bytes = base;
    st->iov.iov_base = landing_half(l, i, half) + base;
    st->iov.iov_len = l->conns[i].window_bytes - base;
    st->msg.msg_hdr.msg_iov = &st->iov;
    st->msg.msg_hdr.msg_iovlen = 1;
    st->msg.msg_len = LANDING_EMPTY;
}

/* Byte behind the window stays ours: a packet needs one writable byte. */
static uint32_t window_max(const struct landing *l)
{
    return (uint32_t)l->half_bytes - 1;
}

static int grow_window(struct landing *l, uint32_t i, uint32_t want)
{
    struct landing_conn *c = &l->conns[i];
    size_t n = round_up((size_t)want + 1, page_bytes());
    int rc;

    if (n > l->half_bytes)
        n = l->half_bytes;
    rc = provide(l, landing_half(l, i, 0), n);
    if (rc == 0)
        rc = provide(l, landing_half(l, i, 1), n);
    if (rc == 0)
        c->window_bytes = (uint32_t)n - 1;
    return rc;
}

int landing_conn_open(struct landing *l, uint32_t i, int fd, uint32_t listener)
{
    return landing_conn_restore(l, i, fd, listener, NULL, 0);
}

int landing_conn_restore(struct landing *l, uint32_t i, int fd,
                         uint32_t listener, const void *bytes, uint32_t n)
{
    struct landing_conn *c = &l->conns[i];
    int rc;

    REQUIRE(i < l->n_conns && c->fd < 0);
    if (n >= l->max_frame_bytes + 4)
        return -EMSGSIZE; /* a complete frame would have been applied */
    rc = grow_window(l, i, n < WINDOW_MIN ? WINDOW_MIN : n);
    if (rc != 0)
        return rc;
    if (n > 0)
        memcpy(landing_half(l, i, 0), bytes, n);
    c->listener = listener;
    c->closing = 0;
    c->cur = 0;
    c->states[0].pos = (struct ingest_pos){0, 0};
    c->states[0].seq = c->states[1].seq + 1;
    init_state(l, i, &c->states[0], 0, n);
    in_order();
    c->fd = fd;
    return 0;
}

void landing_conn_free(struct landing *l, uint32_t i)
{
    struct landing_conn *c = &l->conns[i];
    off_t at = (off_t)(landing_half(l, i, 0) - (unsigned char *)l->map);

    if (i >= WARM_CONNS || c->window_bytes > WINDOW_MIN) {
        (void)fallocate(l->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
                        (off_t)(2 * l->half_bytes));
        c->window_bytes = 0;
    }
    c->fd = -1;
    in_order();
    c->closing = 0;
}

/* A window that the last call filled to its end is worth doubling. */
static int fit_window(struct landing *l, uint32_t i,
                      const struct landing_recv *old, uint32_t need)
{
    struct landing_conn *c = &l->conns[i];
    uint32_t want = c->window_bytes;

    if (landing_filled(old) == c->window_bytes)
        want = c->window_bytes * 2;
    if (want < need)
        want = need;
    if (want > window_max(l))
        want = window_max(l);
    if (want <= c->window_bytes || grow_window(l, i, want) == 0 ||
        need <= c->window_bytes)
        return 0;
    return -ENOMEM;
}

struct landing_recv *landing_conn_arm(struct landing *l, uint32_t i,
                                      uint32_t need)
{
    struct landing_conn *c = &l->conns[i];
    struct landing_recv *old = &c->states[c->cur];
    struct landing_recv *st = &c->states[1 - c->cur];
    uint32_t filled = landing_filled(old);
    uint32_t left = filled - old->pos.record;

    REQUIRE(need > left && need <= l->max_frame_bytes + 4);
    if (fit_window(l, i, old, need) != 0)
        return NULL;
    if (left == 0) {
        init_state(l, i, st, old->half, 0);
        st->pos = (struct ingest_pos){0, 0};
    } else if (need <= c->window_bytes - old->pos.record) {
        init_state(l, i, st, old->half, filled);
        st->pos = old->pos;
    } else {
        memcpy(landing_half(l, i, 1 - old->half),
               landing_half(l, i, old->half) + old->pos.record, left);
        init_state(l, i, st, 1 - old->half, left);
        st->pos = (struct ingest_pos){0, 0};
    }
    st->seq = old->seq + 1;
    in_order();
    c->cur = 1 - c->cur;
    in_order();
    return st;
}

/* ---- Death and poison -------------------------------------------------- */

/* Several records make one transaction, and one of them is looked at. Right behind
 * the commit that is still the last of them, which is applied: nobody would find it
 * any more. */
static struct ingest_pos at_work(const struct landing *l, struct ingest_pos pos)
{
    uint32_t working = l->head->working;

    return (int32_t)(working - pos.record) > 0 ? (struct ingest_pos){working, 0}
                                               : pos;
}

struct landing_place landing_place(const struct landing *l)
{
    struct landing_place p = {.what = l->head->applying};

    if (p.what == LANDING_BATCH) {
        p.pos = at_work(l, l->batch->pos);
        p.seq = l->batch->seq;
    } else if (p.what == LANDING_TAP) {
        p.pos = at_work(l, l->head->tap.pos);
    } else if (p.what >= LANDING_CONN) {
        const struct landing_recv *st;

        /* The keeper must not fall over what a dead worker scribbled. */
        if (p.what - LANDING_CONN >= l->n_conns ||
            l->conns[p.what - LANDING_CONN].cur > 1)
            return (struct landing_place){.what = LANDING_NOTHING};
        st = landing_state(&l->conns[p.what - LANDING_CONN]);

        p.pos = st->pos;
        p.seq = st->seq;
    }
    return p;
}

static bool same_place(const struct landing_place *a,
                       const struct landing_place *b)
{
    return a->what == b->what && a->seq == b->seq &&
           a->pos.record == b->pos.record && a->pos.offset == b->pos.offset;
}

static void ring_bytes(struct landing *l, const struct landing_place *p,
                       const void **bytes, size_t *n)
{
    const void *record;
    uint64_t next;
    uint32_t len;

    if (landing_ring_map(l) == 0 &&
        ring_at(&l->ring, landing_ring_pos(l, p->pos.record), &record, &len,
                &next) == RING_RECORD) {
        *bytes = record;
        *n = len;
    }
}

static void record_bytes(struct landing *l, const struct landing_place *p,
                         const void **bytes, size_t *n)
{
    *bytes = NULL;
    *n = 0;
    if (p->what == LANDING_BATCH && p->pos.record < LANDING_SLOTS) {
        uint32_t len = l->batch->msgs[p->pos.record].msg_len;

        *bytes = landing_slot(l, p->pos.record);
        *n = len == LANDING_EMPTY ? 0 : len;
    } else if (p->what == LANDING_TAP) {
        ring_bytes(l, p, bytes, n);
    } else if (p->what >= LANDING_CONN) {
        uint32_t i = p->what - LANDING_CONN;
        const struct landing_recv *st = landing_state(&l->conns[i]);

        *bytes = landing_half(l, i, st->half) + p->pos.record;
        *n = landing_filled(st) - p->pos.record;
    }
}

uint32_t landing_note_death(struct landing *l, const void **bytes,
                            size_t *n_bytes)
{
    struct landing_head *h = l->head;
    struct landing_place p = landing_place(l);

    h->applying = LANDING_NOTHING;
    record_bytes(l, &p, bytes, n_bytes);
    if (p.what == LANDING_NOTHING || *n_bytes == 0)
        return 0;
    /* Behind two, records go one by one, and each death is where it seems to be: the
     * record of a group that was blamed before was another one's neighbour. */
    if (same_place(&p, &h->death))
        h->n_deaths++;
    else
        h->n_deaths = h->n_deaths >= 2 ? 2 : 1;
    h->death = p;
    return h->n_deaths;
}

void landing_forget(struct landing *l)
{
    l->head->applying = LANDING_NOTHING;
}

bool landing_poisoned(const struct landing *l, const struct landing_place *p)
{
    return l->head->n_deaths >= 2 && same_place(p, &l->head->death);
}

void landing_skipped(struct landing *l)
{
    l->head->n_deaths = 0;
}
