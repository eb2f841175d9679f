/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/bucket.h"

#include "aggregator/blocks.h"

/* Pieces are a convenience for the encoder: near the end of the ring a piece
 * rather grows than takes the last place of a chain. */
#define RING_KEPT_FOR_CHAINS 64u

#define MOST_LOOKS 4500 /* all from STALE_S behind to AHEAD_S ahead */
#define STEADY_S 60 /* a life this old is none of many that follow each other */

uint32_t bucket_ring_room(const struct agg *a)
{
    const struct agg_head *h = a->head;
    uint64_t last = h->open.id != 0 ? h->open.first_seq + h->open.n_pieces - 1
                                    : h->closed_seq;

    return PARTS_MAX - (uint32_t)(last - h->released_seq);
}

static void start_piece(struct agg *a, uint64_t seq)
{
    struct part *p = part_at(a, seq);

    REQUIRE(p->state == PART_NONE);
    region_save(a->r, p, sizeof(*p));
    *p = (struct part){.seq = seq,
                       .stamp_s = a->head->open.stamp_s,
                       .state = PART_OPEN,
                       .chain_id = a->head->open.id};
}

bool bucket_closed_stamp(const struct agg *a, int64_t t_s)
{
    const struct agg_head *h = a->head;
    uint32_t n = h->n_stamp_ring < STAMP_RING ? h->n_stamp_ring : STAMP_RING;

    for (uint32_t i = 0; i < n; i++) {
        const struct used_span *s = &h->stamp_ring[i];

        if ((uint32_t)t_s - s->stamp_s <= s->max_shift)
            return true;
    }
    return used_has_stamp(&a->cfg.used, t_s);
}

/* @stamp and the seconds behind it that shifted cells would take. */
static bool is_taken(const struct agg *a, int64_t stamp_s)
{
    for (uint32_t k = 0; k <= a->head->shift_used; k++) {
        if (bucket_closed_stamp(a, stamp_s + k))
            return true;
    }
    return false;
}

bool bucket_had_stamp(const struct agg *a, int64_t t_s)
{
    const struct open_chain *o = &a->head->open;

    return (t_s >= o->stamp_s && t_s <= o->stamp_s + o->max_shift) ||
           bucket_closed_stamp(a, t_s);
}

/*
 * The stamp of the first part of a bucket is the bucket's start, so that series
 * line up across agents. A life that does not know what an earlier one of the
 * same bucket used takes its own start second. A later part takes the second in
 * which it begins. Whatever that gives, it is later than any stamp before it;
 * and after the clock was set back, none of those that are remembered.
 */
static int64_t next_stamp(const struct agg *a, int64_t bucket_s, int64_t now_s,
                          bool first)
{
    const struct agg_head *h = a->head;
    int64_t stamp = bucket_s;

    if (!first)
        stamp = now_s > bucket_s ? now_s : bucket_s;
    else if (h->closed_seq == 0 && h->last_stamp_s == 0 &&
             bucket_of(a->cfg.life_start_s) == bucket_s)
        stamp = a->cfg.life_start_s;
    if (stamp <= h->last_stamp_s)
        stamp = h->last_stamp_s + 1;
    while (is_taken(a, stamp))
        stamp++;
    return stamp;
}

void bucket_place(struct agg *a, int64_t bucket_s, int64_t now_s, bool first)
{
    struct open_chain *o = &a->head->open;
    struct part *p = part_at(a, o->first_seq);

    REQUIRE(!o->has_data);
    region_save(a->r, o, sizeof(*o));
    o->stamp_s = next_stamp(a, bucket_s, now_s, first);
    o->bucket_s = bucket_s;
    o->claim = STAMP_UNCLAIMED;
    if (first)
        o->bucket_first_id = o->id;
    region_set(a->r, p->stamp_s, o->stamp_s);
}

/* ---- Other lives of our identity ---------------------------------------- */

static bool is_steady(const struct agg *a)
{
    return a->head->open.bucket_s - a->cfg.life_start_s >= STEADY_S;
}

/* @stamp_s and the seconds behind it that shifted cells would take. */
static enum agg_claim ask(const struct agg *a, int64_t stamp_s)
{
    enum agg_claim answer = AGG_OURS;

    if (is_taken(a, stamp_s))
        return AGG_TAKEN;
    for (uint32_t k = 0; k <= a->head->shift_used && answer == AGG_OURS; k++)
        answer = a->cfg.claim(a->cfg.claim_arg, stamp_s + k, is_steady(a));
    return answer;
}

/* Where the @n-th look goes: the ten seconds from @stamp_s on, then those around. */
static int64_t nth_second(int64_t stamp_s, int n)
{
    if (n < AGG_BUCKET_S)
        return stamp_s + n;
    n -= AGG_BUCKET_S;
    return n % 2 == 0 ? stamp_s + AGG_BUCKET_S + n / 2 : stamp_s - 1 - n / 2;
}

/*
 * Lives that follow each other closely go away from the clock, ahead and behind, as
 * far as the intake follows: no second is free twice. Lives that go on side by side
 * share the seconds of each bucket. Where there are more of them than seconds they
 * must not drive each other away from the clock: then some share a second, and
 * overwrite each other in the series that both have.
 */
static bool find_left(const struct agg *a, int64_t *stamp_s)
{
    int64_t bucket_s = a->head->open.bucket_s;
    int n_steady = 0;

    for (int n = 0; n < MOST_LOOKS; n++) {
        int64_t t_s = nth_second(*stamp_s, n);

        if (n > 0 && (t_s > bucket_s + AHEAD_S || t_s < bucket_s - STALE_S))
            continue;
        switch (ask(a, t_s)) {
        case AGG_OURS:
            *stamp_s = t_s;
            return true;
        case AGG_TAKEN:
            break;
        case AGG_TAKEN_STEADILY:
            if (++n_steady == AGG_BUCKET_S && is_steady(a))
                return false;
            break;
        }
    }
    return false;
}

