/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A wall clock that a test can set, for a program started with LD_PRELOAD: the
 * nanoseconds in the 8 bytes of the file $RETRIEVER_TEST_CLOCK are added to
 * CLOCK_REALTIME. CLOCK_MONOTONIC stays as it is: a suspend looks to a process as
 * a step forward. harness.py compiles it, for the release build has no tests.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S INT64_C(1000000000)

static const volatile int64_t *offset_ns;

__attribute__((constructor)) static void open_offset(void)
{
    const char *path = getenv("RETRIEVER_TEST_CLOCK");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *p;

    if (fd < 0)
        return;
    p = mmap(NULL, sizeof(*offset_ns), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (p != MAP_FAILED)
        offset_ns = p;
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
    int rc = (int)syscall(SYS_clock_gettime, id, ts);
    int64_t ns;

    if (rc != 0 || offset_ns == NULL ||
        (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE))
        return rc;
    ns = ts->tv_sec * NS_PER_S + ts->tv_nsec + *offset_ns;
    ts->tv_sec = ns / NS_PER_S;
    ts->tv_nsec = ns % NS_PER_S;
    return 0;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec ts;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &ts);
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    if (out != NULL)
        *out = ts.tv_sec;
    return ts.tv_sec;
}
