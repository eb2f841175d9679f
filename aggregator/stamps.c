/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/stamps.h"

#include "aggregator/blocks.h"
#include "aggregator/bucket.h"
#include "aggregator/cell.h"
#include "aggregator/context.h"
#include "aggregator/hash.h"
#include "aggregator/pool.h"
#include "aggregator/table.h"
#include "aggregator/wire.h"

#define MOST_STEPS 64   /* seconds to look for a free one */
#define MOST_SHIFT 255u /* of a cell */

/* Contexts that the intake would take for one series share their seconds: the
 * key is the group. */
static uint32_t stamp_frag(const struct agg *a, uint32_t group, uint32_t ts_s)
{
    return (uint32_t)hash_u64(((uint64_t)group << 32 | ts_s) ^
                              a->head->seed[0]);
}

/* What says that a record's part is closed; never 0, which says that it is not,
 * even in 1970. */
static uint32_t sent_in(const struct agg *a)
{
    int64_t bucket_s = a->head->open.bucket_s;

    return bucket_s > 0 ? (uint32_t)bucket_s : 1;
}

static uint32_t group_of(const struct agg *a, const struct stamp *st)
{
    return a->contexts[st->context].group;
}

static struct stamp *find(const struct agg *a, uint32_t group, uint32_t ts_s)
{
    const struct table *t = &a->head->stamp_index;
    const struct table_slot *slots = table_slots(a, t);
    uint32_t frag = stamp_frag(a, group, ts_s);

    for (uint32_t i = table_home(t->mask, frag); slots[i].ref != 0;
         i = (i + 1) & t->mask) {
        struct stamp *st = &a->stamps[slots[i].ref];

        if (slots[i].frag == frag && st->ts_s == ts_s &&
            group_of(a, st) == group)
            return st;
    }
    return NULL;
}

static void forget(struct agg *a, struct stamp *st)
{
    uint32_t i = (uint32_t)(st - a->stamps);

    table_remove(a, &a->head->stamp_index,
                 stamp_frag(a, group_of(a, st), st->ts_s), i);
    region_set(a->r, st->context, 0);
    pool_give(a, &a->head->stamps, i, &st->ts_s);
}

static struct stamp *make(struct agg *a, const struct context *c, uint32_t ts_s)
{
    struct pool *p = &a->head->stamps;
    uint32_t i = 0;

    if (table_room(&a->head->stamp_index) < 128)
        a->low = true;
    if (table_room(&a->head->stamp_index) > 0 &&
        p->n_made - p->n_free < STAMPS_MAX)
        i = pool_take(a, p, RANGE_STAMPS, sizeof(struct stamp),
                      offsetof(struct stamp, ts_s));
    if (i == 0)
        return NULL;
    a->stamps[i] = (struct stamp){.context = context_index(a, c), .ts_s = ts_s};
    (void)table_insert(a, &a->head->stamp_index, stamp_frag(a, c->group, ts_s),
                       i);
    return &a->stamps[i];
}

/* Did an earlier life send a timestamped point of @c with this second? */
static bool used_before(const struct agg *a, const struct context *c,
                        uint32_t t_s)
{
    const char *suffix;

    if (a->cfg.used.n_points == 0)
        return false;
    for (uint32_t i = 0;
         (suffix = wire_suffix(a, (enum cell_kind)c->kind, i)) != NULL; i++) {
        if (used_has_point(&a->cfg.used, wire_identity(a, c, suffix), t_s))
            return true;
    }
    return false;
}

/* The record for (context, t), or for the next second that is free for it. */
static struct stamp *place(struct agg *a, const struct context *c, uint32_t t)
{
    for (uint32_t k = 0; k < MOST_STEPS; k++) {
        struct stamp *st = find(a, c->group, t + k);

        if (st == NULL) {
            if (used_before(a, c, t + k))
                continue;
            st = make(a, c, t + k);
            if (st != NULL)
                region_set(a->r, a->head->n_stamps_open,
                           a->head->n_stamps_open + 1);
            return st;
        }
        if (st->sent_s == 0 && st->context == context_index(a, c))
            return st;
    }
    return NULL;
}

bool stamps_add(struct agg *a, struct context *c, const struct sample *s)
{
    struct stamp *st = place(a, c, (uint32_t)s->ts_s);
    uint32_t bucket_s = (uint32_t)a->head->open.bucket_s;

    if (st == NULL)
        return false;
    context_mark(a, c, MARK_STAMPED);
    if (c->touched_s != bucket_s)
        region_set(a->r, c->touched_s, bucket_s);
    region_save(a->r, st, sizeof(*st));
    st->n += s->n_values;
    if (c->kind == KIND_GAUGE) {
        st->value = s->values[s->n_values - 1];
    } else {
        for (uint32_t i = 0; i < s->n_values; i++)
            sum_add(&st->value, &st->comp, rated_value(s->values[i], s->rate));
    }
    region_set(a->r, a->head->stamped_samples,
               a->head->stamped_samples + s->n_values);
    return true;
}

/* Is the second @t_s free for an untimed point of @c whose part has the stamp
 * @stamp_s? A timestamped point that is not sent yet moves away when it is due. */
static bool is_free(const struct agg *a, const struct context *c,
                    uint32_t stamp_s, uint32_t t_s)
{
    const struct stamp *st = find(a, c->group, t_s);

    if ((st != NULL && st->sent_s != 0) || used_before(a, c, t_s))
        return false;
    return t_s == stamp_s ||
           (!bucket_closed_stamp(a, t_s) && bucket_claims(a, t_s));
}

