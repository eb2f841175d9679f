/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/context.h"

#include "aggregator/enrich.h"
#include "aggregator/intern.h"
#include "aggregator/pool.h"
#include "aggregator/table.h"
#include "aggregator/tag_memo.h"
#include "aggregator/wire.h"

#define OVERFLOW_NAME "retriever.overflow"
#define OVERFLOW_TAG "retriever_overflow:true"

enum cell_kind context_kind(unsigned class)
{
    static const uint8_t kinds[] = {
        [METRIC_COUNTER] = KIND_COUNTER, [METRIC_GAUGE] = KIND_GAUGE,
        [METRIC_HISTOGRAM] = KIND_HIST,  [METRIC_TIMING] = KIND_HIST,
        [METRIC_SET] = KIND_SET,         [METRIC_DISTRIBUTION] = KIND_DIST,
        [SPELLING_COPY] = KIND_DIST,
    };

    if (class >= SPELLING_OVERFLOW)
        return (enum cell_kind)(class - SPELLING_OVERFLOW);
    return (enum cell_kind)kinds[class];
}

struct context *context_find(const struct agg *a, struct hash128 h)
{
    struct spellings s = context_spellings(a);
    uint32_t frag = (uint32_t)h.lo;
    struct context *c =
        context_at(a->contexts, a->aliases, context_guess(s, h), h);

    for (uint32_t i = table_home(s.mask, frag);
         c == NULL && s.slots[i].ref != 0; i = (i + 1) & s.mask) {
        if (s.slots[i].frag == frag)
            c = context_at(a->contexts, a->aliases, s.slots[i].ref, h);
    }
    return c;
}

/* Remember one more spelling of @c; without room it is resolved the long way
 * again at its next sight. */
static void add_alias(struct agg *a, struct context *c, struct hash128 h)
{
    struct pool *p = &a->head->aliases;
    struct alias *al;
    uint32_t i;

    if (c->n_aliases >= MAX_ALIASES_PER_CONTEXT ||
        p->n_made - p->n_free > 4 * (uint64_t)a->cfg.context_limit ||
        table_room(&a->head->spelling) == 0)
        return;
    i = pool_take(a, p, RANGE_ALIASES, sizeof(struct alias),
                  offsetof(struct alias, next));
    if (i == 0)
        return;
    al = &a->aliases[i];
    *al = (struct alias){{h.lo, h.hi}, context_index(a, c), c->aliases, 0};
    region_save(a->r, &c->aliases, 8);
    c->aliases = i;
    c->n_aliases++;
    (void)table_insert(a, &a->head->spelling, (uint32_t)h.lo, i | REF_ALIAS);
}

/* The blob of the tags, counted; 0: no room. */
static uint32_t intern_tags(struct agg *a, const struct enriched *e,
                            struct hash128 tags)
{
    _Alignas(8) unsigned char
        bytes[sizeof(struct tagset) + ENRICH_MAX_TAGS * sizeof(uint32_t)];
    struct tagset *s = (void *)bytes;
    uint32_t ref = 0;
    uint32_t n = 0;

    memcpy(s->wire, &tags, sizeof(s->wire));
    while (n < e->n_tags) {
        s->tags[n] = intern_ref(a, BLOB_STRING, e->tags[n].p, e->tags[n].n);
        if (s->tags[n] == 0)
            break;
        n++;
    }
    if (n == e->n_tags)
        ref = intern_ref(a, BLOB_TAGSET, bytes,
                         (uint32_t)(sizeof(*s) + n * sizeof(uint32_t)));
    /* A tag set that existed holds its tags already. */
    if (ref == 0 || blob_at(a, ref)->n_refs > 1) {
        while (n > 0)
            intern_unref(a, s->tags[--n]);
    }
    return ref;
}

static bool intern_all(struct agg *a, const struct enriched *e,
                       struct hash128 tags, struct context *c)
{
    c->tagset = e->tagset;
    c->host = e->host_ref;
    if (e->tagset != 0) {
        intern_again(a, c->tagset);
        if (c->host != 0)
            intern_again(a, c->host);
    } else {
        c->tagset = intern_tags(a, e, tags);
        if (c->tagset != 0 && e->host.n > 0)
            c->host = intern_ref(a, BLOB_STRING, e->host.p, e->host.n);
    }
    if (c->tagset != 0 && (e->host.n == 0 || c->host != 0))
        c->name = intern_ref(a, BLOB_STRING, e->name.p, e->name.n);
    if (c->name != 0)
        return true;
    intern_unref(a, c->host);
    intern_unref(a, c->tagset);
    return false;
}

