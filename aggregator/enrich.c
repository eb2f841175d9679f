/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/enrich.h"

#include <errno.h>
#include <stdlib.h>

#include "aggregator/normalise.h"

#define SCRATCH_TAGS 1024u
#define SCRATCH_BYTES (256u * 1024)

struct enrich_scratch {
    struct view tags[SCRATCH_TAGS];
    uint32_t n_tags;
    uint32_t n_bytes;
    char name[3 * ENRICH_MAX_NAME_BYTES + 8];
    char bytes[SCRATCH_BYTES];
};

int enrich_init(struct agg *a)
{
    a->scratch = malloc(sizeof(*a->scratch));
    return a->scratch != NULL ? 0 : -ENOMEM;
}

void enrich_fini(struct agg *a)
{
    free(a->scratch);
    a->scratch = NULL;
}

void enrich_begin(struct agg *a)
{
    a->scratch->n_bytes = 0;
}

static void count(struct agg *a, uint64_t *counter, uint64_t n)
{
    if (n > 0)
        region_set(a->r, *counter, *counter + n);
}

struct view enrich_text(struct agg *a, struct view raw, uint32_t max,
                        uint64_t *cut_counter)
{
    struct enrich_scratch *s = a->scratch;
    uint32_t room = SCRATCH_BYTES - s->n_bytes;
    struct view out = raw;
    unsigned n_bad = 0;
    int cut = 0;

    if (raw.n <= max && utf8_valid(raw.p, raw.n))
        return out;
    out.p = s->bytes + s->n_bytes;
    out.n = (uint32_t)utf8_clean(s->bytes + s->n_bytes, max < room ? max : room,
                                 raw.p, raw.n, &n_bad, &cut);
    s->n_bytes += out.n;
    count(a, &a->head->counts.bad_utf8, n_bad > 0);
    count(a, cut_counter, cut != 0);
    return out;
}

static int compare(struct view x, struct view y)
{
    uint32_t n = x.n < y.n ? x.n : y.n;
    int c = memcmp(x.p, y.p, n);

    if (c != 0)
        return c;
    return x.n < y.n ? -1 : x.n > y.n;
}

/* Shell sort: no memory of its own (qsort() may allocate), and never more than
 * SCRATCH_TAGS entries. */
static void sort_views(struct view *v, uint32_t n)
{
    static const uint32_t gaps[] = {301, 132, 57, 23, 10, 4, 1};

    for (size_t g = 0; g < sizeof(gaps) / sizeof(gaps[0]); g++) {
        uint32_t gap = gaps[g];

        for (uint32_t i = gap; i < n; i++) {
            struct view x = v[i];
            uint32_t k = i;

            for (; k >= gap && compare(x, v[k - gap]) < 0; k -= gap)
                v[k] = v[k - gap];
            v[k] = x;
        }
    }
}

/* Sorted, unique, the first ENRICH_MAX_TAGS. */
static void settle_tags(struct agg *a)
{
    struct enrich_scratch *s = a->scratch;
    uint32_t n = 0;

    sort_views(s->tags, s->n_tags);
    for (uint32_t i = 0; i < s->n_tags; i++) {
        if (n == 0 || compare(s->tags[n - 1], s->tags[i]) != 0)
            s->tags[n++] = s->tags[i];
    }
    if (n > ENRICH_MAX_TAGS) {
        count(a, &a->head->counts.clipped_tags, n - ENRICH_MAX_TAGS);
        n = ENRICH_MAX_TAGS;
    }
    s->n_tags = n;
}

static void add_tag(struct agg *a, struct view tag)
{
    struct enrich_scratch *s = a->scratch;
    struct view clean;

    if (tag.n == 0)
        return;
    if (s->n_tags == SCRATCH_TAGS)
        settle_tags(a);
    clean = enrich_text(a, tag, ENRICH_MAX_TAG_BYTES,
                        &a->head->counts.clipped_tags);
    if (clean.n > 0)
        s->tags[s->n_tags++] = clean;
}

