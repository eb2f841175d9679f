/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw system calls: C libraries have no sched_setattr(), and musl refuses
 * sched_setscheduler(), which the signal handler needs besides.
 *
 * SCHED_RESET_ON_FORK goes with each of them, also with the one that gives real
 * time up: without CAP_SYS_NICE (a limit let us have real time) a thread may not
 * clear it, and the call would be refused.
 */
#include "agent/priority.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SCHED_RESET_ON_FORK
#define SCHED_RESET_ON_FORK 0x40000000
#endif
#define FLAG_RESET_ON_FORK 1u  /* sched_setattr(2) */
#define NICE_LAST (-10)        /* what RLIMIT_NICE may allow where -20 is not */
#define RTTIME_HARD_US 1000000 /* then the kernel ends the process */
#define STACK_TOUCHED (64u * 1024)
#define BREATH_NS UINT64_C(50000000) /* busy for so long: a pause */
#define PAUSE_NS 200000              /* sched_yield() lets nobody below run */

/* Layout of the system call's first version. */
struct scheduling {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
};

/* Whom the signal is about; it carries no argument. */
static _Thread_local struct priority *own;

/* ---- The state as a word ------------------------------------------------ */

#define WORD(got, nice, refused)                                               \
    ((uint32_t)(got) | (uint32_t)((nice) + 20) << 8 | (uint32_t)(refused) << 16)

struct priority_state priority_state(const struct priority *p)
{
    uint32_t word = atomic_load(&p->word);
    struct priority_state s = {.runaway = atomic_load(&p->ran_away) != 0};

    if (word == 0)
        return s; /* nothing was asked, or not yet */
    s.got = (enum priority_got)(word & 0xff);
    s.nice = (int)(word >> 8 & 0xff) - 20;
    s.refused = (int)(word >> 16);
    s.settled = !s.runaway || s.got != PRIORITY_REALTIME;
    if (!s.settled)
        s.got = PRIORITY_USUAL;
    return s;
}

const char *priority_requested_name(const struct priority_request *want)
{
    return want->policy == SCHED_FIFO ? "fifo"
           : want->policy == SCHED_RR ? "rr"
                                      : "none";
}

const char *priority_effective_name(const struct priority_request *want,
                                    const struct priority_state *s)
{
    switch (s->got) {
    case PRIORITY_REALTIME:
        return priority_requested_name(want);
    case PRIORITY_NICE:
        return "nice";
    case PRIORITY_USUAL:
        break;
    }
    return "other";
}

/* ---- Asking ------------------------------------------------------------- */

static int schedule(int policy, int rt_priority, int nice)
{
    struct scheduling s = {.size = sizeof(s),
                           .policy = (uint32_t)policy,
                           .flags = FLAG_RESET_ON_FORK,
                           .nice = nice,
                           .priority = (uint32_t)rt_priority};

    return syscall(SYS_sched_setattr, 0, &s, 0) == 0 ? 0 : errno;
}

/* Sandboxes say yes to what they ignore. */
static bool is_realtime(int policy)
{
    long now = syscall(SYS_sched_getscheduler, 0);

    return now >= 0 && (now & ~SCHED_RESET_ON_FORK) == policy;
}

static void take_nice(struct priority *p, int refused)
{
    const int ladder[] = {p->want.nice_fallback, NICE_LAST};
    enum priority_got got = PRIORITY_USUAL;

    for (size_t i = 0; i < 2 && p->want.nice_fallback != 0; i++) {
        if (i > 0 && ladder[i] <= ladder[0])
            break; /* more than what was asked for */
        if (schedule(SCHED_OTHER, 0, ladder[i]) == 0 &&
            getpriority(PRIO_PROCESS, 0) == ladder[i]) {
            got = PRIORITY_NICE;
            break;
        }
    }
    atomic_store(&p->word, WORD(got, getpriority(PRIO_PROCESS, 0), refused));
}

/* ---- The guard ---------------------------------------------------------- */

static void on_too_long(int sig)
{
    const struct sched_param none = {0};
    int saved = errno;

    (void)sig;
    if (own != NULL && is_realtime(own->want.policy)) {
        (void)syscall(SYS_sched_setscheduler, 0,
                      SCHED_OTHER | SCHED_RESET_ON_FORK, &none);
        atomic_store(&own->ran_away, 1);
    }
    errno = saved;
}

/* Started with real-time priority from outside, other threads fall under the limit
 * as well; they may run on. */
static bool others_have_realtime(void)
{
    long now = syscall(SYS_sched_getscheduler, getpid());

    now &= ~SCHED_RESET_ON_FORK;
    return now == SCHED_FIFO || now == SCHED_RR;
}

static void guard(struct priority *p)
{
    const struct sigaction sa = {.sa_handler = on_too_long,
                                 .sa_flags = SA_RESTART};
    struct rlimit lim;
    sigset_t set;

    own = p;
    if (others_have_realtime() || sigaction(SIGXCPU, &sa, NULL) != 0)
        return;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGXCPU);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    if (getrlimit(RLIMIT_RTTIME, &lim) != 0)
        return;
    if (lim.rlim_max > RTTIME_HARD_US)
        lim.rlim_max = RTTIME_HARD_US;
    lim.rlim_cur = (rlim_t)p->want.rttime_ms * 1000;
    if (lim.rlim_cur > lim.rlim_max)
        lim.rlim_cur = lim.rlim_max;
    (void)setrlimit(RLIMIT_RTTIME, &lim);
}

/* ---- Memory ------------------------------------------------------------- */

static __attribute__((noinline)) void touch_stack(void)
{
    volatile unsigned char stack[STACK_TOUCHED];

    for (size_t i = 0; i < sizeof(stack); i += 1024)
        stack[i] = 0;
}

/* ---- Calls -------------------------------------------------------------- */

void priority_take(struct priority *p, const struct priority_request *want,
                   const void *hot, size_t n_hot)
{
    int rc;

    p->want = *want;
    if (want->policy == SCHED_OTHER)
        return;
    touch_stack();
    (void)mlock(hot, n_hot); /* as far as RLIMIT_MEMLOCK goes */
    guard(p);
    rc = schedule(want->policy, want->rt_priority, 0);
    if (rc == 0 && !is_realtime(want->policy))
        rc = ENOTSUP;
    if (rc == 0)
        atomic_store(&p->word, WORD(PRIORITY_REALTIME, 0, 0));
    else
        take_nice(p, rc);
}

/* Turns do not tell whether the thread has paused: with work waiting, its poll
 * returns at once. The kernel counts the pauses. */
static void pause_if_due(struct priority *p, uint64_t now_ns)
{
    const struct timespec ts = {.tv_nsec = PAUSE_NS};
    struct rusage use = {0};

    if (now_ns - p->breathed_ns < BREATH_NS)
        return;
    if (getrusage(RUSAGE_THREAD, &use) == 0 && use.ru_nvcsw == p->n_pauses) {
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
        use.ru_nvcsw++;
    }
    p->n_pauses = use.ru_nvcsw;
    p->breathed_ns = now_ns;
}

bool priority_breathe(struct priority *p, uint64_t now_ns)
{
    if (p->want.policy == SCHED_OTHER || p->fallen)
        return false;
    if (atomic_load(&p->ran_away) != 0) {
        p->fallen = true;
        take_nice(p, 0);
        return true;
    }
    if ((atomic_load(&p->word) & 0xff) == PRIORITY_REALTIME)
        pause_if_due(p, now_ns);
    return false;
}
