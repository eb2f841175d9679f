/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers that cannot start, for a program started with LD_PRELOAD: their first
 * event loop aborts, as libuv does without a descriptor for its pipe. With
 * $NOSTART_ABORTED only the one does that makes this file; the others get an error.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct uv_loop_s;

int uv_loop_init(struct uv_loop_s *loop);

int uv_loop_init(struct uv_loop_s *loop)
{
    const char *path = getenv("NOSTART_ABORTED");
    int fd;

    (void)loop;
    if (path == NULL)
        abort();
    fd = open(path, O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0)
        abort();
    return -EMFILE;
}
