/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel has read of a new program's environment is what that program's own
 * getenv() says, wherever in it the variable is, and stays known when it has ended.
 */
#include "env_rig.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "bpf/env_exec.h"
#include "bpf/env_table.h"
#include "bpf/procfs.h"
#include "require.h"

#define MAX_ENTRIES 6000
#define NOT_SET "(not set)"
#define UNSURE "(unsure)"

struct table {
    struct watch watch;
    struct env_exec *exec;
    struct env_table *env;
    bool same_ids;
};

static int open_table(void **state)
{
    struct table *t = calloc(1, sizeof(*t));
    struct loader_cause cause = {.why = ""};
    uint32_t own = 0;

    assert_non_null(t);
    watch_init(&t->watch);
    assert_int_equal(watch_add(&t->watch, RIG_NAME, RIG_TAG), 0);
    if (env_exec_create(&t->exec, &t->watch, procfs_pidns_inode(), NULL) != 0 ||
        env_exec_start(t->exec, &cause) != 0)
        fail_msg("%s", cause.why);
    assert_int_equal(loader_probe(&cause, &own), 0);
    t->same_ids = own == (uint32_t)getpid();
    assert_int_equal(env_table_create(&t->env), 0);
    assert_int_equal(env_table_map(t->env, env_exec_table(t->exec),
                                   t->same_ids ? -1 : env_exec_pids(t->exec)),
                     0);
    *state = t;
    return 0;
}

static int close_table(void **state)
{
    struct table *t = *state;

    env_table_close(t->env);
    env_exec_close(t->exec);
    free(t);
    return 0;
}

/* Borrowed until the next call. */
static const char *value_of(struct table *t, pid_t pid)
{
    static char value[ENV_TABLE_TEXT];
    static struct env_place place;
    struct env_text text;

    if (!env_table_read(t->env, PROCTAGS_PID, (uint32_t)pid, &place))
        return UNSURE;
    text = env_place_value(&place, WATCH_FIRST_OWN);
    if (text.text == NULL)
        return NOT_SET;
    memcpy(value, text.text, text.n);
    value[text.n] = '\0';
    return value;
}

/* A program with this environment says what it has. Returns its number, gone. */
static pid_t try_environment(struct table *t, const char *const envp[],
                             const char *want)
{
    static const char *const argv[] = {ENV_CHILDREN "/static", "tell", NULL};
    char value[4096];
    struct child c;

    child_start(&c, NULL, argv, envp);
    assert_string_equal(value_of(t, c.pid), want);
    if (!child_tells(&c, value, sizeof(value)))
        (void)snprintf(value, sizeof(value), NOT_SET);
    if (strcmp(want, UNSURE) != 0)
        assert_string_equal(value, want);
    child_end(&c);
    return c.pid;
}

static void a_variable_is_found_wherever_it_is(void **state)
{
    const char *const first[] = {RIG_NAME "=a b", "PATH=/bin", NULL};
    const char *const last[] = {"PATH=/bin", "X=" RIG_NAME "=no",
                                RIG_NAME "X=no", RIG_NAME "=last", NULL};
    const char *const empty[] = {RIG_NAME "=", NULL};
    const char *const twice[] = {RIG_NAME "=1", RIG_NAME "=2", NULL};
    const char *const without[] = {"PATH=/bin", RIG_NAME "X=no", "X", NULL};
    const char *const nothing[] = {NULL};

    try_environment(*state, first, "a b");
    try_environment(*state, last, "last");
    try_environment(*state, empty, "");
    try_environment(*state, twice, "1");
    try_environment(*state, without, NOT_SET);
    try_environment(*state, nothing, NOT_SET);
}

/* The piece of a string that is read at once ends within it, at its end, behind it. */
static void strings_of_all_lengths_are_passed(void **state)
{
    char before[600];
    const char *const envp[] = {before, RIG_NAME "=here", NULL};

    for (size_t n = 2; n < 520; n += n % 127 < 3 || n % 128 < 4 ? 1 : 17) {
        memset(before, 'x', n);
        before[1] = '=';
        before[n] = '\0';
        /* what lies where the next piece begins is no beginning */
        if (n > 127 + sizeof(RIG_NAME))
            memcpy(before + 127, RIG_NAME "=", sizeof(RIG_NAME));
        try_environment(*state, envp, "here");
    }
}

