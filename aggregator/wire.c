/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slot of the table holds 32 bits of the hash; a hit is verified by computing
 * the found context's own hashes anew. That happens at first sights only, and
 * saves 16 bytes per context and name.
 */
#include "aggregator/wire.h"

#include "aggregator/intern.h"
#include "aggregator/normalise.h"
#include "aggregator/table.h"

const char *wire_suffix(const struct agg *a, enum cell_kind kind, uint32_t i)
{
    if (kind != KIND_HIST)
        return i == 0 ? "" : NULL;
    return i < a->n_series ? a->series[i].suffix : NULL;
}

static int compare(const char *x, uint32_t nx, const char *y, uint32_t ny)
{
    int c = memcmp(x, y, nx < ny ? nx : ny);

    if (c != 0)
        return c;
    return nx < ny ? -1 : nx > ny;
}

/* Each normal form is hashed on its own; the sorted unique hashes are hashed
 * together: order and duplicates do not count, and no text is kept. */
static struct hash128 hash_tags(const struct view *tags, uint32_t n_tags,
                                const uint64_t seed[2])
{
    struct hash128 h[ENRICH_MAX_TAGS];
    uint32_t n = 0;

    for (uint32_t i = 0; i < n_tags; i++) {
        char normal[NORMALISE_TAG_MAX];
        size_t len = normalise_tag(normal, tags[i].p, tags[i].n);
        struct hash128 x;
        uint32_t k;

        if (len == 0)
            continue;
        x = hash_bytes(normal, len, seed[1]);
        for (k = n; k > 0 && compare((const char *)&h[k - 1], sizeof(x),
                                     (const char *)&x, sizeof(x)) > 0;
             k--)
            h[k] = h[k - 1];
        if (k > 0 && memcmp(&h[k - 1], &x, sizeof(x)) == 0) {
            memmove(&h[k], &h[k + 1], (n - k) * sizeof(x));
            continue;
        }
        h[k] = x;
        n++;
    }
    return hash_bytes(h, n * sizeof(h[0]), seed[0]);
}

/* As it was when its first context came. */
static struct hash128 tags_of(const struct agg *a, uint32_t tagset)
{
    struct hash128 tags;

    memcpy(&tags, tagset_of(blob_at(a, tagset))->wire, sizeof(tags));
    return tags;
}

struct hash128 wire_tags(const struct agg *a, const struct enriched *e)
{
    if (e->tagset != 0)
        return tags_of(a, e->tagset);
    return hash_tags(e->tags, e->n_tags, a->head->seed);
}

static struct hash128 hash_series(struct view name, const char *suffix,
                                  struct hash128 tags, struct view host,
                                  const uint64_t seed[2])
{
    char full[ENRICH_MAX_NAME_BYTES + 32];
    char normal[NORMALISE_NAME_MAX];
    size_t n = strlen(suffix);
    struct hash128 h;

    REQUIRE(name.n + n <= sizeof(full));
    memcpy(full, name.p, name.n);
    memcpy(full + name.n, suffix, n);
    n = normalise_name(normal, full, name.n + n);
    h = hash_mix(hash_bytes(normal, n, seed[0]), tags);
    return hash_mix(h, hash_bytes(host.p, host.n, seed[1]));
}

struct hash128 wire_series(const struct agg *a, struct view name,
                           const char *suffix, struct hash128 tags,
                           struct view host)
{
    return hash_series(name, suffix, tags, host, a->head->seed);
}

struct used_id wire_identity(const struct agg *a, const struct context *c,
                             const char *suffix)
{
    static const uint64_t no_seed[2];
    struct blob *set = blob_at(a, c->tagset);
    struct view tags[ENRICH_MAX_TAGS];
    uint32_t n = tagset_n(set);
    struct hash128 h;

    REQUIRE(n <= ENRICH_MAX_TAGS);
    for (uint32_t i = 0; i < n; i++)
        tags[i] = intern_view(a, tagset_of(set)->tags[i]);
    h = hash_series(intern_view(a, c->name), suffix,
                    hash_tags(tags, n, no_seed), intern_view(a, c->host),
                    no_seed);
    return (struct used_id){h.lo, h.hi};
}

static struct hash128 series_of(const struct agg *a, const struct context *c,
                                const char *suffix)
{
    return wire_series(a, intern_view(a, c->name), suffix,
                       tags_of(a, c->tagset), intern_view(a, c->host));
}

static bool has_series(const struct agg *a, const struct context *c,
                       struct hash128 h)
{
    const char *suffix;

    if (c->kind == KIND_FREE)
        return false;
    for (uint32_t i = 0; (suffix = wire_suffix(a, c->kind, i)) != NULL; i++) {
        struct hash128 mine = series_of(a, c, suffix);

        if (mine.lo == h.lo && mine.hi == h.hi)
            return true;
    }
    return false;
}

void wire_find(const struct agg *a, const struct enriched *e,
               enum cell_kind kind, struct hash128 tags, struct wire_match *out)
{
    const struct table *t = &a->head->wire;
    const struct table_slot *slots = table_slots(a, t);
    const char *suffix;

    out->same = out->clash = NULL;
    out->shifts_in_use = out->n_series = 0;
    for (uint32_t i = 0; (suffix = wire_suffix(a, kind, i)) != NULL; i++) {
        struct hash128 h = wire_series(a, e->name, suffix, tags, e->host);
        uint32_t frag = (uint32_t)h.lo;

        out->frags[out->n_series++] = frag;
        for (uint32_t k = table_home(t->mask, frag); slots[k].ref != 0;
             k = (k + 1) & t->mask) {
            struct context *c = &a->contexts[slots[k].ref];

            if (slots[k].frag != frag || !has_series(a, c, h))
                continue;
            if (c->kind == kind) {
                out->same = c;
                out->n_series = 0;
                return;
            }
            out->clash = c;
            out->shifts_in_use |= 1u << c->shift;
        }
    }
}

bool wire_enter(struct agg *a, struct context *c, const struct wire_match *m)
{
    struct table *t = &a->head->wire;

    if (table_room(t) < 2 * FLUSH_MAX_SERIES)
        a->low = true;
    if (table_room(t) < FLUSH_MAX_SERIES)
        return false;
    for (uint32_t i = 0; i < m->n_series; i++)
        (void)table_insert(a, t, m->frags[i], (uint32_t)(c - a->contexts));
    return true;
}

void wire_leave(struct agg *a, struct context *c)
{
    const char *suffix;

    for (uint32_t i = 0; (suffix = wire_suffix(a, c->kind, i)) != NULL; i++)
        table_remove(a, &a->head->wire, (uint32_t)series_of(a, c, suffix).lo,
                     (uint32_t)(c - a->contexts));
}
