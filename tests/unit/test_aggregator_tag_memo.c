/* SPDX-License-Identifier: Apache-2.0 */
/* Tags of contexts whose spelling was seen before: what comes out is what would have
 * come out without. */
#include <stdio.h>
#include <string.h>

#include "aggregator/layout.h"
#include "tests/support/pipeline.h"

static void contexts_with_the_same_tags_come_out_alike(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1001,
                  "a:1|g|#y,x,host:k,x\nb:2|g|#y,x,host:k,x\nc:3|g|#x,y\n"
                  "d:4|g|#x,y\ne:5|g\nf:6|g\ng:7|h|#y,x,host:k,x\n");
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    pipeline_check_unique(&p);
    (void)pipeline_find(&p, "a gauge 1000=1 [x,y] @k");
    (void)pipeline_find(&p, "b gauge 1000=2 [x,y] @k");
    (void)pipeline_find(&p, "c gauge 1000=3 [x,y] @h");
    (void)pipeline_find(&p, "d gauge 1000=4 [x,y] @h");
    (void)pipeline_find(&p, "e gauge 1000=5 [] @h");
    (void)pipeline_find(&p, "f gauge 1000=6 [] @h");
    assert_non_null(
        strstr(pipeline_find(&p, "g.max gauge 1000=7")->text, " [x,y] @k"));
    pipeline_close(&p);
}

/* Another spelling of what the intake takes for one series: its tags are not kept. */
static void an_alias_does_not_lend_its_tags(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1001, "a:1|g|#Env:p\na:2|g|#env:p\nb:3|g|#env:p\n");
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    (void)pipeline_find(&p, "a gauge 1000=2 [Env:p] @h");
    (void)pipeline_find(&p, "b gauge 1000=3 [env:p] @h");
    pipeline_close(&p);
}

static void the_sender_counts(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1001, "a:1|g|#x\n");
    agg_set_origin(p.agg, (struct view){"gpu:1", 5});
    pipeline_feed(&p, 1001, "b:1|g|#x\nc:1|g|#x\n");
    agg_set_origin(p.agg, (struct view){"gpu:2", 5});
    pipeline_feed(&p, 1001, "d:1|g|#x\n");
    agg_set_origin(p.agg, (struct view){0});
    pipeline_feed(&p, 1001, "e:1|g|#x\n");
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    (void)pipeline_find(&p, "a gauge 1000=1 [x] @h");
    (void)pipeline_find(&p, "b gauge 1000=1 [gpu:1,x] @h");
    (void)pipeline_find(&p, "c gauge 1000=1 [gpu:1,x] @h");
    (void)pipeline_find(&p, "d gauge 1000=1 [gpu:2,x] @h");
    (void)pipeline_find(&p, "e gauge 1000=1 [x] @h");
    pipeline_close(&p);
}

/* All of a round expires before the next one, whose tags take the same memory. */
static void what_expired_is_not_known_any_more(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct pipeline p;
    uint32_t n_blobs, n_units = 0;

    (void)state;
    cfg.context_expiry_s = 10;
    pipeline_open(&p, &cfg);
    n_blobs = p.agg->head->intern.n_used;
    for (int round = 0; round < 40; round++) {
        int64_t now_s = 1001 + 100 * round;
        char lines[600];
        char want[64];
        int n = 0;

        for (int i = 0; i < 8; i++)
            n += snprintf(lines + n, sizeof(lines) - (size_t)n,
                          "m%d:1|g|#a:%d,host:h%d,b:%d\n", i,
                          (round + i / 2) % 5, (round + i / 2) % 3, i / 2);
        pipeline_feed(&p, now_s, lines);
        if (round == 8)
            n_units = p.agg->head->heap.n_units;
        pipeline_feed(&p, now_s + 50, "");
        pipeline_take(&p);
        for (int i = 0; i < 8; i++) {
            snprintf(want, sizeof(want), "m%d gauge %lld=1 [a:%d,b:%d] @h%d", i,
                     (long long)now_s - 1, (round + i / 2) % 5, i / 2,
                     (round + i / 2) % 3);
            (void)pipeline_find(&p, want);
        }
        pipeline_clear(&p);
        pipeline_feed(&p, now_s + 90, "");
        pipeline_take(&p);
        assert_int_equal(p.agg->head->intern.n_used, n_blobs);
    }
    assert_int_equal(p.agg->head->heap.n_units, n_units);
    pipeline_close(&p);
}

/* Each blob has the holders that it says: with one too many it would stay. */
static void holders_of_shared_tags_are_counted(void **state)
{
    struct pipeline p;
    const struct context *a, *b;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1001, "a:1|g|#x,y,host:k\nb:1|g|#x,y,host:k\n");
    a = &p.agg->contexts[p.agg->head->contexts.n_made - 2];
    b = a + 1;
    assert_int_equal(a->tagset, b->tagset);
    assert_int_equal(a->host, b->host);
    assert_int_equal(blob_at(p.agg, a->tagset)->n_refs, 2);
    assert_int_equal(blob_at(p.agg, a->host)->n_refs, 2);
    pipeline_restart(&p); /* which knows nothing by heart */
    pipeline_feed(&p, 1002, "c:1|g|#x,y,host:k\nd:1|g|#x,y,host:k\n");
    a = &p.agg->contexts[p.agg->head->contexts.n_made - 1];
    assert_int_equal(blob_at(p.agg, a->tagset)->n_refs, 4);
    assert_int_equal(blob_at(p.agg, a->host)->n_refs, 4);
    pipeline_close(&p);
}

static void what_was_mended_is_counted_each_time(void **state)
{
    char lines[1024];
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1001, "a:1|g|#bad\xff\nb:1|g|#bad\xff\n");
    assert_int_equal(agg_counts(p.agg)->bad_utf8, 2);
    snprintf(lines, sizeof(lines), "c:1|g|#%0250d\nd:1|g|#%0250d\n", 0, 0);
    pipeline_feed(&p, 1001, lines);
    assert_int_equal(agg_counts(p.agg)->clipped_tags, 2);
    snprintf(lines, sizeof(lines), "e:1|g|#host:%0300d\nf:1|g|#host:%0300d\n",
             0, 0);
    pipeline_feed(&p, 1001, lines);
    assert_int_equal(agg_counts(p.agg)->clipped_hosts, 2);
    pipeline_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contexts_with_the_same_tags_come_out_alike),
        cmocka_unit_test(an_alias_does_not_lend_its_tags),
        cmocka_unit_test(the_sender_counts),
        cmocka_unit_test(what_expired_is_not_known_any_more),
        cmocka_unit_test(holders_of_shared_tags_are_counted),
        cmocka_unit_test(what_was_mended_is_counted_each_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
