/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Payloads that were not made by this store: of earlier lives, from disk, and of
 * an earlier image of this life, from disk or from a memfd.
 *
 * An earlier image's counters come first and its payloads one by one, so there
 * are moments when some are counted and not here. Those are *awaited*: in flight
 * as far as anybody can see, and taken off as they arrive.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "forwarder/store_table.h"

#define MODULE "store"
#define NO_ENTRY STORE_NO_ENTRY

/* ---- Accepting --------------------------------------------------------- */

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What is awaited is accepted already. Returns false for that. */
static bool count_accepted(struct store *s, enum store_side side,
                           const struct payload_load *l)
{
    struct store_books *b = &s->head->books[side];
    struct payload_load awaited = s->head->awaited[side];
    struct payload_load accepted = b->accepted;
    struct payload_load known = {
        .n_samples = min_u64(l->n_samples, awaited.n_samples),
        .n_points = min_u64(l->n_points, awaited.n_points),
        .n_events = min_u64(l->n_events, awaited.n_events),
        .n_checks = min_u64(l->n_checks, awaited.n_checks),
    };

    load_sub(&awaited, &known);
    load_add(&accepted, l);
    load_sub(&accepted, &known);
    region_set(s->r, s->head->awaited[side], awaited);
    region_set(s->r, b->accepted, accepted);
    return (known.n_samples | known.n_points | known.n_events |
            known.n_checks) == 0;
}

struct entry_fixed store_fixed_of(const struct segment_record *r)
{
    return (struct entry_fixed){
        .order = r->order,
        .kind = (uint8_t)r->kind,
        .encoding = (uint8_t)r->encoding,
        .n_bytes = r->n_bytes,
        .n_raw_bytes = r->n_raw_bytes,
        .n_index_bytes = r->n_index_bytes,
        .newest_s = r->newest_s,
        .load = r->load,
    };
}

/* Older than all that is made here, whatever the clocks said; and as what is on
 * disk comes latest first, each older than the one before. */
static uint64_t clamped(const struct store *s, uint64_t order)
{
    uint64_t base = s->head->base_order;
    uint64_t max = base - 1 - (s->head->next_id - base);

    return order < max ? order : max;
}

bool store_accept(struct store *s, struct entry_fixed *f,
                  enum record_state state, bool wanted)
{
    uint32_t i = NO_ENTRY;

    if (wanted) {
        if (s->n_free == 0)
            (void)store_entries_grow(s);
        i = store_entry_alloc(s); /* none: the oldest go, and this is one */
    }
    if (count_accepted(s, f->side, &f->load) && f->side == STORE_RESTORED)
        store_bump(s, &s->head->books[f->side].n_payloads, 1);
    if (i == NO_ENTRY) {
        store_count_dropped(s, f->side, &f->load, DROP_EVICTED, 0);
        store_commit(s);
        return false;
    }
    f->id = s->head->next_id;
    f->order = clamped(s, f->order);
    store_entry_fill(s, i, f);
    if (state == RECORD_MAYBE_SENT) {
        s->entries[i].state = PAYLOAD_MAYBE_SENT; /* not committed yet */
        s->entries[i].n_attempts = 1;
    }
    region_set(s->r, s->head->next_id, s->head->next_id + 1);
    store_commit(s);
    store_entry_list(s, i, NO_ENTRY);
    return true;
}

bool store_awaits(const struct store *s)
{
    const struct payload_load *l = &s->head->awaited[STORE_OWN];

    return s->disk != NULL &&
           (l->n_samples | l->n_points | l->n_events | l->n_checks) != 0;
}

void store_give_up_awaited(struct store *s)
{
    for (int side = 0; side < STORE_N_SIDES; side++) {
        struct payload_load lost = s->head->awaited[side];

        if ((lost.n_samples | lost.n_points | lost.n_events | lost.n_checks) ==
            0)
            continue;
        if ((lost.n_samples | lost.n_events | lost.n_checks) != 0)
            log_error(MODULE,
                      "payloads of before the upgrade are lost samples=%ju",
                      (uintmax_t)lost.n_samples);
        store_count_dropped(s, side, &lost, DROP_DAMAGED, 0);
        region_set(s->r, s->head->awaited[side], (struct payload_load){0});
        store_commit(s);
    }
}

/* ---- Counters ---------------------------------------------------------- */

static void add_books(struct store_books *to, const struct store_books *b)
{
    uint64_t *x = (uint64_t *)to;
    const uint64_t *y = (const uint64_t *)b;

    _Static_assert(sizeof(*to) % sizeof(*x) == 0, "counters and nothing else");
    for (size_t i = 0; i < sizeof(*to) / sizeof(*x); i++)
        x[i] += y[i];
}

static uint64_t rest(uint64_t accepted, uint64_t settled)
{
    return accepted > settled ? accepted - settled : 0;
}

static struct payload_load unsettled(const struct store_books *b)
{
    const struct delivery_counts *c = &b->counts;
    uint64_t samples = c->delivered + c->saved;

