/* SPDX-License-Identifier: Apache-2.0 */
/* A report from the kernel side (here: made up) to receipt, status and log. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <setjmp.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/losses.h"
#include "agent/reader.h"

static const struct drop_report made_up = {
    .lost = {{106, 4000}, {7, 0}},
    .unknown = {{2, 80}, {0, 0}},
    .n_top = 3,
    .top = {{.transport = DROP_UDP,
             .pid = 4711,
             .comm = "app",
             .tags = "container_name:web,x:\"y\"",
             .lost = {100, 3800}},
            {.transport = DROP_UDS, .pid = 12, .comm = "b", .lost = {7, 0}},
            {.transport = DROP_UDP, .address = "10.1.2.3", .lost = {4, 120}}},
};

static const struct own_waits_report waited = {
    .waited_ns = 3456789012,
    .longest_ns = 98000000,
    .because = "hog in web",
};

/* Stand in for bpf/drop.c; @self counts what the log would say. */
void drop_report(const void *self, struct drop_report *out)
{
    (void)self;
    *out = made_up;
}

/* Stand in for bpf/runq.c. */
void runq_waits(const void *self, struct own_waits_report *out)
{
    (void)self;
    *out = waited;
}

char *runq_tell_waits(void *self, char *line, size_t size)
{
    int *n_told = self;

    (*n_told)++;
    (void)snprintf(line, size, "the reader waited");
    return line;
}

bool drop_top(void *self, char *line, size_t size)
{
    int *n_said = self;

    (*n_said)++;
    (void)snprintf(line, size, "somebody lost something");
    return true;
}

int drop_add_socket(struct drop_opts *o, int fd)
{
    (void)fd;
    o->n_sockets++;
    return 0;
}

static void a_report_arrives_whole(void **state)
{
    struct losses l;
    struct drop_report got;
    int n_said = 0;

    (void)state;
    losses_init(&l);
    assert_false(losses_get(&l, &got));
    losses_collected(&l, &n_said);
    assert_true(losses_get(&l, &got));
    assert_memory_equal(&got, &made_up, sizeof(got));
    losses_fini(&l);
}

static void sums_go_on_when_features_are_opened_again(void **state)
{
    struct losses l;
    struct drop_report lost;
    struct own_waits_report waits;
    int n_said = 0;

    (void)state;
    losses_init(&l);
    for (int i = 0; i < 3; i++) {
        losses_waited(&l, &n_said);
        losses_collected(&l, &n_said);
        losses_waited(&l, &n_said); /* no sum is added twice */
        losses_collected(&l, &n_said);
        losses_waited_end(&l);
        losses_collected_end(&l);
        assert_null(l.runq);
    }
    assert_true(losses_get(&l, &lost));
    assert_int_equal(lost.lost[DROP_UDP].packets, 3 * 106);
    assert_int_equal(lost.lost[DROP_UDP].bytes, 3 * 4000);
    assert_int_equal(lost.unknown[DROP_UDP].packets, 3 * 2);
    assert_int_equal(lost.lost[DROP_UDS].packets, 3 * 7);
    assert_true(losses_get_waits(&l, &waits));
    assert_int_equal(waits.waited_ns, 3 * waited.waited_ns);
    assert_int_equal(waits.longest_ns, waited.longest_ns);
    losses_fini(&l);
}

static void the_log_is_told_once_a_minute(void **state)
{
    struct losses l;
    int n_said = 0;

    (void)state;
    losses_init(&l);
    losses_collected(&l, &n_said);
    losses_collected(&l, &n_said);
    assert_int_equal(n_said, 1);
    assert_true(l.told_ns > UINT64_C(60000000000));
    l.told_ns -= UINT64_C(60000000000);
    losses_collected(&l, &n_said);
    assert_int_equal(n_said, 2);
    losses_fini(&l);
}

static void datagram_sockets_are_watched(void **state)
{
    struct sockets s = {.n = 4};
    struct feature_opts opts = {.drop.n_sockets = 0};
    struct losses l;

    (void)state;
    for (uint32_t i = 0; i < s.n; i++)
        s.entries[i].kind = (enum socket_kind)i;
    losses_init(&l);
    losses_watch(&l, &s, &opts);
    assert_int_equal(opts.drop.n_sockets, 2);
    assert_ptr_equal(opts.drop.collected, losses_collected);
    assert_ptr_equal(opts.drop.arg, &l);
    assert_string_equal(opts.runq.own_thread, READER_THREAD);
    assert_ptr_equal(opts.runq.collected, losses_waited);
    assert_ptr_equal(opts.runq.arg, &l);
    losses_fini(&l);
}

