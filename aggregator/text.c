/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events and service checks: bytes at the end of two chains of the open part.
 */
#include "aggregator/text.h"

#include "aggregator/blocks.h"
#include "aggregator/bucket.h"
#include "aggregator/enrich.h"

/* Of one part; what the budget leaves decides below it. */
#define TEXT_MAX_BYTES (16u * 1024 * 1024)

struct fields {
    struct text_head head;
    struct view name, text, host, key, source;
    struct enriched e;
};

static struct view clean(struct agg *a, struct view raw)
{
    return enrich_text(a, raw, UINT32_MAX, &a->head->counts.bad_utf8);
}

/* The two characters '\' 'n' of an event are a line feed. */
static bool write_unescaped(struct agg *a, struct part *p,
                            enum chain_index chain, struct view v)
{
    uint32_t from = 0;

    for (uint32_t i = 0; i + 1 < v.n; i++) {
        if (v.p[i] != '\\' || v.p[i + 1] != 'n')
            continue;
        if (!chain_write(a, p, chain, v.p + from, i - from) ||
            !chain_write(a, p, chain, "\n", 1))
            return false;
        from = i + 2;
        i++;
    }
    return chain_write(a, p, chain, v.p + from, v.n - from);
}

static uint32_t unescaped_bytes(struct view v)
{
    uint32_t n = v.n;

    for (uint32_t i = 0; i + 1 < v.n; i++) {
        if (v.p[i] == '\\' && v.p[i + 1] == 'n') {
            n--;
            i++;
        }
    }
    return n;
}

static bool write_view(struct agg *a, struct part *p, enum chain_index chain,
                       struct view v)
{
    return v.n == 0 || chain_write(a, p, chain, v.p, v.n);
}

static bool write_tags(struct agg *a, struct part *p, enum chain_index chain,
                       const struct enriched *e)
{
    for (uint32_t i = 0; i < e->n_tags; i++) {
        uint16_t n = (uint16_t)e->tags[i].n;

        if (!chain_write(a, p, chain, &n, sizeof(n)) ||
            !write_view(a, p, chain, e->tags[i]))
            return false;
    }
    return true;
}

static bool write_record(struct agg *a, struct fields *f,
                         enum chain_index chain)
{
    struct part *p = bucket_piece(a, true);
    struct open_chain *o = &a->head->open;
    struct text_head *h = &f->head;
    bool event = chain == CHAIN_EVENTS;

    h->n_name = event ? unescaped_bytes(f->name) : f->name.n;
    h->n_text = event ? unescaped_bytes(f->text) : f->text.n;
    h->n_host = f->host.n;
    h->n_key = f->key.n;
    h->n_source = f->source.n;
    h->n_tags = f->e.n_tags;
    h->n_bytes = h->n_name + h->n_text + h->n_host + h->n_key + h->n_source;
    for (uint32_t i = 0; i < f->e.n_tags; i++)
        h->n_bytes += 2 + f->e.tags[i].n;
    if (o->text_bytes + h->n_bytes > TEXT_MAX_BYTES ||
        blocks_available(a) <
            BLOCKS_RESERVED + 2 +
                (h->n_bytes + sizeof(*h)) / (BLOCK_BYTES - BLOCK_HEAD_BYTES))
        return false;
    /* From here on there is room: no write fails. */
    if (!chain_write(a, p, chain, h, sizeof(*h)) ||
        !(event ? write_unescaped(a, p, chain, f->name) &&
                      write_unescaped(a, p, chain, f->text)
                : write_view(a, p, chain, f->name) &&
                      write_view(a, p, chain, f->text)) ||
        !write_view(a, p, chain, f->host) || !write_view(a, p, chain, f->key) ||
        !write_view(a, p, chain, f->source) || !write_tags(a, p, chain, &f->e))
        REQUIRE(!"a write within the room that was checked");
    region_set(a->r, p->chains[chain].n, p->chains[chain].n + 1);
    region_save(a->r, o, sizeof(*o));
    o->text_bytes += h->n_bytes;
    o->has_data = 1;
    return true;
}

static void fill_common(struct agg *a, struct fields *f, struct view tags,
                        struct view host, int64_t ts_s)
{
    enrich_begin(a);
    enrich_tags(a, &f->e, tags);
    f->host = f->e.host;
    if (host.n > 0)
        f->host = enrich_text(a, host, ENRICH_MAX_HOST_BYTES,
                              &a->head->counts.clipped_hosts);
    /* 0: the stamp of its part, when the time is known. */
    f->head.ts_s = agg_is_held(a, a->now_s) ? 0 : a->now_s;
    if (ts_s > 0)
        f->head.ts_s = ts_s;
}

bool text_event(struct agg *a, const struct event *e)
{
    struct fields f = {.head.priority = (uint8_t)e->priority,
                       .head.alert = (uint8_t)e->alert};

    fill_common(a, &f, e->tags, e->host, e->ts_s);
    f.name = clean(a, e->title);
    f.text = clean(a, e->text);
    f.key = clean(a, e->aggregation_key);
    f.source = clean(a, e->source_type);
    if (!write_record(a, &f, CHAIN_EVENTS))
        return false;
    region_set(a->r, a->head->open.n_events, a->head->open.n_events + 1);
    return true;
}

bool text_check(struct agg *a, const struct check *c)
{
    struct fields f = {.head.status = c->status};

    fill_common(a, &f, c->tags, c->host, c->ts_s);
    f.name = clean(a, c->name);
    f.text = clean(a, c->message);
    if (!write_record(a, &f, CHAIN_CHECKS))
        return false;
    region_set(a->r, a->head->open.n_checks, a->head->open.n_checks + 1);
    return true;
}
