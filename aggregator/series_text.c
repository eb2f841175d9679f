/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events and checks of a closed part: a first pass over the chain notes where
 * each record is, events are sorted by source type, a second visit copies one
 * record at a time.
 */
#include <errno.h>
#include <stdlib.h>

#include "aggregator/series_item.h"

/* Skip @n bytes of a byte stream. */
static bool skip(struct chain_walk *w, uint32_t n)
{
    char waste[512];

    while (n > 0) {
        uint32_t some = n < sizeof(waste) ? n : (uint32_t)sizeof(waste);

        if (!chain_read(w, waste, some))
            return false;
        n -= some;
    }
    return true;
}

static bool read_source(struct item_text_at *at, struct chain_walk w,
                        const struct text_head *h)
{
    at->n_source = h->n_source < sizeof(at->source)
                       ? h->n_source
                       : (uint32_t)sizeof(at->source);
    return skip(&w, h->n_name + h->n_text + h->n_host + h->n_key) &&
           (at->n_source == 0 || chain_read(&w, at->source, at->n_source));
}

static int by_source(const void *x, const void *y)
{
    const struct item_text_at *a = x;
    const struct item_text_at *b = y;
    uint32_t n = a->n_source < b->n_source ? a->n_source : b->n_source;
    int c = memcmp(a->source, b->source, n);

    if (c != 0)
        return c;
    if (a->n_source != b->n_source)
        return a->n_source < b->n_source ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

void item_text_start(struct item_scratch *s, const struct agg *a,
                     const struct part *p, bool events)
{
    const struct chain *c = &p->chains[events ? CHAIN_EVENTS : CHAIN_CHECKS];
    struct chain_walk w;
    struct text_head h;

    s->n_texts = s->at_text = 0;
    chain_walk_init(&w, a, c);
    while (s->n_texts < c->n) {
        struct item_text_at *at = &s->texts[s->n_texts];

        at->walk = w;
        at->index = s->n_texts;
        if (!chain_read(&w, &h, sizeof(h)) || !read_source(at, w, &h) ||
            !skip(&w, h.n_bytes))
            break;
        s->n_texts++;
    }
    if (events && s->n_texts > 1)
        qsort(s->texts, s->n_texts, sizeof(*s->texts), by_source);
}

static struct view take(const char **at, uint32_t n)
{
    struct view v = {*at, n};

    *at += n;
    return v;
}

int item_text(struct item_scratch *s, const struct agg *a, bool event,
              struct flush_item *out)
{
    struct chain_walk w;
    struct text_head h;
    const char *at;
    char *bytes;

    (void)a;
    if (s->at_text == s->n_texts)
        return 0;
    w = s->texts[s->at_text].walk;
    if (!chain_read(&w, &h, sizeof(h)))
        return 0;
    bytes = item_room(&s->text, (size_t)h.n_bytes + 1);
    if (bytes == NULL)
        return -ENOMEM;
    if (!chain_read(&w, bytes, h.n_bytes))
        return 0;
    at = bytes;
    out->kind = event ? FLUSH_EVENT : FLUSH_CHECK;
    out->name = take(&at, h.n_name);
    out->text = take(&at, h.n_text);
    out->host = take(&at, h.n_host);
    out->aggregation_key = take(&at, h.n_key);
    out->source_type = take(&at, h.n_source);
    for (uint32_t i = 0; i < h.n_tags && i < ENRICH_MAX_TAGS; i++) {
        uint16_t n;

        memcpy(&n, at, sizeof(n));
        at += sizeof(n);
        s->tags[i] = take(&at, n);
    }
    out->tags = s->tags;
    out->n_tags = h.n_tags;
    out->ts_s = h.ts_s;
    out->priority = (enum event_priority)h.priority;
    out->alert = (enum event_alert)h.alert;
    out->status = h.status;
    out->interval_s = AGG_BUCKET_S;
    s->at_text++;
    return 1;
}