static bool starts(struct view v, const char *prefix, uint32_t n)
{
    return v.n >= n && memcmp(v.p, prefix, n) == 0;
}

#define STARTS(v, literal) starts(v, literal, sizeof(literal) - 1)

/* Tags that steer the agent and are never sent. dd.internal.card is one of
 * them whether or not the line has a card: field of its own. */
static bool is_internal(struct view tag)
{
    if (!STARTS(tag, "dd.internal."))
        return false;
    return STARTS(tag, "dd.internal.entity_id:") ||
           STARTS(tag, "dd.internal.card:") ||
           STARTS(tag, "dd.internal.jmx_check_name:");
}

/* As our own thread wrote them: nothing in them steers the agent. */
static void add_origin(struct agg *a)
{
    const char *at = a->origin.n > 0 ? a->origin.p : "";
    const char *end = at + a->origin.n;

    while (at < end) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        const char *stop = comma != NULL ? comma : end;

        add_tag(a, (struct view){at, (uint32_t)(stop - at)});
        at = stop + 1;
    }
}

void enrich_tags(struct agg *a, struct enriched *out, struct view raw)
{
    struct enrich_scratch *s = a->scratch;
    const char *at = raw.n > 0 ? raw.p : "";
    const char *end = at + raw.n;
    struct view host = {a->cfg.host, (uint32_t)strlen(a->cfg.host)};

    s->n_tags = 0;
    while (raw.n > 0 && at <= end) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        const char *stop = comma != NULL ? comma : end;
        struct view tag = {at, (uint32_t)(stop - at)};

        if (STARTS(tag, "host:"))
            host = (struct view){tag.p + 5, tag.n - 5};
        else if (!is_internal(tag))
            add_tag(a, tag);
        at = stop + 1;
    }
    for (uint32_t i = 0; i < a->cfg.n_tags; i++)
        add_tag(a, a->cfg.tags[i]);
    add_origin(a);
    settle_tags(a);
    out->host = enrich_text(a, host, ENRICH_MAX_HOST_BYTES,
                            &a->head->counts.clipped_hosts);
    out->tags = s->tags;
    out->n_tags = s->n_tags;
    out->tagset = out->host_ref = 0;
    out->was_mended = false;
}

static bool is_exempt(const struct agg *a, struct view name)
{
    for (uint32_t i = 0; i < a->cfg.n_prefix_exempt; i++) {
        struct view e = a->cfg.prefix_exempt[i];

        if (starts(name, e.p, e.n))
            return true;
    }
    return false;
}

bool enrich_name(struct agg *a, struct enriched *out, struct view raw,
                 bool copy, uint32_t suffix_bytes)
{
    struct enrich_scratch *s = a->scratch;
    const char *prefixes[2] = {"", ""};
    char normal[NORMALISE_NAME_MAX];
    struct view clean;
    uint32_t n = 0;

    if (raw.n > ENRICH_MAX_NAME_BYTES)
        return false;
    if (copy && a->cfg.distribution_copy_prefix != NULL)
        prefixes[0] = a->cfg.distribution_copy_prefix;
    if (a->own == 0 && !is_exempt(a, raw))
        prefixes[1] = a->cfg.name_prefix;
    clean = enrich_text(a, raw, 3 * ENRICH_MAX_NAME_BYTES,
                        &a->head->counts.bad_utf8);
    for (int i = 0; i < 2; i++) {
        uint32_t len = (uint32_t)strlen(prefixes[i]);

        if (n + len > ENRICH_MAX_NAME_BYTES)
            return false;
        memcpy(s->name + n, prefixes[i], len);
        n += len;
    }
    if (n + clean.n + suffix_bytes > ENRICH_MAX_NAME_BYTES)
        return false;
    memcpy(s->name + n, clean.p, clean.n);
    n += clean.n;
    out->name = (struct view){s->name, n};
    return normalise_name(normal, s->name, n) > 0;
}
