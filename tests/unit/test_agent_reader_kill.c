/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers that are killed at random under load, on UDP, Unix datagrams and a Unix
 * stream: what was sent is what the last one has counted, nothing lost, nothing
 * twice. The process stands for the keeper, as the real one does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/ingress.h"
#include "agent/keeper_private.h"
#include "agent/reader.h"
#include "agent/sockets_private.h"
#include "tests/support/skips.h"

#define N_KILLS 200
#define BURST 16

static struct keeper k;
static const struct config cfg; /* nothing of it is asked for but sizes */
static const struct agg_config agg_cfg = {
    .context_limit = 1000,
    .expiry_s = 300,
    .context_expiry_s = 20,
    .host = "h",
    .name_prefix = "",
    .hist_aggregates = HIST_MAX,
    .seed = {1, 2},
};
static const struct dsd_parser_opts parser_opts = {.max_line_bytes = 65536};
static int bell[2];
#define FOLDER "/tmp/retriever-kill-XXXXXX"
static char folder[] = FOLDER;
static char gram_path[64], stream_path[64];

/* ---- The reading side -------------------------------------------------- */

struct life {
    uv_loop_t loop;
    struct reader *reader;
    struct process_clock clock;
    uv_poll_t bell;
};

static void on_event(void *arg, const struct reader_event *ev)
{
    struct life *l = arg;

    switch (ev->kind) {
    case READER_PART: /* as encoded: its memory is free again */
        reader_order(l->reader, READER_RELEASE, ev->seq);
        break;
    case READER_DRAINED:
        reader_order(l->reader, READER_QUIT, 0);
        reader_join(l->reader, NULL, NULL);
        break;
    case READER_CLOSED:
    case READER_PAUSED:
    case READER_TAPPED:
    case READER_UNTAPPED:
        break;
    }
}

/* The keeper rings: drain and end in order. */
static void on_bell(uv_poll_t *p, int status, int events)
{
    struct life *l = p->data;

    (void)status;
    (void)events;
    uv_close((uv_handle_t *)p, NULL);
    reader_order(l->reader, READER_DRAIN,
                 keeper_now_ns() + UINT64_C(10000000000));
}

_Noreturn static void live(void)
{
    struct life *l = calloc(1, sizeof(*l));
    const struct reader_opts opts = {
        .loop = &l->loop,
        .on_event = on_event,
        .arg = l,
        .landing = &k.landing,
        .sockets = &k.sockets,
        .ingest_region = &k.ingest,
        .agg = &agg_cfg,
        .parser = &parser_opts,
        .clock = &l->clock,
        .serving = &k.sup->serving,
    };

    process_clock_init(&l->clock, &clock_real);
    if (uv_loop_init(&l->loop) != 0 ||
        reader_start(&l->reader, &opts, 0) != 0 ||
        uv_poll_init(&l->loop, &l->bell, k.sup->to_worker) != 0)
        _exit(9);
    l->bell.data = l;
    (void)uv_poll_start(&l->bell, UV_READABLE, on_bell);
    (void)uv_run(&l->loop, UV_RUN_DEFAULT);
    _exit(uv_loop_close(&l->loop) == 0 ? 0 : 8);
}

static void start_life(void)
{
    pid_t pid = keeper_fork(&k);

    assert_true(pid >= 0);
    if (pid == 0)
        live();
    k.worker = pid;
}

/* ---- The sending side -------------------------------------------------- */

struct sender {
    pthread_t thread;
    int fd;
    bool frames;
    const char *name;
    unsigned n_sent;
    _Atomic bool *go_on;
    int error;
};

static bool send_one(struct sender *s, const char *line, size_t n)
{
    unsigned char frame[128] = {(unsigned char)n};

    if (!s->frames)
        return send(s->fd, line, n, MSG_NOSIGNAL) == (ssize_t)n;
    memcpy(frame + 4, line, n);
    return send(s->fd, frame, n + 4, MSG_NOSIGNAL) == (ssize_t)n + 4;
}

/* Bursts with a pause: a full UDP buffer would drop, which is another test. */
static void *send_all(void *arg)
{
    struct sender *s = arg;

    while (atomic_load(s->go_on)) {
        const struct timespec pause = {.tv_nsec = 200000};

        for (unsigned i = 0; i < BURST; i++) {
            char line[64];
            int n = snprintf(line, sizeof(line), "%s:1|c\n%s.%u:1|g", s->name,
                             s->name, s->n_sent % 100);

            if (!send_one(s, line, (size_t)n)) {
                s->error = errno;
                return NULL;
            }
            s->n_sent++;
        }
        (void)ppoll(NULL, 0, &pause, NULL);
    }
    return NULL;
}

