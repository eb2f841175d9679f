/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each second has one place of 16 bytes in the file. Who wants it locks that place
 * alone, so that there is nothing to wait for: where the lock is another's, so is the
 * second. Nothing has to be read at a start or written at a stop, and nothing grows.
 *
 * A second of a clock that was far ahead is in the place of one of now only until that
 * is taken, and says nothing about any other. That is why the file keeps no "last
 * second", which all later lives would follow.
 *
 * Read and written by calls, not mapped: a file that its owner truncates would kill
 * who has it mapped. In /dev/shm no disk is behind it.
 *
 * /dev/shm is the one place that is the same for a user's cron job, service and shell,
 * and that containers with a read-only root have, too; /run and XDG_RUNTIME_DIR are
 * for hosts without it.
 */
#include "agent/seconds.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "seconds-1-"       /* the number is the format's */
#define PRESENCE ((off_t)1 << 30) /* a byte that all who have it open lock */
#define OLD_S 7200
#define MAX_LOOKS 1024 /* files that are looked at for old ones */
#define MAX_TRIES 4    /* a file may be removed while it is being opened */

struct slot {
    uint32_t second_s;
    uint32_t steady;
    uint64_t life;
};
_Static_assert(sizeof(struct slot) == 16, "the format");

/* Of the open file, which keeper and workers share, not of the process. Returns false
 * where another one has it. */
static bool lock(int fd, short type, off_t at, off_t n)
{
    struct flock l = {.l_type = type,
                      .l_whence = SEEK_SET,
                      .l_start = at,
                      .l_len = n};

    return fcntl(fd, F_OFD_SETLK, &l) == 0;
}

/* ---- The file ------------------------------------------------------------- */

/* Others may write to a place only where they cannot touch what is ours. */
static int check_place(int fd)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return -errno;
    if ((st.st_uid != 0 && st.st_uid != geteuid()) ||
        ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0 &&
         (st.st_mode & S_ISVTX) == 0))
        return -EPERM;
    return 0;
}

static int check_ours(int fd, mode_t type)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return -errno;
    return (st.st_mode & S_IFMT) == type && st.st_uid == geteuid() &&
                   (st.st_mode & (S_IRWXG | S_IRWXO)) == 0
               ? 0
               : -EPERM;
}

/* Returns a descriptor or -errno. */
static int open_folder(const char *place)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    char name[32];
    int at = open(place, flags);
    int fd = -1;
    int rc = at >= 0 ? check_place(at) : -errno;

    if (rc != 0)
        goto out;
    (void)snprintf(name, sizeof(name), "retriever-%u", (unsigned)geteuid());
    (void)mkdirat(at, name, 0700); /* a failure shows in openat() */
    fd = openat(at, name, flags | O_NOFOLLOW);
    rc = fd >= 0 ? check_ours(fd, S_IFDIR) : -errno;
out:
    if (at >= 0)
        close(at);
    if (rc == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return rc;
}

/* Whoever removes a file has it alone at that time. Returns a descriptor or -errno;
 * -EAGAIN: it is being removed. */
