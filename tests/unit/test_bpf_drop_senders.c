/* SPDX-License-Identifier: Apache-2.0 */
/* Readings of counters in, differences and ranks out: what adds up must add up. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <setjmp.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "bpf/drop_senders.h"

static int setup(void **state)
{
    struct drop_senders *s = NULL;

    assert_int_equal(drop_senders_create(&s), 0);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    drop_senders_close(*state);
    return 0;
}

static struct drop_key key_of(uint32_t tgid)
{
    return (
        struct drop_key){.transport = DROP_UDP, .tgid = tgid, .start_ns = 7};
}

/* Sender @tgid has lost @packets so far. Returns what is new. */
static uint64_t reading(struct drop_senders *s, uint32_t tgid, uint64_t packets)
{
    struct drop_key key = key_of(tgid);
    struct drop_value v = {.packets = packets,
                           .bytes = 10 * packets,
                           .comm = "app"};
    struct drop_total more = {0};

    if (drop_senders_update(s, &key, &v, &more) == NULL)
        return 0;
    assert_int_equal(more.bytes, 10 * more.packets);
    return more.packets;
}

static uint64_t unknown(struct drop_senders *s, uint64_t total)
{
    struct drop_total t = {total, 10 * total}, more;

    drop_senders_total(s, DROP_UDP, &t);
    drop_senders_unknown(s, DROP_UDP, &more);
    return more.packets;
}

static void only_what_is_new_is_given_out(void **state)
{
    assert_int_equal(reading(*state, 1, 5), 5);
    assert_int_equal(reading(*state, 1, 5), 0);
    assert_int_equal(reading(*state, 1, 9), 4);
    assert_int_equal(reading(*state, 1, 3), 0); /* it never goes backwards */
}

static void what_no_sender_lost_is_unknown_once(void **state)
{
    assert_int_equal(reading(*state, 1, 5), 5);
    assert_int_equal(unknown(*state, 8), 3);
    assert_int_equal(unknown(*state, 8), 0);
    assert_int_equal(reading(*state, 1, 6), 1);
    assert_int_equal(unknown(*state, 8), 0); /* senders are ahead of it */
    assert_int_equal(unknown(*state, 10), 1);
}

static void the_same_pid_is_another_process_later(void **state)
{
    struct drop_key key = key_of(1);
    struct drop_value v = {.packets = 2};
    struct drop_total more;

    assert_int_equal(reading(*state, 1, 5), 5);
    key.start_ns++;
    assert_non_null(drop_senders_update(*state, &key, &v, &more));
    assert_int_equal(more.packets, 2);
}

static void a_transport_that_does_not_exist_is_refused(void **state)
{
    struct drop_key key = {.transport = DROP_N_TRANSPORTS, .tgid = 1};
    struct drop_value v = {.packets = 2};
    struct drop_total more;

    assert_null(drop_senders_update(*state, &key, &v, &more));
}

static void more_senders_than_room_become_unknown(void **state)
{
    uint64_t known = 0;

    for (uint32_t i = 1; i <= DROP_MAX_SENDERS + 100; i++)
        known += reading(*state, i, 2);
    assert_int_equal(known, 2 * DROP_MAX_SENDERS);
    assert_int_equal(unknown(*state, 2 * (DROP_MAX_SENDERS + 100)), 200);
}

static void count_gone(void *arg, const struct drop_key *key)
{
    uint32_t *n = arg;

    assert_int_not_equal(key->tgid, 1); /* the worst */
    (*n)++;
}

static void who_is_quiet_makes_room_but_not_the_worst(void **state)
{
    const uint32_t n_senders = DROP_MAX_SENDERS / 2;
    struct drop_report report;
    uint32_t n_gone = 0;

    for (int round = 0; round < 4; round++) {
        n_gone = 0;
        (void)reading(*state, 1, 1000);
        for (uint32_t i = 2; i <= n_senders; i++)
            (void)reading(*state, i, i == 2 ? 3 + (uint64_t)round : 1);
        drop_senders_forget(*state, 3, count_gone, &n_gone);
        if (round < 3)
            assert_int_equal(n_gone, 0);
    }
    assert_int_equal(n_gone, n_senders - 2);
    drop_senders_report(*state, &report);
    assert_int_equal(report.n_top, 2);
    assert_int_equal(report.lost[DROP_UDP].packets, 1000 + 6 + (n_senders - 2));
    /* It comes again: its counters in the kernel began anew. */
    assert_int_equal(reading(*state, 3, 2), 2);
}

