/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kernel built without CONFIG_PROC_CHILDREN, for a program started with
 * LD_PRELOAD: no file of that name is found.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int open64(const char *path, int flags, ...)
{
    const char *name = strrchr(path, '/');
    va_list ap;
    int mode;

    if (name != NULL && strcmp(name, "/children") == 0) {
        errno = ENOENT;
        return -1;
    }
    va_start(ap, flags);
    mode = va_arg(ap, int);
    va_end(ap);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...) __attribute__((alias("open64")));
