/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files are written by pwrite() and never mapped: an error of the disk is an
 * error code here, where a mapping would make it a SIGBUS.
 */
#include "forwarder/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "forwarder/disk_private.h"

#define MODULE "store"
#define MS_NS UINT64_C(1000000)
#define MAX_ASIDE 1000u /* damaged files of one number */

/* ---- Bytes ------------------------------------------------------------- */

int disk_pread(int fd, void *to, size_t n, uint64_t at)
{
    unsigned char *p = to;

    while (n > 0) {
        ssize_t got = pread(fd, p, n, (off_t)at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -EBADMSG;
        p += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

int disk_pwritev(int fd, struct iovec *v, int n_v, uint64_t at)
{
    while (n_v > 0) {
        ssize_t done = pwritev(fd, v, n_v, (off_t)at);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? -errno : -ENOSPC;
        at += (uint64_t)done;
        while (n_v > 0 && (size_t)done >= v->iov_len) {
            done -= (ssize_t)v->iov_len;
            v++;
            n_v--;
        }
        if (n_v > 0) {
            v->iov_base = (char *)v->iov_base + done;
            v->iov_len -= (size_t)done;
        }
    }
    return 0;
}

int disk_pwrite(int fd, const void *p, size_t n, uint64_t at)
{
    struct iovec v = {(void *)p, n};

    return disk_pwritev(fd, &v, 1, at);
}

/* ---- Life -------------------------------------------------------------- */

int disk_open(struct disk **out, const struct disk_opts *opts)
{
    struct disk *d = calloc(1, sizeof(*d));
    uint64_t eighth = opts->max_bytes / 8;

    if (d == NULL)
        return -ENOMEM;
    d->opts = *opts;
    d->max_segment_bytes = eighth < DISK_SEGMENT_MIN   ? DISK_SEGMENT_MIN
                           : eighth > DISK_SEGMENT_MAX ? DISK_SEGMENT_MAX
                                                       : (uint32_t)eighth;
    d->folder = d->active_fd = d->cached_fd = -1;
    d->next_number = 1;
    pthread_mutex_init(&d->append_lock, NULL);
    pthread_mutex_init(&d->lock, NULL);
    *out = d;
    return 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void disk_drop_active(struct disk *d)
{
    d->active = 0;
    close_fd(&d->active_fd);
}

void disk_close(struct disk *d)
{
    struct segment_file *f;

    if (d == NULL)
        return;
    f = disk_find(d, d->active);
    if (f != NULL && f->n_held == 0)
        disk_release(d, f);
    close_fd(&d->active_fd);
    close_fd(&d->cached_fd);
    close_fd(&d->folder);
    pthread_mutex_destroy(&d->lock);
    pthread_mutex_destroy(&d->append_lock);
    free(d->files);
    free(d->claims);
    free(d);
}

/* ---- What went wrong --------------------------------------------------- */

static const char *advice(int rc)
{
    switch (-rc) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return "free space on its filesystem";
    case EROFS:
        return "mount its filesystem writable";
    case EMFILE:
    case ENFILE:
        return "raise the limit of open files";
    case EACCES:
    case EPERM:
    case ENOTDIR:
    case ELOOP:
        return "make payloads/ a folder that this user may write";
    default:
        return "look at the disk";
    }
}

void disk_failed(struct disk *d, int rc, const char *what)
{
    d->retry_ns = disk_now_ns(d) + DISK_RETRY_MS * MS_NS;
    if (d->failing)
        return;
    d->failing = true;
    log_warn(MODULE,
             "run_path takes no payloads: %s; new ones wait in memory only; "
             "%s retry_s=%u cause=\"%s\"",
             what, advice(rc), DISK_RETRY_MS / 1000, strerror(-rc));
}

void disk_works(struct disk *d)
{
    if (d->failing)
        log_info(MODULE, "run_path takes payloads again");
    d->failing = false;
}

/* Marks are a hint for the next life alone: nothing here depends on them. */
static void mark_failed(struct disk *d, int rc)
{
    if (!d->marks_failing)
        log_warn(MODULE,
                 "run_path takes no marks: after a restart, payloads that were "
                 "delivered may be sent again; %s cause=\"%s\"",
                 advice(rc), strerror(-rc));
    d->marks_failing = true;
}

/* ---- The folder and its files ------------------------------------------ */

void disk_name(uint64_t number, char name[DISK_NAME_BYTES])
{
    (void)snprintf(name, DISK_NAME_BYTES, "segment-%016" PRIx64, number);
}

int disk_open_folder(struct disk *d)
{
    int fd;

    if (d->folder >= 0)
        return 0;
    if (mkdirat(d->opts.run_dir, DISK_FOLDER, 0700) == 0)
        (void)fsync(d->opts.run_dir);
    else if (errno != EEXIST)
        return -errno;
    fd = openat(d->opts.run_dir, DISK_FOLDER,
                O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    d->folder = fd;
    return 0;
}

size_t disk_lower_bound(const struct disk *d, uint64_t number)
{
    size_t lo = 0;
    size_t hi = d->n_files;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (d->files[mid].number < number)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct segment_file *disk_find(struct disk *d, uint64_t number)
{
    size_t i = disk_lower_bound(d, number);

    return i < d->n_files && d->files[i].number == number ? &d->files[i] : NULL;
}

struct segment_file *disk_add(struct disk *d, uint64_t number)
{
    size_t i = disk_lower_bound(d, number);

    if (i < d->n_files && d->files[i].number == number)
        return &d->files[i];
    if (d->n_files == d->cap_files) {
        size_t cap = d->cap_files * 2 + 16;
        struct segment_file *more = reallocarray(d->files, cap, sizeof(*more));

        if (more == NULL)
            return NULL;
        d->files = more;
        d->cap_files = cap;
    }
    memmove(&d->files[i + 1], &d->files[i],
            (d->n_files - i) * sizeof(*d->files));
    d->files[i] = (struct segment_file){.number = number};
    d->n_files++;
    if (number >= d->next_number)
        d->next_number = number + 1;
    return &d->files[i];
}

int disk_fd(struct disk *d, uint64_t number, bool to_write)
{
    char name[DISK_NAME_BYTES];
    int rc;

    if (number == d->active)
        return d->active_fd;
    if (number == d->cached && !(to_write && d->cached_readonly))
        return d->cached_fd;
    rc = disk_open_folder(d);
    if (rc != 0)
        return rc;
    close_fd(&d->cached_fd);
    d->cached = 0;
    disk_name(number, name);
    d->cached_readonly = false;
    d->cached_fd =
        openat(d->folder, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (d->cached_fd < 0 && !to_write && (errno == EROFS || errno == EACCES)) {
        d->cached_readonly = true;
        d->cached_fd = openat(d->folder, name,
                              O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    }
    if (d->cached_fd < 0)
        return -errno;
    d->cached = number;
    return d->cached_fd;
}

/* Not every filesystem can refuse to replace a file. Returns 0 or -errno. */
static int rename_no_replace(int folder, const char *from, const char *to)
{
    if (renameat2(folder, from, folder, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -errno;
    if (faccessat(folder, to, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return -EEXIST;
    return renameat(folder, from, folder, to) == 0 ? 0 : -errno;
}

/* A file that was partly unreadable is kept for whoever looks into it, under a
 * name that is never read again. Numbers may have begun again since an earlier
 * one was set aside, which stays. */
static int set_aside(int folder, const char *name)
{
    char aside[DISK_NAME_BYTES + 16];
    int rc = -EEXIST;

    for (unsigned i = 0; rc == -EEXIST && i < MAX_ASIDE; i++) {
        if (i == 0)
            (void)snprintf(aside, sizeof(aside), "%s.damaged", name);
        else
            (void)snprintf(aside, sizeof(aside), "%s.%u.damaged", name, i);
        rc = rename_no_replace(folder, name, aside);
    }
    return rc;
}

void disk_release(struct disk *d, struct segment_file *f)
{
    char name[DISK_NAME_BYTES];
    int rc;

    if (f->number == d->active)
        disk_drop_active(d);
    if (f->number == d->cached) {
        close_fd(&d->cached_fd);
        d->cached = 0;
    }
    disk_name(f->number, name);
    if (f->damaged)
        rc = set_aside(d->folder, name);
    else
        rc = unlinkat(d->folder, name, 0) == 0 ? 0 : -errno;
    if (rc != 0 && rc != -ENOENT)
        mark_failed(d, rc);
    d->n_bytes -= f->n_bytes;
    d->n_files--;
    memmove(f, f + 1, (size_t)(&d->files[d->n_files] - f) * sizeof(*d->files));
}

/* ---- Records in place -------------------------------------------------- */

/* Locked. */
static void write_state(struct disk *d, struct disk_place p,
                        enum record_state s)
{
    unsigned char word[4];
    int fd = disk_fd(d, p.segment, true);
    int rc = fd;

    segment_state_write(word, s);
    if (fd >= 0)
        rc = disk_pwrite(fd, word, sizeof(word), p.at + SEGMENT_STATE_AT);
    if (rc < 0 && rc != -ENOENT)
        mark_failed(d, rc);
}

void disk_mark(struct disk *d, struct disk_place p, enum record_state s)
{
    pthread_mutex_lock(&d->lock);
    if (disk_find(d, p.segment) != NULL)
        write_state(d, p, s);
    pthread_mutex_unlock(&d->lock);
}

/* Locked. Nothing in the active file is held: it begins anew. */
static void empty_active(struct disk *d, struct segment_file *f,
                         struct disk_place p)
{
    if (ftruncate(d->active_fd, SEGMENT_HEAD_BYTES) != 0) {
        write_state(d, p, RECORD_SETTLED);
        return;
    }
    d->n_bytes -= f->n_bytes - SEGMENT_HEAD_BYTES;
    f->n_bytes = SEGMENT_HEAD_BYTES;
    f->n_synced_bytes = 0;
}

void disk_settle(struct disk *d, struct disk_place p)
{
    struct segment_file *f;

    pthread_mutex_lock(&d->lock);
    f = disk_find(d, p.segment);
    if (f != NULL && f->n_held > 0) {
        f->n_held--;
        if (f->n_held > 0 || f->phase != SEGMENT_READY)
            write_state(d, p, RECORD_SETTLED);
        else if (f->number == d->active)
            empty_active(d, f, p);
        else
            disk_release(d, f);
    }
    pthread_mutex_unlock(&d->lock);
}

/* Not by age: that of a payload from a clock ahead of ours was changed. */
static bool same_record(const struct segment_record *a,
                        const struct segment_record *b)
{
    return a->n_bytes == b->n_bytes && a->n_raw_bytes == b->n_raw_bytes &&
           a->n_index_bytes == b->n_index_bytes && a->kind == b->kind &&
           a->encoding == b->encoding && a->load.n_samples == b->load.n_samples;
}

static int check_read(int fd, struct disk_place p,
                      const struct segment_record *want, void *to)
{
    unsigned char head[SEGMENT_RECORD_BYTES];
    struct segment_check *c;
    struct segment_record r;
    size_t n = (size_t)want->n_bytes + want->n_index_bytes;
    int rc = disk_pread(fd, head, sizeof(head), p.at);

    if (rc != 0)
        return rc;
    if (segment_record_read(&r, head, UINT64_MAX) != 0 ||
        !same_record(&r, want))
        return -EBADMSG;
    rc = disk_pread(fd, to, n, p.at + sizeof(head));
    if (rc != 0)
        return rc;
    c = segment_check_create();
    if (c == NULL)
        return -ENOMEM;
    segment_check_begin(c, head);
    segment_check_add(c, to, n);
    rc = segment_check_end(c) == r.check ? 0 : -EBADMSG;
    segment_check_free(c);
    return rc;
}

int disk_read(struct disk *d, struct disk_place p,
              const struct segment_record *r, void *to)
{
    int fd;
    int rc;

    pthread_mutex_lock(&d->lock);
    fd = disk_fd(d, p.segment, false);
    rc = fd < 0 ? fd : check_read(fd, p, r, to);
    pthread_mutex_unlock(&d->lock);
    return rc == -ENOENT ? -EBADMSG : rc;
}

/* Locked. */
static bool is_lost(const struct disk *d, const struct segment_file *f)
{
    char name[DISK_NAME_BYTES];

    if (f == NULL || f->broken)
        return true;
    disk_name(f->number, name);
    return d->folder >= 0 && faccessat(d->folder, name, F_OK, 0) != 0 &&
           errno == ENOENT;
}

bool disk_is_lost(struct disk *d, struct disk_place p)
{
    bool lost;

    pthread_mutex_lock(&d->lock);
    lost = is_lost(d, disk_find(d, p.segment));
    pthread_mutex_unlock(&d->lock);
    return lost;
}

bool disk_is_safe(struct disk *d, struct disk_place p)
{
    const struct segment_file *f;
    bool safe;

    pthread_mutex_lock(&d->lock);
    f = disk_find(d, p.segment);
    safe = !is_lost(d, f) && !f->sync_failed && d->folder >= 0;
    pthread_mutex_unlock(&d->lock);
    return safe;
}

void disk_stats(struct disk *d, struct disk_stats *out)
{
    pthread_mutex_lock(&d->lock);
    *out = (struct disk_stats){.n_bytes = d->n_bytes,
                               .n_segments = (uint32_t)d->n_files,
                               .n_damaged_bytes = d->n_damaged_bytes,
                               .failing = d->failing};
    pthread_mutex_unlock(&d->lock);
}
