/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/landing.h"

#define MAX_FRAME 65536u

struct fixture {
    struct landing l;
    int pair[2]; /* [0] sends, [1] is received from */
};

static int set_up_type(void **state, int type)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct landing_opts opts = {.buffer_bytes = 64,
                                      .n_conns = 20,
                                      .max_frame_bytes = MAX_FRAME};

    assert_non_null(f);
    assert_int_equal(landing_create(&f->l, &opts), 0);
    assert_int_equal(socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, f->pair), 0);
    *state = f;
    return 0;
}

static int datagrams(void **state)
{
    return set_up_type(state, SOCK_DGRAM);
}

static int stream(void **state)
{
    return set_up_type(state, SOCK_STREAM);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    landing_close(&f->l);
    close(f->pair[0]);
    close(f->pair[1]);
    free(f);
    return 0;
}

/* ---- Datagrams --------------------------------------------------------- */

static void only_what_was_received_has_a_length(void **state)
{
    struct fixture *f = *state;
    struct landing_batch *b = f->l.batch;

    landing_arm(&f->l, 3);
    assert_int_equal(send(f->pair[0], "one", 3, 0), 3);
    assert_int_equal(send(f->pair[0], "", 0, 0), 0);
    assert_int_equal(recvmmsg(f->pair[1], b->msgs, LANDING_SLOTS, MSG_DONTWAIT,
                              NULL),
                     2);
    assert_int_equal(b->source, 3);
    assert_int_equal(b->msgs[0].msg_len, 3);
    assert_int_equal(b->msgs[1].msg_len, 0);
    assert_int_equal(b->msgs[2].msg_len, LANDING_EMPTY);
    assert_memory_equal(landing_slot(&f->l, 0), "one", 3);
    landing_arm(&f->l, 4);
    for (unsigned i = 0; i < LANDING_SLOTS; i++)
        assert_int_equal(b->msgs[i].msg_len, LANDING_EMPTY);
    assert_int_equal(b->pos.record, 0);
}

static void a_cut_datagram_says_so(void **state)
{
    struct fixture *f = *state;
    struct landing_batch *b = f->l.batch;
    char big[100] = {0};

    landing_arm(&f->l, 0);
    assert_int_equal(send(f->pair[0], big, sizeof(big), 0), sizeof(big));
    assert_int_equal(send(f->pair[0], big, 64, 0), 64);
    assert_int_equal(recvmmsg(f->pair[1], b->msgs, LANDING_SLOTS, MSG_DONTWAIT,
                              NULL),
                     2);
    assert_int_equal(b->msgs[0].msg_len, 64);
    assert_int_not_equal(b->msgs[0].msg_hdr.msg_flags & MSG_TRUNC, 0);
    assert_int_equal(b->msgs[1].msg_hdr.msg_flags & MSG_TRUNC, 0);
}

/* ---- Streams ----------------------------------------------------------- */

static uint32_t header(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}

static uint32_t need(const struct landing *l, uint32_t conn)
{
    const struct landing_recv *st = landing_state(&l->conns[conn]);
    uint32_t left = landing_filled(st) - st->pos.record;

    if (left < 4)
        return 4;
    return 4 + header(landing_half(l, conn, st->half) + st->pos.record);
}

/* Take the complete frames; each byte must be the low byte of its number in the
 * stream of payload bytes. */
static void take_frames(struct landing *l, uint32_t conn, uint64_t *n_payload)
{
    struct landing_recv *st = landing_state(&l->conns[conn]);
    const unsigned char *half = landing_half(l, conn, st->half);

    while (landing_filled(st) - st->pos.record >= 4) {
        uint32_t len = header(half + st->pos.record);

        if (landing_filled(st) - st->pos.record - 4 < len)
            break;
        for (uint32_t i = 0; i < len; i++, (*n_payload)++)
            assert_int_equal(half[st->pos.record + 4 + i],
                             (unsigned char)(*n_payload * 7));
        st->pos.record += 4 + len;
    }
}

static uint32_t random_length(unsigned *seed)
{
    unsigned r = (unsigned)rand_r(seed);

    if (r % 50 == 0)
        return MAX_FRAME - (unsigned)rand_r(seed) % 3;
    return 1 + (unsigned)rand_r(seed) % (r % 4 == 0 ? 20000 : 300);
}

