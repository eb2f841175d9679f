/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bpf/rig.h"

#include <bpf/bpf.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct rig rig;

/* Records of one process, in their order. */
struct seen {
    uint32_t tgid; /* as we know it; the records' ns_tgid */
    char order[16];
    size_t n_order;
    struct event_process last;
    struct event_exit exit;
};

static void put(struct seen *s, char c)
{
    if (s->n_order + 1 < sizeof(s->order))
        s->order[s->n_order++] = c;
}

static void look(void *arg, const struct event_hdr *ev)
{
    struct seen *s = arg;

    if (ev->type == EVENT_FORK || ev->type == EVENT_EXEC) {
        const struct event_process *e = (const void *)ev;

        if (e->ns_tgid != s->tgid)
            return;
        put(s, ev->type == EVENT_FORK ? 'f' : 'x');
        s->last = *e;
    } else if (ev->type == EVENT_EXIT) {
        const struct event_exit *e = (const void *)ev;

        if (e->ns_tgid != s->tgid)
            return;
        put(s, 'e');
        s->exit = *e;
    }
}

static int open_rig(void **state)
{
    (void)state;
    rig_open(&rig, 1u << 18);
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    rig_close(&rig);
    return 0;
}

static bool has_ended(void *arg)
{
    const struct seen *s = arg;

    return s->exit.hdr.type == EVENT_EXIT;
}

static bool has_exec(void *arg)
{
    const struct seen *s = arg;

    return s->last.hdr.type == EVENT_EXEC;
}

/* A child that waits for a byte, then runs a program (NULL: exits with 3). */
static pid_t start(int *go_fd, const char *path, const char *script)
{
    int fds[2];
    pid_t pid;

    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char c;

        (void)close(fds[1]);
        if (read(fds[0], &c, 1) != 1)
            _exit(9);
        if (path != NULL)
            (void)execl(path, path, script != NULL ? "-c" : NULL, script, NULL);
        _exit(3);
    }
    (void)close(fds[0]);
    *go_fd = fds[1];
    return pid;
}

static void go(int fd)
{
    assert_int_equal(write(fd, "x", 1), 1);
    (void)close(fd);
}

/* Here the initial namespace's ids need not be ours: taken from an EXEC. */
static uint32_t host_tgid(struct rig *r, pid_t pid)
{
    struct seen *s = r->arg;

    s->tgid = (uint32_t)pid;
    assert_true(rig_until(r, has_exec, s, 5000));
    return s->last.hdr.tgid;
}

static void watch(struct rig *r, uint32_t tgid, uint32_t family)
{
    struct life_watch w = {.family = family};

    assert_int_equal(bpf_map_update_elem(r->env.watched_fd, &tgid, &w, BPF_ANY),
                     0);
}

static void exec_of_anybody_is_told(void **state)
{
    struct seen seen = {0};
    int go_fd, status;
    pid_t pid;

    (void)state;
    rig.look = look;
    rig.arg = &seen;
    rig_add(&rig, &life_feature);
    pid = start(&go_fd, "/bin/true", NULL);
    seen.tgid = (uint32_t)pid;
    go(go_fd);
    assert_true(rig_until(&rig, has_exec, &seen, 5000));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    (void)rig_drain(&rig);
    assert_string_equal(seen.order, "x"); /* not watched: nothing else */
    assert_string_equal(seen.last.comm, "true");
    assert_int_equal(seen.last.family, 0);
    assert_true(seen.last.start_ns > 0);
    assert_true(seen.last.hdr.cgid > 0);
    assert_true(rig_stats(&rig, EVENT_EXEC).sent >= 1);
}

