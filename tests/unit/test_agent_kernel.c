/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel thread beside a loop and a reader, as in the worker, with features made
 * for the test: orders, back pressure both ways, refusals.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/log.h"
#include "agent/kernel.h"
#include "agent/kernel_report.h"
#include "agent/reader.h"

#define N_CONTEXTS 100
/* More packets than the link has room for. */
#define N_LINES (3 * KERNEL_PACKETS * (LINES_PACKET_BYTES / 40))

/* ---- Features ------------------------------------------------------------ */

static _Atomic uint64_t n_collects, n_last, n_closed, n_seen;
static _Atomic uint64_t lines_each; /* of one collect() */
static _Atomic uint32_t is_busy;
static _Atomic bool opens_slowly;
static sem_t may_open;

static int busy_open(void **self, const struct feature_env *env,
                     struct loader_cause *cause)
{
    (void)cause;
    assert_int_equal(is_busy, 1);
    *self = (void *)(uintptr_t)env->workload_pid;
    return 0;
}

static void busy_event(void *self, const struct event_hdr *ev)
{
    assert_int_equal((uintptr_t)self, 77);
    assert_int_equal(ev->type, EVENT_EXEC);
    assert_int_equal(ev->tid, atomic_load(&n_seen)); /* in their order */
    atomic_fetch_add(&n_seen, 1);
}

static void busy_collect(void *self, struct lines *out, bool last)
{
    (void)self;
    assert_int_equal(is_busy, 1);
    for (uint64_t i = atomic_load(&lines_each); i > 0; i--) {
        char tags[32];

        (void)snprintf(tags, sizeof(tags), "n:%u",
                       (unsigned)(i % (N_CONTEXTS / 2)));
        lines_add(out, "busy.count", 1, "c", tags);
    }
    atomic_fetch_add(&n_collects, 1);
    atomic_fetch_add(&n_last, last ? 1 : 0);
}

static void busy_close(void *self)
{
    (void)self;
    assert_int_equal(is_busy, 1);
    atomic_fetch_add(&n_closed, 1);
}

static int refused_open(void **self, const struct feature_env *env,
                        struct loader_cause *cause)
{
    (void)self;
    (void)env;
    if (opens_slowly)
        assert_int_equal(sem_wait(&may_open), 0);
    loader_explain(cause, "the test refused it", EPERM);
    return LOADER_REFUSED;
}

static int failed_open(void **self, const struct feature_env *env,
                       struct loader_cause *cause)
{
    (void)self;
    (void)env;
    (void)cause;
    return -ENOMEM;
}

/* On, by a way that gives less. */
static int reduced_open(void **self, const struct feature_env *env,
                        struct loader_cause *cause)
{
    (void)self;
    (void)env;
    loader_explain(cause, "the test refused the better way", EPERM);
    (void)snprintf(cause->left, sizeof(cause->left), "the worse way");
    return 0;
}

static int disabled_open(void **self, const struct feature_env *env,
                         struct loader_cause *cause)
{
    (void)self;
    (void)env;
    (void)snprintf(cause->why, sizeof(cause->why), "the test disabled it");
    (void)snprintf(cause->reason, sizeof(cause->reason), LOADER_DISABLED);
    return LOADER_REFUSED;
}

static void do_nothing(void *self)
{
    (void)self;
}

static void write_nothing(void *self, struct lines *out, bool last)
{
    (void)self;
    (void)out;
    (void)last;
}

static void not_reached(void *self, struct lines *out, bool last)
{
    (void)self;
    (void)out;
    (void)last;
    fail_msg("a feature that is off was asked");
}

static const struct feature busy = {.name = "busy",
                                    .what = "much",
                                    .open = busy_open,
                                    .event = busy_event,
                                    .collect = busy_collect,
                                    .close = busy_close};
static const struct feature refused = {.name = "refused",
                                       .what = "nothing",
                                       .open = refused_open,
                                       .collect = not_reached};
static const struct feature failed = {.name = "failed",
                                      .what = "nothing either",
                                      .open = failed_open,
                                      .collect = not_reached};
static const struct feature reduced = {.name = "reduced",
                                       .what = "less",
                                       .open = reduced_open,
                                       .collect = write_nothing,
                                       .close = do_nothing};
static const struct feature disabled = {.name = "disabled",
                                        .what = "unwanted",
                                        .open = disabled_open,
                                        .collect = not_reached};
