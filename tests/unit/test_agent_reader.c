/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader beside a loop, as in the worker: what it takes, refuses and counts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/support/reader_rig.h"

static void send_frame(int fd, const char *text, uint32_t says)
{
    unsigned char frame[2048] = {(unsigned char)says,
                                 (unsigned char)(says >> 8),
                                 (unsigned char)(says >> 16),
                                 (unsigned char)(says >> 24)};
    size_t n = strlen(text);

    memcpy(frame + 4, text, n);
    assert_int_equal(send(fd, frame, n + 4, MSG_NOSIGNAL), n + 4);
}

/* The other side has closed: there is nothing to wait for but that. */
static void assert_closed(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char c;

    assert_int_equal(poll(&p, 1, 10000), 1);
    assert_true(recv(fd, &c, 1, 0) <= 0);
    close(fd);
}

static void datagrams_and_frames_are_counted(void **state)
{
    struct reader_rig *f = *state;
    int gram = reader_rig_connect(f->gram, SOCK_DGRAM);
    int stream = reader_rig_connect(f->stream, SOCK_STREAM);

    assert_int_equal(send(gram, "a:1|c\nb:1|c", 11, 0), 11);
    send_frame(stream, "a:1|c\nbad\n", 10);
    close(gram);
    close(stream);
    reader_rig_end(f);
    assert_int_equal(f->counts.received[TRANSPORT_UDS], 2);
    assert_int_equal(f->counts.received[TRANSPORT_UDS_STREAM], 2);
    assert_int_equal(f->counts.aggregated, 3);
    assert_int_equal(f->counts.datagrams, 2);
    assert_int_equal(f->n_left, 0);
}

/* What is sent to a resting reader stays in the kernel, and nothing changes; a
 * flush asked of it finds everything closed. */
