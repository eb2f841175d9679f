/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waits as metrics, without a kernel: classes, containers, neighbours, and how many
 * of them at most; cpu.stat; the scheduler's sums in /proc.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bpf/runq_report.h"
#include "bpf/schedstat.h"
#include "bpf/throttle.h"

/* Ids that no kernel gives; containers are named by 64 digits. */
#define FAKE(i) (UINT64_C(0xf000000000000000) + (i))
#define N_CONTAINERS 20

struct fixture {
    struct runq_opts opts;
    struct cgroups *cgroups;
    struct runq_report *report;
    struct lines lines;
    char text[1 << 17];
    size_t n;
};

static void take(void *arg, const char *packet, size_t n)
{
    struct fixture *f = arg;

    assert_true(f->n + n < sizeof(f->text));
    memcpy(f->text + f->n, packet, n);
    f->n += n;
    f->text[f->n] = '\0';
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char path[200];

    f->opts = (struct runq_opts)RUNQ_OPTS_DEFAULT;
    assert_int_equal(cgroups_create(&f->cgroups), 0);
    for (unsigned int i = 0; i < N_CONTAINERS; i++) {
        (void)snprintf(path, sizeof(path), "/docker/%064x", i);
        cgroups_note_made(f->cgroups, FAKE(i), path);
    }
    cgroups_note_made(f->cgroups, FAKE(100), "/system.slice/cron.service");
    (void)snprintf(path, sizeof(path), "/docker/%064x/deep", 0);
    cgroups_note_made(f->cgroups, FAKE(101), path);
    assert_int_equal(runq_report_create(&f->report, &f->opts, f->cgroups), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    runq_report_close(f->report);
    cgroups_close(f->cgroups);
    free(f);
    return 0;
}

static void report(struct fixture *f)
{
    f->n = 0;
    f->text[0] = '\0';
    lines_init(&f->lines, take, f);
    runq_report_write(f->report, &f->lines);
    lines_flush(&f->lines);
}

static void has(const struct fixture *f, const char *line)
{
    if (strstr(f->text, line) == NULL)
        fail_msg("no %sin\n%s", line, f->text);
}

static void add(struct fixture *f, uint64_t id, uint32_t n)
{
    struct sched_hist h = {.n_waits = n, .sum_ns = n * UINT64_C(3000000)};

    h.wait_ns[SCHED_BY_OTHER] = h.sum_ns;
    h.n_class[sched_class(3000000)] = n;
    runq_report_add(f->report, id, &h);
}

static unsigned int count(const struct fixture *f, const char *what)
{
    unsigned int n = 0;

    for (const char *s = f->text; (s = strstr(s, what)) != NULL; s++)
        n++;
    return n;
}

static void a_class_stands_for_its_values(void **state)
{
    uint32_t last = 0;

    (void)state;
    for (uint64_t ns = 1024; ns < UINT64_C(1) << 34; ns += ns / 1400 + 1) {
        uint32_t class = sched_class(ns);
        double off = runq_report_class_us(class) * 1e3 / (double)ns;

        assert_true(class >= last && class - last <= 1);
        assert_true(class > 0 && class < SCHED_N_CLASSES - 1);
        assert_true(off > 1 / 1.0611 && off < 1.0611);
        last = class;
    }
    assert_int_equal(sched_class(0), 0);
    assert_int_equal(sched_class(1023), 0);
    assert_int_equal(sched_class(1024), 1);
    assert_int_equal(sched_class(UINT64_C(1) << 34), SCHED_N_CLASSES - 1);
    assert_int_equal(sched_class(~UINT64_C(0)), SCHED_N_CLASSES - 1);
    for (uint32_t i = 1; i < SCHED_N_CLASSES; i++)
        assert_true(runq_report_class_us(i) > runq_report_class_us(i - 1));
}

static void cgroups_of_a_container_are_one(void **state)
{
    struct fixture *f = *state;

    add(f, FAKE(0), 2);
    add(f, FAKE(101), 3);
    report(f);
    assert_int_equal(count(f, "runq.latency:"), 1);
    has(f, "runq.wait:15|c|#container_id:00000000000000000000000000000000000000"
           "00000000000000000000000000,cause:other_container\n");
    report(f);
    assert_int_equal(f->n, 0); /* once */
}

static void each_value_says_its_cause(void **state)
{
    struct fixture *f = *state;
    struct sched_hist h = {.n_voluntary = 4};

    for (size_t i = 0; i < SCHED_N_CAUSES; i++) {
        h.wait_ns[i] = (i + 1) * 1000000;
        h.out[i] = i > 0 ? (uint32_t)i * 10 : 0;
    }
    f->opts.voluntary = true;
    runq_report_add(f->report, FAKE(1), &h);
    report(f);
    assert_int_equal(count(f, "runq.wait:1|"), 1);
    has(f, ",cause:idle\n");
    has(f, ",cause:same_container\nsched.switch.out:10|c|#container_id:");
    has(f, "runq.wait:4|c");
    has(f, "sched.switch.out:30|c");
    has(f, ",cause:system_service\n");
    has(f, "sched.switch.voluntary:4|c|#container_id:");
}

static void the_system_is_reported_on_request(void **state)
{
    struct fixture *f = *state;

    add(f, FAKE(100), 1);
    report(f);
    assert_int_equal(f->n, 0);
    f->opts.system = true;
    add(f, FAKE(100), 1);
    report(f);
    has(f, "runq.wait:3|c|#unit:cron.service,cause:other_container\n");
}

static void globs_choose(void **state)
{
    struct fixture *f = *state;

    f->opts.include = "/docker/*0[1-3], none";
    f->opts.exclude = "*2";
    for (unsigned int i = 0; i < N_CONTAINERS; i++)
        add(f, FAKE(i), 1);
    report(f);
    assert_int_equal(count(f, "runq.wait:"), 2);
    has(f, "01,cause");
    has(f, "03,cause");
}

static void the_busiest_have_names(void **state)
{
    struct fixture *f = *state;

    f->opts.max_containers = 3;
    for (unsigned int i = 0; i < N_CONTAINERS; i++)
        add(f, FAKE(i), i + 1);
    report(f);
    assert_int_equal(count(f, "runq.wait:"), 4);
    has(f, "runq.wait:60|c|#container_id:");
    has(f, "runq.wait:57|c|#container_id:");
    has(f, "runq.wait:54|c|#container_id:");
    has(f, "runq.wait:459|c|#container:other,cause:other_container\n");
    has(f, "retriever.ebpf.runq.merged:17|c\n");
}

static void the_worst_neighbors_have_names(void **state)
{
    struct fixture *f = *state;

    f->opts.top_neighbors = 2;
    for (unsigned int i = 1; i < 10; i++) {
        struct sched_pair pair = {FAKE(i == 9 ? 101 : 0), FAKE(i)};
        struct sched_wait wait = {1, i * UINT64_C(1000000)};

        runq_report_add_pair(f->report, &pair, &wait);
    }
    report(f);
    assert_int_equal(count(f, "runq.neighbor.wait:"), 3);
    has(f, "runq.neighbor.wait:9|c|#container_id:0");
    has(f, "runq.neighbor.wait:8|c|#container_id:0");
    has(f, "runq.neighbor.wait:28|c|#container_id:0");
    has(f, ",neighbor:other\n");
    has(f, "9\n"); /* by id */
}

static void a_record_counts_for_both_sides(void **state)
{
    struct fixture *f = *state;
    struct event_runq ev = {.hdr = {.type = EVENT_RUNQ, .cgid = FAKE(1)},
                            .prev_cgid = FAKE(2),
                            .latency_ns = 3000000,
                            .n = 1,
                            .flags = SCHED_BY_OTHER | SCHED_PREEMPTED};

    runq_report_event(f->report, &ev);
    ev.prev_cgid = FAKE(1);
    ev.flags = ~0u; /* whatever it says */
    ev.latency_ns = ~UINT64_C(0);
    runq_report_event(f->report, &ev);
    report(f);
    assert_int_equal(count(f, "runq.latency:"), 2);
    assert_int_equal(count(f, "sched.switch.out:1|c"), 2);
    assert_int_equal(count(f, "cause:same_container"), 1);
}

static void nobody_has_no_tags(void **state)
{
    struct fixture *f = *state;

    add(f, FAKE(5000), 1);
    report(f);
    has(f, "runq.wait:3|c|#container:unknown,cause:other_container\n");
    assert_string_equal(cgroups_tags(f->cgroups, FAKE(5000)), "");
}

static void memory_has_a_bound(void **state)
{
    struct fixture *f = *state;
    char path[100];

    for (unsigned int i = 0; i < CGROUPS_MAX + 500; i++) {
        (void)snprintf(path, sizeof(path), "/docker/%064x", i);
        cgroups_note_made(f->cgroups, FAKE(10000 + i), path);
        if (i < RUNQ_MAX_GROUPS + 10)
            add(f, FAKE(10000 + i), 1);
    }
    f->opts.max_containers = 1;
    report(f);
    has(f, "retriever.ebpf.runq.merged:4095|c\n");
    has(f, "retriever.ebpf.runq.refused:10|c\n");
    assert_string_not_equal(cgroups_tags(f->cgroups, FAKE(10000 + CGROUPS_MAX)),
                            "");
    assert_string_equal(cgroups_tags(f->cgroups, FAKE(10000)), "");
}

static void records_name_and_forget(void **state)
{
    struct fixture *f = *state;
    const struct hierarchy *h = cgroups_hierarchy(f->cgroups);
    struct event_cgroup ev = {.op = CGROUP_MADE, .id = FAKE(7777)};

    if (h == NULL) {
        print_message("skipped: no cgroups are mounted\n");
        skip();
        return;
    }
    memset(ev.path, 'x', sizeof(ev.path)); /* no end */
    ev.path[0] = '/';
    ev.hierarchy = h->id + 1000; /* another one's */
    cgroups_note(f->cgroups, &ev);
    assert_string_equal(cgroups_find(f->cgroups, FAKE(7777))->path, "");
    ev.hierarchy = h->id;
    cgroups_note(f->cgroups, &ev);
    assert_int_equal(strlen(cgroups_find(f->cgroups, FAKE(7777))->path), 256);
    assert_true(cgroups_find(f->cgroups, FAKE(7777))->made);
    assert_false(cgroups_find(f->cgroups, FAKE(7777))->removed);
    ev.op = CGROUP_REMOVED;
    cgroups_note(f->cgroups, &ev);
    assert_true(cgroups_find(f->cgroups, FAKE(7777))->removed);
}

static void our_own_cgroup_is_found(void **state)
{
    struct fixture *f = *state;
    uint64_t id = cgroups_of_pid(f->cgroups, getpid());
    char present[200];

    if (id == 0) {
        print_message("skipped: no cgroups are mounted\n");
        skip();
        return;
    }
    assert_true(cgroups_exists(f->cgroups, id));
    assert_int_equal(cgroups_find(f->cgroups, id)->id, id);
    assert_int_equal(cgroups_of_pid(f->cgroups, 0), 0);
    assert_false(cgroups_exists(f->cgroups, FAKE(1)));
    assert_int_equal(cgroups_use(f->cgroups, "no such"), CGROUPS_NO_HIERARCHY);
    assert_true(strlen(cgroups_present(f->cgroups, present, 200)) > 0);
    assert_true(strlen(cgroups_present(f->cgroups, present, 3)) <= 2);
}

static void quotas_of_both_kinds_are_read(void **state)
{
    struct throttle_sums s;

    (void)state;
    assert_true(throttle_parse("usage_usec 5\nnr_periods 9\nnr_throttled 3\n"
                               "throttled_usec 250\n",
                               &s));
    assert_int_equal(s.n_periods, 3);
    assert_int_equal(s.ns, 250000);
    assert_true(throttle_parse("nr_periods 9\nnr_throttled 4\n"
                               "throttled_time 77\n",
                               &s));
    assert_int_equal(s.n_periods, 4);
    assert_int_equal(s.ns, 77);
    assert_false(throttle_parse("", &s));
    assert_false(throttle_parse("nr_throttled 4", &s));
    assert_false(throttle_parse("xnr_throttled 4\nthrottled_time 1\n", &s));
}

/* ms that a process has waited for a CPU. */
static double waited_ms(pid_t pid)
{
    char path[64], text[128] = "";
    char *end;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%d/schedstat", (int)pid);
    file = fopen(path, "re");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof(text), file));
    (void)fclose(file);
    (void)strtoull(text, &end, 10);
    return (double)strtoull(end, NULL, 10) / 1e6;
}

