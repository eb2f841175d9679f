/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader and the tap: what lies in the ring is read, closed and left to a
 * successor like what lies in the sockets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/reader_rig.h"
#include "tests/support/skips.h"

/* False: not on this machine, and said so. */
static bool can_tap(const struct reader_rig *f)
{
    if (f->landing.head->tap.ring_fd >= 0)
        return true;
    print_message("skipped: %s; %s\n", f->cause.why, f->cause.remedy);
    assert_false(skips_fail());
    return false;
}

/* For the sockets of @f. */
static struct tap *load_tap(struct reader_rig *f)
{
    const struct landing_tap *maps = &f->landing.head->tap;
    const struct ring ring = {.ring_fd = maps->ring_fd,
                              .control_fd = maps->control_fd};
    const struct tap_source source = {.source = GRAM,
                                      .socket = ingress_socket_id(
                                          &f->s.entries[GRAM])};
    const struct tap_opts opts = {.max_bytes = BUFFER,
                                  .sources = &source,
                                  .n_sources = 1};
    struct tap *t = calloc(1, sizeof(*t));

    assert_non_null(t);
    assert_int_equal(tap_load(t, &ring, &opts, &f->cause), 0);
    return t;
}

static bool tap(struct reader_rig *f)
{
    struct tap *t;

    if (!can_tap(f))
        return false;
    t = load_tap(f);
    reader_order(f->reader, READER_TAP, (uint64_t)(uintptr_t)t);
    while (f->n_tapped == 0)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    return true;
}

static void untap(struct reader_rig *f)
{
    reader_order(f->reader, READER_UNTAP, 0);
    while (f->n_tapped != 0)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
}

static void send_many(int gram, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(send(gram, "a:1|c\nb:1|c", 11, 0), 11);
}

static bool ring_is_empty(const struct reader_rig *f)
{
    return ring_end(&f->landing.ring) == ring_begin(&f->landing.ring);
}

static void tapped_datagrams_are_counted(void **state)
{
    struct reader_rig *f = *state;
    int gram = reader_rig_connect(f->gram, SOCK_DGRAM);

    if (!tap(f))
        skip();
    send_many(gram, 5000); /* more than the ring holds */
    close(gram);
    reader_rig_end(f);
    assert_int_equal(f->counts.received[TRANSPORT_UDS], 10000);
    assert_int_equal(f->counts.datagrams, 5000);
    assert_int_equal(f->counts.aggregated, 10000);
    assert_int_equal(f->n_left, 0);
    assert_int_equal(f->landing.head->tap.pos.record,
                     f->landing.head->tap.counted);
    assert_true(f->landing.head->tap.taken[GRAM] > 0);
    assert_true(f->landing.head->tap.taken[GRAM] <= 5000);
}

static void what_the_ring_holds_is_closed_with_the_rest(void **state)
{
    struct reader_rig *f = *state;
    int gram = reader_rig_connect(f->gram, SOCK_DGRAM);
    uint64_t n_parts;

    if (!tap(f))
        skip();
    send_many(gram, 100);
    reader_order(f->reader, READER_CLOSE_ALL, 7);
    while (f->closed_token != 7)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    n_parts = f->n_parts_at_close;
    reader_rig_end(f);
    assert_true(n_parts >= 1);
    assert_int_equal(f->open_samples, 0);
    assert_int_equal(f->counts.received[TRANSPORT_UDS], 200);
    close(gram);
}

/* As at an upgrade: nothing may be left in a ring that ends with this image. */
static void untapped_and_resting_it_has_an_empty_ring(void **state)
{
    struct reader_rig *f = *state;
    int gram = reader_rig_connect(f->gram, SOCK_DGRAM);
    char got[8];

    if (!tap(f))
        skip();
    send_many(gram, 100);
    untap(f);
    reader_rig_rest(f);
    assert_true(ring_is_empty(f));
    assert_int_equal(send(gram, "c:1|c", 5, 0), 5);
    assert_true(ring_is_empty(f));
    assert_int_equal(recv(f->s.entries[GRAM].fd, got, sizeof(got),
                          MSG_PEEK | MSG_DONTWAIT),
                     5);
    reader_order(f->reader, READER_RESUME, 0);
    reader_order(f->reader, READER_CLOSE_ALL, 8);
    while (f->closed_token != 8)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    send_many(gram, 1); /* tapped again */
    close(gram);
    reader_rig_end(f);
    assert_int_equal(f->counts.received[TRANSPORT_UDS], 203);
    assert_int_equal(f->landing.head->tap.taken[GRAM], 101);
}