static void note_clash(struct agg *a, const struct context *c,
                       const struct context *other)
{
    struct agg_clash *k = &a->head->clash;
    struct view name = intern_view(a, c->name);

    region_set(a->r, a->head->counts.type_clashes,
               a->head->counts.type_clashes + 1);
    region_save(a->r, k, sizeof(*k));
    if (k->n++ > 0)
        return;
    k->kind = c->kind;
    k->other_kind = other->kind;
    k->name_bytes =
        (uint8_t)(name.n < sizeof(k->name) ? name.n : sizeof(k->name) - 1);
    memcpy(k->name, name.p, k->name_bytes);
}

/* Lowest shift that none of the types sharing a series uses. */
static uint8_t free_shift(uint32_t in_use)
{
    uint8_t shift = 0;

    while (shift < 9 && (in_use & (1u << shift)) != 0)
        shift++;
    return shift;
}

/* Did an earlier life give one of its series a timestamped point? */
static bool was_stamped(const struct agg *a, const struct context *c)
{
    const char *suffix;

    if (a->cfg.used.n_points == 0)
        return false;
    for (uint32_t i = 0;
         (suffix = wire_suffix(a, (enum cell_kind)c->kind, i)) != NULL; i++) {
        if (used_has_series(&a->cfg.used, wire_identity(a, c, suffix)))
            return true;
    }
    return false;
}

/* A new context, or the one that @e is a further spelling of; NULL: no room. */
static struct context *enter(struct agg *a, const struct enriched *e,
                             enum cell_kind kind, uint8_t flags,
                             struct hash128 h)
{
    struct hash128 tags = wire_tags(a, e);
    struct context fresh = {.hash = {h.lo, h.hi}, .kind = (uint8_t)kind};
    struct wire_match m;
    struct context *c;
    uint32_t i;

    wire_find(a, e, kind, tags, &m);
    if (m.same != NULL) {
        add_alias(a, m.same, h);
        return m.same;
    }
    if ((flags & CONTEXT_OVERFLOW) == 0 && a->head->contexts.n_made - 1 -
                                                   a->head->contexts.n_free -
                                                   a->head->n_overflow >=
                                               a->cfg.context_limit)
        return NULL;
    if (table_room(&a->head->spelling) < 256)
        a->low = true;
    if (table_room(&a->head->spelling) == 0 || !intern_all(a, e, tags, &fresh))
        return NULL;
    i = pool_take(a, &a->head->contexts, RANGE_CONTEXTS, sizeof(*c),
                  offsetof(struct context, aliases));
    c = &a->contexts[i];
    if (i != 0) {
        fresh.flags = flags;
        fresh.shift = m.clash != NULL ? free_shift(m.shifts_in_use) : 0;
        fresh.group = m.clash != NULL ? m.clash->group : i;
        fresh.seen_s = (uint32_t)a->head->open.bucket_s;
        fresh.touched_s = fresh.seen_s;
        *c = fresh;
    }
    if (i == 0 || !wire_enter(a, c, &m)) {
        if (i != 0)
            pool_give(a, &a->head->contexts, i, &c->aliases);
        intern_unref(a, fresh.name);
        intern_unref(a, fresh.host);
        intern_unref(a, fresh.tagset);
        if (i != 0)
            c->kind = KIND_FREE;
        return NULL;
    }
    (void)table_insert(a, &a->head->spelling, (uint32_t)h.lo, i);
    if (m.clash != NULL && (flags & CONTEXT_PINNED) == 0)
        note_clash(a, c, m.clash);
    if (was_stamped(a, c))
        context_mark(a, c, MARK_STAMPED);
    return c;
}

/* Did the spelling with this hash make it? */
static bool is_spelled(const struct context *c, struct hash128 h)
{
    return c->hash[0] == h.lo && c->hash[1] == h.hi;
}

