/* SPDX-License-Identifier: Apache-2.0 */
/* The receipt: its keys, its arithmetic, and every kind of stderr. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/clock.h"
#include "agent/ledger.h"

#define MS UINT64_C(1000000)

static const uint32_t stage_ms[STAGE_DONE] = {
    [STAGE_LINGER] = 101, [STAGE_DRAIN] = 25,   [STAGE_CLOSE] = 1,
    [STAGE_ENCODE] = 3,   [STAGE_DELIVER] = 80, [STAGE_SAVE] = 0};

static const struct ledger_facts facts = {.reason = "SIGTERM",
                                          .exit_status = 3,
                                          .duration_ms = 212,
                                          .stage_ms = stage_ms,
                                          .worker_deaths = 2};

/* What ledger_collect() would have summed. */
static struct ledger sample(void)
{
    struct ledger l = {0};

    l.ingest.datagrams = 1000;
    l.ingest.bytes = 52000;
    l.ingest.received[TRANSPORT_UDP] = 3900;
    l.ingest.received[TRANSPORT_UDS] = 104;
    l.received = 4004;
    l.ingest.rejected[DSD_PARSE_TYPE] = 3;
    l.rejected = 3;
    l.ingest.filtered[FILTER_DISABLED] = 1;
    l.filtered = 1;
    l.ingest.aggregated = 4000;
    l.ingest.events = 5;
    l.ingest.checks = 6;
    l.ingest.events_rejected = 7;
    l.ingest.checks_rejected = 8;
    l.ingest.folded = 9;
    l.ingest.delivered_old = 10;
    l.ingest.kernel_drops[TRANSPORT_UDP] = 11;
    l.delivery.delivered = 3900;
    l.delivery.saved = 10;
    l.delivery.dropped[DROP_EVICTED] = 20;
    l.delivery.dropped[DROP_HTTP] = 50;
    l.delivery.dropped_http[403 - 100] = 20;
    l.delivery.dropped_http[413 - 100] = 30;
    l.dropped = 70;
    l.unencoded = 4;
    l.in_flight = 14;
    l.open = 6;
    l.delivery.points_delivered = 120;
    l.delivery.payloads_sent = 2;
    l.delivery.payloads_retried = 12;
    l.delivery.payloads_ambiguous = 13;
    l.delivery.events_delivered = 3;
    l.delivery.events_dropped = 2;
    l.delivery.checks_delivered = 6;
    l.left_for_successor = 15;
    return l;
}

static void the_receipt_has_these_keys(void **state)
{
    static const char expected[] =
        "{\"retriever\":\"" RETRIEVER_VERSION "\",\"receipt\":1,"
        "\"reason\":\"SIGTERM\",\"balanced\":true,\"exit\":3,"
        "\"duration_ms\":212,\"stages_ms\":{\"linger\":101,\"drain\":25,"
        "\"close\":1,\"encode\":3,\"deliver\":80,\"save\":0},"
        "\"received\":{\"datagrams\":1000,\"bytes\":52000,\"samples\":4004,"
        "\"events\":5,\"checks\":6,\"by_transport\":{\"udp\":3900,\"uds\":104,"
        "\"uds_stream\":0,\"tcp\":0}},\"rejected\":{\"parse_type\":3},"
        "\"filtered\":{\"disabled\":1},\"aggregated\":4000,"
        "\"delivered\":3900,\"saved\":10,\"dropped\":{\"evicted\":20,"
        "\"http_403\":20,\"http_413\":30},\"in_flight\":14,\"open\":6,"
        "\"points\":120,\"payloads\":{\"sent\":2,\"retried\":12,"
        "\"ambiguous\":13},\"events\":{\"delivered\":3,\"dropped\":2,"
        "\"rejected\":7},\"checks\":{\"delivered\":6,\"dropped\":0,"
        "\"rejected\":8},\"folded\":9,\"delivered_old\":10,"
        "\"kernel_drops\":{\"udp\":11},\"left_for_successor\":15,"
        "\"worker_deaths\":2,\"input\":{";
    struct ledger l = sample();
    struct buf out;

    (void)state;
    buf_init(&out, 65536);
    assert_int_equal(ledger_write_json(&l, &facts, &out), 0);
    assert_true(out.n > sizeof(expected) - 1);
    assert_memory_equal(out.data, expected, sizeof(expected) - 1);
    assert_memory_equal(out.data + out.n - 2, "}}", 2);
    assert_null(memchr(out.data, '\n', out.n));
    buf_fini(&out);
    buf_init(&out, 100);
    assert_int_equal(ledger_write_json(&l, &facts, &out), -ENOMEM);
    buf_fini(&out);
}