static void frames_cut_anywhere_arrive_whole(void **state)
{
    struct fixture *f = *state;
    struct landing *l = &f->l;
    unsigned seed = 42;
    uint64_t sent = 0, taken = 0;
    static unsigned char out[MAX_FRAME + 4];
    size_t at = 0, n = 0;

    assert_int_equal(landing_conn_open(l, 18, f->pair[1], 0), 0);
    for (unsigned frames = 0; frames < 2000 || at < n;) {
        struct landing_recv *st;
        size_t chunk;
        ssize_t put;

        if (at == n) {
            uint32_t len = random_length(&seed);

            memcpy(out, &(uint32_t){len}, 4);
            for (uint32_t i = 0; i < len; i++)
                out[4 + i] = (unsigned char)((sent + i) * 7);
            sent += len;
            at = 0;
            n = len + 4u;
            frames++;
        }
        chunk = 1 + (size_t)rand_r(&seed) % 9000;
        if (chunk > n - at)
            chunk = n - at;
        put = send(f->pair[0], out + at, chunk, MSG_DONTWAIT);
        if (put > 0)
            at += (size_t)put;
        if (put > 0 && rand_r(&seed) % 3 == 0)
            continue;
        st = landing_conn_arm(l, 18, need(l, 18));
        assert_non_null(st);
        (void)recvmmsg(f->pair[1], &st->msg, 1, MSG_DONTWAIT, NULL);
        /* A second arming without bytes changes nothing that counts. */
        if (rand_r(&seed) % 4 == 0) {
            take_frames(l, 18, &taken);
            assert_non_null(landing_conn_arm(l, 18, need(l, 18)));
        }
        take_frames(l, 18, &taken);
    }
    while (taken < sent) {
        struct landing_recv *st = landing_conn_arm(l, 18, need(l, 18));

        assert_non_null(st);
        assert_int_equal(recvmmsg(f->pair[1], &st->msg, 1, MSG_DONTWAIT, NULL),
                         1);
        take_frames(l, 18, &taken);
    }
    assert_int_equal(taken, sent);
    landing_conn_free(l, 18);
    assert_int_equal(l->conns[18].fd, -1);
}

/* ---- Death ------------------------------------------------------------- */

/* A batch of one datagram, or of two. */
static void receive(struct fixture *f, const char *first, const char *second)
{
    int n = second != NULL ? 2 : 1;

    landing_arm(&f->l, 0);
    assert_int_equal(send(f->pair[0], first, strlen(first), 0), strlen(first));
    if (second != NULL)
        assert_int_equal(send(f->pair[0], second, strlen(second), 0),
                         strlen(second));
    assert_int_equal(recvmmsg(f->pair[1], f->l.batch->msgs, LANDING_SLOTS,
                              MSG_DONTWAIT, NULL),
                     n);
}

static void two_deaths_at_one_record_are_poison(void **state)
{
    struct fixture *f = *state;
    struct landing *l = &f->l;
    struct landing_place here;
    const void *bytes;
    size_t n;

    receive(f, "bad", NULL);
    assert_int_equal(landing_note_death(l, &bytes, &n), 0); /* not applying */
    l->head->applying = LANDING_BATCH;
    here = landing_place(l);
    assert_int_equal(landing_note_death(l, &bytes, &n), 1);
    assert_int_equal(n, 3);
    assert_memory_equal(bytes, "bad", 3);
    assert_false(landing_poisoned(l, &here));
    l->head->applying = LANDING_BATCH;
    assert_int_equal(landing_note_death(l, &bytes, &n), 2);
    assert_true(landing_poisoned(l, &here));
    here.pos.record++;
    assert_false(landing_poisoned(l, &here));
}

/* Of a group, the last record that was looked at is blamed. One by one the right one
 * is, once, or it would be blamed and let off in turns. */
static void who_dies_when_they_go_one_by_one_was_it(void **state)
{
    struct fixture *f = *state;
    struct landing *l = &f->l;
    struct landing_place here;
    const void *bytes;
    size_t n;

    receive(f, "bad", "good");
    for (uint32_t i = 1; i <= 2; i++) {
        l->head->working = 1;
        l->head->applying = LANDING_BATCH;
        assert_int_equal(landing_note_death(l, &bytes, &n), i);
    }
    l->head->working = 0;
    l->head->applying = LANDING_BATCH;
    here = landing_place(l);
    assert_int_equal(landing_note_death(l, &bytes, &n), 2);
    assert_memory_equal(bytes, "bad", 3);
    assert_true(landing_poisoned(l, &here));
    here.pos.record = 1;
    assert_false(landing_poisoned(l, &here));
    landing_skipped(l);
    l->head->applying = LANDING_BATCH;
    assert_int_equal(landing_note_death(l, &bytes, &n), 1);
}

