/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of one file. A start must not wait for ever, and `exec` reads with all
 * signals blocked: files and pipes are read, and a pipe is waited for only while
 * somebody writes to it, as a shell's <(command) does.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "agent/config_table.h"

#define WAIT_MS 10000 /* for a writer's next byte */

static int refuse(char why[CONFIG_WHY], const char *text)
{
    (void)snprintf(why, CONFIG_WHY, "%s", text);
    return -EINVAL;
}

/* Why nothing is read from @st; NULL = it is a file or a pipe. */
static const char *wrong_kind(const struct stat *st)
{
    switch (st->st_mode & S_IFMT) {
    case S_IFREG:
    case S_IFIFO:
        return NULL;
    case S_IFDIR:
        return "is a folder";
    case S_IFSOCK:
        return "is a socket";
    default: /* /dev/null is how one says: an empty one */
        return S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3)
                   ? NULL
                   : "is a device";
    }
}

/* As read(), but waits for a pipe's writer. */
static ssize_t read_some(int fd, char *to, size_t size)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    for (;;) {
        ssize_t n = read(fd, to, size);

        if (n >= 0 || (errno != EAGAIN && errno != EINTR))
            return n;
        if (errno == EAGAIN && poll(&p, 1, WAIT_MS) == 0) {
            errno = ETIMEDOUT;
            return -1;
        }
    }
}

/* Up to CONFIG_MAX_FILE_BYTES + 1 bytes, so that more are noticed. */
static int read_all(int fd, char *bytes, size_t *n, char why[CONFIG_WHY])
{
    ssize_t r = 1;

    *n = 0;
    while (r > 0 && *n <= CONFIG_MAX_FILE_BYTES) {
        r = read_some(fd, bytes + *n, CONFIG_MAX_FILE_BYTES + 1 - *n);
        if (r > 0)
            *n += (size_t)r;
    }
    if (r < 0)
        return refuse(why, errno == ETIMEDOUT
                               ? "is a pipe whose writer is silent"
                               : strerror(errno));
    if (*n > CONFIG_MAX_FILE_BYTES)
        return refuse(why, "is larger than 1 MiB");
    return 0;
}

int config_read_file(const char *path, char **text, size_t *n,
                     char why[CONFIG_WHY])
{
    const char *wrong;
    char *bytes = NULL;
    struct stat st;
    size_t got;
    int fd = -1;
    int rc;

    if (stat(path, &st) != 0)
        return errno == ENOENT || errno == ENOTDIR
                   ? -ENOENT
                   : refuse(why, strerror(errno));
    wrong = wrong_kind(&st);
    if (wrong != NULL)
        return refuse(why, wrong);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return refuse(why, strerror(errno));
    rc = -ENOMEM;
    bytes = malloc(CONFIG_MAX_FILE_BYTES + 1);
    if (bytes == NULL)
        goto out;
    rc = read_all(fd, bytes, &got, why);
    if (rc == 0 && got == 0 && S_ISFIFO(st.st_mode))
        rc = refuse(why, "is a pipe that nobody writes to");
    if (rc != 0)
        goto out;
    *text = bytes;
    *n = got;
    bytes = NULL; /* handed over */
out:
    free(bytes);
    (void)close(fd);
    return rc;
}