static void what_is_left_at_the_end_is_late(void **state)
{
    struct ledger l = sample();

    (void)state;
    ledger_finish(&l);
    assert_true(ledger_balances(&l));
    assert_int_equal(l.delivery.dropped[DROP_DEADLINE], 20);
    assert_int_equal(l.dropped, 90);
    assert_int_equal(l.open + l.in_flight + l.unencoded, 0);
}

static void one_sample_more_or_less_shows(void **state)
{
    struct ledger l = sample();

    (void)state;
    assert_true(ledger_balances(&l));
    l.received++;
    assert_false(ledger_balances(&l));
    l.ingest.aggregated++;
    assert_false(ledger_balances(&l));
    l.open++;
    assert_true(ledger_balances(&l));
    l.delivery.delivered--;
    assert_false(ledger_balances(&l));
}

static void the_exit_status_speaks_of_the_stop_alone(void **state)
{
    struct ledger l = sample();

    (void)state;
    assert_int_equal(ledger_exit_status(&l, 70), 3); /* open, in flight */
    ledger_finish(&l);
    assert_int_equal(ledger_exit_status(&l, 70), 3);
    assert_int_equal(ledger_exit_status(&l, 90), 0);
    l.delivery.delivered++;
    assert_int_equal(ledger_exit_status(&l, 90), 4);
}

/* ---- stderr ------------------------------------------------------------- */

static uint64_t now_ns(void)
{
    return clock_mono_ns(&clock_real);
}

/* Emit with @fd as stderr; returns how long it took. SIGPIPE at its default: it
 * would end this program. */
static uint64_t emit_to(int fd, int run_dir, uint64_t budget_ns)
{
    struct ledger l = sample();
    int was = dup(STDERR_FILENO);
    uint64_t from_ns = now_ns();

    assert_true(was >= 0);
    (void)fflush(stderr);
    if (fd >= 0)
        assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    else
        close(STDERR_FILENO);
    ledger_emit_receipt(&l, &facts, run_dir, from_ns + budget_ns);
    assert_int_equal(dup2(was, STDERR_FILENO), STDERR_FILENO);
    close(was);
    return now_ns() - from_ns;
}

static void assert_is_receipt(const char *text, size_t n)
{
    assert_true(n > 100);
    assert_memory_equal(text, "{\"retriever\":", 13);
    assert_memory_equal(text + n - 3, "}}\n", 3);
}

static void fill(int fd)
{
    char bytes[4096] = {0};
    int flags = fcntl(fd, F_GETFL);

    assert_int_equal(fcntl(fd, F_SETFL, flags | O_NONBLOCK), 0);
    while (write(fd, bytes, sizeof(bytes)) > 0)
        ;
    while (write(fd, bytes, 1) > 0)
        ;
    assert_int_equal(fcntl(fd, F_SETFL, flags), 0);
}

static void a_pipe_gets_the_whole_line(void **state)
{
    char text[8192];
    int p[2];

    (void)state;
    assert_int_equal(pipe(p), 0);
    emit_to(p[1], -1, 5000 * MS);
    assert_is_receipt(text, (size_t)read(p[0], text, sizeof(text)));
    assert_int_equal(fcntl(p[1], F_GETFL) & O_NONBLOCK, 0); /* not ours */
    close(p[0]);
    close(p[1]);
}