/* With the first cell: a part that stays empty takes no second from anybody. */
void bucket_claim(struct agg *a)
{
    struct open_chain *o = &a->head->open;
    int64_t stamp_s = o->stamp_s;
    bool found = a->cfg.claim != NULL && find_left(a, &stamp_s);

    region_set(a->r, o->claim, found ? STAMP_CLAIMED : STAMP_SHARED);
    if (stamp_s == o->stamp_s)
        return;
    region_set(a->r, o->stamp_s, stamp_s);
    for (uint32_t i = 0; i < o->n_pieces; i++)
        region_set(a->r, part_at(a, o->first_seq + i)->stamp_s, stamp_s);
}

bool bucket_claims(const struct agg *a, int64_t t_s)
{
    return a->head->open.claim != STAMP_CLAIMED ||
           a->cfg.claim(a->cfg.claim_arg, t_s, is_steady(a)) == AGG_OURS;
}

/* Other lives may have been where the clock went: the bucket's start is not ours
 * to take, the present second is. */
void bucket_move(struct agg *a, int64_t now_s)
{
    struct open_chain *o = &a->head->open;

    region_save(a->r, o, sizeof(*o));
    o->bucket_s = bucket_of(now_s);
    o->stamp_s = next_stamp(a, o->bucket_s, now_s, false);
    o->bucket_first_id = o->id;
    if (o->claim != STAMP_UNCLAIMED)
        bucket_claim(a);
    for (uint32_t i = 0; i < o->n_pieces; i++) {
        struct part *p = part_at(a, o->first_seq + i);

        region_set(a->r, p->stamp_s, o->stamp_s);
        region_set(a->r, p->n_moved,
                   1); /* cells may have moved: look at each */
    }
}

void bucket_open(struct agg *a, int64_t bucket_s, int64_t now_s, bool first)
{
    struct agg_head *h = a->head;
    struct open_chain *o = &h->open;
    uint32_t bucket_first = o->bucket_first_id;

    region_save(a->r, o, sizeof(*o));
    *o = (struct open_chain){.id = h->next_chain,
                             .n_pieces = 1,
                             .first_seq = h->closed_seq + 1,
                             .bucket_first_id = bucket_first};
    region_set(a->r, h->next_chain, h->next_chain + 1);
    start_piece(a, o->first_seq);
    bucket_place(a, bucket_s, now_s, first);
}

static uint32_t cells_of(const struct part *p)
{
    return p->chains[CHAIN_SMALL].n + p->chains[CHAIN_BIG].n +
           p->chains[CHAIN_DIST].n + p->chains[CHAIN_STAMPED].n;
}

struct part *bucket_piece(struct agg *a, bool must)
{
    struct open_chain *o = &a->head->open;
    struct part *p = part_at(a, o->first_seq + o->n_pieces - 1);

    if (cells_of(p) < PIECE_CELLS || must ||
        bucket_ring_room(a) <= RING_KEPT_FOR_CHAINS)
        return p;
    start_piece(a, o->first_seq + o->n_pieces);
    region_set(a->r, o->n_pieces, o->n_pieces + 1);
    return part_at(a, o->first_seq + o->n_pieces - 1);
}

/* One place for a part, however many seconds its shifted cells took: the ring
 * reaches back as far with a clash of types as without. */
static void remember_stamp(struct agg *a)
{
    struct agg_head *h = a->head;
    struct used_span *at = &h->stamp_ring[h->n_stamp_ring % STAMP_RING];

    region_save(a->r, at, sizeof(*at));
    *at = (struct used_span){.stamp_s = (uint32_t)h->open.stamp_s,
                             .max_shift = h->open.max_shift};
    region_set(a->r, h->n_stamp_ring, h->n_stamp_ring + 1);
    region_set(a->r, h->last_stamp_s, h->open.stamp_s + h->open.max_shift);
}

void bucket_close(struct agg *a)
{
    struct agg_head *h = a->head;
    const struct open_chain *o = &h->open;
    struct ingest_counts *k = &h->counts;

    for (uint32_t i = 0; i < o->n_pieces; i++) {
        struct part *p = part_at(a, o->first_seq + i);

        region_set(a->r, p->is_last, i + 1 == o->n_pieces);
        region_set(a->r, p->max_shift, o->max_shift);
        region_set(a->r, p->state, PART_CLOSED);
    }
    region_set(a->r, h->closed_seq, o->first_seq + o->n_pieces - 1);
    region_set(a->r, k->closed, k->closed + o->n_samples);
    region_set(a->r, k->events_closed, k->events_closed + o->n_events);
    region_set(a->r, k->checks_closed, k->checks_closed + o->n_checks);
    remember_stamp(a);
}

void bucket_release(struct agg *a, uint64_t seq)
{
    struct agg_head *h = a->head;

    if (seq > h->closed_seq)
        seq = h->closed_seq;
    while (h->released_seq < seq) {
        struct part *p = part_at(a, h->released_seq + 1);

        chains_free(a, p);
        region_set(a->r, h->released_chain,
                   p->is_last ? p->chain_id : p->chain_id - 1);
        region_set(a->r, p->state, PART_NONE);
        region_set(a->r, h->released_seq, h->released_seq + 1);
        region_commit(a->r);
    }
}