/* By the timer it would be known when its first children have gone. */
static void an_exec_wakes_a_reader_that_comes_by_a_timer(void **state)
{
    struct seen seen = {0};
    int go_fd;
    pid_t pid;

    (void)state;
    rig.look = look;
    rig.arg = &seen;
    rig_add(&rig, &life_feature);
    rig.ring.control->mode = RING_POLLED;
    pid = start(&go_fd, "/bin/true", NULL);
    seen.tgid = (uint32_t)pid;
    go(go_fd);
    while (!has_exec(&seen)) { /* others execute, too */
        struct pollfd p = {.fd = rig.ring.wait_fd, .events = POLLIN};

        assert_int_equal(poll(&p, 1, 5000), 1);
        ring_awake(&rig.ring);
        (void)rig_drain(&rig);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void descendants_of_the_watched_are_watched(void **state)
{
    struct seen seen = {0};
    int in[2], go_fd, status;
    uint32_t tgid;
    struct event_stats forks, exits;
    pid_t pid;

    (void)state;
    rig.look = look;
    rig.arg = &seen;
    rig_add(&rig, &life_feature);
    assert_int_equal(pipe(in), 0);
    assert_int_equal(dup2(in[0], 0), 0);
    pid = start(&go_fd, "/bin/sh",
                "read x; /bin/true; (exec /bin/sh -c 'exit 7'); exit 5");
    go(go_fd);
    tgid = host_tgid(&rig, pid);
    watch(&rig, tgid, 17);
    assert_int_equal(write(in[1], "\n", 1), 1);
    assert_true(rig_until(&rig, has_ended, &seen, 5000));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), 5);
    assert_int_equal(seen.exit.exit_code, status);
    assert_int_equal(seen.exit.family, 17);
    assert_int_equal(seen.exit.start_ns, seen.last.start_ns);
    assert_true(seen.exit.run_ns > 0);
    assert_string_equal(seen.exit.comm, "sh");
    assert_string_equal(seen.order, "xe");
    forks = rig_stats(&rig, EVENT_FORK);
    exits = rig_stats(&rig, EVENT_EXIT);
    assert_int_equal(forks.sent, 2);
    assert_int_equal(exits.sent, 3);
    assert_int_equal(forks.lost + exits.lost, 0);
    assert_int_equal(rig.n_events[EVENT_FORK], 2);
    assert_int_equal(rig.n_events[EVENT_EXIT], 3);
    (void)close(in[0]);
    (void)close(in[1]);
}

/* The main thread has gone, and eight others end at once: one record, with the
 * status that wait() tells. */
static void many_threads_end_once(void **state)
{
    struct seen seen = {0};

    (void)state;
    rig.look = look;
    rig.arg = &seen;
    rig.opts.life.all = true;
    rig_add(&rig, &life_feature);
    for (int i = 0; i < 50; i++) {
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
            (void)execl(FAMILY_PATH, FAMILY_PATH, "crowd", NULL);
            _exit(9);
        }
        memset(&seen, 0, sizeof(seen));
        seen.tgid = (uint32_t)pid;
        assert_true(rig_until(&rig, has_ended, &seen, 5000));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        (void)rig_drain(&rig);
        assert_string_equal(seen.order, "fxe");
        assert_int_equal(seen.exit.exit_code, status);
    }
}

static void a_signal_is_told_as_wait_tells_it(void **state)
{
    struct seen seen = {0};
    int go_fd, status;
    pid_t pid;

    (void)state;
    rig.look = look;
    rig.arg = &seen;
    rig.opts.life.all = true;
    rig_add(&rig, &life_feature);
    pid = start(&go_fd, NULL, NULL);
    seen.tgid = (uint32_t)pid;
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_true(rig_until(&rig, has_ended, &seen, 5000));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(seen.exit.exit_code, status);
    (void)close(go_fd);
}

/* Nobody reads a ring of 64 KiB while 3000 processes come and go. */
static void what_finds_no_room_is_counted(void **state)
{
    struct event_stats s;

    (void)state;
    rig_close(&rig);
    rig_open(&rig, 1u << 16);
    rig.opts.life.all = true;
    rig_add(&rig, &life_feature);
    for (int i = 0; i < 3000; i++) {
        pid_t pid = vfork();

        assert_true(pid >= 0);
        if (pid == 0)
            _exit(0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
    }
    life_feature.close(rig.selves[0]); /* nothing is added any more */
    rig.n_features = 0;
    (void)rig_drain(&rig);
    s = rig_stats(&rig, EVENT_FORK);
    assert_true(s.sent >= 3000 && s.lost > 0);
    assert_int_equal(s.sent, s.lost + rig.n_events[EVENT_FORK]);
    assert_int_equal(s.bytes,
                     rig.n_events[EVENT_FORK] * sizeof(struct event_process));
    s = rig_stats(&rig, EVENT_EXIT);
    assert_true(s.sent >= 3000 && s.lost > 0);
    assert_int_equal(s.sent, s.lost + rig.n_events[EVENT_EXIT]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(exec_of_anybody_is_told, open_rig,
                                        close_rig),
        cmocka_unit_test_setup_teardown(
            an_exec_wakes_a_reader_that_comes_by_a_timer, open_rig, close_rig),
        cmocka_unit_test_setup_teardown(descendants_of_the_watched_are_watched,
                                        open_rig, close_rig),
        cmocka_unit_test_setup_teardown(many_threads_end_once, open_rig,
                                        close_rig),
        cmocka_unit_test_setup_teardown(a_signal_is_told_as_wait_tells_it,
                                        open_rig, close_rig),
        cmocka_unit_test_setup_teardown(what_finds_no_room_is_counted, open_rig,
                                        close_rig),
    };

    require_bpf();
    return cmocka_run_group_tests_name("bpf_life", tests, NULL, NULL);
}
