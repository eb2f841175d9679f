/* SPDX-License-Identifier: Apache-2.0 */
/* Lines to items: one thread, virtual time, every commit proved. */
#include <stdio.h>

#include "tests/support/pipeline.h"

static void a_counter_gives_its_sum_over_ten_as_a_rate(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1000, "a.b:1:2|c|#x:1,y:2\na.b:4|c|@0.5|#y:2,x:1\n");
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    assert_int_equal(p.n_items, 1);
    assert_string_equal(p.items[0].text, "a.b rate 1000=1.1 [x:1,y:2] @h");
    assert_int_equal(p.items[0].n_samples, 3);
    pipeline_close(&p);
}

static void a_gauge_gives_its_last_value(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1003, "g:1|g\ng:7|g\ng:3|g|@0.1\n");
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    assert_int_equal(p.n_items, 1);
    assert_string_equal(p.items[0].text, "g gauge 1000=3 [] @h");
    pipeline_close(&p);
}

static void feed_own(struct pipeline *p, const char *lines)
{
    char packet[64];

    (void)snprintf(packet, sizeof(packet), "%s", lines);
    ingest_packet(&p->in, p->pos, p->pos->record + 1, packet, strlen(packet),
                  TRANSPORT_KERNEL, 0, 1000);
}

/* The same spelling by a client is another series, whichever came first. */
static void lines_of_our_own_take_no_prefix_and_are_no_datagram(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct pipeline p;

    (void)state;
    cfg.name_prefix = "app.";
    pipeline_open(&p, &cfg);
    p.in.eol_required[TRANSPORT_UDP] = true;
    feed_own(&p, "x:1|g\ny:1|g");
    pipeline_feed(&p, 1000, "x:2|g\ny:2|g\nz:2|g\n");
    feed_own(&p, "z:1|g\n");
    assert_int_equal(agg_counts(p.agg)->datagrams, 1);
    assert_int_equal(agg_counts(p.agg)->received[TRANSPORT_KERNEL], 3);
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    assert_int_equal(p.n_items, 6);
    assert_int_equal((int)pipeline_find(&p, "x gauge")->value, 1);
    assert_int_equal((int)pipeline_find(&p, "y gauge")->value, 1);
    assert_int_equal((int)pipeline_find(&p, "z gauge")->value, 1);
    assert_int_equal((int)pipeline_find(&p, "app.x gauge")->value, 2);
    assert_int_equal((int)pipeline_find(&p, "app.y gauge")->value, 2);
    assert_int_equal((int)pipeline_find(&p, "app.z gauge")->value, 2);
    pipeline_check_ledger(&p);
    pipeline_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_counter_gives_its_sum_over_ten_as_a_rate),
        cmocka_unit_test(a_gauge_gives_its_last_value),
        cmocka_unit_test(lines_of_our_own_take_no_prefix_and_are_no_datagram),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
