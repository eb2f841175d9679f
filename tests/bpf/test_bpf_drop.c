/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What senders lose is what the feature says they lost, datagram for datagram: each
 * test compares it with what senders were told or receivers found.
 */
#include <bpf/btf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bpf/tap.h"
#include "tests/bpf/drop_rig.h"
#include "tests/support/skips.h"

#define LOST "retriever.ingress.lost"

static int setup(void **state)
{
    struct drop_rig *r = calloc(1, sizeof(*r));

    assert_non_null(r);
    r->udp.fd = r->uds.fd = -1;
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    drop_rig_close(*state);
    free(*state);
    return 0;
}

static uint32_t missing(const struct drop_rig *r, uint32_t i)
{
    return r->senders[i].sent - r->senders[i].received;
}

static struct drop_kernel this_kernel(void)
{
    struct btf *b = btf__load_vmlinux_btf();
    struct drop_kernel k;

    assert_non_null(b);
    drop_probe(b, &k);
    btf__free(b);
    return k;
}

/* ---- Equality ----------------------------------------------------------- */

static void each_sender_lost_what_it_is_said_to_have_lost(void **state)
{
    struct drop_rig *r = *state;
    bool named;

    drop_rig_open(r, NULL);
    named = rig_make_cgroup(r);
    rig_send(r, 0, &r->udp, 5000, false);
    rig_send(r, 1, &r->udp, 300, named);
    rig_send(r, 2, &r->uds, 2000, named);
    rig_send(r, 3, &r->uds, 500, false);
    rig_wait(r);
    rig_receive(r, &r->udp);
    rig_receive(r, &r->uds);
    rig_collect(r, false);
    assert_int_equal(r->senders[0].sent + r->senders[1].sent, 5300);
    for (uint32_t i = 0; i < 2; i++)
        assert_true(missing(r, i) > 0 && r->senders[2 + i].refused > 0);
    assert_int_equal(rig_lost_by(r, 0), missing(r, 0));
    assert_int_equal(rig_lost_by(r, 1), missing(r, 1));
    assert_int_equal(rig_lost_by(r, 2), r->senders[2].refused);
    assert_int_equal(rig_lost_by(r, 3), r->senders[3].refused);
    assert_int_equal(rig_sum(r, LOST, "transport:udp"),
                     rig_kernel_drops(r->udp.fd));
    assert_int_equal(rig_sum(r, LOST, "transport:uds"),
                     r->senders[2].refused + r->senders[3].refused);
    assert_int_equal(rig_sum(r, LOST "_bytes", NULL),
                     (uint64_t)RIG_PAYLOAD_BYTES *
                         (missing(r, 0) + missing(r, 1)));
    if (named)
        assert_int_equal(rig_sum(r, LOST, "container_name:leaky"),
                         missing(r, 1) + r->senders[2].refused);
    (void)printf("lost: udp %u + %u, uds %u + %u\n", missing(r, 0),
                 missing(r, 1), r->senders[2].refused, r->senders[3].refused);
}

static void what_was_told_is_not_told_again(void **state)
{
    struct drop_rig *r = *state;
    uint64_t first;

    drop_rig_open(r, NULL);
    rig_send(r, 0, &r->udp, 1000, false);
    rig_wait(r);
    rig_collect(r, false);
    first = rig_sum(r, LOST, NULL);
    rig_collect(r, false);
    assert_int_equal(rig_sum(r, LOST, NULL), first);
    rig_send(r, 1, &r->udp, 1000, false);
    rig_wait(r);
    rig_collect(r, true);
    rig_receive(r, &r->udp);
    assert_int_equal(rig_lost_by(r, 0), missing(r, 0));
    assert_int_equal(rig_lost_by(r, 1), missing(r, 1));
}

static void after_the_last_collect_nothing_counts(void **state)
{
    struct drop_rig *r = *state;

    drop_rig_open(r, NULL);
    rig_collect(r, true);
    rig_send(r, 0, &r->udp, 1000, false);
    rig_send(r, 1, &r->uds, 1000, false);
    rig_wait(r);
    rig_collect(r, true);
    assert_true(r->senders[1].refused > 0);
    assert_int_equal(rig_sum(r, LOST, NULL), 0);
}

