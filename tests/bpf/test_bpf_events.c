/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The books of the event ring: what each CPU sent is what was lost and what came
 * through reader and link, exactly, whether nobody reads, or all at once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/log.h"
#include "agent/kernel_link.h"
#include "agent/reader.h"
#include "bpf/event_ring.h"
#include "bpf/feature.h"
#include "bpf/features.h"
#include "tests/bpf/require.h"

#define MAX_CPUS 512

extern const unsigned char bpf_storm_begin[], bpf_storm_end[];

struct fixture {
    uv_loop_t loop;
    struct process_clock clock;
    struct sockets sockets;
    struct landing landing;
    struct region region;
    _Atomic uint32_t serving;
    struct reader *reader;
    bool drained;
    struct kernel_link link;
    struct event_ring ring;
    struct bpf_object *object;
    int storm_fd;
    uint32_t n_cpus;
    uint64_t received[MAX_CPUS], received_bytes[MAX_CPUS];
    uint64_t n_waits;
};

static const struct agg_config agg_cfg = {.context_limit = 100,
                                          .host = "",
                                          .name_prefix = "",
                                          .seed = {3, 4}};
static const struct dsd_parser_opts parser = {.max_line_bytes = 65536};

static void on_event(void *arg, const struct reader_event *ev)
{
    struct fixture *f = arg;

    f->drained = f->drained || ev->kind == READER_DRAINED;
    uv_stop(&f->loop);
}

static void start_reader(struct fixture *f)
{
    const struct landing_opts landing = {.buffer_bytes = 512};
    size_t reserve[AGG_N_RANGES];
    const struct region_opts region = {.name = "reader",
                                       .budget_bytes = 32u << 20,
                                       .reserve = reserve,
                                       .n_ranges = AGG_N_RANGES};
    const struct reader_opts opts = {
        .loop = &f->loop,
        .on_event = on_event,
        .arg = f,
        .landing = &f->landing,
        .sockets = &f->sockets,
        .ingest_region = &f->region,
        .agg = &agg_cfg,
        .parser = &parser,
        .clock = &f->clock,
        .kernel = &f->link,
        .serving = &f->serving,
    };

    agg_reserve(reserve, agg_cfg.context_limit, region.budget_bytes);
    assert_int_equal(region_create(&f->region, &region), 0);
    assert_int_equal(landing_create(&f->landing, &landing), 0);
    assert_int_equal(reader_start(&f->reader, &opts, 0), 0);
}

static void load_storm(struct fixture *f)
{
    const struct feature_env env = {
        .events_fd = f->ring.ring.ring_fd,
        .events_control_fd = f->ring.ring.control_fd,
        .events_stats_fd = f->ring.stats_fd,
    };

    f->object =
        bpf_object__open_mem(bpf_storm_begin,
                             (size_t)(bpf_storm_end - bpf_storm_begin), NULL);
    assert_non_null(f->object);
    assert_int_equal(feature_share_events(f->object, &env), 0);
    assert_int_equal(bpf_object__load(f->object), 0);
    f->storm_fd =
        bpf_program__fd(bpf_object__find_program_by_name(f->object, "storm"));
    assert_true(f->storm_fd >= 0);
}