static void waits_are_told_with_the_losses(void **state)
{
    struct own_waits_report got;
    struct losses l;
    int n_said = 0, n_told = 0;

    (void)state;
    losses_init(&l);
    assert_false(losses_get_waits(&l, &got));
    losses_waited(&l, &n_told);
    assert_true(losses_get_waits(&l, &got));
    assert_memory_equal(&got, &waited, sizeof(got));
    losses_collected(&l, &n_said);
    losses_collected(&l, &n_said);
    assert_int_equal(n_told, 1);
    losses_fini(&l);
}

static void programs_read_why(void **state)
{
    static const struct own_waits_report nobody = {.waited_ns = 5999999};
    struct buf out;
    struct json j;

    (void)state;
    buf_init(&out, 4096);
    json_init(&j, &out);
    json_array(&j);
    json_object(&j);
    losses_write_waits(&waited, &j);
    json_end(&j);
    json_object(&j);
    losses_write_waits(&nobody, &j);
    json_end(&j);
    json_end(&j);
    assert_int_equal(json_finish(&j), 0);
    assert_int_equal(buf_putc(&out, '\0'), 0);
    assert_string_equal(out.data, "[{\"waited_ms\":3456,\"longest_ms\":98,"
                                  "\"because\":\"hog in web\"},"
                                  "{\"waited_ms\":5,\"longest_ms\":0}]");
    buf_fini(&out);
}

static void people_read_why(void **state)
{
    static const struct own_waits_report nothing = {.waited_ns = 999999};
    struct buf out;

    (void)state;
    buf_init(&out, 4096);
    losses_write_waits_text(&nothing, &out);
    assert_int_equal(out.n, 0);
    losses_write_waits_text(&waited, &out);
    assert_int_equal(buf_putc(&out, '\0'), 0);
    assert_string_equal(out.data,
                        "Reader waited 3456 ms for a CPU, 98 ms at once, most "
                        "behind hog in web\n");
    buf_fini(&out);
}

static void programs_read_who_lost_what(void **state)
{
    static const char expected[] =
        "{\"lost\":{\"udp\":106,\"uds\":7,\"by_unknown\":2},"
        "\"lost_by_sender\":[{\"transport\":\"udp\",\"pid\":4711,"
        "\"comm\":\"app\",\"tags\":\"container_name:web,x:\\\"y\\\"\","
        "\"datagrams\":100,\"bytes\":3800},{\"transport\":\"uds\",\"pid\":12,"
        "\"comm\":\"b\",\"datagrams\":7,\"bytes\":0},{\"transport\":\"udp\","
        "\"address\":\"10.1.2.3\",\"datagrams\":4,\"bytes\":120}]}";
    struct buf out;
    struct json j;

    (void)state;
    buf_init(&out, 4096);
    json_init(&j, &out);
    json_object(&j);
    losses_write_members(&made_up, &j);
    json_end(&j);
    assert_int_equal(json_finish(&j), 0);
    assert_int_equal(buf_putc(&out, '\0'), 0);
    assert_string_equal(out.data, expected);
    buf_fini(&out);
}

static void people_read_the_same(void **state)
{
    static const struct drop_report nothing;
    struct buf out;

    (void)state;
    buf_init(&out, 4096);
    losses_write_text(&nothing, &out);
    assert_int_equal(out.n, 0);
    losses_write_text(&made_up, &out);
    assert_int_equal(buf_putc(&out, '\0'), 0);
    assert_string_equal(
        out.data,
        "Datagrams that senders lost\n"
        "  100                    udp pid 4711 app container_name:web,x:\"y\"\n"
        "  7                      uds pid 12 b \n"
        "  4                      udp 10.1.2.3\n"
        "  2                      sender not known\n");
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_report_arrives_whole),
        cmocka_unit_test(sums_go_on_when_features_are_opened_again),
        cmocka_unit_test(the_log_is_told_once_a_minute),
        cmocka_unit_test(datagram_sockets_are_watched),
        cmocka_unit_test(waits_are_told_with_the_losses),
        cmocka_unit_test(programs_read_why),
        cmocka_unit_test(people_read_why),
        cmocka_unit_test(programs_read_who_lost_what),
        cmocka_unit_test(people_read_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