static void losses_of_other_sockets_are_not_ours(void **state)
{
    struct drop_rig *r = *state;
    struct rig_socket other;

    drop_rig_open(r, NULL);
    for (int i = 0; i < 2; i++) {
        rig_socket_open(&other, i == 0 ? AF_INET : AF_UNIX);
        rig_send(r, 0, &other, 1000, false);
        rig_wait(r);
        if (i == 0)
            assert_true(rig_kernel_drops(other.fd) > 0);
        else
            assert_true(r->senders[0].refused > 0);
        (void)close(other.fd);
    }
    rig_collect(r, true);
    assert_int_equal(rig_sum(r, LOST, NULL), 0);
}

static void ipv6_counts_as_well(void **state)
{
    struct drop_rig *r = *state;

    if (access("/proc/net/if_inet6", F_OK) != 0)
        skip_row("this kernel has no IPv6");
    drop_rig_open(r, NULL);
    drop_feature.close(r->self);
    r->self = NULL;
    (void)close(r->udp.fd);
    rig_socket_open(&r->udp, AF_INET6);
    r->opts.drop.n_sockets = 0;
    assert_int_equal(drop_add_socket(&r->opts.drop, r->udp.fd), 0);
    assert_int_equal(drop_feature.open(&r->self, &r->env,
                                       &(struct loader_cause){0}),
                     0);
    rig_send(r, 0, &r->udp, 1000, false);
    rig_wait(r);
    rig_receive(r, &r->udp);
    rig_collect(r, true);
    assert_true(missing(r, 0) > 0);
    assert_int_equal(rig_lost_by(r, 0), missing(r, 0));
}

/* Not the buffer is full but what the cgroup may use: newer kernels say so at
 * another place, and may be queueing what another CPU sent. */
static void a_lack_of_memory_counts_as_well(void **state)
{
    struct drop_rig *r = *state;
    struct drop_report report;
    struct rig_socket starved;

    drop_rig_open(r, NULL);
    if (!rig_can_starve()) /* version 2 limits all memory, or none */
        skip_row("no memory controller that limits sockets alone");
    require_row(rig_starved_socket_open(r, &starved),
                "no memory cgroup can be made here");
    drop_feature.close(r->self);
    r->self = NULL;
    (void)close(r->udp.fd);
    r->udp = starved;
    r->opts.drop.n_sockets = 0;
    assert_int_equal(drop_add_socket(&r->opts.drop, r->udp.fd), 0);
    assert_int_equal(drop_feature.open(&r->self, &r->env,
                                       &(struct loader_cause){0}),
                     0);
    rig_send(r, 0, &r->udp, 1000, false);
    rig_wait(r);
    rig_receive(r, &r->udp);
    rig_collect(r, true);
    assert_true(missing(r, 0) > 0);
    assert_int_equal(rig_sum(r, LOST, NULL), missing(r, 0));
    drop_report(r->self, &report);
    assert_int_equal(report.unknown[DROP_UDP].packets, 0);
    assert_int_equal(report.n_top, 1);
    if (this_kernel().has_producers)
        assert_int_equal(strncmp(report.top[0].address, "127.0.0.1:", 10), 0);
    else
        assert_int_equal(report.top[0].pid, r->senders[0].pid);
    (void)printf("lost: %u\n", missing(r, 0));
}

