/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/takeover.h"

#include "aggregator/turn.h"

static bool blob_ok(const struct agg *a, uint32_t ref, enum blob_kind kind)
{
    const struct blob *b = blob_at(a, ref);

    return ref != 0 && ref < a->head->heap.n_units && b->n_refs > 0 &&
           b->kind == kind && b->units < BLOB_CLASSES &&
           (size_t)b->n + sizeof(*b) <= (size_t)b->units * BLOB_UNIT &&
           ref + b->units <= a->head->heap.n_units;
}

static bool tagset_ok(const struct agg *a, uint32_t ref)
{
    const struct blob *b = blob_at(a, ref);

    if (!blob_ok(a, ref, BLOB_TAGSET) || b->n < sizeof(struct tagset) ||
        (b->n - sizeof(struct tagset)) % sizeof(uint32_t) != 0)
        return false;
    for (uint32_t i = 0; i < tagset_n(b); i++) {
        if (!blob_ok(a, tagset_of(blob_at(a, ref))->tags[i], BLOB_STRING))
            return false;
    }
    return true;
}

static bool context_ok(const struct agg *a, const struct context *c)
{
    return c->kind < KIND_N && blob_ok(a, c->name, BLOB_STRING) &&
           tagset_ok(a, c->tagset) &&
           (c->host == 0 || blob_ok(a, c->host, BLOB_STRING)) &&
           c->aliases < a->head->aliases.n_made;
}

/* It keeps its place, so that cells that refer to it stay readable, but speaks
 * for the overflow series of its kind; its spelling is never found again. */
static void neutralise(struct agg *a, struct context *c)
{
    const struct context *from;

    region_save(a->r, c, sizeof(*c));
    if (c->kind >= KIND_N)
        c->kind = KIND_GAUGE;
    from = &a->contexts[1 + c->kind];
    c->hash[0] = c->hash[1] = 0;
    c->name = from->name;
    c->tagset = from->tagset;
    c->host = from->host;
    c->flags = CONTEXT_OVERFLOW | CONTEXT_PINNED;
    c->shift = from->shift;
    c->aliases = 0;
    region_set(a->r, a->head->counts.damaged_contexts,
               a->head->counts.damaged_contexts + 1);
    region_commit(a->r);
}

void takeover(struct agg *a)
{
    for (uint32_t i = 1; i < a->head->contexts.n_made; i++) {
        struct context *c = &a->contexts[i];

        if (c->kind != KIND_FREE && !context_ok(a, c))
            neutralise(a, c);
    }
    a->low = true; /* look at all pools before the first line */
    a->now_s = a->head->turn.now_s;
    turn_resume(a);
}
