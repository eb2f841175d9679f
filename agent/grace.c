/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/grace.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/clock.h"

static void *run(void *arg)
{
    struct grace *g = arg;
    uint64_t one = 1;

    if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) != 0)
        g->rc = GRACE_REFUSED;
    (void)!write(g->done, &one, sizeof(one));
    return NULL;
}

static void join(struct grace *g)
{
    if (g->running)
        (void)pthread_join(g->thread, NULL);
    g->running = false;
}

void grace_begin(struct grace *g)
{
    grace_fini(g);
    g->rc = 0;
    g->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (g->done > 0)
        g->running = pthread_create(&g->thread, NULL, run, g) == 0;
    if (!g->running)
        g->rc = GRACE_REFUSED;
}

int grace_await(struct grace *g, uint64_t latest_ns)
{
    struct pollfd p = {.fd = g->done, .events = POLLIN};
    int n;

    if (!g->running)
        return g->rc;
    do {
        uint64_t now_ns = clock_mono_ns(&clock_real);
        uint64_t left_ns = latest_ns > now_ns ? latest_ns - now_ns : 0;
        const struct timespec left = {.tv_sec = (time_t)(left_ns / 1000000000u),
                                      .tv_nsec = (long)(left_ns % 1000000000u)};

        n = ppoll(&p, 1, &left, NULL);
    } while (n < 0 && errno == EINTR);
    if (n <= 0)
        return GRACE_LATE;
    join(g);
    return g->rc;
}

void grace_fini(struct grace *g)
{
    join(g);
    if (g->done > 0)
        (void)close(g->done);
    g->done = 0;
}
