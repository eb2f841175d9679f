/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tap and its ring in the real kernel: what goes where, whole, and who is woken.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/clock.h"
#include "bpf/tap.h"
#include "tests/bpf/require.h"

#define RING_BYTES (1u << 16)
#define UDP_SOURCE 3 /* what the test calls them */
#define UNIX_SOURCE 5
#define UDP_ID 1003u /* and what records say */
#define UNIX_ID 1005u
#define LONGEST 9000u

struct fixture {
    struct ring ring;
    struct tap tap;
    int udp, to_udp; /* a pair: ours, a client's */
    int gram, to_gram;
    uint64_t pos;
};

static void open_udp(struct fixture *f)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    int buffer = 1 << 20;

    f->udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    f->to_udp = socket(AF_INET, SOCK_DGRAM, 0);
    assert_int_equal(bind(f->udp, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(getsockname(f->udp, (struct sockaddr *)&a, &n), 0);
    assert_int_equal(connect(f->to_udp, (struct sockaddr *)&a, n), 0);
    (void)setsockopt(f->to_udp, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
}

static int setup(void **state)
{
    static struct fixture f;
    const struct tap_source sources[] = {{UDP_SOURCE, UDP_ID, 8},
                                         {UNIX_SOURCE, UNIX_ID, 0}};
    const struct tap_opts opts = {.max_bytes = LONGEST,
                                  .sources = sources,
                                  .n_sources = 2};
    struct loader_cause cause = {0};
    int pair[2];

    f.pos = 0;
    assert_int_equal(ring_create(&f.ring, RING_BYTES, &cause), 0);
    f.ring.control->alive_until_ns = UINT64_MAX; /* unless the test says else */
    assert_int_equal(tap_load(&f.tap, &f.ring, &opts, &cause), 0);
    open_udp(&f);
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair),
                     0);
    f.gram = pair[0];
    f.to_gram = pair[1];
    assert_int_equal(tap_attach(&f.tap, UDP_SOURCE, f.udp), 0);
    assert_int_equal(tap_attach(&f.tap, UNIX_SOURCE, f.gram), 0);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    close(f->udp);
    close(f->to_udp);
    close(f->gram);
    close(f->to_gram);
    tap_close(&f->tap);
    ring_close(&f->ring, false);
    return 0;
}

/* The next record is @n bytes of @bytes that came to that socket. */
static void assert_in_ring(struct fixture *f, uint32_t socket_id,
                           const void *bytes, uint32_t n)
{
    const struct tap_record *r;
    const void *record = NULL;
    uint64_t next;
    uint32_t len;

    assert_int_equal(ring_at(&f->ring, f->pos, &record, &len, &next),
                     RING_RECORD);
    r = record;
    assert_true(len >= sizeof(*r) + n);
    assert_int_equal(r->socket, socket_id);
    assert_int_equal(r->n_bytes, n);
    assert_memory_equal(r + 1, bytes, n);
    f->pos = next;
    ring_consumed(&f->ring, next);
}

static void assert_ring_empty(struct fixture *f)
{
    const void *record = NULL;
    uint64_t next;
    uint32_t len;

    assert_int_equal(ring_at(&f->ring, f->pos, &record, &len, &next),
                     RING_EMPTY);
    f->pos = next;
}

static void assert_in_socket(int fd, const void *bytes, ssize_t n)
{
    static char got[LONGEST + 1];

    assert_int_equal(recv(fd, got, sizeof(got), 0), n);
    assert_memory_equal(got, bytes, (size_t)n);
}

static void assert_socket_empty(int fd)
{
    char byte;

    assert_int_equal(recv(fd, &byte, 1, 0), -1);
    assert_int_equal(errno, EAGAIN);
}

