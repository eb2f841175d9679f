/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/lives.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "agent/ingress.h"
#include "agent/keeper_private.h"
#include "agent/sockets_private.h"
#include "aggregator/series.h"
#include "aggregator/sketch.h"
#include "forwarder/encode.h"
#include "tests/support/lives_private.h"

#define NOW_S 1700000003
#define BUDGET_BYTES (16u << 20)
#define STORE_BYTES (1u << 20)
#define N_NOTES 64u

enum { UDP, GRAM, STREAM };

/* ---- The clock stands still (linked with --wrap=clock_gettime) ---------- */

static const struct lives *clock_of;

static int64_t passed_s(void)
{
    if (clock_of == NULL || atomic_load(&clock_of->shared->gate_passed) == 0)
        return 0;
    return clock_of->script->later_s;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *ts);

int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
    *ts = (struct timespec){.tv_sec = (id == CLOCK_REALTIME ? NOW_S : 5000) +
                                      passed_s()};
    return 0;
}

int __real_clock_gettime(clockid_t id, struct timespec *ts);

uint64_t lives_real_ns(void)
{
    struct timespec ts;

    (void)__real_clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- One life ------------------------------------------------------------ */

struct life {
    struct lives *v;
    struct agg *agg;
    struct store *store;
    struct encoder *encoder;
    struct ingress g;
    struct spsc notes;
    struct ingress_note note_mem[N_NOTES];
    struct process_clock clock;
};

void lives_agg_config(const struct lives *v, struct agg_config *cfg)
{
    *cfg = (struct agg_config){
        .context_limit = 5000,
        .expiry_s = 300,
        .context_expiry_s = 20,
        .host = "h",
        .name_prefix = "",
        .hist_aggregates = HIST_MAX | HIST_MEDIAN | HIST_AVG | HIST_COUNT,
        .percentiles = {95},
        .n_percentiles = 1,
        .copy_histograms = v->script->copy_histograms,
        .distribution_copy_prefix = v->script->copy_histograms ? "dist." : NULL,
        .life_start_s = NOW_S - 60,
        .seed = {0x123456789abcdefULL, 0xfedcba9876543210ULL},
    };
}

static int added(void *arg, uint32_t conn)
{
    (void)arg;
    (void)conn;
    return 0;
}

static void removed(void *arg, uint32_t conn)
{
    struct life *l = arg;

    ingress_conn_freed(&l->g, conn);
}

static int start_encoder(struct life *l)
{
    struct encode_config cfg = {.encoding = ENCODING_NONE,
                                .internal_hostname = "h",
                                .have_endpoint = true};

    for (int i = 0; i < PAYLOAD_N_KINDS; i++)
        cfg.limits[i] = (struct encode_limits){64u << 10, 128u << 10, 2000};
    return encoder_create(&l->encoder, l->store, &cfg);
}

static bool attach(struct life *l)
{
    static const struct dsd_parser_opts parser = {.no_aggregation = true,
                                                  .max_line_bytes = 4096};
    struct keeper *k = &l->v->k;
    struct agg_config cfg;

    lives_agg_config(l->v, &cfg);
    (void)region_rollback(&k->store);
    (void)region_rollback(&k->ingest);
    if (store_open(&l->store, &k->store,
                   &(struct store_opts){.max_bytes = STORE_BYTES}) != 0 ||
        agg_create(&l->agg, &k->ingest, &cfg) != 0 ||
        dsd_parser_init(&l->g.ingest.parser, &parser) != 0 ||
        start_encoder(l) != 0)
        return false;
    if (store_encoded_seq(l->store) > 0)
        agg_release(l->agg, store_encoded_seq(l->store));
    process_clock_init(&l->clock, &clock_real);
    spsc_init(&l->notes, l->note_mem, N_NOTES, sizeof(l->note_mem[0]));
    l->g.ingest.region = &k->ingest;
    l->g.ingest.agg = l->agg;
    l->g.region = &k->ingest;
    l->g.counts = agg_counts(l->agg);
    l->g.landing = &k->landing;
    l->g.sockets = &k->sockets;
    l->g.clock = &l->clock;
    l->g.notes = &l->notes;
    l->g.watch = (struct ingress_watch){l, added, removed};
    if (ingress_init(&l->g) != 0)
        return false;
    /* A judge's sockets are others; the records name those of the script. */
    for (unsigned i = 0; i < LIVES_RING_SOURCES; i++)
        l->g.socket_ids[i] = l->v->ring.ids[i];
    return true;
}

/* A judge frees nothing: it is over in a moment. */
static void detach(struct life *l)
{
    ingress_fini(&l->g);
    dsd_parser_fini(&l->g.ingest.parser);
    encoder_close(l->encoder);
    agg_close(l->agg);
    store_close(l->store);
}

/* ---- Out: encode, send, settle ------------------------------------------ */

static void encode_part(struct life *l, uint64_t seq)
{
    struct encode_result result = {0};
    struct part_iter *it;

    REQUIRE(part_iter_open(&it, l->agg, seq) == 0);
    REQUIRE(encoder_run(l->encoder, it, false, &result) == 0);
    part_iter_close(it);
    store_commit_part(l->store, seq, result.drafts, result.n_drafts,
                      result.losses, result.n_losses);
    agg_release(l->agg, seq);
}

/* Sent or not: a kill cuts a write short, so that the intake holds what the word
 * behind it says, as nobody takes a request whose body is not whole. */
static void give_away(struct lives *v, const struct payload *p)
{
    struct lives_sent head = {p->id, (uint32_t)p->kind, p->n_bytes};
    struct iovec iov[2] = {{&head, sizeof(head)},
                           {(void *)(uintptr_t)p->body, p->n_bytes}};
    size_t n = sizeof(head) + p->n_bytes;
    uint64_t at = atomic_load(&v->shared->n_sent);

    if (!v->in_copy) {
        REQUIRE(pwritev(v->intake, iov, 2, (off_t)at) == (ssize_t)n);
        atomic_store(&v->shared->n_sent, at + n);
        return;
    }
    v->sent = realloc(v->sent, v->n_sent + n);
    REQUIRE(v->sent != NULL);
    memcpy(v->sent + v->n_sent, &head, sizeof(head));
    memcpy(v->sent + v->n_sent + sizeof(head), p->body, p->n_bytes);
    v->n_sent += n;
}

static void deliver(struct life *l)
{
    struct payload *p;

    while ((p = store_take(l->store)) != NULL) {
        store_count_attempt(l->store, p);
        store_mark_maybe_sent(l->store, p);
        give_away(l->v, p);
        store_settle_delivered(l->store, p);
    }
}

static void finish_parts(struct life *l)
{
    while (store_encoded_seq(l->store) < agg_last_closed(l->agg))
        encode_part(l, store_encoded_seq(l->store) + 1);
    deliver(l);
}

/* ---- In ------------------------------------------------------------------ */

static void receive_tapped(struct life *l)
{
    const struct landing *zone = &l->v->k.landing;

    if (!zone->has_ring)
        return;
    (void)ingress_tap(&l->g, ring_end(&zone->ring));
    if (atomic_load(&l->v->shared->gate_passed) != 0)
        ingress_tap_give_up(&l->g, ring_end(&zone->ring));
}

static void receive(struct life *l)
{
    struct landing *zone = &l->v->k.landing;

    receive_tapped(l);
    (void)ingress_datagrams(&l->g, UDP, 4);
    (void)ingress_datagrams(&l->g, GRAM, 4);
    (void)ingress_accept(&l->g, STREAM, 4);
    for (uint32_t i = 0; i < zone->n_conns; i++) {
        if (zone->conns[i].fd >= 0)
            (void)ingress_stream_read(&l->g, i, 8);
    }
}

static void send_rest(struct lives *v)
{
    const struct lives_script *s = v->script;
    size_t n = v->n_stream - s->n_first_bytes;

    REQUIRE(send(v->client[STREAM], v->stream + s->n_first_bytes, n, 0) ==
            (ssize_t)n);
    if (v->k.landing.has_ring)
        lives_ring_go_on(&v->ring);
    atomic_store(&v->shared->gate_passed, 1);
}

static void gate(struct lives *v)
{
    if (atomic_load(&v->shared->gate_passed) != 0)
        return;
    if (v->in_copy)
        send_rest(v);
    else
        atomic_store(&v->shared->at_gate, 1);
    while (atomic_load(&v->shared->gate_passed) == 0)
        ;
}

void lives_between(void *arg)
{
    struct lives *v = arg;

    if (atomic_load(&v->shared->at_gate) != 0 &&
        atomic_load(&v->shared->gate_passed) == 0)
        send_rest(v);
}

static void close_conns(struct life *l)
{
    struct landing *zone = &l->v->k.landing;

    for (uint32_t i = 0; i < zone->n_conns; i++) {
        if (zone->conns[i].fd >= 0)
            ingress_stream_close(&l->g, i);
    }
}

static void take_and_close(struct life *l)
{
    receive(l);
    agg_close_all(l->agg, NOW_S + passed_s());
    finish_parts(l);
}

void lives_live(void *arg)
{
    struct lives *v = arg;
    static struct life l; /* too large for the stack */

    l = (struct life){.v = v};
    REQUIRE(attach(&l));
    ingress_recover(&l.g);
    finish_parts(&l);
    if (agg_last_closed(l.agg) == v->base_seq)
        take_and_close(&l);
    gate(v);
    if (v->n_parts == 0 || agg_last_closed(l.agg) < v->base_seq + v->n_parts)
        take_and_close(&l);
    close_conns(&l);
    detach(&l);
}

/* ---- The keeper's side --------------------------------------------------- */

pid_t lives_fork(void *arg)
{
    struct lives *v = arg;

    return keeper_fork(&v->k);
}

void lives_after_kill(struct lives *v)
{
    keeper_after_worker(&v->k, SIGKILL);
}

void lives_maps(const struct lives *v, struct stepper *s)
{
    const struct keeper *k = &v->k;

    s->maps[0] =
        (struct stepper_map){k->ingest.head, k->ingest.map_bytes, k->ingest.fd};
    s->maps[1] =
        (struct stepper_map){k->store.head, k->store.map_bytes, k->store.fd};
    s->maps[2] = (struct stepper_map){k->landing.map, k->landing.map_bytes,
                                      k->landing.fd};
    s->n_maps = 3;
    if (k->landing.has_ring)
        s->maps[s->n_maps++] =
            (struct stepper_map){v->ring.map, v->ring.words_bytes, v->ring.fd};
}

static void *share(size_t n)
{
    return mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                0);
}