static const struct feature *const some[] = {&refused, &busy,     &failed,
                                             &reduced, &disabled, NULL};
#define N_SOME 5 /* lines of the thread itself in each collect */

/* ---- Fixture ------------------------------------------------------------- */

struct fixture {
    uv_loop_t loop;
    struct kernel *kernel;
    struct process_clock clock;
    /* with a reader */
    struct sockets sockets;
    struct landing landing;
    struct region region;
    _Atomic uint32_t serving;
    struct reader *reader;
    uint64_t closed_token;
    bool drained, paused;
};

static const struct agg_config agg_cfg = {.context_limit = N_CONTEXTS,
                                          .expiry_s = 300,
                                          .context_expiry_s = 20,
                                          .host = "",
                                          .name_prefix = "prefix.",
                                          .seed = {3, 4}};
static const struct dsd_parser_opts parser = {.max_line_bytes = 65536};

static void on_changed(void *arg)
{
    struct fixture *f = arg;

    uv_stop(&f->loop);
}

static void on_event(void *arg, const struct reader_event *ev)
{
    struct fixture *f = arg;

    if (ev->kind == READER_CLOSED)
        f->closed_token = ev->token;
    f->drained = f->drained || ev->kind == READER_DRAINED;
    f->paused = f->paused || ev->kind == READER_PAUSED;
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
        .kernel = kernel_link_of(f->kernel),
        .serving = &f->serving,
        .eol_required = {true, true, true, true},
    };

    agg_reserve(reserve, agg_cfg.context_limit, region.budget_bytes);
    assert_int_equal(region_create(&f->region, &region), 0);
    assert_int_equal(landing_create(&f->landing, &landing), 0);
    region_allow(&f->region, f->landing.map, f->landing.map_bytes);
    assert_int_equal(reader_start(&f->reader, &opts, 0), 0);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct log_opts quiet = {.level = LOG_LEVEL_OFF};
    static const struct feature_opts none;
    const struct kernel_opts opts = {
        .loop = &f->loop,
        .changed = on_changed,
        .arg = f,
        .features = some,
        .feature_opts = &none,
        .clock = &f->clock,
        .ring_bytes = 65536,
        .max_delay_ms = 100,
        .workload_pid = 77,
        .busy = &is_busy,
    };

    assert_non_null(f);
    (void)log_init(&quiet);
    opens_slowly = false;
    n_collects = n_last = n_closed = n_seen = lines_each = 0;
    process_clock_init(&f->clock, &clock_real);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(kernel_create(&f->kernel, &opts), 0);
    *state = f;
    return 0;
}

static void until(struct fixture *f, enum kernel_state state)
{
    kernel_want(f->kernel, state);
    while (!kernel_reached(f->kernel))
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
}

static void close_all(struct fixture *f, uint64_t token)
{
    reader_order(f->reader, READER_CLOSE_ALL, token);
    while (f->closed_token != token)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
}

static void drain(struct fixture *f)
{
    reader_order(f->reader, READER_DRAIN,
                 clock_mono_ns(&clock_real) + UINT64_C(5000000000));
    while (!f->drained)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    kernel_end(f->kernel, NULL, NULL);
    assert_int_equal(is_busy, 0);
    if (f->reader != NULL) {
        reader_order(f->reader, READER_QUIT, 0);
        reader_join(f->reader, NULL, NULL);
    }
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    kernel_free(f->kernel);
    if (f->reader != NULL) {
        landing_close(&f->landing);
        region_close(&f->region);
    }
    free(f);
    return 0;
}

/* ---- Tests --------------------------------------------------------------- */

static void the_last_values_are_applied_before_the_parts_close(void **state)
{
    struct fixture *f = *state;
    struct reader_view v;

    start_reader(f);
    assert_int_equal(kernel_start(f->kernel), 0);
    until(f, KERNEL_RUNNING);
    atomic_store(&lines_each, N_LINES);
    drain(f);
    until(f, KERNEL_STOPPED);
    close_all(f, 5);
    reader_view(f->reader, &v);
    assert_int_equal(n_collects, 1);
    assert_int_equal(n_last, 1);
    assert_int_equal(v.counts.received[TRANSPORT_KERNEL], N_LINES + N_SOME);
    assert_int_equal(v.counts.aggregated, N_LINES + N_SOME);
    assert_int_equal(v.counts.datagrams, 0);
    assert_int_equal(v.agg.open_samples, 0);
}

