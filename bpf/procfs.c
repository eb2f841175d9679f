/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names in `maps` are as far as they can be told from where we stand: below the root
 * of a container, or of a chroot as seen from ours. The links of map_files lead to
 * the file itself, but want CAP_CHECKPOINT_RESTORE; without it the name is tried
 * below both roots, and from ours only the same inode counts.
 */
#include "bpf/procfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bpf/image.h"

#define STAT_START 22
#define STAT_AFTER_NAME 3
#define MAP_LINE_BYTES 4400 /* a path of any length, and what is before it */

int procfs_open(uint32_t pid)
{
    char path[32];
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/%" PRIu32, pid);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 ? fd : -errno;
}

bool procfs_parse_start(const char *text, uint64_t *ticks)
{
    /* the name may contain anything, a parenthesis too */
    const char *at = strrchr(text, ')');
    char *end;
    unsigned long long v;

    if (at == NULL)
        return false;
    for (int i = STAT_AFTER_NAME; i <= STAT_START; i++) {
        at = strchr(at, ' ');
        if (at == NULL)
            return false;
        at++;
    }
    v = strtoull(at, &end, 10);
    if (end == at)
        return false;
    *ticks = v;
    return true;
}

int procfs_start(int proc_fd, uint64_t *ticks)
{
    char text[1024];
    int fd = openat(proc_fd, "stat", O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return -errno;
    n = read(fd, text, sizeof(text) - 1);
    n = n >= 0 ? n : -errno;
    (void)close(fd);
    if (n <= 0)
        return n < 0 ? (int)n : -ESRCH;
    text[n] = '\0';
    return procfs_parse_start(text, ticks) ? 0 : -EPROTO;
}

bool procfs_lives(uint32_t pid)
{
    int fd = procfs_open(pid);
    uint64_t ticks;
    bool yes = fd >= 0 && procfs_start(fd, &ticks) == 0;

    if (fd >= 0)
        (void)close(fd);
    return yes;
}

bool procfs_parse_map(char *line, struct procfs_map *out)
{
    char *at = line;

    out->start = strtoull(at, &at, 16);
    if (*at != '-')
        return false;
    out->end = strtoull(at + 1, &at, 16);
    if (at[0] != ' ' || strnlen(at, 6) < 6 || at[5] != ' ')
        return false;
    out->may_run = at[3] == 'x';
    out->offset = strtoull(at + 6, &at, 16);
    at = *at == ' ' ? strchr(at + 1, ' ') : NULL; /* device */
    if (at == NULL)
        return false;
    out->ino = strtoull(at, &at, 10);
    at += strspn(at, " ");
    at[strcspn(at, "\n")] = '\0';
    out->path = at;
    return at[0] == '/' && out->ino != 0;
}

/* Give out the whole lines of @text; *n: what is left of it. Returns false when @fn
 * wants no more. */
static bool take_lines(char *text, size_t *n, procfs_map_fn *fn, void *arg)
{
    char *line = text, *end = text + *n, *nl;

    while ((nl = memchr(line, '\n', (size_t)(end - line))) != NULL) {
        struct procfs_map m;

        *nl = '\0';
        if (procfs_parse_map(line, &m) && !fn(arg, &m))
            return false;
        line = nl + 1;
    }
    *n = (size_t)(end - line);
    memmove(text, line, *n);
    return true;
}

/* No stdio: environ_aside.c must not allocate. */
int procfs_maps(int proc_fd, procfs_map_fn *fn, void *arg)
{
    char text[2 * MAP_LINE_BYTES];
    int fd = openat(proc_fd, "maps", O_RDONLY | O_CLOEXEC);
    size_t n = 0, total = 0;
    ssize_t got;

    if (fd < 0)
        return -errno;
    do {
        got = read(fd, text + n, sizeof(text) - n);
        total += got > 0 ? (size_t)got : 0;
        n += got > 0 ? (size_t)got : 0;
    } while (got > 0 && take_lines(text, &n, fn, arg) && n < sizeof(text) &&
             total < PROCFS_MAX_MAPS_BYTES);
    got = got < 0 ? -errno : 0;
    (void)close(fd);
    return (int)got;
}

bool procfs_is_libc(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash != NULL ? slash + 1 : path;

    return strncmp(base, "libc.", 5) == 0 || strncmp(base, "libc-", 5) == 0 ||
           strstr(base, "musl") != NULL;
}

int procfs_open_map(int proc_fd, const struct procfs_map *m)
{
    struct image_key key;
    char name[64];
    int root, fd;

    (void)snprintf(name, sizeof(name), "map_files/%" PRIx64 "-%" PRIx64,
                   m->start, m->end);
    fd = image_open_link(proc_fd, name);
    if (fd >= 0 || (fd != -EPERM && fd != -EACCES))
        return fd;
    root = openat(proc_fd, "root", O_PATH | O_CLOEXEC);
    if (root >= 0) {
        fd = image_open(root, m->path);
        (void)close(root);
        if (fd >= 0)
            return fd;
    }
    fd = image_open(-1, m->path);
    if (fd >= 0 && (image_key_of(fd, &key) != 0 || key.ino != m->ino)) {
        (void)close(fd);
        fd = -ENOENT;
    }
    return fd;
}

uint32_t procfs_pidns_inode(void)
{
    struct stat st;

    return stat("/proc/self/ns/pid", &st) == 0 ? (uint32_t)st.st_ino : 0;
}

int procfs_each(void (*fn)(void *arg, uint32_t pid), void *arg)
{
    DIR *d = opendir("/proc");
    struct dirent *e;

    if (d == NULL)
        return -errno;
    while ((e = readdir(d)) != NULL) {
        char *end;
        unsigned long pid = strtoul(e->d_name, &end, 10);

        if (pid > 0 && *end == '\0')
            fn(arg, (uint32_t)pid);
    }
    (void)closedir(d);
    return 0;
}
