/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger reads both regions' counters, walks what is not settled yet, and
 * puts the sums beside each other. Nothing here counts: a counter that only the
 * ledger knew could not be wrong, and so could not prove anything.
 */
#include "agent/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/json.h"
#include "aggregator/series.h"

#define RECEIPT_MAX_BYTES (64u * 1024)

/* Samples in parts that are closed and not payloads yet. */
static uint64_t unencoded_samples(const struct agg *agg, uint64_t last,
                                  const struct store *store)
{
    uint64_t sum = 0;

    for (uint64_t seq = store_encoded_seq(store) + 1; seq <= last; seq++) {
        struct part_iter *it;
        struct part_info info;

        if (part_iter_open(&it, agg, seq) != 0)
            continue; /* not there: the balance will say so */
        part_iter_info(it, &info);
        sum += info.n_samples;
        part_iter_close(it);
    }
    return sum;
}

void ledger_collect(struct ledger *out, const struct reader_view *view,
                    const struct agg *agg, const struct store *store)
{
    memset(out, 0, sizeof(*out));
    out->ingest = view->counts;
    out->agg = view->agg;
    out->delivery = *store_counts(store);
    store_stats(store, &out->store);
    for (int t = 0; t < TRANSPORT_N; t++)
        out->received += out->ingest.received[t];
    for (int r = 0; r < DSD_N_RESULTS; r++)
        out->rejected += out->ingest.rejected[r];
    for (int r = 0; r < FILTER_N; r++)
        out->filtered += out->ingest.filtered[r];
    out->delivery.dropped[DROP_DAMAGED] += out->ingest.damaged;
    for (int c = 0; c < DROP_N; c++)
        out->dropped += out->delivery.dropped[c];
    out->open = out->agg.open_samples;
    out->unencoded = unencoded_samples(agg, view->closed_seq, store);
    out->in_flight = out->unencoded + out->store.load.n_samples;
}

void ledger_finish(struct ledger *l)
{
    uint64_t late = l->open + l->in_flight;

    l->delivery.dropped[DROP_DEADLINE] += late;
    l->dropped += late;
    l->open = l->unencoded = l->in_flight = 0;
}

bool ledger_balances(const struct ledger *l)
{
    return l->received == l->rejected + l->filtered + l->ingest.aggregated &&
           l->ingest.aggregated == l->delivery.delivered + l->delivery.saved +
                                       l->dropped + l->in_flight + l->open;
}

int ledger_exit_status(const struct ledger *l, uint64_t dropped_before_stop)
{
    if (!ledger_balances(l))
        return 4;
    return l->dropped > dropped_before_stop || l->open + l->in_flight > 0 ? 3
                                                                          : 0;
}

static void member_u64(struct json *j, const char *key, uint64_t v)
{
    json_key(j, key);
    json_u64(j, v);
}

static void write_received(const struct ledger *l, struct json *j)
{
    json_key(j, "received");
    json_object(j);
    member_u64(j, "datagrams", l->ingest.datagrams);
    member_u64(j, "bytes", l->ingest.bytes);
    member_u64(j, "samples", l->received);
    member_u64(j, "events", l->ingest.events);
    member_u64(j, "checks", l->ingest.checks);
    json_key(j, "by_transport");
    json_object(j);
    for (int t = 0; t < TRANSPORT_N; t++)
        member_u64(j, transport_name(t), l->ingest.received[t]);
    json_end(j);
    json_end(j);
}

static void write_rejected(const struct ledger *l, struct json *j)
{
    json_key(j, "rejected");
    json_object(j);
    for (int r = DSD_FIRST_REJECT; r < DSD_N_RESULTS; r++) {
        if (l->ingest.rejected[r] > 0)
            member_u64(j, dsd_reject_name(r), l->ingest.rejected[r]);
    }
    json_end(j);
    json_key(j, "filtered");
    json_object(j);
    for (int r = 0; r < FILTER_N; r++) {
        if (l->ingest.filtered[r] > 0)
            member_u64(j, filter_name(r), l->ingest.filtered[r]);
    }
    json_end(j);
}

