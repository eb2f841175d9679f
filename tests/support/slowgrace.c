/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kernel whose grace period does not end, for a program started with LD_PRELOAD:
 * while the file $SLOWGRACE_HANG exists, membarrier() is not over.
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void hang(void)
{
    const char *path = getenv("SLOWGRACE_HANG");
    const struct timespec ms = {.tv_nsec = 1000000};

    while (path != NULL && access(path, F_OK) == 0)
        (void)nanosleep(&ms, NULL);
}

long syscall(long number, ...)
{
    static long (*real)(long, ...);
    long a[6];
    va_list ap;

    va_start(ap, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
    if (real == NULL)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    if (number == SYS_membarrier)
        hang();
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
