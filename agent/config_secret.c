/* SPDX-License-Identifier: Apache-2.0 */
/* The file that holds the API key: read at start and again when it changes. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/config_check.h"
#include "agent/config_table.h"

#define MAX_KEY_FILE 1024

static struct config_key_stamp stamp_of(const struct stat *st)
{
    return (struct config_key_stamp){
        .device = st->st_dev,
        .inode = st->st_ino,
        .mtime_ns =
            (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
        .bytes = st->st_size,
    };
}

static bool same_stamp(const struct config_key_stamp *a,
                       const struct config_key_stamp *b)
{
    return a->device == b->device && a->inode == b->inode &&
           a->mtime_ns == b->mtime_ns && a->bytes == b->bytes;
}

static int refuse(char why[CONFIG_WHY], const char *text)
{
    (void)snprintf(why, CONFIG_WHY, "%s", text);
    return -EINVAL;
}

int config_read_key_file(const char *path, char **key,
                         struct config_key_stamp *stamp, unsigned *mode,
                         char why[CONFIG_WHY])
{
    /* Not blocking: a FIFO here must not hold the start up. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    char text[MAX_KEY_FILE + 1];
    const char *begin = text;
    const char *wrong;
    struct stat st;
    ssize_t n = -1;
    size_t n_key;

    if (fd < 0)
        return refuse(why, strerror(errno));
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        n = read(fd, text, sizeof(text));
    (void)close(fd);
    if (n < 0)
        return refuse(why, "is not a readable file");
    if (n > MAX_KEY_FILE)
        return refuse(why, "is larger than 1 KiB");
    if (memchr(text, '\0', (size_t)n) != NULL)
        return refuse(why, "holds a zero byte");
    n_key = config_trim(&begin, (size_t)n);
    if (n_key == 0)
        return refuse(why, "is empty");
    text[begin - text + (ssize_t)n_key] = '\0';
    wrong = check_api_key(begin);
    if (wrong != NULL) {
        explicit_bzero(text, sizeof(text));
        (void)snprintf(why, CONFIG_WHY, "its content %s", wrong);
        return -EINVAL;
    }
    *key = strdup(begin);
    explicit_bzero(text, sizeof(text));
    if (*key == NULL)
        return -ENOMEM;
    *stamp = stamp_of(&st);
    *mode = st.st_mode & 07777;
    return 0;
}

int config_poll_key_file(const struct config *c, struct config_key_stamp *stamp,
                         char **key)
{
    struct config_key_stamp now;
    char why[CONFIG_WHY];
    struct stat st;
    unsigned mode;
    char *fresh;
    int rc;

    if (c->api_key_file[0] == '\0' || stat(c->api_key_file, &st) != 0)
        return 0;
    now = stamp_of(&st);
    if (same_stamp(&now, stamp))
        return 0;
    rc = config_read_key_file(c->api_key_file, &fresh, &now, &mode, why);
    if (rc == -EINVAL)
        return 0; /* half written: the next poll sees the rest */
    if (rc != 0)
        return rc;
    log_set_secret(fresh);
    *stamp = now;
    *key = fresh;
    return CONFIG_KEY_CHANGED;
}