struct context *context_make(struct agg *a, const struct sample *s,
                             unsigned class, struct hash128 h)
{
    enum cell_kind kind = context_kind(class);
    struct enriched e;
    struct hash128 key;
    struct context *c;
    uint8_t flags = 0;

    enrich_begin(a);
    if (!enrich_name(a, &e, s->name, class == SPELLING_COPY,
                     kind == KIND_HIST ? a->longest_suffix : 0))
        return NULL;
    tag_memo_enrich(a, &e, s->tags, &key);
    if (class == METRIC_TIMING)
        flags |= CONTEXT_MS;
    c = enter(a, &e, kind, flags, h);
    if (c != NULL && is_spelled(c, h))
        tag_memo_keep(a, &e, key, c->tagset, c->host);
    return c != NULL ? c : context_overflow(a, s, kind);
}

static uint32_t overflow_limit(const struct agg *a)
{
    uint32_t n = a->cfg.context_limit / 64;

    return n < 64 ? 64 : n;
}

static struct context *enter_overflow(struct agg *a, struct view name,
                                      enum cell_kind kind, uint8_t flags,
                                      struct hash128 h)
{
    static const char tag[] = OVERFLOW_TAG;
    struct enriched e;
    struct context *c;

    enrich_begin(a);
    if (!enrich_name(a, &e, name, false,
                     kind == KIND_HIST ? a->longest_suffix : 0))
        return NULL;
    enrich_tags(a, &e, (struct view){tag, sizeof(tag) - 1});
    c = enter(a, &e, kind, flags, h);
    if (c != NULL && (c->flags & CONTEXT_OVERFLOW) == 0)
        return NULL; /* a client uses our tag: not ours to fold into */
    if (c != NULL && is_spelled(c, h))
        region_set(a->r, a->head->n_overflow, a->head->n_overflow + 1);
    return c;
}

/* Whoever sends: one overflow series per metric. */
static struct hash128 overflow_hash(const struct agg *a, struct view name,
                                    unsigned class)
{
    const uint64_t *seed = a->head->seed;

    return hash_mix(hash_bytes(name.p, name.n, seed[0]),
                    (struct hash128){class | a->own, seed[1]});
}

struct context *context_overflow(struct agg *a, const struct sample *s,
                                 enum cell_kind kind)
{
    unsigned class = SPELLING_OVERFLOW + (unsigned)kind;
    struct hash128 h = overflow_hash(a, s->name, class);
    struct context *c = context_find(a, h);

    if (c == NULL && a->head->n_overflow < overflow_limit(a) + KIND_N)
        c = enter_overflow(a, s->name, kind, CONTEXT_OVERFLOW, h);
    /* Beyond that, one per kind: contexts 1 to KIND_N, made at the start. */
    return c != NULL ? c : &a->contexts[1 + kind];
}

int context_init(struct agg *a)
{
    static const char name[] = OVERFLOW_NAME;
    struct view v = {name, sizeof(name) - 1};

    for (unsigned kind = 0; kind < KIND_N; kind++) {
        struct context *c =
            enter_overflow(a, v, (enum cell_kind)kind,
                           CONTEXT_OVERFLOW | CONTEXT_PINNED,
                           overflow_hash(a, v, SPELLING_OVERFLOW + kind));

        if (c != &a->contexts[1 + kind])
            return -1;
    }
    return 0;
}

void context_free(struct agg *a, struct context *c)
{
    struct pool *p = &a->head->aliases;

    for (uint32_t i = c->aliases; i != 0;) {
        struct alias *al = &a->aliases[i];
        uint32_t next = al->next;

        table_remove(a, &a->head->spelling, (uint32_t)al->hash[0],
                     i | REF_ALIAS);
        pool_give(a, p, i, &al->next);
        i = next;
    }
    table_remove(a, &a->head->spelling, (uint32_t)c->hash[0],
                 context_index(a, c));
    wire_leave(a, c);
    intern_unref(a, c->name);
    intern_unref(a, c->host);
    intern_unref(a, c->tagset);
    if ((c->flags & CONTEXT_OVERFLOW) != 0)
        region_set(a->r, a->head->n_overflow, a->head->n_overflow - 1);
    region_save(a->r, c, sizeof(*c));
    c->kind = KIND_FREE;
    c->hash[0] = c->hash[1] = 0;
    pool_give(a, &a->head->contexts, context_index(a, c), &c->aliases);
}
