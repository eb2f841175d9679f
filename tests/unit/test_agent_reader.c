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
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/ingress.h"
#include "agent/reader.h"
#include "agent/sockets_private.h"

#define N_CONNS 3
#define MAX_FRAME 1000
#define BUFFER 512
#define GRAM 0
#define STREAM 1

struct fixture {
    char folder[64], gram[96], stream[96];
    struct sockets s;
    struct landing landing;
    struct region region;
    struct process_clock clock;
    _Atomic uint32_t serving;
    uv_loop_t loop;
    struct reader *reader;
    struct ingest_counts counts; /* at the end */
    uint64_t open_samples;
    uint64_t n_parts; /* announced */
    uint64_t closed_token, n_parts_at_close;
    bool drained;
    unsigned n_paused;
    uint64_t n_tapped;
    struct loader_cause cause; /* why there is no ring */
    uint64_t n_left;
    uint32_t n_keep_conns;
};

static const struct config cfg;
static const struct agg_config agg_cfg = {.context_limit = 100,
                                          .expiry_s = 300,
                                          .context_expiry_s = 20,
                                          .host = "",
                                          .name_prefix = "",
                                          .seed = {3, 4}};
static const struct dsd_parser_opts parser = {.max_line_bytes = 65536};

static void on_event(void *arg, const struct reader_event *ev)
{
    struct fixture *f = arg;

    switch (ev->kind) {
    case READER_PART:
        assert_int_equal(ev->seq, f->n_parts + 1);
        f->n_parts = ev->seq;
        break;
    case READER_CLOSED:
        f->closed_token = ev->token;
        f->n_parts_at_close = f->n_parts;
        uv_stop(&f->loop);
        break;
    case READER_DRAINED:
        f->drained = true;
        f->n_left = ev->n_left;
        uv_stop(&f->loop);
        break;
    case READER_PAUSED:
        f->n_paused++;
        uv_stop(&f->loop);
        break;
    case READER_TAPPED:
        f->n_tapped = ev->n_left;
        uv_stop(&f->loop);
        break;
    case READER_UNTAPPED:
        f->n_tapped = 0;
        uv_stop(&f->loop);
        break;
    }
}