static void write_dropped(const struct ledger *l, struct json *j)
{
    json_key(j, "dropped");
    json_object(j);
    for (int c = 0; c < DROP_N; c++) {
        if (c != DROP_HTTP && l->delivery.dropped[c] > 0)
            member_u64(j, drop_cause_name(c), l->delivery.dropped[c]);
    }
    for (int i = 0; i < STORE_N_HTTP_CODES; i++) {
        char key[16];

        if (l->delivery.dropped_http[i] == 0)
            continue;
        snprintf(key, sizeof(key), "http_%d", i + 100);
        member_u64(j, key, l->delivery.dropped_http[i]);
    }
    json_end(j);
}

static void write_delivery(const struct ledger *l, struct json *j)
{
    const struct delivery_counts *d = &l->delivery;

    member_u64(j, "aggregated", l->ingest.aggregated);
    member_u64(j, "delivered", d->delivered);
    member_u64(j, "saved", d->saved);
    write_dropped(l, j);
    member_u64(j, "in_flight", l->in_flight);
    member_u64(j, "open", l->open);
    member_u64(j, "points", d->points_delivered);
    json_key(j, "payloads");
    json_object(j);
    member_u64(j, "sent", d->payloads_sent);
    member_u64(j, "retried", d->payloads_retried);
    member_u64(j, "ambiguous", d->payloads_ambiguous);
    json_end(j);
    json_key(j, "events");
    json_object(j);
    member_u64(j, "delivered", d->events_delivered);
    member_u64(j, "dropped", d->events_dropped);
    member_u64(j, "rejected", l->ingest.events_rejected);
    json_end(j);
    json_key(j, "checks");
    json_object(j);
    member_u64(j, "delivered", d->checks_delivered);
    member_u64(j, "dropped", d->checks_dropped);
    member_u64(j, "rejected", l->ingest.checks_rejected);
    json_end(j);
}

static void write_beside(const struct ledger *l, const struct ledger_facts *f,
                         struct json *j)
{
    const struct ingest_counts *c = &l->ingest;

    member_u64(j, "folded", c->folded);
    member_u64(j, "delivered_old", c->delivered_old);
    json_key(j, "kernel_drops");
    json_object(j);
    member_u64(j, "udp", c->kernel_drops[TRANSPORT_UDP]);
    json_end(j);
    member_u64(j, "left_for_successor", l->left_for_successor);
    member_u64(j, "worker_deaths", f->worker_deaths);
    json_key(j, "input");
    json_object(j);
    member_u64(j, "bad_rate", c->bad_rate);
    member_u64(j, "bad_utf8", c->bad_utf8);
    member_u64(j, "clipped_tags", c->clipped_tags);
    member_u64(j, "clipped_hosts", c->clipped_hosts);
    member_u64(j, "type_clashes", c->type_clashes);
    member_u64(j, "hist_capped", c->hist_capped);
    member_u64(j, "truncated_datagrams", c->truncated_datagrams);
    member_u64(j, "stream_refused", c->stream_refused);
    member_u64(j, "stream_oversize", c->stream_oversize);
    json_end(j);
}

void ledger_write_members(const struct ledger *l,
                          const struct ledger_facts *facts, struct json *j)
{
    write_received(l, j);
    write_rejected(l, j);
    write_delivery(l, j);
    write_beside(l, facts, j);
}

static const char *const stage_names[STAGE_DONE] = {
    [STAGE_LINGER] = "linger",   [STAGE_DRAIN] = "drain",
    [STAGE_CLOSE] = "close",     [STAGE_ENCODE] = "encode",
    [STAGE_DELIVER] = "deliver", [STAGE_SAVE] = "save",
};

int ledger_write_json(const struct ledger *l, const struct ledger_facts *facts,
                      struct buf *out)
{
    struct json j;

