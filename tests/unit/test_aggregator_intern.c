/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holders of interned bytes, counted anew: whatever was refused meanwhile, each blob
 * has as many as it says, and none is kept by nobody.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aggregator/intern.h"
#include "aggregator/layout.h"
#include "aggregator/table.h"
#include "tests/support/pipeline.h"

uint32_t __real_intern_ref(struct agg *a, enum blob_kind kind,
                           const void *bytes, uint32_t n);
uint32_t __wrap_intern_ref(struct agg *a, enum blob_kind kind,
                           const void *bytes, uint32_t n);

static uint32_t refuse_one_in; /* 0: never */
static uint32_t n_refused;
static uint32_t random_state = 1;

static uint32_t below(uint32_t n)
{
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % n;
}

/* There is no room, now and then. */
uint32_t __wrap_intern_ref(struct agg *a, enum blob_kind kind,
                           const void *bytes, uint32_t n)
{
    if (refuse_one_in != 0 && below(refuse_one_in) == 0) {
        n_refused++;
        return 0;
    }
    return __real_intern_ref(a, kind, bytes, n);
}

/* Of each blob, by its reference. */
static void count_holders(const struct agg *a, uint32_t *n)
{
    const struct table *t = &a->head->intern;
    const struct table_slot *slots = table_slots(a, t);

    for (uint32_t i = 1; i < a->head->contexts.n_made; i++) {
        const struct context *c = &a->contexts[i];

        if (c->kind == KIND_FREE)
            continue;
        n[c->name]++;
        n[c->host]++;
        n[c->tagset]++;
    }
    for (uint32_t i = 0; i <= t->mask; i++) {
        struct blob *b = blob_at(a, slots[i].ref);

        if (slots[i].ref == 0 || b->kind != BLOB_TAGSET)
            continue;
        for (uint32_t k = 0; k < tagset_n(b); k++)
            n[tagset_of(b)->tags[k]]++;
    }
}

static void check_holders(const struct agg *a)
{
    const struct table *t = &a->head->intern;
    const struct table_slot *slots = table_slots(a, t);
    uint32_t *n = calloc(a->head->heap.n_units, sizeof(*n));

    assert_non_null(n);
    count_holders(a, n);
    for (uint32_t i = 0; i <= t->mask; i++) {
        if (slots[i].ref != 0)
            assert_int_equal(blob_at(a, slots[i].ref)->n_refs, n[slots[i].ref]);
    }
    free(n);
}

static void feed_some(struct pipeline *p, int64_t now_s)
{
    char line[128];

    (void)snprintf(line, sizeof(line), "m%u:1|%s|#%c:%u,%c:%u,host:h%u\n",
                   below(40), below(3) == 0 ? "h" : "g", 'a' + (char)below(3),
                   below(4), 'a' + (char)below(3), below(4), below(5));
    pipeline_feed(p, now_s, line);
}

static void holders_are_right_whatever_is_refused(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct pipeline p;
    uint32_t n_blobs;
    int64_t now_s = 1001;

    (void)state;
    cfg.context_expiry_s = 20;
    pipeline_open_large(&p, &cfg, (size_t)64 << 20);
    n_blobs = p.agg->head->intern.n_used;
    refuse_one_in = 6;
    for (int round = 0; round < 60; round++) {
        for (int i = 0; i < 50; i++)
            feed_some(&p, now_s);
        check_holders(p.agg);
        now_s += 10;
        pipeline_feed(&p, now_s, "");
        pipeline_take(&p);
        pipeline_clear(&p);
        check_holders(p.agg);
    }
    assert_true(n_refused > 1000);
    refuse_one_in = 0;
    for (int i = 0; i < 10; i++) {
        now_s += 10;
        pipeline_feed(&p, now_s, "");
        pipeline_take(&p);
    }
    assert_int_equal(p.agg->head->intern.n_used, n_blobs);
    check_holders(p.agg);
    pipeline_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holders_are_right_whatever_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
