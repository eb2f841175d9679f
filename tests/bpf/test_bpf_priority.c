/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The priority of a thread against a real kernel: what it grants, refuses and takes
 * away. Each case runs in a process of its own, whose limits, capabilities and
 * group are changed, and whose thread uses the module as the reader does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/priority.h"
#include "agent/priority_cause.h"
#include "tests/bpf/require.h"

#define CPU_ROOT "/sys/fs/cgroup/cpu"
#define RESET_ON_FORK 0x40000000
#define HANG_NS UINT64_C(5000000000) /* a thread that nobody demotes gives up */

/* What the process of a case tells the test. */
struct seen {
    struct priority_state state;
    int policy, nice; /* of the thread, as the kernel says; with the flag */
    int child_policy;
    enum priority_cause cause;
    uint64_t spun_ns;
    bool changed; /* priority_breathe() had news */
    bool done;
};

struct setting {
    struct priority_request want;
    bool keep_capability;
    const char *group; /* v1 cpu group to go into; NULL = stay */
    void (*act)(struct priority *p, struct seen *out);
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- The process of a case ----------------------------------------------- */

static void drop_capability(void)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];

    if (syscall(SYS_capget, &head, data) != 0)
        _exit(2);
    data[0].effective &= ~(1u << CAP_SYS_NICE);
    data[0].permitted &= ~(1u << CAP_SYS_NICE);
    if (syscall(SYS_capset, &head, data) != 0)
        _exit(3);
}

static void limit(int what, rlim_t n)
{
    const struct rlimit lim = {n, n};

    if (setrlimit((enum __rlimit_resource)what, &lim) != 0)
        _exit(4);
}

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0)
        (void)close(fd);
    return ok;
}

struct thread_arg {
    const struct setting *setting;
    struct seen *out;
};

static void *reader(void *p)
{
    struct thread_arg *a = p;
    static struct priority priority;
    static unsigned char hot[4096];

    priority_take(&priority, &a->setting->want, hot, sizeof(hot));
    if (a->setting->act != NULL)
        a->setting->act(&priority, a->out);
    a->out->state = priority_state(&priority);
    a->out->policy = (int)syscall(SYS_sched_getscheduler, 0);
    a->out->nice = getpriority(PRIO_PROCESS, 0);
    a->out->cause = priority_diagnose("", a->out->state.refused,
                                      a->setting->want.rt_priority);
    a->out->done = true;
    return NULL;
}

