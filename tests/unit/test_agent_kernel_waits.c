/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "agent/kernel_waits.h"

struct fixture {
    struct kernel_link link;
    struct kernel_waits *waits;
    struct kernel_record record;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (f == NULL || kernel_link_init(&f->link) != 0)
        return -1;
    f->waits = calloc(1, sizeof(*f->waits));
    *state = f;
    return f->waits != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    kernel_link_fini(&f->link);
    free(f->waits);
    free(f);
    return 0;
}

static struct event_runq wait_of(uint64_t cgid, uint64_t ns)
{
    return (struct event_runq){
        .hdr = {.type = EVENT_RUNQ,
                .len = sizeof(struct event_runq),
                .cgid = cgid},
        .prev_cgid = 7,
        .latency_ns = ns,
        .n = 1,
    };
}

static const struct event_runq *next(struct fixture *f)
{
    if (!kernel_link_take_record(&f->link, &f->record))
        return NULL;
    return (const void *)f->record.bytes;
}

static void equal_waits_become_one(void **state)
{
    struct fixture *f = *state;
    struct event_runq waits[] = {wait_of(1, 1000001), wait_of(1, 1000002),
                                 wait_of(1, 5000000), wait_of(2, 1000001),
                                 wait_of(1, 1000001), wait_of(1, 1000001)};
    const uint32_t n[] = {3, 1, 1, 1};
    const uint64_t ns[] = {3000004, 5000000, 1000001, 1000001};

    waits[4].flags = 1;
    for (size_t i = 0; i < 6; i++)
        assert_true(kernel_waits_add(f->waits, &waits[i]));
    assert_null(next(f));
    assert_true(kernel_waits_put(f->waits, &f->link));
    for (size_t i = 0; i < 4; i++) {
        const struct event_runq *ev = next(f);

        assert_non_null(ev);
        assert_int_equal(ev->n, n[i]);
        assert_int_equal(ev->latency_ns, ns[i]);
        assert_int_equal(ev->hdr.cgid, i == 2 ? 2 : 1);
        assert_int_equal(ev->flags, i == 3);
    }
    assert_null(next(f));
    assert_true(kernel_waits_put(f->waits, &f->link)); /* nothing is left */
    assert_null(next(f));
}

/* Nobody takes: they go on being added up, and more kinds than there is room for are
 * refused. */
static void without_room_they_wait_and_none_is_lost(void **state)
{
    struct fixture *f = *state;
    const struct event_runq *ev;
    struct event_runq more;
    uint64_t n = 0;

    for (unsigned round = 0; round < 4; round++) {
        for (uint64_t i = 0; i < KERNEL_WAITS; i++) {
            const struct event_runq one = wait_of(i, 1000);

            assert_true(kernel_waits_add(f->waits, &one));
        }
        assert_int_equal(kernel_waits_put(f->waits, &f->link), round < 2);
    }
    more = wait_of(KERNEL_WAITS, 1000);
    assert_false(kernel_waits_add(f->waits, &more));
    assert_true(atomic_load(&f->link.records_full));
    while ((ev = next(f)) != NULL)
        n += ev->n;
    assert_true(kernel_waits_put(f->waits, &f->link));
    while ((ev = next(f)) != NULL)
        n += ev->n;
    assert_int_equal(n, 4 * KERNEL_WAITS);
    assert_true(kernel_waits_add(f->waits, &more));
}

/* A long record takes several slots, also over the end of the ring. */
static void records_of_all_lengths_arrive_whole(void **state)
{
    struct fixture *f = *state;
    struct kernel_record r = {{0}};
    struct event_hdr *h = (void *)r.bytes;

    h->type = EVENT_ENV;
    for (uint32_t i = 0; i < 2 * KERNEL_RECORDS; i++) {
        h->len =
            (uint16_t)(sizeof(*h) + i % (EVENT_MAX_BYTES - sizeof(*h) + 1));
        memset(h + 1, (int)(i & 0xff), h->len - sizeof(*h));
        assert_true(kernel_link_put_record(&f->link, &r));
        assert_non_null(next(f));
        assert_memory_equal(f->record.bytes, r.bytes, h->len);
    }
    while (kernel_link_put_record(&f->link, &r))
        ;
    while (next(f) != NULL)
        assert_memory_equal(f->record.bytes, r.bytes, h->len);
    assert_int_equal(spsc_n(&f->link.records), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(equal_waits_become_one, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(without_room_they_wait_and_none_is_lost,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(records_of_all_lengths_arrive_whole,
                                        set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