    json_init(&j, out);
    json_object(&j);
    json_key(&j, "retriever");
    json_str(&j, RETRIEVER_VERSION);
    member_u64(&j, "receipt", 1);
    json_key(&j, "reason");
    json_str(&j, facts->reason);
    json_key(&j, "balanced");
    json_bool(&j, ledger_balances(l));
    json_key(&j, "exit");
    json_i64(&j, facts->exit_status);
    member_u64(&j, "duration_ms", facts->duration_ms);
    json_key(&j, "stages_ms");
    json_object(&j);
    for (int s = STAGE_LINGER; facts->stage_ms != NULL && s <= STAGE_SAVE; s++)
        member_u64(&j, stage_names[s], facts->stage_ms[s]);
    json_end(&j);
    ledger_write_members(l, facts, &j);
    json_end(&j);
    return json_finish(&j);
}

/* stderr is shared with the job and the shell, so its O_NONBLOCK is not ours to
 * set: a pipe or a terminal is opened once more, without blocking; a socket has
 * a flag per call; a file does not block. What cannot be opened again is asked
 * by poll() and may block when somebody else fills it in that moment. */
static int open_stderr(bool *is_socket)
{
    struct stat st;

    *is_socket = false;
    if (fstat(STDERR_FILENO, &st) != 0)
        return STDERR_FILENO;
    *is_socket = S_ISSOCK(st.st_mode);
    if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
        int fd = open("/proc/self/fd/2",
                      O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

        if (fd >= 0)
            return fd;
    }
    return STDERR_FILENO;
}

static uint64_t left_ns(uint64_t deadline_ns)
{
    uint64_t now_ns = clock_mono_ns(&clock_real);

    return now_ns < deadline_ns ? deadline_ns - now_ns : 0;
}

/* Somebody may read slowly: wait, but never past the deadline. */
static void write_all(const char *p, size_t n, uint64_t deadline_ns)
{
    bool is_socket;
    int fd = open_stderr(&is_socket);
    struct pollfd pfd = {.fd = fd, .events = POLLOUT};

    while (n > 0) {
        uint64_t ns = left_ns(deadline_ns);
        struct timespec wait = {.tv_sec = (time_t)(ns / CLOCK_NS_PER_S),
                                .tv_nsec = (long)(ns % CLOCK_NS_PER_S)};
        size_t some = n < PIPE_BUF ? n : PIPE_BUF;
        int ready = ppoll(&pfd, 1, &wait, NULL);
        ssize_t w;

        if (ready == 0 || (ready < 0 && errno != EINTR))
            break;
        if (ready < 0)
            continue;
        w = is_socket ? send(fd, p, some, MSG_DONTWAIT | MSG_NOSIGNAL)
                      : write(fd, p, some);
        if (w > 0) {
            p += w;
            n -= (size_t)w;
        } else if (w < 0 && errno != EINTR && errno != EAGAIN) {
            break;
        }
    }
    if (fd != STDERR_FILENO)
        close(fd);
}

/* A closed pipe must not end the process by SIGPIPE, whatever the mask of the
 * thread that writes. */
static void write_stderr(const char *p, size_t n, uint64_t deadline_ns)
{
    static const struct timespec at_once = {0};
    sigset_t pipe_set, old, pending;
    bool was_pending;

    (void)sigemptyset(&pipe_set);
    (void)sigaddset(&pipe_set, SIGPIPE);
    (void)sigpending(&pending);
    was_pending = sigismember(&pending, SIGPIPE) == 1;
    (void)pthread_sigmask(SIG_BLOCK, &pipe_set, &old);
    write_all(p, n, deadline_ns);
    if (!was_pending)
        (void)sigtimedwait(&pipe_set, NULL, &at_once);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void save_receipt(int run_dir, const struct buf *line)
{
    int fd =
        openat(run_dir, "receipt.json.new",
               O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return;
    if (write(fd, line->data, line->n) == (ssize_t)line->n)
        (void)renameat(run_dir, "receipt.json.new", run_dir, "receipt.json");
    close(fd);
}

void ledger_emit_receipt(const struct ledger *l,
                         const struct ledger_facts *facts, int run_dir,
                         uint64_t deadline_ns)
{
    struct buf line;

    buf_init(&line, RECEIPT_MAX_BYTES);
    if (ledger_write_json(l, facts, &line) == 0 && buf_putc(&line, '\n') == 0) {
        if (run_dir >= 0)
            save_receipt(run_dir, &line);
        write_stderr(line.data, line.n, deadline_ns);
    }
    buf_fini(&line);
}