static bool open_memory(struct lives *v)
{
    const struct landing_opts landing = {.buffer_bytes = 1024,
                                         .n_conns = 2,
                                         .max_frame_bytes = 4000};
    size_t reserve[AGG_N_RANGES];
    size_t store_ranges[STORE_N_RANGES];
    struct agg_config cfg;
    const struct region_opts ingest = {.name = "proof-ingest",
                                       .budget_bytes = BUDGET_BYTES,
                                       .reserve = reserve,
                                       .n_ranges = AGG_N_RANGES};
    const struct region_opts store = {.name = "proof-store",
                                      .budget_bytes =
                                          store_reserve(store_ranges,
                                                        STORE_BYTES),
                                      .reserve = store_ranges,
                                      .n_ranges = STORE_N_RANGES};
    struct keeper *k = &v->k;

    lives_agg_config(v, &cfg);
    agg_reserve(reserve, cfg.context_limit, ingest.budget_bytes);
    k->sup = share(sizeof(*k->sup));
    v->shared = share(sizeof(*v->shared));
    v->intake = memfd_create("proof-intake", MFD_CLOEXEC);
    k->env.run_dir = -1;
    if (k->sup == MAP_FAILED || v->shared == MAP_FAILED || v->intake < 0 ||
        region_create(&k->ingest, &ingest) != 0 ||
        region_create(&k->store, &store) != 0 ||
        landing_create(&k->landing, &landing) != 0)
        return false;
    region_allow(&k->ingest, k->landing.map, k->landing.map_bytes);
    return true;
}