/* Three processes want one CPU: at least two of them wait. Others of our cgroup may
 * have waited, too. */
static void without_programs_the_scheduler_is_asked(void **state)
{
    struct fixture *f = *state;
    struct schedstat *s;
    struct timespec t;
    pid_t pids[3];
    double ms, least_ms = 0;

    if (schedstat_open(&s, f->cgroups) != 0) {
        print_message("skipped: this kernel has no schedstat\n");
        skip();
        return;
    }
    for (int i = 0; i < 3; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            cpu_set_t set;

            CPU_ZERO(&set);
            CPU_SET(0, &set);
            (void)sched_setaffinity(0, sizeof(set), &set);
            do {
                (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
            } while (t.tv_sec == 0 && t.tv_nsec < 100000000);
            (void)raise(SIGSTOP); /* stay, to be read */
            _exit(0);
        }
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(waitpid(pids[i], NULL, WUNTRACED), pids[i]);
    f->n = 0;
    lines_init(&f->lines, take, f);
    schedstat_collect(s, &f->lines);
    lines_flush(&f->lines);
    for (int i = 0; i < 3; i++) {
        least_ms += waited_ms(pids[i]);
        (void)kill(pids[i], SIGKILL);
        (void)waitpid(pids[i], NULL, 0);
    }
    assert_memory_equal(f->text, "runq.wait:", 10);
    ms = strtod(f->text + 10, NULL);
    print_message("waited: %.0f ms, these %.0f ms\n", ms, least_ms);
    assert_true(least_ms > 150 && ms >= 0.999 * least_ms);
    has(f, "source:schedstat\n");
    has(f, "runq.latency.avg:");
    schedstat_close(s);
}

int main(void)
{
#define ROW(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        ROW(a_class_stands_for_its_values),
        ROW(cgroups_of_a_container_are_one),
        ROW(each_value_says_its_cause),
        ROW(the_system_is_reported_on_request),
        ROW(globs_choose),
        ROW(the_busiest_have_names),
        ROW(the_worst_neighbors_have_names),
        ROW(a_record_counts_for_both_sides),
        ROW(nobody_has_no_tags),
        ROW(memory_has_a_bound),
        ROW(records_name_and_forget),
        ROW(our_own_cgroup_is_found),
        ROW(quotas_of_both_kinds_are_read),
        ROW(without_programs_the_scheduler_is_asked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