static void start(struct fixture *f)
{
    const struct reader_opts opts = {
        .loop = &f->loop,
        .on_event = on_event,
        .arg = f,
        .landing = &f->landing,
        .sockets = &f->s,
        .ingest_region = &f->region,
        .agg = &agg_cfg,
        .parser = &parser,
        .clock = &f->clock,
        .serving = &f->serving,
        .n_keep_conns = f->n_keep_conns,
    };

    assert_int_equal(reader_start(&f->reader, &opts, 0), 0);
    assert_int_equal(atomic_load(&f->serving), 1);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct log_opts quiet = {.level = LOG_LEVEL_OFF};
    const struct landing_opts landing = {.buffer_bytes = BUFFER,
                                         .n_conns = N_CONNS,
                                         .max_frame_bytes = MAX_FRAME};
    struct unix_opts path = {.mode = 0600, .owner = "", .group = ""};
    int maps[2];
    size_t reserve[AGG_N_RANGES];
    const struct region_opts region = {.name = "reader",
                                       .budget_bytes = 32u << 20,
                                       .reserve = reserve,
                                       .n_ranges = AGG_N_RANGES};

    assert_non_null(f);
    (void)log_init(&quiet);
    (void)snprintf(f->folder, sizeof(f->folder), "/tmp/retriever-read-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    (void)snprintf(f->gram, sizeof(f->gram), "%s/gram", f->folder);
    (void)snprintf(f->stream, sizeof(f->stream), "%s/stream", f->folder);
    f->s.entries[GRAM] = (struct socket_entry){.kind = SOCKET_UNIXGRAM,
                                               .transport = TRANSPORT_UDS};
    path.path = f->gram;
    assert_int_equal(sockets_bind_unix(&f->s.entries[GRAM], &cfg, &path), 0);
    f->s.entries[STREAM] =
        (struct socket_entry){.kind = SOCKET_UNIXSTREAM,
                              .transport = TRANSPORT_UDS_STREAM};
    path.path = f->stream;
    assert_int_equal(sockets_bind_unix(&f->s.entries[STREAM], &cfg, &path), 0);
    f->s.n = 2;
    agg_reserve(reserve, agg_cfg.context_limit, region.budget_bytes);
    assert_int_equal(region_create(&f->region, &region), 0);
    assert_int_equal(landing_create(&f->landing, &landing), 0);
    if (ring_make(&maps[0], &maps[1], 1u << 16, &f->cause) == 0)
        assert_int_equal(landing_ring_take(&f->landing, maps[0], maps[1]), 0);
    process_clock_init(&f->clock, &clock_real);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    start(f);
    *state = f;
    return 0;
}

/* Stop, drain, end the thread; keep the counts. */
static void end(struct fixture *f)
{
    struct agg_stats st;

    reader_order(f->reader, READER_DRAIN,
                 clock_mono_ns(&clock_real) + UINT64_C(5000000000));
    while (!f->drained)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    agg_stats(reader_agg(f->reader), &st);
    f->open_samples = st.open_samples;
    f->counts = *agg_counts(reader_agg(f->reader));
    reader_order(f->reader, READER_QUIT, 0);
    reader_join(f->reader, NULL, NULL);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    f->reader = NULL;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    if (f->reader != NULL)
        end(f);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    sockets_close(&f->s);
    landing_close(&f->landing);
    region_close(&f->region);
    assert_int_equal(rmdir(f->folder), 0);
    free(f);
    return 0;
}

static int connect_to(const char *path, int type)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type, 0);

    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

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
    struct fixture *f = *state;
    int gram = connect_to(f->gram, SOCK_DGRAM);
    int stream = connect_to(f->stream, SOCK_STREAM);

    assert_int_equal(send(gram, "a:1|c\nb:1|c", 11, 0), 11);
    send_frame(stream, "a:1|c\nbad\n", 10);
    close(gram);
    close(stream);
    end(f);
    assert_int_equal(f->counts.received[TRANSPORT_UDS], 2);
    assert_int_equal(f->counts.received[TRANSPORT_UDS_STREAM], 2);
    assert_int_equal(f->counts.aggregated, 3);
    assert_int_equal(f->counts.datagrams, 2);
    assert_int_equal(f->n_left, 0);
}

static void rest(struct fixture *f)
{
    unsigned n = f->n_paused + 1;

    reader_order(f->reader, READER_PAUSE, 0);
    while (f->n_paused < n)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
}

/* What is sent to a resting reader stays in the kernel, and nothing changes; a
 * flush asked of it finds everything closed. */