static void a_closed_pipe_costs_nothing(void **state)
{
    sigset_t pending;
    int p[2];

    (void)state;
    assert_int_equal(pipe(p), 0);
    close(p[0]);
    assert_true(emit_to(p[1], -1, 60000 * MS) < 10000 * MS);
    assert_int_equal(sigpending(&pending), 0);
    assert_int_equal(sigismember(&pending, SIGPIPE), 0);
    close(p[1]);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p), 0);
    close(p[0]);
    assert_true(emit_to(p[1], -1, 60000 * MS) < 10000 * MS);
    close(p[1]);
    assert_true(emit_to(-1, -1, 60000 * MS) < 10000 * MS);
}

static void a_full_pipe_is_waited_for_until_the_deadline(void **state)
{
    uint64_t ns;
    int p[2];

    (void)state;
    assert_int_equal(pipe(p), 0);
    fill(p[1]);
    ns = emit_to(p[1], -1, 150 * MS);
    assert_in_range(ns, 150 * MS, 5000 * MS);
    assert_true(emit_to(p[1], -1, 0) < 5000 * MS); /* over already */
    close(p[0]);
    close(p[1]);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p), 0);
    fill(p[1]);
    ns = emit_to(p[1], -1, 150 * MS);
    assert_in_range(ns, 150 * MS, 5000 * MS);
    close(p[0]);
    close(p[1]);
}

struct slow_reader {
    int fd;
    char text[256 * 1024];
    size_t n;
};

static void *read_slowly(void *arg)
{
    struct slow_reader *r = arg;
    ssize_t n;

    while ((n = read(r->fd, r->text + r->n, 97)) > 0)
        r->n += (size_t)n;
    return NULL;
}

static void a_slow_reader_of_a_full_pipe_gets_all(void **state)
{
    struct slow_reader *r = calloc(1, sizeof(*r));
    pthread_t thread;
    char *line;
    int p[2];

    (void)state;
    assert_int_equal(pipe(p), 0);
    fill(p[1]);
    r->fd = p[0];
    assert_int_equal(pthread_create(&thread, NULL, read_slowly, r), 0);
    emit_to(p[1], -1, 20000 * MS);
    close(p[1]);
    assert_int_equal(pthread_join(thread, NULL), 0);
    line = memchr(r->text, '{', r->n);
    assert_non_null(line);
    assert_is_receipt(line, r->n - (size_t)(line - r->text));
    close(p[0]);
    free(r);
}

static void a_file_and_run_path_get_the_same_line(void **state)
{
    char dir[] = "/tmp/retriever-ledger-XXXXXX";
    char a[8192];
    char b[8192];
    struct stat st;
    int run_dir, fd, copy;
    ssize_t n;

    (void)state;
    assert_non_null(mkdtemp(dir));
    run_dir = open(dir, O_RDONLY | O_DIRECTORY);
    fd = openat(run_dir, "stderr", O_RDWR | O_CREAT | O_APPEND, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "before\n", 7), 7);
    emit_to(fd, run_dir, 5000 * MS);
    n = pread(fd, a, sizeof(a), 7);
    assert_is_receipt(a, (size_t)n);
    copy = openat(run_dir, "receipt.json", O_RDONLY);
    assert_true(copy >= 0);
    assert_int_equal(fstat(copy, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(read(copy, b, sizeof(b)), n);
    assert_memory_equal(a, b, (size_t)n);
    assert_int_equal(faccessat(run_dir, "receipt.json.new", F_OK, 0), -1);
    close(copy);
    close(fd);
    assert_int_equal(unlinkat(run_dir, "receipt.json", 0), 0);
    assert_int_equal(unlinkat(run_dir, "stderr", 0), 0);
    close(run_dir);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_receipt_has_these_keys),
        cmocka_unit_test(what_is_left_at_the_end_is_late),
        cmocka_unit_test(one_sample_more_or_less_shows),
        cmocka_unit_test(the_exit_status_speaks_of_the_stop_alone),
        cmocka_unit_test(a_pipe_gets_the_whole_line),
        cmocka_unit_test(a_closed_pipe_costs_nothing),
        cmocka_unit_test(a_full_pipe_is_waited_for_until_the_deadline),
        cmocka_unit_test(a_slow_reader_of_a_full_pipe_gets_all),
        cmocka_unit_test(a_file_and_run_path_get_the_same_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