static void a_resting_reader_leaves_everything_in_the_kernel(void **state)
{
    struct reader_rig *f = *state;
    int gram = reader_rig_connect(f->gram, SOCK_DGRAM);
    int stream = reader_rig_connect(f->stream, SOCK_STREAM);
    struct reader_view before, after;

    assert_int_equal(send(gram, "a:1|c", 5, 0), 5);
    send_frame(stream, "a:2|c", 5);
    reader_order(f->reader, READER_CLOSE_ALL, 7); /* takes all of it */
    while (f->closed_token != 7)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    reader_rig_rest(f);
    reader_view(f->reader, &before);
    assert_int_equal(before.counts.aggregated, 2);
    assert_int_equal(before.agg.open_samples, 0);
    assert_int_equal(f->n_parts, before.closed_seq);
    assert_int_equal(send(gram, "b:1|c", 5, 0), 5);
    send_frame(stream, "b:2|c", 5);
    close(reader_rig_connect(f->stream, SOCK_STREAM));
    reader_order(f->reader, READER_CLOSE_ALL, 9);
    while (f->closed_token != 9)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    reader_rig_rest(f);
    reader_view(f->reader, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    for (int i = GRAM; i <= STREAM; i++) {
        struct pollfd p = {.fd = f->s.entries[i].fd, .events = POLLIN};

        assert_int_equal(poll(&p, 1, 0), 1);
    }

    reader_order(f->reader, READER_RESUME, 0);
    close(gram);
    close(stream);
    reader_rig_end(f);
    assert_int_equal(f->counts.aggregated, 4);
    assert_int_equal(f->open_samples, 2);
}

static void a_cut_datagram_keeps_its_whole_lines(void **state)
{
    struct reader_rig *f = *state;
    int gram = reader_rig_connect(f->gram, SOCK_DGRAM);
    char text[BUFFER + 100];

    memset(text, 'x', sizeof(text));
    memcpy(text, "a:1|c\n", 6);
    assert_int_equal(send(gram, text, sizeof(text), 0), sizeof(text));
    close(gram);
    reader_rig_end(f);
    assert_int_equal(f->counts.aggregated, 1);
    assert_int_equal(f->counts.truncated_datagrams, 1);
    assert_int_equal(f->counts.rejected[DSD_TRUNCATED], 1);
}

static void a_length_that_is_not_allowed_ends_its_connection(void **state)
{
    struct reader_rig *f = *state;
    static const uint32_t bad[] = {0, MAX_FRAME + 1, 779381099u};
    int good = reader_rig_connect(f->stream, SOCK_STREAM);

    for (unsigned i = 0; i < 3; i++) {
        int fd = reader_rig_connect(f->stream, SOCK_STREAM);

        send_frame(fd, "a:1|c", 5);
        send_frame(fd, "", bad[i]);
        assert_closed(fd);
    }
    send_frame(good, "b:1|c", 5);
    close(good);
    reader_rig_end(f);
    assert_int_equal(f->counts.stream_oversize, 3);
    assert_int_equal(f->counts.aggregated, 4);
    assert_int_equal(f->counts.rejected[DSD_TRUNCATED], 0);
}

static void the_longest_frame_is_allowed(void **state)
{
    struct reader_rig *f = *state;
    int fd = reader_rig_connect(f->stream, SOCK_STREAM);
    char text[MAX_FRAME + 1];

    memset(text, '\n', MAX_FRAME);
    memcpy(text, "a:1|c", 5);
    text[MAX_FRAME] = '\0';
    send_frame(fd, text, MAX_FRAME);
    close(fd);
    reader_rig_end(f);
    assert_int_equal(f->counts.aggregated, 1);
    assert_int_equal(f->counts.bytes, MAX_FRAME);
}

static void a_frame_that_does_not_end_is_counted(void **state)
{
    struct reader_rig *f = *state;
    int fd = reader_rig_connect(f->stream, SOCK_STREAM);
    int open_end = reader_rig_connect(f->stream, SOCK_STREAM);

    send_frame(fd, "a:1|c", 5);
    send_frame(fd, "b:1|", 5);
    close(fd);
    send_frame(open_end, "c:", 5); /* still open when the drain ends it */
    reader_rig_end(f);
    close(open_end);
    assert_int_equal(f->counts.aggregated, 1);
    assert_int_equal(f->counts.rejected[DSD_TRUNCATED], 2);
    assert_int_equal(f->counts.received[TRANSPORT_UDS_STREAM], 3);
}

static void connections_beyond_the_limit_are_refused(void **state)
{
    struct reader_rig *f = *state;
    int fds[N_CONNS];
    int fd;

    for (unsigned i = 0; i < N_CONNS; i++) {
        fds[i] = reader_rig_connect(f->stream, SOCK_STREAM);
        send_frame(fds[i], "a:1|c", 5);
    }
    assert_closed(reader_rig_connect(f->stream, SOCK_STREAM));
    /* One ends: its place is free again. Until the reader has seen the end a
     * new one may still be refused. */
    close(fds[0]);
    for (;;) {
        fd = reader_rig_connect(f->stream, SOCK_STREAM);
        send_frame(fd, "b:1|c", 5);
        reader_order(f->reader, READER_CLOSE_ALL, 1);
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
        if (recv(fd, &(char){0}, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN)
            break;
        close(fd);
    }
    close(fd);
    for (unsigned i = 1; i < N_CONNS; i++)
        close(fds[i]);
    reader_rig_end(f);
    assert_true(f->counts.stream_refused >= 1);
    assert_int_equal(f->counts.aggregated, N_CONNS + 1);
}

static void closing_takes_what_was_sent_before_the_order(void **state)
{
    struct reader_rig *f = *state;
    int gram = reader_rig_connect(f->gram, SOCK_DGRAM);

    for (uint64_t round = 1; round <= 50; round++) {
        assert_int_equal(send(gram, "a:1|c", 5, 0), 5);
        reader_order(f->reader, READER_CLOSE_ALL, round);
        while (f->closed_token != round)
            (void)uv_run(&f->loop, UV_RUN_DEFAULT);
        assert_true(f->n_parts_at_close >= round); /* parts come first */
        reader_order(f->reader, READER_RELEASE, f->n_parts);
    }
    close(gram);
    reader_rig_end(f);
    assert_int_equal(f->counts.aggregated, 50);
    assert_int_equal(f->open_samples, 0);
}

static void after_the_drain_senders_are_told(void **state)
{
    struct reader_rig *f = *state;
    int gram = reader_rig_connect(f->gram, SOCK_DGRAM);
    int stream = reader_rig_connect(f->stream, SOCK_STREAM);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int late = socket(AF_UNIX, SOCK_STREAM, 0);

    assert_int_equal(send(gram, "a:1|c", 5, 0), 5);
    send_frame(stream, "a:1|c", 5);
    reader_rig_end(f);
    assert_int_equal(f->counts.aggregated, 2);
    assert_int_equal(send(gram, "a:1|c", 5, MSG_NOSIGNAL), -1);
    assert_int_equal(errno, EPIPE);
    assert_int_equal(send(stream, "a", 1, MSG_NOSIGNAL), -1);
    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", f->stream);
    assert_int_equal(connect(late, (struct sockaddr *)&a, sizeof(a)), -1);
    assert_int_equal(errno, ECONNREFUSED);
    close(late);
    close(gram);
    close(stream);
}

static void a_held_socket_is_emptied_and_goes_on_receiving(void **state)
{
    struct reader_rig *f = *state;
    int gram = reader_rig_connect(f->gram, SOCK_DGRAM);

    f->s.entries[GRAM].shared_outside = true;
    assert_int_equal(send(gram, "a:1|c", 5, 0), 5);
    reader_rig_end(f);
    assert_int_equal(f->counts.aggregated, 1);
    assert_int_equal(send(gram, "a:1|c", 5, MSG_NOSIGNAL), 5);
    close(gram);
}

static unsigned count_open(const struct reader_rig *f)
{
    unsigned n = 0;

    for (unsigned i = 0; i < N_CONNS; i++) {
        if (f->landing.conns[i].fd < 0)
            continue;
        assert_true(landing_at_frame_end(&f->landing.conns[i]));
        n++;
    }
    return n;
}

static void kept_connections_go_on_at_the_end_of_a_frame(void **state)
{
    struct reader_rig *f = *state;
    int fds[N_CONNS];

    f->s.entries[STREAM].shared_outside = true;
    f->s.entries[STREAM].stored = true;
    reader_rig_end(f);
    f->drained = false;
    f->n_keep_conns = N_CONNS;
    reader_rig_start(f);
    for (unsigned i = 0; i < N_CONNS; i++) {
        fds[i] = reader_rig_connect(f->stream, SOCK_STREAM);
        send_frame(fds[i], "a:1|c", 5);
    }
    send_frame(fds[0], "b:", 5); /* never ends */
    reader_rig_take_all(f, 1);
    reader_rig_end(f);
    f->drained = false;
    assert_int_equal(f->counts.aggregated, 3);
    assert_int_equal(f->counts.rejected[DSD_TRUNCATED], 1);
    assert_closed(fds[0]);
    assert_int_equal(count_open(f), 2);
    send_frame(fds[1], "a:1|c", 5); /* while nobody reads */
    send_frame(fds[2], "a:1|c", 5);
    close(fds[2]);
    f->n_keep_conns = 1;
    f->n_parts = 0;      /* the part is announced again */
    reader_rig_start(f); /* takes them as a successor does */
    reader_rig_end(f);
    assert_int_equal(f->counts.aggregated, 5);
    assert_int_equal(f->counts.rejected[DSD_TRUNCATED], 1);
    assert_int_equal(count_open(f), 1);
    send_frame(fds[1], "a:1|c", 5);
    for (unsigned i = 0; i < N_CONNS; i++)
        close(f->landing.conns[i].fd);
    close(fds[0]);
    close(fds[1]);
    f->s.entries[STREAM].stored = false; /* its path ends with this test */
}

/* ---- What a dead predecessor left -------------------------------------- */

static void leave_batch(struct reader_rig *f, int gram)
{
    reader_rig_end(f);
    f->drained = false;
    landing_arm(&f->landing, GRAM);
    assert_int_equal(send(gram, "a:1|c", 5, 0), 5);
    assert_int_equal(send(gram, "b:1|c", 5, 0), 5);
    assert_int_equal(recvmmsg(f->s.entries[GRAM].fd, f->landing.batch->msgs,
                              LANDING_SLOTS, MSG_DONTWAIT, NULL),
                     2);
}

static void received_and_not_applied_is_applied_by_the_next(void **state)
{
    struct reader_rig *f = *state;
    int gram = reader_rig_connect(f->gram, SOCK_DGRAM);

    f->s.entries[GRAM].shared_outside = true;
    leave_batch(f, gram);
    reader_rig_start(f);
    reader_rig_end(f);
    assert_int_equal(f->counts.aggregated, 2);
    close(gram);
}

static void a_record_that_killed_two_is_skipped(void **state)
{
    struct reader_rig *f = *state;
    int gram = reader_rig_connect(f->gram, SOCK_DGRAM);
    const void *bytes;
    size_t n;

    f->s.entries[GRAM].shared_outside = true;
    leave_batch(f, gram);
    for (unsigned i = 1; i <= 2; i++) {
        f->landing.head->applying = LANDING_BATCH;
        assert_int_equal(landing_note_death(&f->landing, &bytes, &n), i);
    }
    reader_rig_start(f);
    reader_rig_end(f);
    assert_int_equal(f->counts.aggregated, 1);
    assert_int_equal(f->counts.rejected[DSD_POISON], 1);
    close(gram);
}

static void a_connection_without_descriptor_keeps_its_whole_frames(void **state)
{
    struct reader_rig *f = *state;
    int pair[2];
    struct landing_recv *st;

    reader_rig_end(f);
    f->drained = false;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(landing_conn_open(&f->landing, 1, pair[1], STREAM), 0);
    send_frame(pair[0], "a:1|c", 5);
    send_frame(pair[0], "b:", 5);
    st = landing_conn_arm(&f->landing, 1, 4);
    assert_int_equal(recvmmsg(pair[1], &st->msg, 1, MSG_DONTWAIT, NULL), 1);
    reader_rig_start(f); /* that number is no connection of the listener */
    reader_rig_end(f);
    assert_int_equal(f->counts.aggregated, 1);
    assert_int_equal(f->counts.rejected[DSD_TRUNCATED], 1);
    assert_int_equal(f->landing.conns[1].fd, -1);
    close(pair[0]);
    assert_int_equal(close(pair[1]), 0); /* and was left alone */
}

int main(void)
{
#define T(name)                                                                \
    cmocka_unit_test_setup_teardown(name, reader_rig_setup, reader_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(datagrams_and_frames_are_counted),
        T(a_resting_reader_leaves_everything_in_the_kernel),
        T(a_cut_datagram_keeps_its_whole_lines),
        T(a_length_that_is_not_allowed_ends_its_connection),
        T(the_longest_frame_is_allowed),
        T(a_frame_that_does_not_end_is_counted),
        T(connections_beyond_the_limit_are_refused),
        T(closing_takes_what_was_sent_before_the_order),
        T(after_the_drain_senders_are_told),
        T(a_held_socket_is_emptied_and_goes_on_receiving),
        T(kept_connections_go_on_at_the_end_of_a_frame),
        T(received_and_not_applied_is_applied_by_the_next),
        T(a_record_that_killed_two_is_skipped),
        T(a_connection_without_descriptor_keeps_its_whole_frames),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