    for (int i = 0; i < DROP_N; i++)
        samples += c->dropped[i];
    return (struct payload_load){
        .n_samples = rest(b->accepted.n_samples, samples),
        .n_points = rest(b->accepted.n_points, c->points_delivered),
        .n_events =
            rest(b->accepted.n_events, c->events_delivered + c->events_dropped),
        .n_checks =
            rest(b->accepted.n_checks, c->checks_delivered + c->checks_dropped),
    };
}

void store_adopt_counts(struct store *s, const struct store_books *own,
                        const struct store_books *restored)
{
    const struct store_books *from[STORE_N_SIDES] = {own, restored};

    if (s->head->import_at != 0)
        return; /* a predecessor did */
    region_set(s->r, s->head->import_at, SEGMENT_HEAD_BYTES);
    for (int side = 0; side < STORE_N_SIDES; side++) {
        struct store_books *b = &s->head->books[side];
        struct payload_load *awaited = &s->head->awaited[side];
        struct payload_load more = unsettled(from[side]);

        region_save(s->r, b, sizeof(*b));
        region_save(s->r, awaited, sizeof(*awaited));
        add_books(b, from[side]);
        load_add(awaited, &more);
    }
    store_commit(s);
}

/* ---- Memory to memory -------------------------------------------------- */

int store_export(const struct store *s, int fd)
{
    const struct segment_head h = {
        .life = s->life,
        .created_s = clock_wall_ns(s->clock) / CLOCK_NS_PER_S,
    };
    unsigned char head[SEGMENT_RECORD_BYTES];
    uint64_t at = SEGMENT_HEAD_BYTES;
    int rc;

    segment_head_write(head, &h);
    rc = disk_pwrite(fd, head, SEGMENT_HEAD_BYTES, 0);
    for (int k = 0; k < PAYLOAD_N_KINDS; k++) {
        uint32_t i = s->lists[k].first;

        for (; i != NO_ENTRY && rc == 0; i = s->nodes[i].next) {
            const struct entry_fixed *f = &s->entries[i].fixed;
            struct segment_record r = store_record(s, i);
            const unsigned char *body;

            if (f->segment != 0)
                continue;
            body = pages_bytes(&s->pages, f->block);
            segment_record_write(head, &r, body, body + f->n_bytes);
            rc = disk_pwrite(fd, head, sizeof(head), at);
            if (rc == 0)
                rc = disk_pwrite(fd, body, store_entry_bytes(f),
                                 at + sizeof(head));
            at += segment_record_size(&r);
        }
    }
    if (rc == 0 && ftruncate(fd, (off_t)at) != 0)
        rc = -errno;
    return rc;
}

/* The record at import_at, which moves with the commit. Returns 0, -EBADMSG or
 * -errno. */
static int import_one(struct store *s, int fd, uint64_t n_bytes)
{
    unsigned char head[SEGMENT_RECORD_BYTES];
    struct segment_check *c;
    struct segment_record r;
    struct entry_fixed f;
    uint64_t at = s->head->import_at;
    uint64_t next;
    size_t n;
    int rc = disk_pread(fd, head, sizeof(head), at);

    if (rc != 0)
        return rc;
    if (segment_record_read(&r, head, n_bytes - at) != 0)
        return -EBADMSG;
    next = at + segment_record_size(&r);
    f = store_fixed_of(&r);
    f.side = r.flags & RECORD_RESTORED ? STORE_RESTORED : STORE_OWN;
    n = store_entry_bytes(&f);
    c = segment_check_create();
    if (c == NULL)
        return -ENOMEM;
    if (store_alloc_evicting(s, n, &f.block) != 0) {
        region_set(s->r, s->head->import_at, next);
        (void)store_accept(s, &f, r.state, false);
        goto out;
    }
    rc = disk_pread(fd, pages_bytes(&s->pages, f.block), n, at + sizeof(head));
    segment_check_begin(c, head);
    segment_check_add(c, pages_bytes(&s->pages, f.block), n);
    if (rc == 0 && segment_check_end(c) != r.check)
        rc = -EBADMSG;
    if (rc == 0)
        region_set(s->r, s->head->import_at, next);
    if (rc != 0 || !store_accept(s, &f, r.state, true))
        pages_free(&s->pages, f.block, pages_for(n));
out:
    segment_check_free(c);
    return rc;
}

int store_import(struct store *s, int fd)
{
    unsigned char head[SEGMENT_HEAD_BYTES];
    struct segment_head h;
    struct stat st;
    int rc = fstat(fd, &st) == 0 ? 0 : -errno;

    if (rc == 0)
        rc = disk_pread(fd, head, sizeof(head), 0);
    if (rc == 0 &&
        (segment_head_read(&h, head, sizeof(head)) != 0 || h.life != s->life))
        rc = -EBADMSG;
    REQUIRE(s->head->import_at != 0);
    while (rc == 0 && s->head->import_at < (uint64_t)st.st_size)
        rc = import_one(s, fd, (uint64_t)st.st_size);
    if (s->disk == NULL)
        store_give_up_awaited(s); /* nothing else can bring them */
    return rc;
}
