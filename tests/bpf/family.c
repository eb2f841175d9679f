/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process family that does something known and measures itself. Built without
 * sanitizers: their threads and memory would be measured, too.
 *
 * It is told to go by 8 bytes on stdin, the CLOCK_MONOTONIC time at which they were
 * written, since that is when it wakes; it answers by a line on stdout and ends at
 * the end of stdin.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define N_WORKERS 4
#define MS UINT64_C(1000000)

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void rest_until(uint64_t ns)
{
    struct timespec ts = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) != 0)
        ;
}

static uint64_t wait_for_go(void)
{
    uint64_t ns = 0;

    if (read(0, &ns, sizeof(ns)) != (ssize_t)sizeof(ns))
        _exit(0); /* nobody wants it */
    return ns;
}

static void wait_for_end(void)
{
    char c;

    while (read(0, &c, 1) > 0)
        ;
}

static void answer(uint64_t a, uint64_t b)
{
    (void)printf("%llu %llu\n", (unsigned long long)a, (unsigned long long)b);
    (void)fflush(stdout);
}

static void *do_nothing(void *arg)
{
    return arg;
}

/* The main thread leaves, eight others end at once. */
static int crowd(void)
{
    for (int i = 0; i < 8; i++) {
        pthread_t t;

        (void)pthread_create(&t, NULL, do_nothing, NULL);
    }
    pthread_exit(NULL);
}

/* Half a millisecond of work, two of rest, until an instant. */
static void *work(void *arg)
{
    const uint64_t *until_ns = arg;

    for (uint64_t now = now_ns(); now < *until_ns; now = now_ns()) {
        uint64_t end = now + MS / 2;

        while (now_ns() < end)
            ;
        rest_until(end + 2 * MS);
    }
    return NULL;
}

static void run_true(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        (void)execl("/bin/true", "true", NULL);
        _exit(9);
    }
    (void)waitpid(pid, NULL, 0);
}

/* cycles N ACTIVE_MS IDLE_MS: active, idle, active, ... active. Answers how long it
 * was active and how long it meant to rest. */
static int cycles(int n, uint64_t active_ms, uint64_t idle_ms)
{
    uint64_t from_ns = wait_for_go();
    uint64_t active_ns = 0, idle_ns = 0;

    for (int i = 0; i < n; i++) {
        uint64_t until_ns = from_ns + active_ms * MS, end_ns;
        pthread_t t[N_WORKERS];

        for (int k = 0; k < N_WORKERS; k++)
            (void)pthread_create(&t[k], NULL, work, &until_ns);
        run_true();
        for (int k = 0; k < N_WORKERS; k++)
            (void)pthread_join(t[k], NULL);
        end_ns = now_ns();
        active_ns += end_ns - from_ns;
        if (i + 1 == n)
            break;
        from_ns = end_ns + idle_ms * MS;
        rest_until(from_ns);
        idle_ns += idle_ms * MS;
    }
    answer(active_ns, idle_ns);
    wait_for_end();
    return 0;
}

static void *be_last(void *arg)
{
    (void)arg;
    answer(0, 0);
    wait_for_end();
    exit(5);
}

/* The main thread leaves; a worker goes on. */
static int leader(void)
{
    pthread_t t;

    (void)wait_for_go();
    (void)pthread_create(&t, NULL, be_last, NULL);
    pthread_exit(NULL);
}

/* storm N: as many children, one after the other, exit codes 0 to 3. */
static int storm(int n)
{
    (void)wait_for_go();
    for (int i = 0; i < n; i++) {
        pid_t pid = vfork();

        if (pid == 0)
            _exit(i % 4);
        if (pid > 0)
            (void)waitpid(pid, NULL, 0);
    }
    answer((uint64_t)n, 0);
    wait_for_end();
    return 0;
}

static void *await_end(void *arg)
{
    wait_for_end();
    return arg;
}

/* Three processes, one below the other, of three threads each; all wait for the end
 * of stdin. The last born answers. */
static int crew(void)
{
    pthread_t t[2];
    pid_t child = 0;

    for (int born = 1; born < 3 && child == 0; born++)
        child = fork();
    for (int i = 0; i < 2; i++)
        (void)pthread_create(&t[i], NULL, await_end, NULL);
    if (child == 0)
        answer(0, 0);
    wait_for_end();
    for (int i = 0; i < 2; i++)
        (void)pthread_join(t[i], NULL);
    if (child > 0)
        (void)waitpid(child, NULL, 0);
    return 0;
}

/* hog BYTES: use them all. */
static int hog(size_t n)
{
    char *p;

    (void)wait_for_go();
    p = malloc(n);
    if (p != NULL)
        memset(p, 1, n);
    answer(p != NULL, 0);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (strcmp(what, "crowd") == 0)
        return crowd();
    if (strcmp(what, "cycles") == 0 && argc == 5)
        return cycles((int)strtol(argv[2], NULL, 10),
                      strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
    if (strcmp(what, "leader") == 0)
        return leader();
    if (strcmp(what, "storm") == 0 && argc == 3)
        return storm((int)strtol(argv[2], NULL, 10));
    if (strcmp(what, "crew") == 0)
        return crew();
    if (strcmp(what, "hog") == 0 && argc == 3)
        return hog(strtoull(argv[2], NULL, 10));
    return 64;
}