uint32_t stamps_shift(struct agg *a, struct context *c)
{
    uint32_t stamp_s = (uint32_t)a->head->open.stamp_s;
    uint32_t shift = c->shift;
    struct stamp *st;

    if (is_free(a, c, stamp_s, stamp_s + shift))
        return shift;
    /* From here on also out of the way of the other types of this series. */
    while (shift < MOST_SHIFT &&
           (find(a, c->group, stamp_s + shift) != NULL ||
            used_before(a, c, stamp_s + shift) ||
            bucket_had_stamp(a, (int64_t)stamp_s + shift) ||
            !bucket_claims(a, (int64_t)stamp_s + shift)))
        shift++;
    st = make(a, c, stamp_s + shift);
    if (st != NULL) {
        st->sent_s = sent_in(a);
        context_mark(a, c, MARK_STAMPED);
    }
    return shift;
}

void stamps_move(struct agg *a, struct context *c)
{
    struct cell_small *cell = block_at(a, c->cell); /* all begin alike */
    uint32_t shift = c->shift;

    if (shift != 0 || (a->contexts[c->group].marks & MARK_STAMPED) != 0)
        shift = stamps_shift(a, c);
    if (cell->shift != shift)
        region_set(a->r, cell->shift, (uint8_t)shift);
}

/* An untimed point of the same series may have this second: the context had one
 * since it exists, or it is younger than that and an expired one may have had. */
static bool collides(const struct agg *a, const struct context *c,
                     uint32_t ts_s)
{
    bool plain = (a->contexts[c->group].marks & MARK_PLAIN) != 0;

    /* Nobody knows which series had points in the parts of earlier lives. */
    if (used_has_stamp(&a->cfg.used, ts_s))
        return true;
    if (!plain && (int64_t)ts_s + a->cfg.context_expiry_s >= c->seen_s)
        return false;
    return bucket_had_stamp(a, ts_s);
}

/* To the first second from its own on that is free for it. false: none near. */
static bool move_away(struct agg *a, const struct context *c, struct stamp *st)
{
    uint32_t t = st->ts_s;
    uint32_t i = (uint32_t)(st - a->stamps);

    while (collides(a, c, t) ||
           (t != st->ts_s &&
            (find(a, c->group, t) != NULL || used_before(a, c, t)))) {
        if (++t - st->ts_s == MOST_STEPS)
            return false;
    }
    if (t == st->ts_s)
        return true;
    table_remove(a, &a->head->stamp_index, stamp_frag(a, c->group, st->ts_s),
                 i);
    region_set(a->r, st->ts_s, t);
    (void)table_insert(a, &a->head->stamp_index, stamp_frag(a, c->group, t), i);
    return true;
}

/* It leaves the open records for the open part. */
static void count_sent(struct agg *a, const struct stamp *st)
{
    struct agg_head *h = a->head;

    region_save(a->r, &h->open, sizeof(h->open));
    h->open.has_data = 1;
    h->open.n_samples += st->n;
    region_set(a->r, h->stamped_samples, h->stamped_samples - st->n);
    region_set(a->r, h->n_stamps_open, h->n_stamps_open - 1);
}

/* Its second cannot be had: as samples of now, with the same total. A gauge that
 * has a value of now keeps it. */
static void send_untimed(struct agg *a, struct stamp *st)
{
    struct context *c = &a->contexts[st->context];

    if (!cell_add_sum(a, c, sum_total(st->value, st->comp), st->n))
        return; /* no memory: at the next turn */
    count_sent(a, st);
    forget(a, st);
}

static void send(struct agg *a, struct stamp *st)
{
    struct context *c = &a->contexts[st->context];
    struct part *p = bucket_piece(a, false);
    uint32_t ref =
        chain_alloc(a, p, CHAIN_STAMPED, sizeof(struct cell_stamped), false);
    struct cell_stamped *cell;

    if (ref == 0)
        return; /* at the next turn */
    cell = block_at(a, ref);
    *cell = (struct cell_stamped){.context = st->context,
                                  .ts_s = st->ts_s,
                                  .n = st->n,
                                  .value = st->value,
                                  .comp = st->comp};
    region_save(a->r, st, sizeof(*st));
    st->sent_s = sent_in(a);
    count_sent(a, st);
    /* The part refers to the context: not to be freed before its release. */
    region_set(a->r, c->stamped_chain, a->head->open.id);
}

void stamps_turn(struct agg *a, uint32_t i, bool all)
{
    struct stamp *st = &a->stamps[i];
    int64_t bucket_s = a->head->open.bucket_s;

    if (st->context == 0)
        return;
    if (st->sent_s == 0) {
        /* By the clock as it is now; the intake would refuse the payload. */
        int64_t now_s = a->head->turn.now_s;
        bool ahead =
            !agg_is_held(a, now_s) && (int64_t)st->ts_s > now_s + FUTURE_MAX_S;

        if (all || ahead || (int64_t)st->ts_s < bucket_s) {
            if (!ahead && move_away(a, &a->contexts[st->context], st))
                send(a, st);
            else
                send_untimed(a, st);
        }
        return;
    }
    if ((int64_t)st->sent_s + STAMPS_KEEP_S < bucket_s &&
        (int64_t)st->ts_s + STAMPS_KEEP_S < bucket_s)
        forget(a, st);
}