static int connect_unix(const char *path, int type)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type, 0);

    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static int connect_udp(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

/* ---- Set-up ------------------------------------------------------------ */

static void open_sockets(bool stream)
{
    struct unix_opts opts = {.mode = 0700, .owner = "", .group = ""};
    struct socket_entry *e = k.sockets.entries;

    (void)snprintf(gram_path, sizeof(gram_path), "%s/gram", folder);
    (void)snprintf(stream_path, sizeof(stream_path), "%s/stream", folder);
    e[0] =
        (struct socket_entry){.kind = SOCKET_UDP, .transport = TRANSPORT_UDP};
    assert_int_equal(sockets_bind_udp(&e[0], &cfg, "127.0.0.1", 0), 0);
    e[1] = (struct socket_entry){.kind = SOCKET_UNIXGRAM,
                                 .transport = TRANSPORT_UDS};
    opts.path = gram_path;
    assert_int_equal(sockets_bind_unix(&e[1], &cfg, &opts), 0);
    k.sockets.n = 2;
    if (!stream)
        return;
    e[2] = (struct socket_entry){.kind = SOCKET_UNIXSTREAM,
                                 .transport = TRANSPORT_UDS_STREAM};
    opts.path = stream_path;
    assert_int_equal(sockets_bind_unix(&e[2], &cfg, &opts), 0);
    k.sockets.n = 3;
}

static void open_memory(void)
{
    const struct landing_opts landing = {.buffer_bytes = 8192,
                                         .n_conns = 8,
                                         .max_frame_bytes = 65536};
    size_t reserve[AGG_N_RANGES];
    const struct region_opts region = {.name = "kill",
                                       .budget_bytes = 64u << 20,
                                       .reserve = reserve,
                                       .n_ranges = AGG_N_RANGES};
    const size_t none = 0;
    const struct region_opts store = {.name = "none",
                                      .budget_bytes = 4096,
                                      .reserve = &none,
                                      .n_ranges = 1};

    agg_reserve(reserve, agg_cfg.context_limit, region.budget_bytes);
    assert_int_equal(region_create(&k.ingest, &region), 0);
    assert_int_equal(region_create(&k.store, &store), 0);
    assert_int_equal(landing_create(&k.landing, &landing), 0);
    k.sup = mmap(NULL, sizeof(*k.sup), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(k.sup, MAP_FAILED);
    assert_int_equal(pipe2(bell, O_CLOEXEC), 0);
    k.sup->to_worker = bell[0];
    k.env.run_dir = -1;
}

static bool can_share(void)
{
    pid_t pid = keeper_fork(&k);

    if (pid == 0)
        _exit(0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    return k.shares_table;
}

/* ---- The test ---------------------------------------------------------- */

static void kill_at_random(unsigned *seed)
{
    const struct timespec pause = {.tv_nsec =
                                       (long)(rand_r(seed) % 12000) * 1000};
    int status;

    (void)ppoll(NULL, 0, &pause, NULL); /* the random instant */
    assert_int_equal(kill(k.worker, SIGKILL), 0);
    assert_int_equal(waitpid(k.worker, &status, 0), k.worker);
    keeper_after_worker(&k, status);
    start_life();
}

/* Programs on the sockets, whose ring outlives each reader. False: not here. */
static bool tap_sockets(void)
{
    const struct tap_source sources[] = {
        {.source = 0,
         .socket = ingress_socket_id(&k.sockets.entries[0]),
         .header_bytes = 8},
        {.source = 1, .socket = ingress_socket_id(&k.sockets.entries[1])}};
    const struct tap_opts opts = {.max_bytes = 8192,
                                  .sources = sources,
                                  .n_sources = 2};
    struct loader_cause cause = {0};
    struct ring ring = {0};
    struct tap tap;

    if (ring_make(&ring.ring_fd, &ring.control_fd, 1u << 18, &cause) != 0) {
        print_message("skipped: %s; %s\n", cause.why, cause.remedy);
        assert_false(skips_fail());
        return false;
    }
    assert_int_equal(landing_ring_take(&k.landing, ring.ring_fd,
                                       ring.control_fd),
                     0);
    assert_int_equal(tap_load(&tap, &ring, &opts, &cause), 0);
    for (uint32_t i = 0; i < opts.n_sources; i++)
        assert_int_equal(tap_attach(&tap, i, k.sockets.entries[i].fd), 0);
    tap_close(&tap); /* the sockets hold them */
    return true;
}

static void close_memory(void)
{
    landing_close(&k.landing);
    region_close(&k.ingest);
    region_close(&k.store);
    fd_set_fini(&k.kept);
    close(bell[0]);
    close(bell[1]);
    (void)munmap(k.sup, sizeof(*k.sup));
    if (k.open_fds != NULL)
        closedir(k.open_fds);
    memset(&k, 0, sizeof(k));
    memcpy(folder, FOLDER, sizeof(FOLDER));
}

static void kill_and_count(bool with_tap)
{
    unsigned seed = (unsigned)time(NULL) ^ (unsigned)getpid();
    bool stream;
    _Atomic bool go_on = true;
    struct sender senders[3] = {{.name = "udp"},
                                {.name = "uds"},
                                {.name = "stream", .frames = true}};
    const struct ingest_counts *n;
    struct agg *agg;
    unsigned n_senders;
    int status;

    if (getenv("RETRIEVER_TEST_SEED") != NULL)
        seed = (unsigned)strtoul(getenv("RETRIEVER_TEST_SEED"), NULL, 10);
    assert_non_null(mkdtemp(folder));
    open_memory();
    stream = can_share();
    open_sockets(stream);
    if (with_tap && !tap_sockets()) {
        sockets_close(&k.sockets);
        (void)rmdir(folder);
        close_memory();
        skip();
    }
    n_senders = stream ? 3 : 2;
    print_message("seed %u (RETRIEVER_TEST_SEED)%s\n", seed,
                  stream ? "" : ", without stream: the table is not shared");
    senders[0].fd = connect_udp(k.sockets.entries[0].port);
    senders[1].fd = connect_unix(gram_path, SOCK_DGRAM);
    if (stream)
        senders[2].fd = connect_unix(stream_path, SOCK_STREAM);
    k.open_fds = opendir("/proc/self/fd"); /* of those that are kept */
    assert_non_null(k.open_fds);
    assert_int_equal(fd_set_snapshot(&k.kept), 0);
    start_life();
    for (unsigned i = 0; i < n_senders; i++) {
        senders[i].go_on = &go_on;
        assert_int_equal(pthread_create(&senders[i].thread, NULL, send_all,
                                        &senders[i]),
                         0);
    }
    for (unsigned i = 0; i < N_KILLS; i++)
        kill_at_random(&seed);
    atomic_store(&go_on, false);
    for (unsigned i = 0; i < n_senders; i++) {
        assert_int_equal(pthread_join(senders[i].thread, NULL), 0);
        assert_int_equal(senders[i].error, 0);
    }
    assert_int_equal(write(bell[1], "", 1), 1);
    assert_int_equal(waitpid(k.worker, &status, 0), k.worker);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);

    assert_int_equal(agg_create(&agg, &k.ingest, &agg_cfg), 0);
    n = agg_counts(agg);
    print_message("sent %u %u %u, kernel drops %lu, kills %d\n",
                  senders[0].n_sent, senders[1].n_sent, senders[2].n_sent,
                  (unsigned long)n->kernel_drops[TRANSPORT_UDP], N_KILLS);
    assert_int_equal(n->received[TRANSPORT_UDP] +
                         2 * n->kernel_drops[TRANSPORT_UDP],
                     2ul * senders[0].n_sent);
    assert_int_equal(n->received[TRANSPORT_UDS], 2ul * senders[1].n_sent);
    assert_int_equal(n->received[TRANSPORT_UDS_STREAM],
                     2ul * senders[2].n_sent);
    assert_int_equal(n->aggregated, n->received[TRANSPORT_UDP] +
                                        n->received[TRANSPORT_UDS] +
                                        n->received[TRANSPORT_UDS_STREAM]);
    assert_int_equal(n->rejected[DSD_POISON], 0);
    if (with_tap) {
        assert_true(n->tapped[TRANSPORT_UDP] > 0);
        assert_true(n->tapped[TRANSPORT_UDS] > 0);
    }
    agg_close(agg);
    for (unsigned i = 0; i < n_senders; i++)
        close(senders[i].fd);
    sockets_close(&k.sockets);
    (void)rmdir(folder);
    close_memory();
}

static void a_kill_loses_nothing_and_doubles_nothing(void **state)
{
    (void)state;
    kill_and_count(false);
}

static void nor_does_one_with_the_tap_attached(void **state)
{
    (void)state;
    kill_and_count(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_loses_nothing_and_doubles_nothing),
        cmocka_unit_test(nor_does_one_with_the_tap_attached),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