static void values_beyond_the_room_are_unsure(void **state)
{
    char entry[sizeof(RIG_NAME) + ENV_TABLE_VALUE + 8];
    const char *const envp[] = {entry, NULL};
    char *value = entry + sizeof(RIG_NAME);

    memset(entry, 'v', sizeof(entry));
    memcpy(entry, RIG_NAME "=", sizeof(RIG_NAME));
    value[ENV_TABLE_VALUE - 2] = '\0';
    try_environment(*state, envp, value);
    value[ENV_TABLE_VALUE - 2] = 'v';
    value[ENV_TABLE_VALUE - 1] = '\0';
    try_environment(*state, envp, UNSURE);
}

static void three_values_may_be_more_than_there_is_room_for(void **state)
{
    char devices[400], order[400];
    const char *const envp[] = {devices, order, RIG_NAME "=last", NULL};

    memset(devices, '1', sizeof(devices));
    memcpy(devices, "CUDA_VISIBLE_DEVICES=", 21);
    memset(order, '1', sizeof(order));
    memcpy(order, "CUDA_DEVICE_ORDER=", 18);
    devices[200] = order[399] = '\0';
    try_environment(*state, envp, UNSURE);
    order[200] = '\0';
    try_environment(*state, envp, "last");
}

static void a_huge_environment_is_unsure(void **state)
{
    static const char *envp[MAX_ENTRIES + 2];

    for (size_t i = 0; i < MAX_ENTRIES; i++)
        envp[i] = "A=1";
    envp[MAX_ENTRIES] = RIG_NAME "=far";
    try_environment(*state, envp, UNSURE);
    envp[1000] = RIG_NAME "=near";
    envp[1001] = NULL;
    try_environment(*state, envp, "near");
}

static void what_it_was_is_known_when_it_is_gone(void **state)
{
    const char *const envp[] = {RIG_NAME "=gone", NULL};
    pid_t pid = try_environment(*state, envp, "gone");

    assert_string_equal(value_of(*state, pid), "gone");
}

/* Until its number is another's. */
static void a_place_goes_to_who_needs_it(void **state)
{
    const char *const with[] = {RIG_NAME "=1", NULL};
    const char *const without[] = {"PATH=/bin", NULL};
    struct table *t = *state;
    pid_t pid = try_environment(t, with, "1");
    static struct env_place place;

    assert_true(env_table_read(t->env, PROCTAGS_PID, (uint32_t)pid, &place));
    assert_true((place.flags & ENV_PLACE_DEAD) != 0);
    assert_int_equal(place.ns_tgid, pid);
    pid = try_environment(t, without, NOT_SET);
    assert_true(env_table_read(t->env, PROCTAGS_PID, (uint32_t)pid, &place));
    assert_int_equal(place.n_text, 0);
}

static void times_are_those_of_the_exec(void **state)
{
    const char *const envp[] = {RIG_NAME "=1", NULL};
    struct table *t = *state;
    uint64_t from_ns = clock_mono_ns(&clock_real);
    pid_t pid = try_environment(t, envp, "1");
    uint64_t to_ns = clock_mono_ns(&clock_real);

    assert_true(
        env_table_is_newer(t->env, PROCTAGS_PID, (uint32_t)pid, from_ns));
    assert_false(
        env_table_is_newer(t->env, PROCTAGS_PID, (uint32_t)pid, to_ns));
    env_table_unmap(t->env);
    assert_string_equal(value_of(t, pid), UNSURE);
}

/* Into a pid namespace of our own, where processes have other numbers. */
static void go_apart(void)
{
    int status = -1;
    pid_t pid;

    if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0)
        skip_for("unshare() was refused");
    pid = fork();
    if (pid != 0) {
        (void)waitpid(pid, &status, 0);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    }
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("proc", "/proc", "proc", 0, NULL) != 0)
        skip_for("/proc was not mounted");
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, open_table, close_table)
    const struct CMUnitTest tests[] = {
        CASE(a_variable_is_found_wherever_it_is),
        CASE(strings_of_all_lengths_are_passed),
        CASE(values_beyond_the_room_are_unsure),
        CASE(three_values_may_be_more_than_there_is_room_for),
        CASE(a_huge_environment_is_unsure),
        CASE(what_it_was_is_known_when_it_is_gone),
        CASE(a_place_goes_to_who_needs_it),
        CASE(times_are_those_of_the_exec),
    };

    require_bpf();
    if (cmocka_run_group_tests(tests, NULL, NULL) != 0)
        return 1;
    go_apart();
    return cmocka_run_group_tests_name("apart", tests, NULL, NULL);
}