static int connect_unix(const char *name, int type)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    socklen_t n;

    (void)snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, "%s", name);
    n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
    return connect(fd, (struct sockaddr *)&a, n) == 0 ? fd : -1;
}

static int connect_udp(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    return connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 ? fd : -1;
}

static bool bind_abstract(struct socket_entry *e, const char *name)
{
    static const struct config cfg; /* nothing of it is asked for but sizes */
    char path[64];
    const struct unix_opts opts = {.path = path,
                                   .mode = 0700,
                                   .owner = "",
                                   .group = ""};

    (void)snprintf(path, sizeof(path), "@%s", name);
    return sockets_bind_unix(e, &cfg, &opts) == 0;
}

static bool open_sockets(struct lives *v)
{
    static const struct config cfg;
    static unsigned n_opened;
    struct socket_entry *e = v->k.sockets.entries;
    char name[2][48];

    n_opened++;
    for (int i = 0; i < 2; i++)
        (void)snprintf(name[i], sizeof(name[i]), "retriever-proof-%d-%u-%d",
                       (int)getpid(), n_opened, i);
    e[UDP] =
        (struct socket_entry){.kind = SOCKET_UDP, .transport = TRANSPORT_UDP};
    e[GRAM] = (struct socket_entry){.kind = SOCKET_UNIXGRAM,
                                    .transport = TRANSPORT_UDS};
    e[STREAM] = (struct socket_entry){.kind = SOCKET_UNIXSTREAM,
                                      .transport = TRANSPORT_UDS_STREAM};
    if (sockets_bind_udp(&e[UDP], &cfg, "127.0.0.1", 0) != 0 ||
        !bind_abstract(&e[GRAM], name[0]) ||
        !bind_abstract(&e[STREAM], name[1]))
        return false;
    v->k.sockets.n = 3;
    v->client[UDP] = connect_udp(e[UDP].port);
    v->client[GRAM] = connect_unix(name[0], SOCK_DGRAM);
    v->client[STREAM] = connect_unix(name[1], SOCK_STREAM);
    return v->client[UDP] >= 0 && v->client[GRAM] >= 0 &&
           v->client[STREAM] >= 0;
}

