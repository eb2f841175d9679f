/* SPDX-License-Identifier: Apache-2.0 */
/* Lines to items: one thread, virtual time, every commit proved. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_counter_gives_its_sum_over_ten_as_a_rate),
        cmocka_unit_test(a_gauge_gives_its_last_value),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