/* The next one is not begun yet, but the one before is done with: skipping it, the
 * successor would look for it for ever. */
static void a_death_behind_a_commit_is_at_the_next_record(void **state)
{
    struct fixture *f = *state;
    struct landing *l = &f->l;
    const void *bytes;
    size_t n;

    receive(f, "done", "next");
    l->head->working = 0;
    l->batch->pos.record = 1;
    l->head->applying = LANDING_BATCH;
    assert_int_equal(landing_note_death(l, &bytes, &n), 1);
    assert_int_equal(n, 4);
    assert_memory_equal(bytes, "next", 4);
    l->head->working = 1;
    l->batch->pos.record = 2;
    l->head->applying = LANDING_BATCH;
    assert_int_equal(landing_note_death(l, &bytes, &n), 0);
}

static void kills_from_outside_are_no_poison(void **state)
{
    struct fixture *f = *state;
    struct landing *l = &f->l;
    struct landing_place here;
    const void *bytes;
    size_t n;

    receive(f, "good", NULL);
    for (unsigned i = 0; i < 3; i++) {
        l->head->applying = LANDING_BATCH;
        here = landing_place(l);
        landing_forget(l);
        assert_int_equal(l->head->applying, LANDING_NOTHING);
        assert_false(landing_poisoned(l, &here));
    }
    l->head->applying = LANDING_BATCH; /* a fault there counts from one */
    assert_int_equal(landing_note_death(l, &bytes, &n), 1);
}

static void deaths_at_other_records_are_none(void **state)
{
    struct fixture *f = *state;
    struct landing *l = &f->l;
    const void *bytes;
    size_t n;

    for (unsigned i = 0; i < 5; i++) { /* same slot, another batch */
        landing_arm(l, 0);
        assert_int_equal(send(f->pair[0], "x", 1, 0), 1);
        assert_int_equal(recvmmsg(f->pair[1], l->batch->msgs, LANDING_SLOTS,
                                  MSG_DONTWAIT, NULL),
                         1);
        l->head->applying = LANDING_BATCH;
        assert_int_equal(landing_note_death(l, &bytes, &n), 1);
    }
}

/* The keeper reads this behind a worker that died of scribbled memory. */
static void a_place_that_cannot_be_is_none(void **state)
{
    struct fixture *f = *state;
    struct landing *l = &f->l;
    const void *bytes;
    size_t n;

    l->head->applying = UINT32_MAX;
    assert_int_equal(landing_place(l).what, LANDING_NOTHING);
    assert_int_equal(landing_note_death(l, &bytes, &n), 0);
    l->head->applying = LANDING_CONN + l->n_conns;
    assert_int_equal(landing_note_death(l, &bytes, &n), 0);
    l->head->applying = LANDING_BATCH;
    l->batch->pos.record = UINT32_MAX;
    assert_int_equal(landing_note_death(l, &bytes, &n), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_what_was_received_has_a_length,
                                        datagrams, tear_down),
        cmocka_unit_test_setup_teardown(a_cut_datagram_says_so, datagrams,
                                        tear_down),
        cmocka_unit_test_setup_teardown(frames_cut_anywhere_arrive_whole,
                                        stream, tear_down),
        cmocka_unit_test_setup_teardown(two_deaths_at_one_record_are_poison,
                                        datagrams, tear_down),
        cmocka_unit_test_setup_teardown(who_dies_when_they_go_one_by_one_was_it,
                                        datagrams, tear_down),
        cmocka_unit_test_setup_teardown(
            a_death_behind_a_commit_is_at_the_next_record, datagrams,
            tear_down),
        cmocka_unit_test_setup_teardown(kills_from_outside_are_no_poison,
                                        datagrams, tear_down),
        cmocka_unit_test_setup_teardown(a_place_that_cannot_be_is_none,
                                        datagrams, tear_down),
        cmocka_unit_test_setup_teardown(deaths_at_other_records_are_none,
                                        datagrams, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
