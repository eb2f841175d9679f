/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What counting lost datagrams costs those who send: each way of a datagram without
 * and with the programs, in turns, in one process. Needs the privilege to load
 * programs.
 *
 *   bench_drop [ROUNDS]
 */
#include <linux/filter.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bpf/cgroup.h"
#include "bpf/drop.h"
#include "bpf/features.h"

#define N_SENDS 20000
#define MAX_ROUNDS 100

static const char payload[64] = "bench.requests:1|c|#service:web";

struct way {
    const char *name;
    int from, to; /* sockets, connected */
    bool receive; /* else it is lost, or taken by a filter */
};

/* CPU time: the sender's own is what a loss costs, and other programs on the machine
 * count less. */
static uint64_t spent_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void check(int rc, const char *what)
{
    if (rc >= 0)
        return;
    perror(what);
    exit(1);
}

static void udp_pair(struct way *w, bool filtered)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sock_filter none = {BPF_RET | BPF_K, 0, 0, 0};
    struct sock_fprog program = {1, &none};
    socklen_t n = sizeof(a);

    w->from = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    w->to = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    check(bind(w->to, (struct sockaddr *)&a, n), "bind");
    check(getsockname(w->to, (struct sockaddr *)&a, &n), "getsockname");
    check(connect(w->from, (struct sockaddr *)&a, n), "connect");
    if (filtered)
        check(setsockopt(w->to, SOL_SOCKET, SO_ATTACH_FILTER, &program,
                         sizeof(program)),
              "SO_ATTACH_FILTER");
}

static void unix_pair(struct way *w, int type)
{
    int fd[2];

    check(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fd), "socketpair");
    w->from = fd[0];
    w->to = fd[1];
}

/* Nanoseconds for one datagram. */
static double run(const struct way *w)
{
    char got[sizeof(payload)];
    uint64_t t0_ns = spent_ns();

    for (int i = 0; i < N_SENDS; i++) {
        (void)send(w->from, payload, sizeof(payload), MSG_DONTWAIT);
        if (w->receive)
            (void)recv(w->to, got, sizeof(got), MSG_DONTWAIT);
    }
    return (double)(spent_ns() - t0_ns) / N_SENDS;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void print(const char *name, double *off_ns, double *on_ns, int n)
{
    qsort(off_ns, (size_t)n, sizeof(*off_ns), by_value);
    qsort(on_ns, (size_t)n, sizeof(*on_ns), by_value);
    (void)printf("%-28s %7.0f %7.0f %7.0f %7.0f %+7.0f\n", name, off_ns[0],
                 off_ns[n / 2], on_ns[0], on_ns[n / 2],
                 on_ns[n / 2] - off_ns[n / 2]);
}

static void *open_feature(const struct feature_env *env)
{
    struct loader_cause cause = {.why = ""};
    void *self = NULL;

    if (drop_feature.open(&self, env, &cause) != 0) {
        (void)fprintf(stderr, "%s; %s\n", cause.why, cause.remedy);
        exit(77);
    }
    return self;
}

int main(int argc, char **argv)
{
    static double off_ns[5][MAX_ROUNDS], on_ns[5][MAX_ROUNDS];
    static struct feature_opts opts;
    struct feature_env env = {.opts = &opts, .events_fd = -1};
    struct way ways[5] = {{.name = "UDP, lost"},
                          {.name = "UDP, received", .receive = true},
                          {.name = "UDP, taken by a filter"},
                          {.name = "Unix datagram, received", .receive = true},
                          {.name = "Unix datagram, refused"}};
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 7;

    if (rounds < 1 || rounds > MAX_ROUNDS)
        return 2;
    check(cgroups_create(&env.cgroups), "cgroups");
    udp_pair(&ways[0], false);
    udp_pair(&ways[1], false);
    udp_pair(&ways[2], true);
    unix_pair(&ways[3], SOCK_DGRAM);
    unix_pair(&ways[4], SOCK_DGRAM);
    for (int i = 0; i < 5; i++)
        check(drop_add_socket(&opts.drop, ways[i].to), "drop_add_socket");
    (void)run(&ways[0]); /* fill the queues */
    (void)run(&ways[4]);
    for (int r = 0; r < rounds; r++) {
        void *self;

        for (int i = 0; i < 5; i++)
            off_ns[i][r] = run(&ways[i]);
        self = open_feature(&env);
        for (int i = 0; i < 5; i++)
            on_ns[i][r] = run(&ways[i]);
        drop_feature.close(self);
    }
    (void)printf("%-28s %15s %15s\n", "ns per datagram", "off min/median",
                 "on min/median");
    for (int i = 0; i < 5; i++)
        print(ways[i].name, off_ns[i], on_ns[i], (int)rounds);
    cgroups_close(env.cgroups);
    return 0;
}
