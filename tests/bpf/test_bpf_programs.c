/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What programs cost, of one whose runs are known: the tap runs once per datagram.
 * The feature's time is the test's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "bpf/features.h"
#include "bpf/tap.h"
#include "tests/bpf/require.h"

#define RING_BYTES (1u << 16)
#define SECOND UINT64_C(1000000000)
#define BEGIN (100 * SECOND)

static struct ring ring;
static struct tap taps[2];
static int pairs[2][2];
static struct feature_opts opts;
static const struct feature_env env = {.opts = &opts};
static void *self;
static struct lines lines;
static char told[LINES_PACKET_BYTES + 1];

static void take(void *arg, const char *packet, size_t n)
{
    size_t at = strlen(told);

    (void)arg;
    assert_true(at + n < sizeof(told));
    memcpy(told + at, packet, n);
    told[at + n] = '\0';
}

static void load(int i)
{
    const struct tap_source source = {0, 7, 0};
    const struct tap_opts tap_opts = {.max_bytes = 100,
                                      .sources = &source,
                                      .n_sources = 1};
    struct loader_cause cause = {0};

    assert_int_equal(tap_load(&taps[i], &ring, &tap_opts, &cause), 0);
    assert_int_equal(tap_attach(&taps[i], 0, pairs[i][0]), 0);
}

static int setup(void **state)
{
    struct loader_cause cause = {0};

    (void)state;
    assert_int_equal(ring_create(&ring, RING_BYTES, &cause), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0,
                                    pairs[i]),
                         0);
        load(i);
    }
    opts.programs.on = true;
    assert_int_equal(programs_feature.open(&self, &env, &cause), 0);
    lines_init(&lines, take, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    programs_feature.close(self);
    for (int i = 0; i < 2; i++) {
        tap_close(&taps[i]);
        (void)close(pairs[i][0]);
        (void)close(pairs[i][1]);
    }
    ring_close(&ring, false);
    return 0;
}

/* Full or not: the program runs. */
static void send_to(int i, unsigned n)
{
    char c;

    for (unsigned k = 0; k < n; k++) {
        (void)send(pairs[i][1], "x", 1, 0);
        (void)recv(pairs[i][0], &c, 1, 0);
    }
}

static const char *collect(void)
{
    told[0] = '\0';
    programs_feature.collect(self, &lines, false);
    lines_flush(&lines);
    return told;
}

static void runs_of_one_second_are_told(void **state)
{
    const char *ns;
    double value;

    (void)state;
    send_to(0, 50);
    assert_true(programs_feature.due(self, BEGIN) == BEGIN + SECOND);
    send_to(0, 300);
    send_to(1, 200); /* of the same name */
    assert_string_equal(collect(), "");
    assert_true(programs_feature.due(self, BEGIN + SECOND - 1) ==
                BEGIN + SECOND);
    assert_true(programs_feature.due(self, BEGIN + SECOND) ==
                BEGIN + 60 * SECOND);
    send_to(0, 50);
    assert_non_null(
        strstr(collect(), "retriever.ebpf.prog.run_cnt:500|g|#program:tap\n"));
    ns = strstr(told, "retriever.ebpf.prog.run_ns:");
    assert_non_null(ns);
    assert_int_equal(sscanf(ns, "retriever.ebpf.prog.run_ns:%lf|g", &value), 1);
    assert_true(value > 500 && value < 1e9);
    assert_string_equal(collect(), ""); /* once */
}

/* Late by half a second, so what was counted is of one and a half. */
static void the_next_minute_and_a_late_end_count_right(void **state)
{
    (void)state;
    (void)programs_feature.due(self, BEGIN);
    (void)programs_feature.due(self, BEGIN + SECOND);
    (void)collect();
    assert_true(programs_feature.due(self, BEGIN + 59 * SECOND) ==
                BEGIN + 60 * SECOND);
    assert_true(programs_feature.due(self, BEGIN + 60 * SECOND) ==
                BEGIN + 61 * SECOND);
    send_to(1, 300);
    (void)programs_feature.due(self, BEGIN + 61 * SECOND + SECOND / 2);
    assert_non_null(
        strstr(collect(), "retriever.ebpf.prog.run_cnt:200|g|#program:tap\n"));
}

static void a_program_that_goes_meanwhile_is_left_out(void **state)
{
    (void)state;
    (void)programs_feature.due(self, BEGIN);
    send_to(0, 100);
    send_to(1, 10);
    (void)tap_detach(pairs[0][0]);
    tap_close(&taps[0]);
    (void)programs_feature.due(self, BEGIN + SECOND);
    assert_non_null(
        strstr(collect(), "retriever.ebpf.prog.run_cnt:10|g|#program:tap\n"));
}

/* Counted from its first run, as the kernel does not count at other times. */
static void a_program_that_comes_meanwhile_is_told(void **state)
{
    (void)state;
    (void)tap_detach(pairs[1][0]);
    tap_close(&taps[1]);
    (void)programs_feature.due(self, BEGIN);
    load(1);
    send_to(0, 100);
    send_to(1, 20);
    (void)programs_feature.due(self, BEGIN + SECOND);
    assert_non_null(
        strstr(collect(), "retriever.ebpf.prog.run_cnt:120|g|#program:tap\n"));
}

/* Without a descriptor our own cannot be listed: what ran before is then not known. */
static void a_second_whose_beginning_was_not_seen_is_not_told(void **state)
{
    struct rlimit before, none;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    (void)programs_feature.due(self, BEGIN);
    send_to(0, 500);
    (void)programs_feature.due(self, BEGIN + SECOND);
    (void)collect();
    none = before;
    none.rlim_cur = (rlim_t)dup(0) + 1; /* for the counting itself */
    (void)close((int)none.rlim_cur - 1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    (void)programs_feature.due(self, BEGIN + 60 * SECOND);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    send_to(0, 10);
    (void)programs_feature.due(self, BEGIN + 61 * SECOND);
    assert_string_equal(collect(), "");
    (void)programs_feature.due(self, BEGIN + 120 * SECOND);
    send_to(0, 10);
    (void)programs_feature.due(self, BEGIN + 121 * SECOND);
    assert_non_null(
        strstr(collect(), "retriever.ebpf.prog.run_cnt:10|g|#program:tap\n"));
}

static void a_stop_ends_the_counting(void **state)
{
    (void)state;
    (void)programs_feature.due(self, BEGIN);
    send_to(0, 10);
    programs_feature.collect(self, &lines, true);
    (void)programs_feature.due(self, BEGIN + SECOND);
    assert_string_equal(collect(), "");
}

static void off_it_says_so(void **state)
{
    struct loader_cause cause = {0};
    void *none = NULL;

    (void)state;
    opts.programs.on = false;
    assert_int_equal(programs_feature.open(&none, &env, &cause),
                     LOADER_REFUSED);
    assert_null(none);
    assert_string_equal(cause.reason, LOADER_DISABLED);
}

int main(void)
{
#define ROW(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        ROW(runs_of_one_second_are_told),
        ROW(the_next_minute_and_a_late_end_count_right),
        ROW(a_program_that_goes_meanwhile_is_left_out),
        ROW(a_program_that_comes_meanwhile_is_told),
        ROW(a_second_whose_beginning_was_not_seen_is_not_told),
        ROW(a_stop_ends_the_counting),
        ROW(off_it_says_so),
    };

    require_bpf();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