/* A pause takes what was measured and nothing later, until it is over. */
static void a_pause_collects_and_then_nothing_changes(void **state)
{
    struct fixture *f = *state;
    struct reader_view before, after;

    start_reader(f);
    assert_int_equal(kernel_start(f->kernel), 0);
    until(f, KERNEL_RUNNING);
    atomic_store(&lines_each, 10);
    until(f, KERNEL_PAUSED);
    reader_order(f->reader, READER_PAUSE, 0);
    while (!f->paused)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    reader_view(f->reader, &before);
    assert_int_equal(before.counts.received[TRANSPORT_KERNEL], 10 + N_SOME);
    assert_int_equal(n_last, 0);

    until(f, KERNEL_RUNNING);
    until(f, KERNEL_PAUSED); /* its packet waits for the reader */
    close_all(f, 9);
    reader_view(f->reader, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    reader_order(f->reader, READER_RESUME, 0);
    close_all(f, 10);
    reader_view(f->reader, &after);
    assert_int_equal(after.counts.received[TRANSPORT_KERNEL],
                     2 * (10 + N_SOME));
}

static void what_comes_behind_the_last_closing_is_not_taken(void **state)
{
    struct fixture *f = *state;
    struct reader_view v;

    start_reader(f);
    drain(f);
    close_all(f, 3);
    assert_int_equal(kernel_start(f->kernel), 0);
    until(f, KERNEL_RUNNING);
    until(f, KERNEL_STOPPED);
    close_all(f, 4);
    reader_view(f->reader, &v);
    assert_int_equal(v.counts.received[TRANSPORT_KERNEL], 0);
    assert_int_equal(v.agg.open_samples, 0);
}

/* Nobody reads: the thread waits for room, and still ends when it is told to. */
static void an_end_does_not_wait_for_room(void **state)
{
    struct fixture *f = *state;
    struct kernel_link *l = kernel_link_of(f->kernel);
    struct pollfd bell = {.fd = l->reader_bell, .events = POLLIN};

    atomic_store(&lines_each, N_LINES);
    assert_int_equal(kernel_start(f->kernel), 0);
    until(f, KERNEL_RUNNING);
    kernel_want(f->kernel, KERNEL_STOPPED);
    while (spsc_n(&l->packets) < KERNEL_PACKETS) {
        assert_int_equal(poll(&bell, 1, 10000), 1);
        kernel_link_hush(l->reader_bell);
    }
    assert_false(kernel_reached(f->kernel));
    kernel_end(f->kernel, NULL, NULL);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(n_closed, 1);
    kernel_free(f->kernel);
    f->kernel = NULL;
}

static int tear_down_ended(void **state)
{
    struct fixture *f = *state;

    assert_null(f->kernel);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    free(f);
    return 0;
}

/* This thread is the reader. */
static void records_arrive_in_order_and_none_is_lost(void **state)
{
    struct fixture *f = *state;
    struct kernel_link *l = kernel_link_of(f->kernel);
    const uint32_t n = 4 * KERNEL_RECORDS;
    struct pollfd bell = {.fd = l->reader_bell, .events = POLLIN};
    struct kernel_record r = {{0}};
    struct event_hdr *h = (void *)r.bytes;

    assert_int_equal(kernel_start(f->kernel), 0);
    until(f, KERNEL_RUNNING);
    h->type = EVENT_EXEC;
    h->len = sizeof(struct event_process);
    for (uint32_t i = 0; i < n;) {
        h->tid = i;
        if (kernel_link_put_record(l, &r)) {
            i++;
            kernel_link_ring(l->kernel_bell);
            continue;
        }
        assert_int_equal(poll(&bell, 1, 10000), 1);
        kernel_link_hush(l->reader_bell);
    }
    until(f, KERNEL_STOPPED); /* behind all of them */
    assert_int_equal(n_seen, n);
}

/* A job of milliseconds does not wait for programs that are still loaded. */
static void a_stop_does_not_wait_for_what_opens(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(sem_init(&may_open, 0, 0), 0);
    opens_slowly = true;
    assert_int_equal(kernel_start(f->kernel), 0);
    kernel_want(f->kernel, KERNEL_STOPPED);
    assert_true(kernel_reached(f->kernel));
    assert_int_equal(sem_post(&may_open), 0);
    kernel_end(f->kernel, NULL, NULL);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    kernel_free(f->kernel);
    f->kernel = NULL;
}

static void what_is_off_says_why(void **state)
{
    struct fixture *f = *state;
    struct kernel_status s;
    struct buf out;

    kernel_status(f->kernel, NULL, &s);
    assert_true(s.features[1].opening);
    assert_int_equal(kernel_start(f->kernel), 0);
    until(f, KERNEL_RUNNING);
    kernel_status(f->kernel, NULL, &s);
    assert_int_equal(s.n, N_SOME);
    assert_false(s.features[0].on);
    assert_string_equal(s.features[0].cause.reason, "no_privilege");
    assert_true(s.features[1].on);
    assert_string_equal(s.features[1].cause.why, "");
    assert_false(s.features[2].on);
    assert_string_equal(s.features[2].cause.reason, "no_memory");

    buf_init(&out, 1 << 16);
    kernel_report(f->kernel, EBPF_AUTO, NULL, false, &out);
    assert_non_null(strstr(buf_cstr(&out), "refused    off"));
    assert_non_null(strstr(buf_cstr(&out), "the test refused it"));
    assert_non_null(strstr(buf_cstr(&out), "-> grant CAP_BPF"));
    assert_non_null(strstr(buf_cstr(&out), "busy       on"));
    assert_non_null(strstr(buf_cstr(&out), "reduced    reduced  less\n"));
    assert_non_null(strstr(buf_cstr(&out), "left: the worse way\n"));
    assert_non_null(strstr(buf_cstr(&out), "disabled   off "));
    assert_non_null(
        strstr(buf_cstr(&out), "-> set ebpf.disabled.enabled: auto\n"));
    buf_fini(&out);
    buf_init(&out, 1 << 16);
    kernel_report(f->kernel, EBPF_AUTO, NULL, true, &out);
    assert_non_null(strstr(buf_cstr(&out), "{\"enabled\":\"auto\","));
    assert_non_null(strstr(buf_cstr(&out), "\"reason\":\"no_privilege\""));
    assert_non_null(strstr(buf_cstr(&out), "\"state\":\"reduced\""));
    assert_non_null(strstr(buf_cstr(&out), "\"left\":\"the worse way\""));
    buf_fini(&out);
    buf_init(&out, 1 << 16);
    kernel_report(NULL, EBPF_OFF, &s.features[0].cause, false, &out);
    assert_non_null(strstr(buf_cstr(&out), "the test refused it"));
    buf_fini(&out);
}

static void one_line_tells_on_reduced_and_off_apart(void **state)
{
    struct fixture *f = *state;
    struct kernel_status s;
    struct buf out;

    assert_int_equal(kernel_start(f->kernel), 0);
    until(f, KERNEL_RUNNING);
    kernel_status(f->kernel, NULL, &s);
    buf_init(&out, 1 << 16);
    assert_false(kernel_summary(s.features, s.n, &out));
    assert_int_equal(strncmp(buf_cstr(&out),
                             "kernel metrics are on, but not all: ", 36),
                     0);
    assert_non_null(strstr(
        buf_cstr(&out),
        " on=busy reduced=\"reduced (the worse way)\" off=refused,failed"));
    assert_non_null(strstr(buf_cstr(&out), "; grant CAP_BPF"));
    assert_non_null(strstr(buf_cstr(&out), "; raise the memory limit; "));
    buf_fini(&out);
    buf_init(&out, 1 << 16);
    assert_true(kernel_summary(&s.features[1], 1, &out));
    assert_string_equal(buf_cstr(&out), "kernel metrics are on on=busy");
    buf_fini(&out);
    buf_init(&out, 1 << 16);
    assert_false(kernel_summary(&s.features[3], 2, &out));
    assert_non_null(strstr(buf_cstr(&out), "are off, but for fallbacks: "));
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            the_last_values_are_applied_before_the_parts_close, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(
            a_pause_collects_and_then_nothing_changes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            what_comes_behind_the_last_closing_is_not_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_end_does_not_wait_for_room, set_up,
                                        tear_down_ended),
        cmocka_unit_test_setup_teardown(
            records_arrive_in_order_and_none_is_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_stop_does_not_wait_for_what_opens,
                                        set_up, tear_down_ended),
        cmocka_unit_test_setup_teardown(what_is_off_says_why, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(one_line_tells_on_reduced_and_off_apart,
                                        set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
