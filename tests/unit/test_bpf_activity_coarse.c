/* SPDX-License-Identifier: Apache-2.0 */
/* The job as /proc shows it; here the job is this process, and time is made up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bpf/activity_coarse.h"

#define MS UINT64_C(1000000)
#define TAGS "|#family:workload,source:schedstat,container_id:x\n"

static char text[LINES_PACKET_BYTES + 1];

static void take(void *arg, const char *packet, size_t n)
{
    (void)arg;
    memcpy(text, packet, n);
    text[n] = '\0';
}

static void collect(struct activity_coarse *c)
{
    struct lines out;

    lines_init(&out, take, NULL);
    activity_coarse_collect(c, &out);
    lines_flush(&out);
}

static void has(const char *line)
{
    if (strstr(text, line) == NULL)
        fail_msg("no line %s in:\n%s", line, text);
}

static void has_not(const char *name)
{
    if (strstr(text, name) != NULL)
        fail_msg("%s in:\n%s", name, text);
}

static void work(uint64_t ms)
{
    struct timespec t;

    do {
        (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    } while ((uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / MS < ms);
}

static uint64_t worked_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / MS;
}

static struct activity_coarse *open_on(pid_t pid)
{
    struct activity_coarse *c = NULL;
    int rc = activity_coarse_open(&c, (uint32_t)pid, "container_id:x");

    if (rc == -ENOENT) {
        print_message("skipped: this kernel has no schedstat\n");
        skip();
    }
    assert_int_equal(rc, 0);
    return c;
}

static void work_and_rest_are_told_apart(void **state)
{
    struct activity_coarse *c = open_on(getpid());

    (void)state;
    assert_int_equal(activity_coarse_due(c, 1000 * MS), 1100 * MS);
    work(worked_ms() + 60);
    /* Too early: nothing is read. */
    assert_int_equal(activity_coarse_due(c, 1050 * MS), 1100 * MS);
    assert_int_equal(activity_coarse_due(c, 1100 * MS), 1200 * MS);
    /* A long time, for what the test itself does. */
    assert_int_equal(activity_coarse_due(c, 61100 * MS), 61200 * MS);
    collect(c);
    has("activity.active.time:100|c" TAGS);
    has("activity.idle.time:60000|c" TAGS);
    has("activity.active_to_idle:1|c" TAGS);
    has("activity.state:0|g" TAGS);
    has("activity.cpu.time:");
    has_not("activity.idle_to_active");
    collect(c);
    has_not("activity.active.time"); /* told once */
    activity_coarse_close(c);
}

static void descendants_count_until_the_job_is_over(void **state)
{
    pid_t pid = fork();
    struct activity_coarse *c;

    (void)state;
    if (pid == 0) {
        for (;;)
            (void)pause();
    }
    assert_true(pid > 0);
    c = open_on(getpid());
    collect(c);
    has("activity.processes:2|g" TAGS);
    activity_coarse_close(c);

    c = open_on(pid);
    assert_int_equal(activity_coarse_due(c, 1000 * MS), 1100 * MS);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(activity_coarse_due(c, 2000 * MS) == UINT64_MAX);
    collect(c);
    has("activity.processes:0|g" TAGS);
    has_not("activity.idle.time"); /* nobody knows */
    activity_coarse_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_and_rest_are_told_apart),
        cmocka_unit_test(descendants_count_until_the_job_is_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