/* More processes than the kernel's table has room for: each sends and ends. */
static void more_senders_than_room_are_counted_as_unknown(void **state)
{
    struct drop_rig *r = *state;
    const char payload[RIG_PAYLOAD_BYTES] = {0};
    const uint32_t n_senders = DROP_MAX_SENDERS + 50;
    struct drop_report report;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    uint32_t before;

    assert_true(fd >= 0);
    drop_rig_open(r, NULL);
    assert_int_equal(connect(fd, (struct sockaddr *)&r->udp.address,
                             r->udp.n_address),
                     0);
    rig_send(r, 0, &r->udp, 300, false); /* the buffer is full now */
    rig_wait(r);
    before = rig_kernel_drops(r->udp.fd);
    assert_true(before > 0);
    for (uint32_t i = 0; i < n_senders; i++) {
        pid_t pid = vfork();

        if (pid == 0)
            _exit(send(fd, payload, sizeof(payload), 0) > 0 ? 0 : 1);
        assert_true(pid > 0 && waitpid(pid, NULL, 0) == pid);
    }
    (void)close(fd);
    assert_int_equal(rig_kernel_drops(r->udp.fd) - before, n_senders);
    rig_collect(r, true);
    assert_int_equal(rig_sum(r, LOST, NULL), before + n_senders);
    drop_report(r->self, &report);
    assert_int_equal(report.lost[DROP_UDP].packets, before + n_senders);
    assert_int_equal(report.unknown[DROP_UDP].packets,
                     n_senders + 1 - DROP_MAX_SENDERS);
}

/* ---- Beside the tap ----------------------------------------------------- */

/* Count the records of the tap, and give the room back. */
static uint32_t read_ring(struct drop_rig *r, struct ring *ring)
{
    uint64_t pos = ring_begin(ring), next;
    const void *record;
    uint32_t n, n_records = 0;

    while (ring_at(ring, pos, &record, &n, &next) == RING_RECORD) {
        rig_count(r, (const struct tap_record *)record + 1);
        n_records++;
        pos = next;
    }
    ring_consumed(ring, pos);
    return n_records;
}

static void what_the_tap_takes_is_not_lost(void **state)
{
    struct drop_rig *r = *state;
    struct loader_cause cause = {0};
    struct tap_source sources[] = {{.source = 0, .header_bytes = 8},
                                   {.source = 1, .header_bytes = 0}};
    struct tap_opts opts = {.max_bytes = 8192,
                            .sources = sources,
                            .n_sources = 2};
    struct ring ring;
    struct tap tap;
    uint32_t taken;

    drop_rig_open(r, NULL);
    assert_int_equal(ring_create(&ring, 1 << 16, &cause), 0);
    ring.control->alive_until_ns = UINT64_MAX;
    assert_int_equal(tap_load(&tap, &ring, &opts, &cause), 0);
    assert_int_equal(tap_attach(&tap, 0, r->udp.fd), 0);
    assert_int_equal(tap_attach(&tap, 1, r->uds.fd), 0);

    /* The reader keeps up: the kernel counts drops, nobody lost anything. */
    rig_send(r, 0, &r->udp, 300, false);
    rig_wait(r);
    taken = read_ring(r, &ring);
    rig_send(r, 1, &r->uds, 300, false);
    rig_wait(r);
    taken += read_ring(r, &ring);
    rig_collect(r, false);
    assert_int_equal(taken, 600);
    assert_true(rig_kernel_drops(r->udp.fd) > 0);
    assert_int_equal(rig_sum(r, LOST, NULL), 0);

    /* It does not: first the ring is full, then the socket. */
    rig_send(r, 2, &r->udp, 5000, false);
    rig_wait(r);
    taken = read_ring(r, &ring);
    rig_send(r, 3, &r->uds, 5000, false);
    rig_wait(r);
    taken += read_ring(r, &ring);
    rig_receive(r, &r->udp);
    rig_receive(r, &r->uds);
    rig_collect(r, true);
    tap_close(&tap);
    ring_close(&ring, false);
    assert_true(taken > 100 && missing(r, 2) > 0 && r->senders[3].refused > 0);
    assert_int_equal(missing(r, 3), 0);
    assert_int_equal(rig_lost_by(r, 2), missing(r, 2));
    assert_int_equal(rig_lost_by(r, 3), r->senders[3].refused);
    assert_int_equal(rig_sum(r, LOST, NULL),
                     missing(r, 2) + r->senders[3].refused);
}

/* ---- Kernels that offer less --------------------------------------------- */