static bool open_ring(struct lives *v)
{
    const struct lives_script *s = v->script;

    if (s->ring == NULL)
        return true;
    for (unsigned i = 0; i < LIVES_RING_SOURCES; i++)
        v->ring.ids[i] = ingress_socket_id(&v->k.sockets.entries[i]);
    return lives_ring_open(&v->ring, &v->k.landing, s->ring, s->ring_later);
}

static bool send_datagrams(int fd, const char *const *lines)
{
    for (unsigned i = 0; i < LIVES_MAX_DATAGRAMS && lines[i] != NULL; i++) {
        size_t n = strlen(lines[i]);

        if (send(fd, lines[i], n, 0) != (ssize_t)n)
            return false;
    }
    return true;
}

static void make_stream(struct lives *v)
{
    v->stream = malloc(64u << 10);
    REQUIRE(v->stream != NULL);
    v->n_stream = 0;
    for (unsigned i = 0;
         i < LIVES_MAX_DATAGRAMS && v->script->frames[i] != NULL; i++) {
        size_t n = strlen(v->script->frames[i]);
        unsigned char *p = v->stream + v->n_stream;

        p[0] = (unsigned char)n;
        p[1] = (unsigned char)(n >> 8);
        p[2] = p[3] = 0;
        memcpy(p + 4, v->script->frames[i], n);
        v->n_stream += 4 + n;
    }
}

/* Contexts that an earlier life made and sent. */
static void make_contexts(struct lives *v)
{
    static struct life l;

    l = (struct life){.v = v};
    REQUIRE(attach(&l));
    for (unsigned i = 0; i < v->script->n_contexts; i++) {
        struct ingest_pos pos = {0};
        char line[64];
        int n = snprintf(line, sizeof(line), "known.%u:1|g|#n:%u", i, i);

        ingest_packet(&l.g.ingest, &pos, 1, line, (size_t)n, TRANSPORT_UDP, 0,
                      NOW_S);
    }
    if (v->script->n_contexts > 0) {
        agg_close_all(l.agg, NOW_S);
        finish_parts(&l);
    }
    v->base_seq = agg_last_closed(l.agg);
    detach(&l);
    atomic_store(&v->shared->n_sent, 0);
}

bool lives_open(struct lives *v, const struct lives_script *script)
{
    size_t n = script->n_first_bytes;

    *v = (struct lives){.script = script, .n_parts = v->n_parts};
    clock_of = NULL;
    sketch_init();
    make_stream(v);
    if (!open_memory(v) || !open_sockets(v) || !open_ring(v) ||
        (v->k.open_fds = opendir("/proc/self/fd")) == NULL ||
        fd_set_snapshot(&v->k.kept) != 0) {
        perror("lives_open");
        return false;
    }
    make_contexts(v);
    clock_of = v;
    return send_datagrams(v->client[UDP], script->udp) &&
           send_datagrams(v->client[GRAM], script->gram) &&
           send(v->client[STREAM], v->stream, n, 0) == (ssize_t)n;
}

