/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kernel whose grace period does not end, for a program started with LD_PRELOAD:
 * membarrier() waits until somebody opens the FIFO $SLOWGRACE_HANG for writing, if
 * there is one. harness.py compiles it.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void hang(void)
{
    const char *fifo = getenv("SLOWGRACE_HANG");
    int until = fifo != NULL ? open(fifo, O_RDONLY | O_CLOEXEC) : -1;

    if (until >= 0)
        close(until);
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