static void nobody_is_forgotten_while_there_is_room(void **state)
{
    uint32_t n_gone = 0;

    for (int round = 0; round < 5; round++)
        (void)reading(*state, 2, 1);
    drop_senders_forget(*state, 1, count_gone, &n_gone);
    assert_int_equal(n_gone, 0);
}

static void the_report_is_ranked_and_bounded(void **state)
{
    struct drop_report report;

    for (uint32_t i = 1; i <= 3 * DROP_TOP; i++)
        (void)reading(*state, i, i * 7 % 31);
    drop_senders_report(*state, &report);
    assert_int_equal(report.n_top, DROP_TOP);
    for (uint32_t i = 0; i < DROP_TOP; i++)
        assert_int_equal(report.top[i].lost.packets, 30 - i);
}

static void names_are_fit_to_be_printed(void **state)
{
    struct drop_key key = key_of(9);
    struct drop_value v = {.packets = 1,
                           .comm = "a b\n\x1b\xff"
                                   "123456789x"};
    struct drop_report report;
    struct drop_total more;
    struct drop_entry *e = drop_senders_update(*state, &key, &v, &more);

    assert_non_null(e);
    drop_senders_name(e, "container_name:old");
    drop_senders_name(e, "container_name:web");
    drop_senders_report(*state, &report);
    assert_string_equal(report.top[0].comm, "a_b___123456789");
    assert_string_equal(report.top[0].tags, "container_name:web");
}

static void an_unknown_process_has_an_address(void **state)
{
    struct drop_key v4 = {.transport = DROP_UDP,
                          .family = AF_INET,
                          .address = {127, 0, 0, 1},
                          .port = 4711};
    struct drop_key v6 = {.transport = DROP_UDP,
                          .family = AF_INET6,
                          .address = {[15] = 1},
                          .port = 4711};
    struct drop_key far = {.transport = DROP_UDP,
                           .family = AF_INET,
                           .address = {10, 1, 2, 3}};
    struct drop_report report;
    struct drop_total more;
    char line[256];

    assert_non_null(drop_senders_update(*state, &v4,
                                        &(struct drop_value){.packets = 3},
                                        &more));
    assert_non_null(drop_senders_update(*state, &v6,
                                        &(struct drop_value){.packets = 2},
                                        &more));
    assert_non_null(drop_senders_update(*state, &far,
                                        &(struct drop_value){.packets = 1},
                                        &more));
    drop_senders_report(*state, &report);
    assert_string_equal(report.top[0].address, "127.0.0.1:4711");
    assert_string_equal(report.top[1].address, "[::1]:4711");
    assert_string_equal(report.top[2].address, "10.1.2.3");
    assert_true(drop_senders_top(*state, line, sizeof(line)));
    assert_string_equal(line,
                        "senders lost datagrams n=6 top_n=3 transport=udp "
                        "pid=0 comm= address=127.0.0.1:4711 tags=");
}

static void the_log_names_who_lost_most_since_it_last_did(void **state)
{
    char line[256];

    assert_false(drop_senders_top(*state, line, sizeof(line)));
    (void)reading(*state, 1, 100);
    (void)reading(*state, 2, 10);
    assert_true(drop_senders_top(*state, line, sizeof(line)));
    assert_non_null(
        strstr(line, " n=110 top_n=100 transport=udp pid=1 comm=app "));
    assert_false(drop_senders_top(*state, line, sizeof(line)));
    (void)reading(*state, 1, 101);
    (void)reading(*state, 2, 15);
    assert_true(drop_senders_top(*state, line, sizeof(line)));
    assert_non_null(strstr(line, " n=6 top_n=5 transport=udp pid=2 comm=app "));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(only_what_is_new_is_given_out),
        T(what_no_sender_lost_is_unknown_once),
        T(the_same_pid_is_another_process_later),
        T(a_transport_that_does_not_exist_is_refused),
        T(more_senders_than_room_become_unknown),
        T(who_is_quiet_makes_room_but_not_the_worst),
        T(nobody_is_forgotten_while_there_is_room),
        T(the_report_is_ranked_and_bounded),
        T(names_are_fit_to_be_printed),
        T(an_unknown_process_has_an_address),
        T(the_log_names_who_lost_most_since_it_last_did),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
