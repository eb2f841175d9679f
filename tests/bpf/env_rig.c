/* SPDX-License-Identifier: Apache-2.0 */
#include "env_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "bpf/event_check.h"
#include "bpf/procfs.h"

static void take(void *arg, const char *packet, size_t n)
{
    struct env_rig *r = arg;

    assert_true(r->n_text + n < sizeof(r->text));
    memcpy(r->text + r->n_text, packet, n);
    r->n_text += n;
    r->text[r->n_text] = '\0';
}

static void prepare(struct env_rig *r)
{
    struct loader_cause cause = {0};
    uint32_t own = 0;

    memset(r, 0, sizeof(*r));
    assert_int_equal(loader_probe(&cause, &own), 0);
    assert_int_equal(event_ring_create(&r->ring, 1 << 18, &cause), 0);
    assert_int_equal(proctags_create(&r->tags), 0);
    lines_init(&r->lines, take, r);
    env_opts_init(&r->opts.env);
    assert_int_equal(watch_add(&r->opts.env.watch, RIG_NAME, RIG_TAG), 0);
    r->opts.env.rescan_s = 3600;
    r->opts.env.proctags = r->tags;
    r->env = (struct feature_env){
        .opts = &r->opts,
        .events_fd = r->ring.ring.ring_fd,
        .events_control_fd = r->ring.ring.control_fd,
        .events_stats_fd = r->ring.stats_fd,
        .watched_fd = -1,
        .own_tgid = own,
    };
}

void env_rig_open(struct env_rig *r, enum attach_mode best)
{
    prepare(r);
    r->opts.env.best = best;
    assert_int_equal(env_feature.open(&r->self, &r->env, &r->cause), 0);
    assert_string_equal(r->cause.why, "");
}

void env_rig_open_without(struct env_rig *r)
{
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct all[2], less[2];
    int rc;

    prepare(r);
    assert_int_equal(syscall(SYS_capget, &h, all), 0);
    memcpy(less, all, sizeof(less));
    less[CAP_SYS_ADMIN / 32].effective &= ~(1u << CAP_SYS_ADMIN % 32);
    less[CAP_PERFMON / 32].effective &= ~(1u << CAP_PERFMON % 32);
    less[CAP_BPF / 32].effective &= ~(1u << CAP_BPF % 32);
    assert_int_equal(syscall(SYS_capset, &h, less), 0);
    rc = env_feature.open(&r->self, &r->env, &r->cause);
    assert_int_equal(syscall(SYS_capset, &h, all), 0);
    assert_int_equal(rc, 0);
    assert_string_not_equal(r->cause.why, "");
}

void env_rig_close(struct env_rig *r)
{
    env_feature.close(r->self);
    proctags_close(r->tags);
    event_ring_close(&r->ring);
}

static uint64_t drain(struct env_rig *r)
{
    uint64_t at = ring_begin(&r->ring.ring), next, n_records = 0;
    const void *record;
    uint32_t n;

    while (ring_at(&r->ring.ring, at, &record, &n, &next) == RING_RECORD) {
        struct event_hdr h;

        assert_true(event_is_whole(record, n));
        memcpy(&h, record, sizeof(h));
        r->n_env += h.type == EVENT_ENV;
        env_feature.event(r->self, record);
        ring_consumed(&r->ring.ring, next);
        at = next;
        n_records++;
    }
    return n_records;
}

void env_rig_settle(struct env_rig *r, int quiet_ms)
{
    for (;;) {
        struct pollfd p = {.fd = r->ring.ring.wait_fd, .events = POLLIN};
        uint64_t n = drain(r);
        uint64_t now_ns = clock_mono_ns(&clock_real);
        uint64_t due_ns = env_feature.due(r->self, now_ns);
        uint64_t wait_ms = (due_ns - now_ns) / CLOCK_NS_PER_MS + 1;
        bool idle = wait_ms > (uint64_t)quiet_ms;
        int got = poll(&p, 1, idle ? quiet_ms : (int)wait_ms);

        ring_awake(&r->ring.ring);
        if (n == 0 && got == 0 && idle)
            return;
    }
}

uint64_t env_rig_start_ns(pid_t pid)
{
    uint64_t ticks = 0;
    int fd = procfs_open((uint32_t)pid);

    assert_true(fd >= 0);
    assert_int_equal(procfs_start(fd, &ticks), 0);
    (void)close(fd);
    return ticks * PROCFS_TICK_NS;
}