/* Loaded while an upgrade is under way, which is then given up. */
static void a_tap_that_comes_while_it_rests_is_told_when_it_goes_on(
    void **state)
{
    struct reader_rig *f = *state;
    int gram = reader_rig_connect(f->gram, SOCK_DGRAM);
    struct tap *t;

    if (!can_tap(f))
        skip();
    f->n_tapped = 99;
    untap(f);
    reader_rig_rest(f);
    t = load_tap(f);
    f->n_tapped = 99;
    reader_order(f->reader, READER_TAP, (uint64_t)(uintptr_t)t);
    while (f->n_tapped == 99)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(f->n_tapped, 0);
    reader_order(f->reader, READER_RESUME, 0);
    while (f->n_tapped == 0)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    send_many(gram, 5);
    close(gram);
    reader_rig_end(f);
    assert_int_equal(f->landing.head->tap.taken[GRAM], 5);
}

/* A worker that dies leaves the programs attached and the ring to its successor. */
static void a_successor_reads_on_in_the_ring(void **state)
{
    struct reader_rig *f = *state;
    int gram = reader_rig_connect(f->gram, SOCK_DGRAM);
    struct landing_tap *t = &f->landing.head->tap;
    uint64_t begin;

    if (!tap(f))
        skip();
    f->s.entries[GRAM].shared_outside = true;
    send_many(gram, 10);
    reader_rig_end(f);
    f->drained = false;
    assert_int_equal(t->taken[GRAM], 10);
    /* As if it had died behind the commit of the first of them, and before the
     * room was given back. */
    assert_int_equal(landing_ring_map(&f->landing), 0);
    begin = ring_begin(&f->landing.ring);
    assert_int_equal(begin, 10 * 64);
    ring_consumed(&f->landing.ring, begin - 10 * 64);
    t->counted = 0;
    t->taken[GRAM] = 0;
    t->pos.record = 4 * 64;
    landing_ring_unmap(&f->landing);
    reader_rig_start(f);
    reader_rig_end(f);
    assert_int_equal(f->counts.received[TRANSPORT_UDS], 2 * (10 + 6));
    assert_int_equal(t->taken[GRAM], 10);
    assert_int_equal(t->pos.record, 10 * 64);
    close(gram);
}

static void a_tapped_record_that_killed_two_is_skipped(void **state)
{
    struct reader_rig *f = *state;
    int gram = reader_rig_connect(f->gram, SOCK_DGRAM);
    struct landing_tap *t = &f->landing.head->tap;
    const void *bytes;
    size_t n;

    if (!tap(f))
        skip();
    f->s.entries[GRAM].shared_outside = true;
    send_many(gram, 2);
    reader_rig_end(f);
    f->drained = false;
    assert_int_equal(landing_ring_map(&f->landing), 0);
    ring_consumed(&f->landing.ring, 0);
    t->pos.record = t->counted = 0;
    for (unsigned i = 1; i <= 2; i++) {
        f->landing.head->applying = LANDING_TAP;
        assert_int_equal(landing_note_death(&f->landing, &bytes, &n), i);
        assert_true(n > 11);
        assert_memory_equal((const char *)bytes + sizeof(struct tap_record),
                            "a:1|c", 5);
    }
    landing_ring_unmap(&f->landing);
    reader_rig_start(f);
    reader_rig_end(f);
    assert_int_equal(f->counts.rejected[DSD_POISON], 1);
    assert_int_equal(f->counts.aggregated, 4 + 2);
    close(gram);
}

int main(void)
{
#define T(name)                                                                \
    cmocka_unit_test_setup_teardown(name, reader_rig_setup, reader_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(tapped_datagrams_are_counted),
        T(what_the_ring_holds_is_closed_with_the_rest),
        T(untapped_and_resting_it_has_an_empty_ring),
        T(a_tap_that_comes_while_it_rests_is_told_when_it_goes_on),
        T(a_successor_reads_on_in_the_ring),
        T(a_tapped_record_that_killed_two_is_skipped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
