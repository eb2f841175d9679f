/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/complaints.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "agent/base/log.h"

#define MODULE "input"

/* One kind: a counter, and what its growth means for whoever reads the log. */
static const struct {
    size_t counter; /* offset in struct ingest_counts */
    const char *text;
} kinds[COMPLAINTS_N_KINDS] = {
    {offsetof(struct ingest_counts, folded),
     "samples were folded into overflow series, totals are exact but tags are "
     "gone: remove unbounded tag values or raise dogstatsd_context_limit and "
     "memory_limit samples"},
    {offsetof(struct ingest_counts, type_clashes),
     "a series is sent with two types: rename one of the metrics series"},
    {offsetof(struct ingest_counts, hist_capped),
     "values were counted but not kept in detail, percentiles are estimates: "
     "send distributions instead or raise memory_limit values"},
    {offsetof(struct ingest_counts, bad_rate),
     "sample rates were not in (0, 1] and taken as 1: mend the client lines"},
    {offsetof(struct ingest_counts, bad_utf8),
     "text was not UTF-8 and was replaced: mend the client places"},
    {offsetof(struct ingest_counts, clipped_tags),
     "tags were cut at 200 bytes or beyond 100 per series: shorten them tags"},
    {offsetof(struct ingest_counts, clipped_hosts),
     "host names were cut at 255 bytes hosts"},
    {offsetof(struct ingest_counts, delivered_old),
     "timestamps were older than an hour, the intake may refuse them: send "
     "sooner samples"},
};

static void name_clash(const struct agg *agg, uint64_t n)
{
    struct agg_clash clash;

    if (!agg_first_clash(agg, &clash))
        return;
    log_warn(MODULE,
             "a series is sent with two types, each gets seconds of its own: "
             "rename one of the metrics name=%.*s types=%s,%s series=%" PRIu64,
             (int)clash.name_bytes, clash.name, agg_kind_name(clash.other_kind),
             agg_kind_name(clash.kind), n);
}

void complaints_look(struct complaints *c, const struct ingest_counts *counts,
                     const struct agg *agg, uint64_t now_s)
{
    for (int i = 0; i < COMPLAINTS_N_KINDS; i++) {
        uint64_t n;

        memcpy(&n, (const char *)counts + kinds[i].counter, sizeof(n));
        if (n == c->seen[i] || (c->named_at_s[i] != 0 &&
                                now_s - c->named_at_s[i] < COMPLAINTS_EVERY_S))
            continue;
        if (kinds[i].counter == offsetof(struct ingest_counts, type_clashes))
            name_clash(agg, n - c->seen[i]);
        else
            log_write(NULL, LOG_LEVEL_WARN, MODULE, "%s=%" PRIu64,
                      kinds[i].text, n - c->seen[i]);
        c->seen[i] = n;
        c->named_at_s[i] = now_s;
    }
}
