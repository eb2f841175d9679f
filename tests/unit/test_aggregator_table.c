/* SPDX-License-Identifier: Apache-2.0 */
/* The table against a list, whatever the fragments are like. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "aggregator/table.h"

#define MAX_ENTRIES 3000u
#define STEPS 40000
#define RANGE_BYTES (1u << 20)

struct fixture {
    struct region region;
    struct agg_head head;
    struct agg agg;
    uint32_t frags[MAX_ENTRIES + 1]; /* by reference */
    bool live[MAX_ENTRIES + 1];
    uint32_t n; /* references in use */
};

static struct fixture f;
static struct table *const t = &f.head.spelling;

static uint32_t next_random(void)
{
    static uint64_t x = 88172645463325252ULL;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (uint32_t)(x >> 16);
}

static void open_fixture(void)
{
    size_t reserve[AGG_N_RANGES];
    const struct region_opts opts = {.name = "table",
                                     .budget_bytes = 64u << 20,
                                     .reserve = reserve,
                                     .n_ranges = AGG_N_RANGES};

    memset(&f, 0, sizeof(f));
    for (int i = 0; i < AGG_N_RANGES; i++)
        reserve[i] = RANGE_BYTES;
    assert_int_equal(region_create(&f.region, &opts), 0);
    f.agg.r = &f.region;
    f.agg.head = &f.head;
    f.n = 1;
    assert_int_equal(table_init(&f.agg, t, RANGE_SPELLING_A), 0);
    region_commit(&f.region);
}

static bool is_there(uint32_t ref)
{
    const struct table_slot *slots = table_slots(&f.agg, t);
    uint32_t i = table_home(t->mask, f.frags[ref]);

    for (; slots[i].ref != 0; i = (i + 1) & t->mask) {
        if (slots[i].ref == ref && slots[i].frag == f.frags[ref])
            return true;
    }
    return false;
}

/* What one look says is what slot after slot says. */
static void check_look(uint32_t frag)
{
    const struct table_slot *line =
        table_slots(&f.agg, t) + table_home(t->mask, frag);
    uint32_t want = 0;

    for (uint32_t i = TABLE_LINE; i-- > 0;)
        want = line[i].frag == frag ? line[i].ref : want;
    assert_int_equal(table_look(line, frag), want);
}

static void check(void)
{
    uint32_t n_live = 0;

    for (uint32_t ref = 1; ref < f.n; ref++) {
        assert_int_equal(is_there(ref), f.live[ref]);
        check_look(f.frags[ref]);
        check_look(f.frags[ref] + 1);
        n_live += f.live[ref];
    }
    assert_int_equal(t->n_used, n_live);
}

static void put(uint32_t ref, uint32_t frag)
{
    if (table_room(t) == 0)
        assert_int_equal(table_grow(&f.agg, t, 1), 0);
    f.frags[ref] = frag;
    f.live[ref] = true;
    assert_true(table_insert(&f.agg, t, frag, ref));
}

static void step(uint32_t (*any_frag)(void))
{
    uint32_t ref = 1 + next_random() % f.n;

    if (ref == f.n && f.n <= MAX_ENTRIES)
        put(f.n++, any_frag());
    else if (ref == f.n)
        return;
    else if (!f.live[ref])
        put(ref, any_frag());
    else if (next_random() % 4 != 0 || f.n > MAX_ENTRIES / 2) {
        table_remove(&f.agg, t, f.frags[ref], ref);
        f.live[ref] = false;
    }
    region_commit(&f.region);
}

static void holds_what_a_list_holds(uint32_t (*any_frag)(void))
{
    open_fixture();
    while (f.n < MAX_ENTRIES / 4) { /* to where it has grown twice */
        put(f.n++, any_frag());
        region_commit(&f.region);
    }
    check();
    for (int i = 0; i < STEPS; i++) {
        step(any_frag);
        if (i % 500 == 0)
            check();
    }
    check();
    region_close(&f.region);
}

static void random_fragments(void **state)
{
    (void)state;
    holds_what_a_list_holds(next_random);
}

/* Half of them at home in the last line of any size: runs go on at the beginning. */
static uint32_t in_the_last_line(void)
{
    uint32_t frag = next_random();

    return frag % 16 < 8 ? frag : frag | ~(uint32_t)(TABLE_LINE - 1);
}

static void runs_that_wrap_around(void **state)
{
    (void)state;
    holds_what_a_list_holds(in_the_last_line);
}

static uint32_t one_of_few(void)
{
    return next_random() % 8 == 0 ? UINT32_MAX : next_random() % 64 * 4;
}

static void equal_fragments(void **state)
{
    (void)state;
    holds_what_a_list_holds(one_of_few);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_fragments),
        cmocka_unit_test(runs_that_wrap_around),
        cmocka_unit_test(equal_fragments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