_Noreturn static void be_process(const struct setting *s, struct seen *out)
{
    struct thread_arg arg = {s, out};
    char path[256], pid[16];
    pthread_t thread;
    sigset_t all;

    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    if (s->group != NULL) {
        (void)snprintf(path, sizeof(path), "%s/cgroup.procs", s->group);
        (void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
        if (!write_text(path, pid))
            _exit(5);
    }
    limit(RLIMIT_RTPRIO, 0);
    limit(RLIMIT_NICE, 0);
    if (!s->keep_capability)
        drop_capability();
    if (pthread_create(&thread, NULL, reader, &arg) != 0)
        _exit(6);
    (void)pthread_join(thread, NULL);
    _exit(0);
}

static void run(const struct setting *s, struct seen *out)
{
    struct seen *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = 0;
    pid_t pid;

    assert_true(shared != MAP_FAILED);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        be_process(s, shared);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    *out = *shared;
    (void)munmap(shared, sizeof(*shared));
    assert_int_equal(status, 0);
    assert_true(out->done);
}

/* ---- Granted -------------------------------------------------------------- */

static void look_at_child(struct priority *p, struct seen *out)
{
    int status = 0;
    pid_t pid = fork();

    (void)p;
    if (pid == 0)
        _exit((int)syscall(SYS_sched_getscheduler, 0) & 0xff);
    (void)waitpid(pid, &status, 0);
    out->child_policy = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void assert_realtime(const struct seen *s, int policy)
{
    assert_int_equal(s->state.got, PRIORITY_REALTIME);
    assert_int_equal(s->state.refused, 0);
    assert_int_equal(s->policy, policy | RESET_ON_FORK);
    assert_int_equal(s->cause, PRIORITY_GRANTED);
}

static void both_policies_are_taken(void **state)
{
    const int policies[] = {SCHED_FIFO, SCHED_RR};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const struct setting s = {.want = {policies[i], 10, -20, 200},
                                  .keep_capability = true,
                                  .act = look_at_child};
        struct seen seen;

        run(&s, &seen);
        assert_realtime(&seen, policies[i]);
        assert_int_equal(seen.child_policy, SCHED_OTHER);
    }
}

static void nothing_asked_nothing_done(void **state)
{
    const struct setting s = {.want = {SCHED_OTHER, 0, -20, 200},
                              .keep_capability = true};
    struct seen seen;

    (void)state;
    run(&s, &seen);
    assert_int_equal(seen.policy, SCHED_OTHER);
    assert_int_equal(seen.nice, getpriority(PRIO_PROCESS, 0));
    assert_false(seen.state.settled);
}

/* ---- Refused -------------------------------------------------------------- */

static void without_the_capability_it_stays_usual(void **state)
{
    const struct setting s = {.want = {SCHED_FIFO, 10, -20, 200}};
    struct seen seen;

    (void)state;
    run(&s, &seen);
    assert_int_equal(seen.state.got, PRIORITY_USUAL);
    assert_int_equal(seen.state.refused, EPERM);
    assert_int_equal(seen.policy & ~RESET_ON_FORK, SCHED_OTHER);
    assert_int_equal(seen.nice, getpriority(PRIO_PROCESS, 0));
    assert_int_equal(seen.cause, PRIORITY_NO_CAPABILITY);
}

static void a_group_without_budget_refuses_all_but_nice(void **state)
{
    char group[] = CPU_ROOT "/retriever-test-XXXXXX";
    struct setting s = {.want = {SCHED_FIFO, 10, -20, 200},
                        .keep_capability = true,
                        .group = group};
    struct seen seen = {.done = false};
    char path[256];
    bool has_budget;

    (void)state;
    /* A kernel without RT_GROUP_SCHED has none, nor has version 2. */
    if (access(CPU_ROOT "/cpu.rt_runtime_us", R_OK) != 0)
        skip_row("no v1 cpu hierarchy with real-time budgets");
    assert_non_null(mkdtemp(group));
    (void)snprintf(path, sizeof(path), "%s/cpu.rt_runtime_us", group);
    /* A child begins with none. */
    has_budget = access(path, R_OK) == 0;
    if (has_budget)
        run(&s, &seen);
    assert_int_equal(rmdir(group), 0);
    assert_true(has_budget);
    assert_int_equal(seen.state.refused, EPERM);
    assert_int_equal(seen.state.got, PRIORITY_NICE);
    assert_int_equal(seen.nice, -20);
    assert_int_equal(seen.cause, PRIORITY_NO_RUNTIME);
    assert_non_null(strstr(priority_cause_text(seen.cause), "rt_runtime"));
}

/* ---- Taken away ------------------------------------------------------------ */

/* A loop that hangs: no call, no pause. */
static void spin(struct priority *p, struct seen *out)
{
    uint64_t begin = now_ns();

    while (atomic_load(&p->ran_away) == 0 && now_ns() - begin < HANG_NS)
        ;
    out->spun_ns = now_ns() - begin;
    out->changed = priority_breathe(p, now_ns());
    /* Never again, however long. */
    out->changed = out->changed && !priority_breathe(p, now_ns());
}

static void spin_without_capability(struct priority *p, struct seen *out)
{
    drop_capability();
    spin(p, out);
}

static void assert_demoted(const struct seen *s, int nice)
{
    print_message("demoted after %u ms\n", (unsigned)(s->spun_ns / 1000000));
    assert_true(s->state.runaway);
    assert_true(s->changed);
    assert_int_equal(s->policy, SCHED_OTHER | RESET_ON_FORK);
    assert_int_equal(s->nice, nice);
    assert_true(s->spun_ns < UINT64_C(400000000));
}

static void a_hanging_thread_is_demoted(void **state)
{
    struct setting s = {.want = {SCHED_FIFO, 10, -20, 200},
                        .keep_capability = true,
                        .act = spin};
    struct seen seen;

    (void)state;
    run(&s, &seen);
    assert_demoted(&seen, -20);
    assert_true(seen.spun_ns > UINT64_C(150000000));
    /* Giving it up must not need the capability: a limit may have been enough to
     * get it. */
    s.act = spin_without_capability;
    run(&s, &seen);
    assert_demoted(&seen, getpriority(PRIO_PROCESS, 0));
}

/* Busy for a second, with the breath that a turn of the reader takes. */
static void work(struct priority *p, struct seen *out)
{
    uint64_t begin = now_ns();

    while (now_ns() - begin < 1000000000u && !out->changed)
        out->changed = priority_breathe(p, now_ns());
    out->spun_ns = now_ns() - begin;
}

static void a_busy_thread_keeps_it(void **state)
{
    const struct setting s = {.want = {SCHED_FIFO, 10, -20, 200},
                              .keep_capability = true,
                              .act = work};
    struct seen seen;

    (void)state;
    run(&s, &seen);
    assert_false(seen.changed);
    assert_realtime(&seen, SCHED_FIFO);
}

/* ---- Here ----------------------------------------------------------------- */

static void require_realtime(void)
{
    const struct sched_param p = {.sched_priority = 10};
    const struct sched_param none = {0};
    char why[100];

    if (syscall(SYS_sched_setscheduler, 0, SCHED_FIFO, &p) == 0) {
        (void)syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &none);
        return;
    }
    (void)snprintf(why, sizeof(why), "no real-time scheduling: %s",
                   strerror(errno));
    skip_for(why);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_policies_are_taken),
        cmocka_unit_test(nothing_asked_nothing_done),
        cmocka_unit_test(without_the_capability_it_stays_usual),
        cmocka_unit_test(a_group_without_budget_refuses_all_but_nice),
        cmocka_unit_test(a_hanging_thread_is_demoted),
        cmocka_unit_test(a_busy_thread_keeps_it),
    };

    require_realtime();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