static void a_kernel_that_hides_the_packet_is_asked_twice(void **state)
{
    struct drop_rig *r = *state;
    struct drop_kernel k = this_kernel();

    if (k.n_free_args < 3 || k.reason_queue == DROP_NO_REASON)
        skip_row("this kernel has no drop reasons");
    k.n_fail_args = 2;
    drop_rig_open(r, &k);
    rig_send(r, 0, &r->udp, 2000, false);
    rig_send(r, 1, &r->udp, 300, false);
    rig_wait(r);
    rig_receive(r, &r->udp);
    rig_collect(r, true);
    assert_true(missing(r, 0) > 0);
    assert_int_equal(rig_lost_by(r, 0), missing(r, 0));
    assert_int_equal(rig_lost_by(r, 1), missing(r, 1));
    assert_int_equal(rig_sum(r, LOST, NULL), rig_kernel_drops(r->udp.fd));
}

static void without_reasons_the_total_is_still_exact(void **state)
{
    struct drop_rig *r = *state;
    struct drop_kernel k = this_kernel();
    struct drop_report report;

    k.n_fail_args = 2;
    k.reason_queue = DROP_NO_REASON;
    drop_rig_open(r, &k);
    rig_send(r, 0, &r->udp, 2000, false);
    rig_wait(r);
    rig_receive(r, &r->udp);
    rig_collect(r, true);
    assert_true(missing(r, 0) > 0);
    assert_int_equal(rig_lost_by(r, 0), 0);
    assert_int_equal(rig_sum(r, LOST, "transport:udp"), missing(r, 0));
    drop_report(r->self, &report);
    assert_int_equal(report.unknown[DROP_UDP].packets, missing(r, 0));
}

/* ---- For people --------------------------------------------------------- */

static void on_collected(void *arg, void *self)
{
    void **collected = arg;

    *collected = self;
}

static void the_report_names_the_worst_first(void **state)
{
    struct drop_rig *r = *state;
    struct drop_report report;
    void *collected = NULL;
    char line[1024], want[64];

    drop_rig_open(r, NULL);
    r->opts.drop.collected = on_collected;
    r->opts.drop.arg = &collected;
    rig_send(r, 0, &r->uds, 300, false);
    rig_wait(r);
    rig_send(r, 1, &r->uds, 3000, false);
    rig_wait(r);
    rig_collect(r, true);
    assert_ptr_equal(collected, r->self);
    drop_report(r->self, &report);
    assert_int_equal(report.n_top, 2);
    assert_int_equal(report.top[0].pid, r->senders[1].pid);
    assert_int_equal(report.top[0].transport, DROP_UDS);
    assert_int_equal(report.top[0].lost.packets, r->senders[1].refused);
    assert_int_equal(report.top[1].lost.packets, r->senders[0].refused);
    assert_string_equal(report.top[0].comm, "test_bpf_drop");
    assert_int_equal(report.lost[DROP_UDS].packets,
                     r->senders[0].refused + r->senders[1].refused);
    assert_int_equal(report.unknown[DROP_UDS].packets, 0);
    assert_true(drop_top(r->self, line, sizeof(line)));
    (void)snprintf(want, sizeof(want),
                   "transport=uds pid=%d comm=test_bpf_drop ",
                   r->senders[1].pid);
    assert_non_null(strstr(line, want));
    assert_false(drop_top(r->self, line, sizeof(line)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            each_sender_lost_what_it_is_said_to_have_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_told_is_not_told_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(after_the_last_collect_nothing_counts,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(losses_of_other_sockets_are_not_ours,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(ipv6_counts_as_well, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lack_of_memory_counts_as_well, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            more_senders_than_room_are_counted_as_unknown, setup, teardown),
        cmocka_unit_test_setup_teardown(what_the_tap_takes_is_not_lost, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            a_kernel_that_hides_the_packet_is_asked_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(
            without_reasons_the_total_is_still_exact, setup, teardown),
        cmocka_unit_test_setup_teardown(the_report_names_the_worst_first, setup,
                                        teardown),
    };

    rig_require_bpf();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
