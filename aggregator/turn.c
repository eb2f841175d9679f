/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/turn.h"

#include "aggregator/blocks.h"
#include "aggregator/bucket.h"
#include "aggregator/cell.h"
#include "aggregator/context.h"
#include "aggregator/room.h"
#include "aggregator/stamps.h"

#define ROOM_FOR_STEP (64u * 1024) /* journal bytes one record may take */
#define RING_ROOM_TO_TURN 4u

static bool is_live(const struct agg *a, const struct context *c)
{
    return c->kind == KIND_COUNTER && (c->marks & MARK_PLAIN) != 0 &&
           (int64_t)c->seen_s + a->cfg.expiry_s > a->head->open.bucket_s;
}

static bool is_expired(const struct agg *a, const struct context *c)
{
    const struct agg_head *h = a->head;
    int64_t keep_s = a->cfg.context_expiry_s;

    if ((c->flags & CONTEXT_PINNED) != 0 || c->chain > h->released_chain ||
        c->stamped_chain > h->released_chain)
        return false;
    if (c->kind == KIND_COUNTER)
        keep_s += a->cfg.expiry_s;
    /* Records of its seconds name it by its index. */
    if ((c->marks & MARK_STAMPED) != 0)
        keep_s += 2 * STAMPS_KEEP_S;
    return (int64_t)c->touched_s + AGG_BUCKET_S + keep_s <= h->open.bucket_s;
}

static void fill_one(struct agg *a, struct context *c)
{
    struct agg_head *h = a->head;

    if (c->kind == KIND_FREE)
        return;
    if (is_live(a, c)) {
        region_set(a->r, h->turn.n_live, h->turn.n_live + 1);
        /* No cell in any part of this bucket: this one stays 0. */
        if (c->chain < h->open.bucket_first_id)
            (void)cell_open(a, c, false);
    } else if (is_expired(a, c)) {
        context_free(a, c);
    }
}

/* The open part has another stamp. Times that lie ahead of the clock would keep
 * contexts for as long. */
static void move_one(struct agg *a, struct context *c)
{
    uint32_t bucket_s = (uint32_t)a->head->open.bucket_s;
    bool is_open = c->chain == a->head->open.id;

    if (c->kind == KIND_FREE)
        return;
    if (is_open || c->seen_s > bucket_s || c->touched_s > bucket_s) {
        region_save(a->r, CONTEXT_HOT(c));
        if (is_open || c->seen_s > bucket_s)
            c->seen_s = bucket_s;
        c->touched_s = bucket_s;
    }
    if (is_open)
        stamps_move(a, c);
}

static uint32_t stage_end(const struct agg *a)
{
    return a->head->turn.stage == TURN_STAMPS ? a->head->stamps.n_made
                                              : a->head->contexts.n_made;
}

static void next_stage(struct agg *a)
{
    struct turn *t = &a->head->turn;

    region_save(a->r, t, sizeof(*t));
    t->stage = t->stage == TURN_STAMPS ? TURN_NONE : TURN_STAMPS;
    t->cursor = 1;
    region_commit(a->r);
}

/* One transaction's worth of records. */
static void step(struct agg *a)
{
    struct turn *t = &a->head->turn;
    uint32_t end = stage_end(a);
    uint32_t i = t->cursor;

    room_make(a);
    for (; i < end && region_room(a->r) > ROOM_FOR_STEP; i++) {
        if (t->stage == TURN_FILL)
            fill_one(a, &a->contexts[i]);
        else if (t->stage == TURN_MOVE)
            move_one(a, &a->contexts[i]);
        else
            stamps_turn(a, i, t->all_stamps != 0);
    }
    region_set(a->r, t->cursor, i);
    region_commit(a->r);
    if (i >= end)
        next_stage(a);
}

/* Close what was filled, open what follows: one transaction. The stage is
 * TURN_NONE already, so that a kill here leaves an ordinary open bucket whose turn simply
 * begins again, with nothing left to fill. */
static void finish(struct agg *a, int64_t now_s)
{
    struct agg_head *h = a->head;
    struct ingest_counts *k = &h->counts;
    int64_t next_s = h->open.bucket_s;
    bool had_data = h->open.has_data != 0;

    if (had_data && bucket_ring_room(a) == 0)
        return; /* moved, and nothing to close into */

    if (h->turn.whole != 0) {
        next_s += AGG_BUCKET_S;
        if (next_s < bucket_of(now_s) && h->turn.n_live == 0)
            next_s = bucket_of(now_s);
    }
    if (had_data) {
        region_set(a->r, k->delivered_old, k->delivered_old + h->turn.n_old);
        bucket_close(a);
        bucket_open(a, next_s, now_s, h->turn.whole != 0);
    } else {
        bucket_place(a, next_s, now_s, h->turn.whole != 0);
    }
    region_commit(a->r);
}

static bool may_turn(struct agg *a)
{
    room_make(a);
    return bucket_ring_room(a) >= RING_ROOM_TO_TURN &&
           blocks_available(a) >= BLOCKS_RESERVED;
}

/* Nothing to close into: the open chain takes the samples of later buckets too
 * until parts are released. Totals stay exact, their seconds do not. */
static void stay(struct agg *a, int64_t now_s)
{
    region_set(a->r, a->head->open.bucket_s, bucket_of(now_s));
    region_commit(a->r);
}

static void begin(struct agg *a, int64_t now_s, enum turn_stage stage)
{
    struct turn *t = &a->head->turn;
    /* Without the timestamped ones, which come into the part during the turn. */
    uint64_t n_old = agg_is_held(a, now_s) ? a->head->open.n_samples : 0;

    region_save(a->r, t, sizeof(*t));
    *t = (struct turn){.stage = stage,
                       .cursor = 1,
                       .whole = stage == TURN_FILL,
                       .all_stamps = stage != TURN_FILL,
                       .now_s = now_s,
                       .n_old = n_old};
    region_commit(a->r);
}

static void run(struct agg *a)
{
    while (a->head->turn.stage != TURN_NONE)
        step(a);
    finish(a, a->head->turn.now_s);
}

void turn_to(struct agg *a, int64_t now_s)
{
    while (a->head->open.bucket_s + AGG_BUCKET_S <= now_s) {
        if (!may_turn(a)) {
            stay(a, now_s);
            return;
        }
        begin(a, now_s, TURN_FILL);
        run(a);
    }
}

void turn_early(struct agg *a, int64_t now_s)
{
    if (bucket_ring_room(a) == 0)
        return;
    begin(a, now_s, TURN_STAMPS);
    run(a);
}

void turn_move(struct agg *a, int64_t now_s)
{
    bucket_move(a, now_s);
    begin(a, now_s, TURN_MOVE);
    run(a);
}

void turn_resume(struct agg *a)
{
    if (a->head->turn.stage != TURN_NONE)
        run(a);
}