void lives_close(struct lives *v)
{
    sockets_close(&v->k.sockets);
    for (int i = 0; i < 3; i++)
        close(v->client[i]);
    close(v->intake);
    closedir(v->k.open_fds);
    fd_set_fini(&v->k.kept);
    lives_ring_close(&v->ring, &v->k.landing);
    landing_close(&v->k.landing);
    region_close(&v->k.ingest);
    region_close(&v->k.store);
    munmap(v->k.sup, sizeof(*v->k.sup));
    munmap(v->shared, sizeof(*v->shared));
    free(v->stream);
}

/* ---- A judge's sockets --------------------------------------------------- */

static bool is_empty(int fd)
{
    char c;

    return recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0;
}

/* recvmmsg() takes all datagrams in one instruction, so there are all or none. */
static bool copy_datagrams(struct lives *v, unsigned source,
                           const char *const *lines)
{
    int real = v->k.sockets.entries[source].fd;
    bool waits = !is_empty(real);
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
                   pair) != 0 ||
        dup2(pair[0], real) != real)
        return false;
    v->client[source] = pair[1];
    close(pair[0]);
    return !waits || send_datagrams(pair[1], lines);
}

/* The connection that the listener gave, whoever has it by now; -1: it waits. */
static int accepted(const struct lives *v)
{
    struct pollfd p = {.fd = v->k.sockets.entries[STREAM].fd, .events = POLLIN};

    if (poll(&p, 1, 0) != 0)
        return -1;
    for (int fd = 0; fd < 256; fd++) {
        if (fd < (int)v->k.kept.n && v->k.kept.has[fd])
            continue;
        if (sockets_is_conn_of(&v->k.sockets, STREAM, fd))
            return fd;
    }
    return -2;
}

/* A listener and a connection of our own take the places of the real ones. */
static bool copy_stream(struct lives *v)
{
    struct socket_entry *e = &v->k.sockets.entries[STREAM];
    struct socket_entry mine = {.kind = SOCKET_UNIXSTREAM};
    unsigned char rest[65536];
    int conn = accepted(v);
    ssize_t n =
        conn >= 0 ? recv(conn, rest, sizeof(rest), MSG_PEEK | MSG_DONTWAIT) : 0;
    char name[48];
    int fd;

    (void)snprintf(name, sizeof(name), "retriever-judge-%d", (int)getpid());
    if (!bind_abstract(&mine, name) || dup2(mine.fd, e->fd) != e->fd)
        return false;
    v->client[STREAM] = connect_unix(name, SOCK_STREAM);
    if (conn == -2) /* closed by the end of the life */
        return true;
    if (conn == -1) {
        n = (ssize_t)v->script->n_first_bytes;
        return send(v->client[STREAM], v->stream, (size_t)n, 0) == n;
    }
    fd = accept4(e->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 || dup2(fd, conn) != conn)
        return false;
    close(fd);
    return n <= 0 || send(v->client[STREAM], rest, (size_t)n, 0) == n;
}

bool lives_enter_copy(struct lives *v)
{
    struct lives_shared *mine = malloc(sizeof(*mine));
    struct supervision *sup = malloc(sizeof(*sup));

    if (mine == NULL || sup == NULL)
        return false;
    memcpy(mine, v->shared, sizeof(*mine));
    memcpy(sup, v->k.sup, sizeof(*sup));
    v->shared = mine;
    v->k.sup = sup;
    v->k.shares_table = true;
    v->k.open_fds = opendir("/proc/self/fd");
    v->in_copy = true;
    if (v->k.landing.has_ring && !lives_ring_copy(&v->ring))
        return false;
    if (v->k.open_fds == NULL || !copy_datagrams(v, UDP, v->script->udp) ||
        !copy_datagrams(v, GRAM, v->script->gram) || !copy_stream(v))
        return false;
    /* The client's end and what else is ours is none of the dead worker's. */
    for (int i = 0; i < 3; i++) {
        if (v->client[i] >= (int)v->k.kept.n)
            return false;
        v->k.kept.has[v->client[i]] = true;
    }
    return true;
}
