/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that hangs, for a program started with LD_PRELOAD: fdatasync() waits until
 * somebody opens the FIFO $SLOWDISK_HANG for writing, and while the file
 * $SLOWDISK_FULL exists pwritev() finds no space. harness.py compiles it, for the
 * release build has no tests.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

int fdatasync(int fd)
{
    const char *fifo = getenv("SLOWDISK_HANG");
    int until = fifo != NULL ? open(fifo, O_RDONLY | O_CLOEXEC) : -1;

    if (until >= 0)
        close(until);
    return (int)syscall(SYS_fdatasync, fd);
}

static ssize_t write_pieces(int fd, const struct iovec *v, int n, off_t at)
{
    const char *full = getenv("SLOWDISK_FULL");

    if (full != NULL && access(full, F_OK) == 0) {
        errno = ENOSPC;
        return -1;
    }
    return syscall(SYS_pwritev, fd, v, n, (long)at, (long)0);
}

ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at)
{
    return write_pieces(fd, v, n, at);
}

ssize_t pwritev64(int fd, const struct iovec *v, int n, off_t at)
{
    return write_pieces(fd, v, n, at);
}