static void a_resting_reader_leaves_everything_in_the_kernel(void **state)
{
    struct fixture *f = *state;
    int gram = connect_to(f->gram, SOCK_DGRAM);
    int stream = connect_to(f->stream, SOCK_STREAM);
    struct reader_view before, after;

    assert_int_equal(send(gram, "a:1|c", 5, 0), 5);
    send_frame(stream, "a:2|c", 5);
    reader_order(f->reader, READER_CLOSE_ALL, 7); /* takes all of it */
    while (f->closed_token != 7)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    rest(f);
    reader_view(f->reader, &before);
    assert_int_equal(before.counts.aggregated, 2);
    assert_int_equal(before.agg.open_samples, 0);
    assert_int_equal(f->n_parts, before.closed_seq);
    assert_int_equal(send(gram, "b:1|c", 5, 0), 5);
    send_frame(stream, "b:2|c", 5);
    close(connect_to(f->stream, SOCK_STREAM));
    reader_order(f->reader, READER_CLOSE_ALL, 9);
    while (f->closed_token != 9)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    rest(f);
    reader_view(f->reader, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    for (int i = GRAM; i <= STREAM; i++) {
        struct pollfd p = {.fd = f->s.entries[i].fd, .events = POLLIN};

        assert_int_equal(poll(&p, 1, 0), 1);
    }

    reader_order(f->reader, READER_RESUME, 0);
    close(gram);
    close(stream);
    end(f);
    assert_int_equal(f->counts.aggregated, 4);
    assert_int_equal(f->open_samples, 2);
}

static void a_cut_datagram_keeps_its_whole_lines(void **state)
{
    struct fixture *f = *state;
    int gram = connect_to(f->gram, SOCK_DGRAM);
    char text[BUFFER + 100];

    memset(text, 'x', sizeof(text));
    memcpy(text, "a:1|c\n", 6);
    assert_int_equal(send(gram, text, sizeof(text), 0), sizeof(text));
    close(gram);
    end(f);
    assert_int_equal(f->counts.aggregated, 1);
    assert_int_equal(f->counts.truncated_datagrams, 1);
    assert_int_equal(f->counts.rejected[DSD_TRUNCATED], 1);
}

static void a_length_that_is_not_allowed_ends_its_connection(void **state)
{
    struct fixture *f = *state;
    static const uint32_t bad[] = {0, MAX_FRAME + 1, 779381099u};
    int good = connect_to(f->stream, SOCK_STREAM);

    for (unsigned i = 0; i < 3; i++) {
        int fd = connect_to(f->stream, SOCK_STREAM);

        send_frame(fd, "a:1|c", 5);
        send_frame(fd, "", bad[i]);
        assert_closed(fd);
    }
    send_frame(good, "b:1|c", 5);
    close(good);
    end(f);
    assert_int_equal(f->counts.stream_oversize, 3);
    assert_int_equal(f->counts.aggregated, 4);
    assert_int_equal(f->counts.rejected[DSD_TRUNCATED], 0);
}

static void the_longest_frame_is_allowed(void **state)
{
    struct fixture *f = *state;
    int fd = connect_to(f->stream, SOCK_STREAM);
    char text[MAX_FRAME + 1];

    memset(text, '\n', MAX_FRAME);
    memcpy(text, "a:1|c", 5);
    text[MAX_FRAME] = '\0';
    send_frame(fd, text, MAX_FRAME);
    close(fd);
    end(f);
    assert_int_equal(f->counts.aggregated, 1);
    assert_int_equal(f->counts.bytes, MAX_FRAME);
}

static void a_frame_that_does_not_end_is_counted(void **state)
{
    struct fixture *f = *state;
    int fd = connect_to(f->stream, SOCK_STREAM);
    int open_end = connect_to(f->stream, SOCK_STREAM);

    send_frame(fd, "a:1|c", 5);
    send_frame(fd, "b:1|", 5);
    close(fd);
    send_frame(open_end, "c:", 5); /* still open when the drain ends it */
    end(f);
    close(open_end);
    assert_int_equal(f->counts.aggregated, 1);
    assert_int_equal(f->counts.rejected[DSD_TRUNCATED], 2);
    assert_int_equal(f->counts.received[TRANSPORT_UDS_STREAM], 3);
}

static void connections_beyond_the_limit_are_refused(void **state)
{
    struct fixture *f = *state;
    int fds[N_CONNS];
    int fd;

    for (unsigned i = 0; i < N_CONNS; i++) {
        fds[i] = connect_to(f->stream, SOCK_STREAM);
        send_frame(fds[i], "a:1|c", 5);
    }
    assert_closed(connect_to(f->stream, SOCK_STREAM));
    /* One ends: its place is free again. Until the reader has seen the end a
     * new one may still be refused. */
    close(fds[0]);
    for (;;) {
        fd = connect_to(f->stream, SOCK_STREAM);
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
    end(f);
    assert_true(f->counts.stream_refused >= 1);
    assert_int_equal(f->counts.aggregated, N_CONNS + 1);
}

static void closing_takes_what_was_sent_before_the_order(void **state)
{
    struct fixture *f = *state;
    int gram = connect_to(f->gram, SOCK_DGRAM);

    for (uint64_t round = 1; round <= 50; round++) {
        assert_int_equal(send(gram, "a:1|c", 5, 0), 5);
        reader_order(f->reader, READER_CLOSE_ALL, round);
        while (f->closed_token != round)
            (void)uv_run(&f->loop, UV_RUN_DEFAULT);
        assert_true(f->n_parts_at_close >= round); /* parts come first */
        reader_order(f->reader, READER_RELEASE, f->n_parts);
    }
    close(gram);
    end(f);
    assert_int_equal(f->counts.aggregated, 50);
    assert_int_equal(f->open_samples, 0);
}

static void after_the_drain_senders_are_told(void **state)
{
    struct fixture *f = *state;
    int gram = connect_to(f->gram, SOCK_DGRAM);
    int stream = connect_to(f->stream, SOCK_STREAM);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int late = socket(AF_UNIX, SOCK_STREAM, 0);

    assert_int_equal(send(gram, "a:1|c", 5, 0), 5);
    send_frame(stream, "a:1|c", 5);
    end(f);
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
    struct fixture *f = *state;
    int gram = connect_to(f->gram, SOCK_DGRAM);

    f->s.entries[GRAM].shared_outside = true;
    assert_int_equal(send(gram, "a:1|c", 5, 0), 5);
    end(f);
    assert_int_equal(f->counts.aggregated, 1);
    assert_int_equal(send(gram, "a:1|c", 5, MSG_NOSIGNAL), 5);
    close(gram);
}

/* Everything that is connected is accepted and read behind this. */
static void take_all(struct fixture *f, uint64_t token)
{
    reader_order(f->reader, READER_CLOSE_ALL, token);
    while (f->closed_token != token)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
}

static unsigned count_open(const struct fixture *f)
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
    struct fixture *f = *state;
    int fds[N_CONNS];

    f->s.entries[STREAM].shared_outside = true;
    f->s.entries[STREAM].stored = true;
    end(f);
    f->drained = false;
    f->n_keep_conns = N_CONNS;
    start(f);
    for (unsigned i = 0; i < N_CONNS; i++) {
        fds[i] = connect_to(f->stream, SOCK_STREAM);
        send_frame(fds[i], "a:1|c", 5);
    }
    send_frame(fds[0], "b:", 5); /* never ends */
    take_all(f, 1);
    end(f);
    f->drained = false;
    assert_int_equal(f->counts.aggregated, 3);
    assert_int_equal(f->counts.rejected[DSD_TRUNCATED], 1);
    assert_closed(fds[0]);
    assert_int_equal(count_open(f), 2);
    send_frame(fds[1], "a:1|c", 5); /* while nobody reads */
    send_frame(fds[2], "a:1|c", 5);
    close(fds[2]);
    f->n_keep_conns = 1;
    f->n_parts = 0; /* the part is announced again */
    start(f);       /* takes them as a successor does */
    end(f);
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

static void leave_batch(struct fixture *f, int gram)
{
    end(f);
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
    struct fixture *f = *state;
    int gram = connect_to(f->gram, SOCK_DGRAM);

    f->s.entries[GRAM].shared_outside = true;
    leave_batch(f, gram);
    start(f);
    end(f);
    assert_int_equal(f->counts.aggregated, 2);
    close(gram);
}

static void a_record_that_killed_two_is_skipped(void **state)
{
    struct fixture *f = *state;
    int gram = connect_to(f->gram, SOCK_DGRAM);
    const void *bytes;
    size_t n;

    f->s.entries[GRAM].shared_outside = true;
    leave_batch(f, gram);
    for (unsigned i = 1; i <= 2; i++) {
        f->landing.head->applying = LANDING_BATCH;
        assert_int_equal(landing_note_death(&f->landing, &bytes, &n), i);
    }
    start(f);
    end(f);
    assert_int_equal(f->counts.aggregated, 1);
    assert_int_equal(f->counts.rejected[DSD_POISON], 1);
    close(gram);
}

static void a_connection_without_descriptor_keeps_its_whole_frames(void **state)
{
    struct fixture *f = *state;
    int pair[2];
    struct landing_recv *st;

    end(f);
    f->drained = false;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(landing_conn_open(&f->landing, 1, pair[1], STREAM), 0);
    send_frame(pair[0], "a:1|c", 5);
    send_frame(pair[0], "b:", 5);
    st = landing_conn_arm(&f->landing, 1, 4);
    assert_int_equal(recvmmsg(pair[1], &st->msg, 1, MSG_DONTWAIT, NULL), 1);
    start(f); /* that number is no connection of the listener */
    end(f);
    assert_int_equal(f->counts.aggregated, 1);
    assert_int_equal(f->counts.rejected[DSD_TRUNCATED], 1);
    assert_int_equal(f->landing.conns[1].fd, -1);
    close(pair[0]);
    assert_int_equal(close(pair[1]), 0); /* and was left alone */
}

/* ---- The tap ------------------------------------------------------------- */

/* False: not on this machine, and said so. */
static bool can_tap(const struct fixture *f)
{
    const char *required = getenv("RETRIEVER_TEST_REQUIRE_BPF");

    if (f->landing.head->tap.ring_fd >= 0)
        return true;
    print_message("skipped: %s; %s\n", f->cause.why, f->cause.remedy);
    assert_false(required != NULL && strcmp(required, "1") == 0);
    return false;
}

/* For the sockets of @f. */
static struct tap *load_tap(struct fixture *f)
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

static bool tap(struct fixture *f)
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

static void untap(struct fixture *f)
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

static bool ring_is_empty(const struct fixture *f)
{
    return ring_end(&f->landing.ring) == ring_begin(&f->landing.ring);
}

static void tapped_datagrams_are_counted(void **state)
{
    struct fixture *f = *state;
    int gram = connect_to(f->gram, SOCK_DGRAM);

    if (!tap(f))
        skip();
    send_many(gram, 5000); /* more than the ring holds */
    close(gram);
    end(f);
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
    struct fixture *f = *state;
    int gram = connect_to(f->gram, SOCK_DGRAM);
    uint64_t n_parts;

    if (!tap(f))
        skip();
    send_many(gram, 100);
    reader_order(f->reader, READER_CLOSE_ALL, 7);
    while (f->closed_token != 7)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    n_parts = f->n_parts_at_close;
    end(f);
    assert_true(n_parts >= 1);
    assert_int_equal(f->open_samples, 0);
    assert_int_equal(f->counts.received[TRANSPORT_UDS], 200);
    close(gram);
}

/* As at an upgrade: nothing may be left in a ring that ends with this image. */
static void untapped_and_resting_it_has_an_empty_ring(void **state)
{
    struct fixture *f = *state;
    int gram = connect_to(f->gram, SOCK_DGRAM);
    char got[8];

    if (!tap(f))
        skip();
    send_many(gram, 100);
    untap(f);
    rest(f);
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
    end(f);
    assert_int_equal(f->counts.received[TRANSPORT_UDS], 203);
    assert_int_equal(f->landing.head->tap.taken[GRAM], 101);
}

/* Loaded while an upgrade is under way, which is then given up. */
static void a_tap_that_comes_while_it_rests_is_told_when_it_goes_on(
    void **state)
{
    struct fixture *f = *state;
    int gram = connect_to(f->gram, SOCK_DGRAM);
    struct tap *t;

    if (!can_tap(f))
        skip();
    f->n_tapped = 99;
    untap(f);
    rest(f);
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
    end(f);
    assert_int_equal(f->landing.head->tap.taken[GRAM], 5);
}

/* A worker that dies leaves the programs attached and the ring to its successor. */
static void a_successor_reads_on_in_the_ring(void **state)
{
    struct fixture *f = *state;
    int gram = connect_to(f->gram, SOCK_DGRAM);
    struct landing_tap *t = &f->landing.head->tap;
    uint64_t begin;

    if (!tap(f))
        skip();
    f->s.entries[GRAM].shared_outside = true;
    send_many(gram, 10);
    end(f);
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
    start(f);
    end(f);
    assert_int_equal(f->counts.received[TRANSPORT_UDS], 2 * (10 + 6));
    assert_int_equal(t->taken[GRAM], 10);
    assert_int_equal(t->pos.record, 10 * 64);
    close(gram);
}

static void a_tapped_record_that_killed_two_is_skipped(void **state)
{
    struct fixture *f = *state;
    int gram = connect_to(f->gram, SOCK_DGRAM);
    struct landing_tap *t = &f->landing.head->tap;
    const void *bytes;
    size_t n;

    if (!tap(f))
        skip();
    f->s.entries[GRAM].shared_outside = true;
    send_many(gram, 2);
    end(f);
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
    start(f);
    end(f);
    assert_int_equal(f->counts.rejected[DSD_POISON], 1);
    assert_int_equal(f->counts.aggregated, 4 + 2);
    close(gram);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
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
        T(tapped_datagrams_are_counted),
        T(what_the_ring_holds_is_closed_with_the_rest),
        T(untapped_and_resting_it_has_an_empty_ring),
        T(a_tap_that_comes_while_it_rests_is_told_when_it_goes_on),
        T(a_successor_reads_on_in_the_ring),
        T(a_tapped_record_that_killed_two_is_skipped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
