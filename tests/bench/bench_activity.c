/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What activity costs a task switch: pairs of processes that play ping-pong through
 * pipes, one pair per CPU, in turn with nothing attached, outside of families and
 * inside of one. A round trip is two switches and two wake-ups. Many short rounds,
 * of which the best counts: what else runs only takes away.
 *
 *   bench_activity [ROUNDS [MILLISECONDS]]
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bpf/activity_kernel.h"
#include "bpf/features.h"

#define MAX_CPUS 64
#define MAX_ROUNDS 64

enum place { BARE, OUTSIDE, INSIDE, N_PLACES };

static const char *const place_names[] = {"nothing attached",
                                          "outside of families",
                                          "inside of a family"};

struct pair {
    pid_t ping, pong;
    int go_fd;
};

static uint64_t *n_trips; /* shared; one cache line per CPU */

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    (void)sched_setaffinity(0, sizeof(set), &set);
}

static void play(int cpu, int in, int out, int go)
{
    char c = 0;

    pin(cpu);
    if (go >= 0 && (read(go, &c, 1) != 1 || write(out, &c, 1) != 1))
        _exit(1);
    while (read(in, &c, 1) == 1 && write(out, &c, 1) == 1) {
        if (go >= 0)
            __atomic_fetch_add(&n_trips[cpu * 8], 1, __ATOMIC_RELAXED);
    }
    _exit(0);
}

static pid_t spawn(int cpu, int in, int out, int go)
{
    pid_t pid = fork();

    if (pid == 0)
        play(cpu, in, out, go);
    return pid;
}

static struct pair begin(int cpu)
{
    int a[2], b[2], go[2];
    struct pair p = {-1, -1, -1};

    if (pipe(a) != 0 || pipe(b) != 0 || pipe(go) != 0)
        exit(1);
    p.ping = spawn(cpu, b[0], a[1], go[0]);
    p.pong = spawn(cpu, a[0], b[1], -1);
    p.go_fd = go[1];
    (void)close(go[0]);
    for (int i = 0; i < 2; i++) {
        (void)close(a[i]);
        (void)close(b[i]);
    }
    return p;
}

static void end(struct pair *p)
{
    (void)kill(p->ping, SIGKILL);
    (void)kill(p->pong, SIGKILL);
    (void)waitpid(p->ping, NULL, 0);
    (void)waitpid(p->pong, NULL, 0);
    (void)close(p->go_fd);
}

/* Make it a member, by the id that the kernel itself knows it by. */
static void enlist(const struct activity_kernel *k, pid_t pid)
{
    struct activity_walk w;

    if (activity_kernel_walk(k, (uint32_t)pid, &w) != 0 || w.tgid == 0 ||
        activity_kernel_watch(k, w.tgid, 1) != 0)
        exit(1);
}

/* Round trips per second and CPU. */
static double measure(struct activity_kernel *k, enum place where, uint32_t ms)
{
    struct pair pairs[MAX_CPUS];
    int n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    struct loader_cause cause;
    struct timespec until;
    uint64_t sum = 0, from_ns;
    double elapsed_s;
    sigset_t none;

    if (n > MAX_CPUS)
        n = MAX_CPUS;
    memset(n_trips, 0, MAX_CPUS * 64);
    if (where != BARE && activity_kernel_begin(k, 1, &cause) != 0)
        exit(1);
    for (int i = 0; i < n; i++) {
        pairs[i] = begin(i);
        if (where == INSIDE) {
            enlist(k, pairs[i].ping);
            enlist(k, pairs[i].pong);
        }
    }
    if (where == INSIDE)
        (void)activity_kernel_gather(k);
    from_ns = now_ns();
    for (int i = 0; i < n; i++) {
        if (write(pairs[i].go_fd, "x", 1) != 1)
            exit(1);
    }
    until = (struct timespec){ms / 1000, ms % 1000 * 1000000L};
    (void)sigemptyset(&none);
    (void)sigtimedwait(&none, NULL, &until);
    for (int i = 0; i < n; i++)
        sum += __atomic_load_n(&n_trips[i * 8], __ATOMIC_RELAXED);
    elapsed_s = (double)(now_ns() - from_ns) / 1e9; /* others may hold us up */
    for (int i = 0; i < n; i++)
        end(&pairs[i]);
    activity_kernel_detach(k);
    return (double)sum / elapsed_s / n;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    uint32_t rounds = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 15;
    uint32_t ms = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 200;
    static double rate[N_PLACES][MAX_ROUNDS];
    struct feature_opts opts = {0};
    struct feature_env env = {.opts = &opts,
                              .watched_fd = life_watched_create()};
    struct loader_cause cause = {0};
    struct activity_kernel k;

    n_trips = mmap(NULL, MAX_CPUS * 64, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (n_trips == MAP_FAILED || rounds == 0 || rounds > MAX_ROUNDS || ms == 0)
        return 2;
    if (env.watched_fd < 0 ||
        activity_kernel_open(&k, &env, 50000, &cause) != 0) {
        (void)fprintf(stderr, "skipped: %s (%s)\n", cause.why, cause.remedy);
        return 77;
    }
    for (uint32_t i = 0; i < rounds; i++) {
        for (int p = 0; p < N_PLACES; p++)
            rate[p][i] = measure(&k, (enum place)p, ms);
    }
    for (int p = 0; p < N_PLACES; p++) {
        qsort(rate[p], rounds, sizeof(double), compare);
        (void)printf(
            "%-20s %9.0f round trips/s per CPU (median %.0f), %+4.0f "
            "ns per switch and wake-up\n",
            place_names[p], rate[p][rounds - 1], rate[p][rounds / 2],
            (1e9 / rate[p][rounds - 1] - 1e9 / rate[BARE][rounds - 1]) / 2);
    }
    activity_kernel_close(&k);
    (void)close(env.watched_fd);
    return 0;
}