static int open_once(int folder, const char *name)
{
    struct stat st;
    int fd =
        openat(folder, name,
               O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    int rc = fd >= 0 ? check_ours(fd, S_IFREG) : -errno;

    if (rc == 0 && !lock(fd, F_RDLCK, PRESENCE, 1))
        rc = -errno;
    if (rc == 0 && fstat(fd, &st) == 0 && st.st_nlink == 0)
        rc = -EAGAIN;
    if (rc == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return rc;
}

static void remove_if_old(int folder, const char *name, int64_t now_s)
{
    struct stat st;
    int fd;

    if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 ||
        fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISREG(st.st_mode) || st.st_mtime > now_s - OLD_S)
        return;
    fd = openat(folder, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return;
    if (lock(fd, F_WRLCK, PRESENCE, 1))
        (void)unlinkat(folder, name, 0);
    close(fd);
}

/* Identities come and go (containers, test runs): whoever adds a file looks after
 * those of before. */
static void remove_old(int folder, int64_t now_s)
{
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *e;

    if (d == NULL) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (int i = 0; i < MAX_LOOKS && (e = readdir(d)) != NULL; i++)
        remove_if_old(folder, e->d_name, now_s);
    closedir(d);
}

/* Returns a descriptor or -errno. */
static int open_in(const char *place, uint64_t hash, int64_t now_s)
{
    char name[64];
    struct stat st;
    int folder = open_folder(place);
    int fd = -EAGAIN;

    if (folder < 0)
        return folder;
    (void)snprintf(name, sizeof(name), PREFIX "%016llx",
                   (unsigned long long)hash);
    for (int i = 0; i < MAX_TRIES && fd == -EAGAIN; i++)
        fd = open_once(folder, name);
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size == 0)
        remove_old(folder, now_s);
    close(folder);
    return fd;
}

int seconds_open_in(struct seconds *s, const char *const places[], size_t n,
                    uint64_t hash, uint64_t life, int64_t now_s)
{
    int rc = -ENOENT;

    *s = (struct seconds){.fd = -1, .life = life};
    for (size_t i = 0; i < n && s->fd < 0; i++) {
        if (places[i] == NULL || places[i][0] != '/')
            continue;
        rc = open_in(places[i], hash, now_s);
        if (rc >= 0)
            s->fd = rc;
    }
    return s->fd >= 0 ? 0 : rc;
}

int seconds_open(struct seconds *s, uint64_t hash, uint64_t life, int64_t now_s)
{
    const char *const places[] = {"/dev/shm", "/run",
                                  getenv("XDG_RUNTIME_DIR")};
    const char *const of_tests[] = {getenv("RETRIEVER_TEST_SECONDS")};

    if (of_tests[0] != NULL)
        return seconds_open_in(s, of_tests, 1, hash, life, now_s);
    return seconds_open_in(s, places, sizeof(places) / sizeof(places[0]), hash,
                           life, now_s);
}

bool seconds_is_shared(const struct seconds *s)
{
    struct flock l = {.l_type = F_WRLCK,
                      .l_whence = SEEK_SET,
                      .l_start = PRESENCE,
                      .l_len = 1};

    return s->fd >= 0 && fcntl(s->fd, F_OFD_GETLK, &l) == 0 &&
           l.l_type != F_UNLCK;
}

void seconds_close(struct seconds *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

/* ---- A second ------------------------------------------------------------- */

/* What cannot be read is nobody's. */
static struct slot read_slot(int fd, off_t at)
{
    struct slot slot;

    if (pread(fd, &slot, sizeof(slot), at) != (ssize_t)sizeof(slot))
        return (struct slot){0};
    return slot;
}

/* Under the lock. What cannot be written is taken all the same: as where nothing is
 * kept. */
static bool take(const struct seconds *s, uint32_t t_s, off_t at, bool steady)
{
    const struct slot mine = {.second_s = t_s,
                              .steady = steady,
                              .life = s->life};
    struct slot now = read_slot(s->fd, at);

    if (now.second_s == t_s && now.life != s->life)
        return false;
    (void)!pwrite(s->fd, &mine, sizeof(mine), at);
    return true;
}

enum agg_claim seconds_claim(void *arg, int64_t t_s, bool steady)
{
    struct seconds *s = arg;
    uint32_t second_s = (uint32_t)t_s;
    uint32_t *known = &s->ours_s[second_s % SECONDS_OURS];
    off_t at = (off_t)(second_s % SECONDS_SLOTS) * (off_t)sizeof(struct slot);
    struct slot slot;
    bool ours;

    if (s->fd < 0 || t_s <= 0 || t_s > UINT32_MAX || *known == second_s)
        return AGG_OURS;
    slot = read_slot(s->fd, at);
    if (slot.second_s == second_s && slot.life != s->life)
        return slot.steady != 0 ? AGG_TAKEN_STEADILY : AGG_TAKEN;
    if (!lock(s->fd, F_WRLCK, at, sizeof(slot)))
        return AGG_TAKEN;
    ours = take(s, second_s, at, steady);
    (void)lock(s->fd, F_UNLCK, at, sizeof(slot));
    if (!ours)
        return AGG_TAKEN;
    *known = second_s;
    return AGG_OURS;
}