static bool is_woken(const struct fixture *f)
{
    struct pollfd p = {.fd = f->ring.wait_fd, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

/* ---- What goes where ----------------------------------------------------- */

static void each_length_arrives_whole(void **state)
{
    struct fixture *f = *state;
    static unsigned char bytes[LONGEST];

    for (uint32_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(i * 7 + i / 251);
    for (uint32_t n = 1; n <= TAP_MAX_BYTES; n++) {
        assert_int_equal(send(f->to_gram, bytes, n, 0), n);
        assert_in_ring(f, UNIX_ID, bytes, n);
        assert_int_equal(send(f->to_udp, bytes + 1, n - 1, 0), n - 1);
        if (n > 1)
            assert_in_ring(f, UDP_ID, bytes + 1, n - 1);
        else
            assert_in_socket(f->udp, bytes, 0);
    }
    assert_socket_empty(f->gram);
    assert_socket_empty(f->udp);
}

static void what_is_long_or_empty_goes_to_the_socket(void **state)
{
    struct fixture *f = *state;
    static char bytes[LONGEST];

    assert_int_equal(send(f->to_gram, bytes, 0, 0), 0);
    assert_in_socket(f->gram, bytes, 0);
    assert_int_equal(send(f->to_gram, bytes, TAP_MAX_BYTES + 1, 0),
                     TAP_MAX_BYTES + 1);
    assert_in_socket(f->gram, bytes, TAP_MAX_BYTES + 1);
    assert_int_equal(send(f->to_udp, bytes, LONGEST, 0), LONGEST);
    assert_in_socket(f->udp, bytes, LONGEST);
    assert_ring_empty(f);
}

static void a_full_ring_leaves_the_rest_to_the_socket(void **state)
{
    struct fixture *f = *state;
    char bytes[1000];
    unsigned n_ring = 0;

    memset(bytes, 'r', sizeof(bytes));
    do {
        assert_int_equal(send(f->to_udp, bytes, sizeof(bytes), 0),
                         sizeof(bytes));
        n_ring++;
    } while (f->ring.control->n_full == 0 && n_ring < 1000);
    n_ring--;
    assert_in_range(n_ring, RING_BYTES / 1024 - 2, RING_BYTES / 1024);
    assert_in_socket(f->udp, bytes, sizeof(bytes));
    for (unsigned i = 0; i < n_ring; i++)
        assert_in_ring(f, UDP_ID, bytes, sizeof(bytes));
    assert_ring_empty(f);
    assert_int_equal(send(f->to_udp, bytes, 10, 0), 10);
    assert_in_ring(f, UDP_ID, bytes, 10);
}

static void the_sender_is_known(void **state)
{
    struct fixture *f = *state;
    const struct tap_record *r;
    const void *record = NULL;
    uint64_t next;
    uint32_t len;

    assert_int_equal(send(f->to_gram, "x", 1, 0), 1);
    assert_int_equal(ring_at(&f->ring, f->pos, &record, &len, &next),
                     RING_RECORD);
    r = record;
    assert_int_equal(r->tgid, getpid());
}

/* ---- A reader that is not there ------------------------------------------ */

static void a_dead_reader_is_passed_by(void **state)
{
    struct fixture *f = *state;
    uint64_t now_ns = clock_mono_ns(&clock_real);

    ring_alive(&f->ring, now_ns, false);
    assert_int_equal(send(f->to_gram, "a", 1, 0), 1);
    assert_in_ring(f, UNIX_ID, "a", 1);
    ring_alive(&f->ring, now_ns - 2 * RING_ALIVE_NS, false);
    assert_int_equal(send(f->to_gram, "b", 1, 0), 1);
    assert_in_socket(f->gram, "b", 1);
    assert_int_equal(f->ring.control->n_bypass, 1);
    assert_ring_empty(f);
}

static void who_wakes_a_sleeping_reader_grants_it_a_while(void **state)
{
    struct fixture *f = *state;
    uint64_t now_ns = clock_mono_ns(&clock_real);
    uint64_t until_ns;

    ring_alive(&f->ring, now_ns, true);
    assert_int_equal(send(f->to_gram, "a", 1, 0), 1);
    assert_in_ring(f, UNIX_ID, "a", 1);
    until_ns = f->ring.control->alive_until_ns;
    /* The program's clock is coarse: up to a tick of 10 ms behind. */
    assert_true(until_ns + 10000000 >= now_ns + RING_ALIVE_NS);
    assert_true(until_ns <= clock_mono_ns(&clock_real) + RING_ALIVE_NS);
}

static void told_to_stop_it_takes_nothing(void **state)
{
    struct fixture *f = *state;

    f->ring.control->off = 1;
    assert_int_equal(send(f->to_gram, "a", 1, 0), 1);
    assert_in_socket(f->gram, "a", 1);
}

static void detached_the_socket_is_as_before(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(tap_detach(f->gram), 0);
    assert_int_equal(tap_detach(f->udp), 0);
    assert_int_equal(tap_detach(f->udp), 0); /* nothing there: fine */
    assert_int_equal(send(f->to_gram, "a", 1, 0), 1);
    assert_in_socket(f->gram, "a", 1);
    assert_int_equal(send(f->to_udp, "b", 1, 0), 1);
    assert_in_socket(f->udp, "b", 1);
    assert_ring_empty(f);
}

static void another_life_reads_on_in_the_same_ring(void **state)
{
    struct fixture *f = *state;
    struct ring other;

    assert_int_equal(send(f->to_gram, "a", 1, 0), 1);
    assert_int_equal(send(f->to_gram, "b", 1, 0), 1);
    assert_in_ring(f, UNIX_ID, "a", 1);
    assert_int_equal(ring_open(&other, f->ring.ring_fd, f->ring.control_fd), 0);
    ring_close(&f->ring, true);
    f->ring = other;
    assert_int_equal(ring_begin(&f->ring), f->pos);
    assert_true(is_woken(f)); /* there is something already */
    assert_in_ring(f, UNIX_ID, "b", 1);
}

/* ---- Who is woken -------------------------------------------------------- */

static void asleep_the_first_record_wakes(void **state)
{
    struct fixture *f = *state;

    assert_false(is_woken(f));
    assert_int_equal(send(f->to_gram, "a", 1, 0), 1);
    assert_true(is_woken(f));
    ring_awake(&f->ring);
    assert_false(is_woken(f));
    assert_in_ring(f, UNIX_ID, "a", 1);
    assert_int_equal(send(f->to_gram, "b", 1, 0), 1);
    assert_true(is_woken(f));
}

static void polled_it_is_woken_once_when_much_waits(void **state)
{
    struct fixture *f = *state;
    char bytes[1000] = {0};
    unsigned n = 0;

    f->ring.control->mode = RING_POLLED;
    while (!is_woken(f) && n < 100) {
        assert_int_equal(send(f->to_gram, bytes, sizeof(bytes), 0),
                         sizeof(bytes));
        n++;
    }
    assert_int_equal(n, RING_BYTES / 4 / 1024);
    ring_awake(&f->ring);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(send(f->to_gram, bytes, sizeof(bytes), 0),
                         sizeof(bytes));
        assert_false(is_woken(f));
    }
    assert_int_equal(ring_rest(&f->ring, 1, true, 0), RING_TIMER);
    assert_int_equal(send(f->to_gram, bytes, sizeof(bytes), 0), sizeof(bytes));
    assert_true(is_woken(f)); /* the word was cleared */
}

/* From sleep to load and back, in the order of a reader's calls. */
static void the_way_of_waiting_follows_the_load(void **state)
{
    struct fixture *f = *state;
    struct ring *r = &f->ring;
    const uint64_t ms = 1000000;

    assert_int_equal(ring_rest(r, 0, false, 0), RING_SLEEP);
    /* A few, seldom: each wakes. */
    assert_int_equal(ring_rest(r, 3, true, 100 * ms), RING_SLEEP);
    assert_int_equal(ring_rest(r, 3, true, 200 * ms), RING_SLEEP);
    /* Often: by the timer. */
    assert_int_equal(ring_rest(r, 3, true, 205 * ms), RING_TIMER);
    assert_int_equal(r->control->mode, RING_POLLED);
    assert_int_equal(ring_rest(r, 50, false, 215 * ms), RING_TIMER);
    assert_int_equal(ring_rest(r, 0, false, 225 * ms), RING_TIMER);
    assert_int_equal(ring_rest(r, 0, false, 235 * ms), RING_TIMER);
    assert_int_equal(r->control->mode, RING_POLLED);
    /* Quiet thrice: asleep, after one more look. */
    assert_int_equal(ring_rest(r, 0, false, 245 * ms), RING_TIMER);
    assert_int_equal(r->control->mode, RING_WAKE);
    assert_int_equal(ring_rest(r, 0, false, 255 * ms), RING_SLEEP);
    /* What came between the drain and the sleep is not slept over. */
    assert_int_equal(send(f->to_gram, "a", 1, 0), 1);
    assert_int_equal(ring_rest(r, 0, false, 265 * ms), RING_AGAIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        TEST(each_length_arrives_whole),
        TEST(what_is_long_or_empty_goes_to_the_socket),
        TEST(a_full_ring_leaves_the_rest_to_the_socket),
        TEST(the_sender_is_known),
        TEST(a_dead_reader_is_passed_by),
        TEST(who_wakes_a_sleeping_reader_grants_it_a_while),
        TEST(told_to_stop_it_takes_nothing),
        TEST(detached_the_socket_is_as_before),
        TEST(another_life_reads_on_in_the_same_ring),
        TEST(asleep_the_first_record_wakes),
        TEST(polled_it_is_woken_once_when_much_waits),
        TEST(the_way_of_waiting_follows_the_load),
    };

    require_bpf();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
