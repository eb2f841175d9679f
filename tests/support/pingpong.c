/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/pingpong.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TRIPS 1000
#define MOMENTS 8

static void set_class(int policy)
{
    struct sched_param param = {.sched_priority = policy == SCHED_FIFO};

    (void)sched_setscheduler(0, policy, &param);
}

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    (void)sched_setaffinity(0, sizeof(set), &set);
}

int pingpong_start(struct pingpong *p)
{
    int to[2], from[2];
    char c;

    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
        return -errno;
    p->cpu = sched_getcpu();
    p->pid = fork();
    if (p->pid < 0)
        return -errno;
    if (p->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close(to[1]);
        pin(p->cpu);
        set_class(SCHED_FIFO); /* blocks all the time */
        while (read(to[0], &c, 1) == 1 && write(from[1], &c, 1) == 1)
            ;
        _exit(0);
    }
    (void)close(to[0]);
    (void)close(from[1]);
    p->to = to[1];
    p->from = from[0];
    return 0;
}

void pingpong_stop(struct pingpong *p)
{
    (void)close(p->to);
    (void)waitpid(p->pid, NULL, 0);
    (void)close(p->from);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void pingpong_play(const struct pingpong *p, unsigned int n)
{
    cpu_set_t before;
    char c = 0;

    (void)sched_getaffinity(0, sizeof(before), &before);
    pin(p->cpu);
    set_class(SCHED_FIFO);
    for (unsigned int i = 0; i < n; i++) {
        if (write(p->to, &c, 1) != 1 || read(p->from, &c, 1) != 1)
            break;
    }
    set_class(SCHED_OTHER);
    (void)sched_setaffinity(0, sizeof(before), &before);
}

double pingpong_ns(const struct pingpong *p)
{
    uint64_t least = UINT64_MAX;

    pingpong_play(p, TRIPS);
    for (int i = 0; i < MOMENTS; i++) {
        uint64_t begin = now_ns();
        uint64_t ns;

        pingpong_play(p, TRIPS);
        ns = now_ns() - begin;
        least = ns < least ? ns : least;
    }
    return (double)least / TRIPS / 2;
}