static struct event_hdr head(const struct env_rig *r, enum event_type type,
                             size_t len, pid_t pid)
{
    bool same = r->env.own_tgid == (uint32_t)getpid();

    return (struct event_hdr){
        .type = (uint16_t)type,
        .len = (uint16_t)len,
        .ts_ns = clock_mono_ns(&clock_real),
        .tgid = same ? (uint32_t)pid : 0,
        .tid = (uint32_t)pid,
    };
}

void env_rig_exec(struct env_rig *r, pid_t pid)
{
    struct event_process e = {
        .hdr = head(r, EVENT_EXEC, sizeof(e), pid),
        .ns_tgid = (uint32_t)pid,
        .start_ns = env_rig_start_ns(pid),
    };

    env_feature.event(r->self, &e.hdr);
}

void env_rig_fork(struct env_rig *r, pid_t parent, pid_t child)
{
    struct event_process e = {
        .hdr = head(r, EVENT_FORK, sizeof(e), child),
        .ppid = (uint32_t)parent,
        .ns_tgid = (uint32_t)child,
        .start_ns = env_rig_start_ns(child),
    };

    env_feature.event(r->self, &e.hdr);
}

void env_rig_exit(struct env_rig *r, pid_t pid, uint64_t start_ns)
{
    struct event_exit e = {
        .hdr = head(r, EVENT_EXIT, sizeof(e), pid),
        .ns_tgid = (uint32_t)pid,
        .start_ns = start_ns,
    };

    env_feature.event(r->self, &e.hdr);
}

const char *env_rig_value(struct env_rig *r, pid_t pid)
{
    static char tags[PROCTAGS_MAX_BYTES + 1];
    size_t n =
        proctags_get(r->tags, PROCTAGS_PID, (uint32_t)pid, tags, NULL, NULL);
    char *end;

    tags[n] = '\0';
    if (strncmp(tags, RIG_TAG ":", strlen(RIG_TAG) + 1) != 0)
        return NULL;
    end = strchr(tags, ',');
    if (end != NULL)
        *end = '\0';
    return tags + strlen(RIG_TAG) + 1;
}

void env_rig_collect(struct env_rig *r, bool last)
{
    r->n_text = 0;
    r->text[0] = '\0';
    env_feature.collect(r->self, &r->lines, last);
    lines_flush(&r->lines);
}

/* ---- Children ----------------------------------------------------------- */

void child_start(struct child *c, const char *root, const char *const argv[],
                 const char *const envp[])
{
    int in[2], out[2], done[2];
    int err = 0;

    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(pipe2(done, O_CLOEXEC), 0);
    c->pid = fork();
    assert_true(c->pid >= 0);
    if (c->pid == 0) {
        if (dup2(in[0], 0) == 0 && dup2(out[1], 1) == 1 &&
            (root == NULL || (chroot(root) == 0 && chdir("/") == 0)))
            (void)execve(argv[0], (char *const *)(uintptr_t)argv,
                         (char *const *)(uintptr_t)envp);
        err = errno;
        (void)!write(done[1], &err, sizeof(err));
        _exit(127);
    }
    (void)close(in[0]);
    (void)close(out[1]);
    (void)close(done[1]);
    /* its end of this pipe closes with the exec */
    assert_int_equal(read(done[0], &err, sizeof(err)), 0);
    (void)close(done[0]);
    c->in = in[1];
    c->out = out[0];
}

void child_go(struct child *c)
{
    assert_int_equal(write(c->in, "g", 1), 1);
}

/* Up to the space behind it. */
static bool read_word(struct child *c, char *word, size_t size)
{
    for (size_t n = 0; n < size - 1; n++) {
        if (read(c->out, &word[n], 1) != 1)
            return false;
        if (word[n] == ' ') {
            word[n] = '\0';
            return true;
        }
    }
    return false;
}

long child_number(struct child *c)
{
    char word[32];

    assert_true(read_word(c, word, sizeof(word)));
    return strtol(word, NULL, 10);
}

bool child_tells(struct child *c, char *out, size_t size)
{
    char word[32];
    size_t n, done = 0;

    assert_true(read_word(c, word, sizeof(word)));
    out[0] = '\0';
    if (word[0] == '-')
        return false;
    n = strtoul(word, NULL, 10);
    assert_true(n < size);
    while (done < n) {
        ssize_t got = read(c->out, out + done, n - done);

        assert_true(got > 0);
        done += (size_t)got;
    }
    out[n] = '\0';
    return true;
}

void child_end(struct child *c)
{
    int status;

    (void)close(c->in);
    assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
    (void)close(c->out);
    assert_int_equal(status, 0);
}