static int set_up(void **state)
{
    const struct log_opts quiet = {.level = LOG_LEVEL_OFF};
    struct fixture *f = calloc(1, sizeof(*f));
    struct loader_cause cause = {.why = ""};

    assert_non_null(f);
    (void)log_init(&quiet);
    process_clock_init(&f->clock, &clock_real);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(kernel_link_init(&f->link), 0);
    assert_int_equal(event_ring_create(&f->ring, 65536, &cause), 0);
    f->n_cpus = event_ring_n_cpus();
    assert_true(f->n_cpus <= MAX_CPUS);
    load_storm(f);
    start_reader(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    reader_order(f->reader, READER_QUIT, 0);
    reader_join(f->reader, NULL, NULL);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    bpf_object__close(f->object);
    event_ring_close(&f->ring);
    kernel_link_fini(&f->link);
    landing_close(&f->landing);
    region_close(&f->region);
    free(f);
    return 0;
}

/* ---- A storm: each CPU as fast as it can --------------------------------- */

struct gale {
    pthread_t thread;
    int fd;
    unsigned cpu, n;
    int failed;
};

static void *blow(void *arg)
{
    struct gale *g = arg;
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(g->cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0)
        return NULL; /* not ours: the other ones blow */
    for (unsigned i = 0; i < g->n; i++) {
        LIBBPF_OPTS(bpf_test_run_opts, run);

        if (bpf_prog_test_run_opts(g->fd, &run) != 0)
            g->failed = errno;
    }
    return NULL;
}

#define GALES 8

static void storm_begin(const struct fixture *f, struct gale gales[GALES],
                        unsigned n)
{
    for (unsigned i = 0; i < GALES; i++) {
        gales[i] =
            (struct gale){.fd = f->storm_fd, .cpu = i % f->n_cpus, .n = n};
        assert_int_equal(pthread_create(&gales[i].thread, NULL, blow,
                                        &gales[i]),
                         0);
    }
}

static void storm_end(struct gale gales[GALES])
{
    for (unsigned i = 0; i < GALES; i++) {
        assert_int_equal(pthread_join(gales[i].thread, NULL), 0);
        assert_int_equal(gales[i].failed, 0);
    }
}

/* ---- The other end of the link ------------------------------------------- */

static uint64_t word_of(const struct event_hdr *h)
{
    if (h->type == EVENT_ENV)
        return ((const struct event_env *)(const void *)h)->start_ns;
    assert_int_equal(h->type, EVENT_EXEC);
    return ((const struct event_process *)(const void *)h)->start_ns;
}

static void take(struct fixture *f)
{
    static struct kernel_record r;
    const struct event_hdr *h = (const void *)r.bytes;

    while (kernel_link_take_record(&f->link, &r)) {
        if (h->type == EVENT_RUNQ) { /* of any CPU */
            f->n_waits += ((const struct event_runq *)(const void *)h)->n;
            continue;
        }
        assert_true(h->cpu < f->n_cpus);
        assert_true(word_of(h) > 0);
        f->received[h->cpu]++;
        f->received_bytes[h->cpu] += h->len;
    }
    kernel_link_took_records(&f->link);
}

/* All that is in the ring, whoever still sends it meanwhile. */
static void take_rest(struct fixture *f)
{
    struct pollfd bell = {.fd = f->link.kernel_bell, .events = POLLIN};

    while (ring_begin(&f->ring.ring) < ring_end(&f->ring.ring) ||
           spsc_n(&f->link.records) > 0) {
        assert_true(poll(&bell, 1, 10000) == 1);
        kernel_link_hush(f->link.kernel_bell);
        take(f);
    }
}

/* Returns what was lost. */
static uint64_t check_books(struct fixture *f, uint64_t n_sent)
{
    static struct event_stats cpus[MAX_CPUS];
    static struct event_stats sum[MAX_CPUS];
    uint64_t sent = 0, lost = 0, n_waits = 0;

    memset(sum, 0, sizeof(sum));
    for (uint32_t t = 0; t < EVENT_N_TYPES; t++) {
        assert_int_equal(event_ring_read(f->ring.stats_fd, t, cpus), 0);
        for (uint32_t i = 0; i < f->n_cpus; i++) {
            if (t == EVENT_RUNQ) {
                sent += cpus[i].sent;
                lost += cpus[i].lost;
                n_waits += cpus[i].sent - cpus[i].lost;
                continue;
            }
            sum[i].sent += cpus[i].sent;
            sum[i].lost += cpus[i].lost;
            sum[i].bytes += cpus[i].bytes;
        }
    }
    for (uint32_t i = 0; i < f->n_cpus; i++) {
        assert_int_equal(f->received[i] + sum[i].lost, sum[i].sent);
        assert_int_equal(f->received_bytes[i], sum[i].bytes);
        sent += sum[i].sent;
        lost += sum[i].lost;
    }
    assert_int_equal(f->n_waits, n_waits);
    assert_int_equal(sent, n_sent);
    assert_int_equal(atomic_load(&f->link.n_wrong), 0);
    return lost;
}

/* ---- Tests --------------------------------------------------------------- */

static void what_nobody_reads_in_time_is_counted_as_lost(void **state)
{
    struct fixture *f = *state;
    struct gale gales[GALES];
    uint64_t lost;

    storm_begin(f, gales, 5000);
    storm_end(gales);
    kernel_link_give_ring(&f->link, &f->ring.ring, 100);
    take_rest(f);
    lost = check_books(f, GALES * 5000);
    assert_true(lost > 0);
    print_message("sent %d, lost %lu\n", GALES * 5000, (unsigned long)lost);
}

static void a_reader_at_work_gets_all_that_is_not_lost(void **state)
{
    struct fixture *f = *state;
    struct gale gales[GALES];
    struct event_stats sum;

    kernel_link_give_ring(&f->link, &f->ring.ring, 100);
    storm_begin(f, gales, 20000);
    do {
        struct pollfd bell = {.fd = f->link.kernel_bell, .events = POLLIN};

        assert_int_equal(poll(&bell, 1, 10000), 1);
        kernel_link_hush(f->link.kernel_bell);
        take(f);
        event_ring_totals(f->ring.stats_fd, &sum);
    } while (sum.sent < GALES * 20000);
    storm_end(gales);
    take_rest(f);
    print_message("sent %d, lost %lu\n", GALES * 20000,
                  (unsigned long)check_books(f, GALES * 20000));
}

/* The link is full and nobody takes: the reader leaves the rest in the ring, where
 * it is lost and counted. */
static void a_slow_taker_loses_in_the_kernel_alone(void **state)
{
    struct fixture *f = *state;
    struct pollfd bell = {.fd = f->link.kernel_bell, .events = POLLIN};
    struct gale gales[GALES];

    kernel_link_give_ring(&f->link, &f->ring.ring, 100);
    storm_begin(f, gales, 5000);
    storm_end(gales);
    while (!atomic_load(&f->link.records_full)) {
        assert_int_equal(poll(&bell, 1, 10000), 1);
        kernel_link_hush(f->link.kernel_bell);
    }
    kernel_link_ring(f->link.kernel_bell);
    take_rest(f);
    assert_true(check_books(f, GALES * 5000) > 0);
}

/* A drain ends the events: what is there comes, and no more is taken or counted. */
static void behind_the_drain_nothing_is_sent(void **state)
{
    struct fixture *f = *state;
    struct gale gales[GALES];

    kernel_link_give_ring(&f->link, &f->ring.ring, 100);
    storm_begin(f, gales, 10);
    storm_end(gales);
    reader_order(f->reader, READER_DRAIN,
                 clock_mono_ns(&clock_real) + UINT64_C(5000000000));
    while (!f->drained)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    take(f);
    assert_int_equal(check_books(f, GALES * 10), 0);
    storm_begin(f, gales, 10);
    storm_end(gales);
    assert_int_equal(check_books(f, GALES * 10), 0);
}

/* ---- The feature --------------------------------------------------------- */

static char written[4096];

static void record_lines(void *arg, const char *packet, size_t n)
{
    (void)arg;
    assert_true(strlen(written) + n < sizeof(written));
    memcpy(written + strlen(written), packet, n);
}

static void collect(void *self, struct lines *l)
{
    memset(written, 0, sizeof(written));
    self_feature.collect(self, l, false);
    lines_flush(l);
}

static void the_feature_tells_growth_by_type(void **state)
{
    struct fixture *f = *state;
    static const struct feature_opts opts;
    const struct feature_env env = {.opts = &opts,
                                    .events_stats_fd = f->ring.stats_fd};
    struct gale g = {.fd = f->storm_fd, .n = 16};
    struct loader_cause cause = {.why = ""};
    struct lines lines;
    void *self;

    lines_init(&lines, record_lines, NULL);
    assert_int_equal(self_feature.open(&self, &env, &cause), 0);
    collect(self, &lines);
    assert_string_equal(written, "");
    (void)blow(&g);
    collect(self, &lines);
    assert_string_equal(written,
                        "retriever.ebpf.events.sent:12|c|#type:exec\n"
                        "retriever.ebpf.events.lost:0|c|#type:exec\n"
                        "retriever.ebpf.events.bytes:864|c|#type:exec\n"
                        "retriever.ebpf.events.sent:1|c|#type:env\n"
                        "retriever.ebpf.events.lost:0|c|#type:env\n"
                        "retriever.ebpf.events.bytes:56|c|#type:env\n"
                        "retriever.ebpf.events.sent:3|c|#type:runq\n"
                        "retriever.ebpf.events.lost:0|c|#type:runq\n"
                        "retriever.ebpf.events.bytes:168|c|#type:runq\n");
    collect(self, &lines);
    assert_string_equal(written, "");
    self_feature.close(self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            what_nobody_reads_in_time_is_counted_as_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            a_reader_at_work_gets_all_that_is_not_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_slow_taker_loses_in_the_kernel_alone,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(behind_the_drain_nothing_is_sent,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_feature_tells_growth_by_type,
                                        set_up, tear_down),
    };

    require_bpf();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
