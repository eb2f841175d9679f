/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files are written by pwrite() and never mapped: an error of the disk is an
 * error code here, where a mapping would make it a SIGBUS. A record is one
 * pwritev(); what it left when it failed is cut off again, so that within a file
 * of ours only the last record can be torn.
 */
#include "forwarder/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "agent/base/contract.h"
#include "agent/base/log.h"
#include "forwarder/disk_private.h"

#define MODULE "store"
#define MS_NS UINT64_C(1000000)
#define FIRST_NUMBERS 64 /* tried when a name is taken */

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

static int pwritev_all(int fd, struct iovec *v, int n_v, uint64_t at)
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

    return pwritev_all(fd, &v, 1, at);
}

/* ---- Life -------------------------------------------------------------- */

static uint64_t now_ns(const struct disk *d)
{
    return clock_mono_ns(d->opts.clock);
}

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

static void drop_active(struct disk *d)
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
    d->retry_ns = now_ns(d) + DISK_RETRY_MS * MS_NS;
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

/* Index of the first file that is not before @number. */
static size_t lower_bound(const struct disk *d, uint64_t number)
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
    size_t i = lower_bound(d, number);

    return i < d->n_files && d->files[i].number == number ? &d->files[i] : NULL;
}

struct segment_file *disk_add(struct disk *d, uint64_t number)
{
    size_t i = lower_bound(d, number);

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

/* A file that was partly unreadable is kept for whoever looks into it, under a
 * name that is never read again. */
void disk_release(struct disk *d, struct segment_file *f)
{
    char name[DISK_NAME_BYTES];
    char aside[DISK_NAME_BYTES + 16];
    int rc;

    if (f->number == d->active)
        drop_active(d);
    if (f->number == d->cached) {
        close_fd(&d->cached_fd);
        d->cached = 0;
    }
    disk_name(f->number, name);
    (void)snprintf(aside, sizeof(aside), "%s.damaged", name);
    rc = f->damaged ? renameat(d->folder, name, d->folder, aside)
                    : unlinkat(d->folder, name, 0);
    if (rc != 0 && errno != ENOENT)
        mark_failed(d, -errno);
    d->n_bytes -= f->n_bytes;
    d->n_files--;
    memmove(f, f + 1, (size_t)(&d->files[d->n_files] - f) * sizeof(*d->files));
}

/* ---- Appending --------------------------------------------------------- */

/* More of the filesystem is used than we may add to. */
static bool too_full(const struct disk *d)
{
    struct statvfs v;

    if (d->opts.max_ratio >= 1 || fstatvfs(d->folder, &v) != 0 ||
        v.f_blocks == 0)
        return false;
    return (double)v.f_bavail < (1 - d->opts.max_ratio) * (double)v.f_blocks;
}

static int create_file(struct disk *d)
{
    unsigned char head[SEGMENT_HEAD_BYTES];
    struct segment_head h = {.life = d->opts.life,
                             .created_s =
                                 clock_wall_ns(d->opts.clock) / CLOCK_NS_PER_S};
    char name[DISK_NAME_BYTES];
    struct segment_file *f;
    int fd = -1;
    int rc;

    for (int i = 0; fd < 0 && i < FIRST_NUMBERS; i++) {
        disk_name(d->next_number, name);
        fd = openat(d->folder, name,
                    O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0 && errno != EEXIST)
            return -errno;
        if (fd < 0)
            d->next_number++; /* somebody else's */
    }
    if (fd < 0)
        return -EEXIST;
    segment_head_write(head, &h);
    rc = disk_pwrite(fd, head, sizeof(head), 0);
    f = rc == 0 ? disk_add(d, d->next_number) : NULL;
    if (f == NULL) {
        (void)unlinkat(d->folder, name, 0);
        close(fd);
        return rc != 0 ? rc : -ENOMEM;
    }
    f->life = h.life;
    f->created_s = h.created_s;
    f->n_bytes = sizeof(head);
    f->phase = SEGMENT_READY;
    d->n_bytes += f->n_bytes;
    d->active = f->number;
    d->active_fd = fd;
    d->folder_changed = true;
    return 0;
}

/* Somebody may have removed the file, or the folder, under us: what is written
 * then is gone with the process. */
static bool was_unlinked(int fd)
{
    struct stat st;

    return fstat(fd, &st) != 0 || st.st_nlink == 0;
}

/* A file with room for @n bytes is the active one. */
static int find_room(struct disk *d, uint64_t n)
{
    struct segment_file *f = disk_find(d, d->active);
    int rc;

    if (f != NULL && !was_unlinked(d->active_fd) &&
        (f->n_bytes <= SEGMENT_HEAD_BYTES ||
         f->n_bytes + n <= d->max_segment_bytes))
        return 0;
    drop_active(d);
    if (f != NULL && f->n_held == 0)
        disk_release(d, f);
    rc = disk_open_folder(d);
    if (rc == 0)
        rc = create_file(d);
    if (rc != -ENOENT)
        return rc;
    close_fd(&d->folder);
    rc = disk_open_folder(d);
    return rc != 0 ? rc : create_file(d);
}

static bool over_limit(const struct disk *d, uint64_t n, uint64_t reserved)
{
    uint64_t max = d->opts.max_bytes;

    return n > max || reserved > max - n || d->n_bytes > max - n - reserved;
}

/* Locked. Room for the record is the caller's from here on. */
static int begin_append(struct disk *d, uint64_t n, uint64_t reserved,
                        struct disk_place *place, int *fd)
{
    struct segment_file *f;
    int rc;

    if (!d->started || (d->failing && now_ns(d) < d->retry_ns))
        return DISK_OFF;
    if (over_limit(d, n + SEGMENT_HEAD_BYTES, reserved))
        return DISK_FULL;
    if (too_full(d)) {
        disk_failed(d, -ENOSPC,
                    "its filesystem is fuller than "
                    "forwarder_storage_max_disk_ratio");
        return DISK_OFF;
    }
    rc = find_room(d, n);
    if (rc != 0) {
        disk_failed(d, rc, "no file could be made");
        return DISK_OFF;
    }
    f = disk_find(d, d->active);
    if (f->n_held == 0 || f->n_synced_bytes == f->n_bytes)
        f->unsynced_since_ns = now_ns(d);
    *place = (struct disk_place){f->number, (uint32_t)f->n_bytes};
    *fd = d->active_fd;
    f->n_held++;
    f->n_bytes += n;
    d->n_bytes += n;
    return 0;
}

/* Locked. Cut off again; a file that refuses even that gets no further record. */
static void undo_append(struct disk *d, uint64_t n, const struct disk_place *p)
{
    struct segment_file *f = disk_find(d, p->segment);

    f->n_held--;
    if (ftruncate(d->active_fd, p->at) == 0) {
        f->n_bytes -= n;
        d->n_bytes -= n;
    } else {
        drop_active(d);
    }
    if (f->n_held == 0)
        disk_release(d, f);
}

int disk_append(struct disk *d, struct segment_record *r, const void *body,
                const void *index, uint64_t reserved, struct disk_place *place)
{
    static const unsigned char zeros[8];
    unsigned char head[SEGMENT_RECORD_BYTES];
    uint64_t n = segment_record_size(r);
    struct iovec v[4] = {{head, sizeof(head)},
                         {(void *)body, r->n_bytes},
                         {(void *)index, r->n_index_bytes},
                         {(void *)zeros,
                          n - sizeof(head) - r->n_bytes - r->n_index_bytes}};
    struct disk_place p;
    int fd = -1;
    int rc;

    segment_record_write(head, r, body, index);
    pthread_mutex_lock(&d->append_lock);
    pthread_mutex_lock(&d->lock);
    rc = begin_append(d, n, reserved, &p, &fd);
    pthread_mutex_unlock(&d->lock);
    if (rc != 0)
        goto out;
    /* The descriptor stays: only an append changes the active file, and none
     * settles away a file that holds a record. */
    rc = pwritev_all(fd, v, 4, p.at);
    pthread_mutex_lock(&d->lock);
    if (rc == 0) {
        disk_works(d);
        *place = p;
    } else {
        undo_append(d, n, &p);
        disk_failed(d, rc, "a payload could not be written");
        rc = DISK_OFF;
    }
    pthread_mutex_unlock(&d->lock);
out:
    pthread_mutex_unlock(&d->append_lock);
    return rc;
}

bool disk_is_full(struct disk *d, uint64_t n, uint64_t reserved)
{
    bool full;

    pthread_mutex_lock(&d->lock);
    full = over_limit(d, n + SEGMENT_HEAD_BYTES, reserved);
    pthread_mutex_unlock(&d->lock);
    return full;
}

bool disk_is_on(struct disk *d)
{
    bool on;

    pthread_mutex_lock(&d->lock);
    on = d->started && (!d->failing || now_ns(d) >= d->retry_ns);
    pthread_mutex_unlock(&d->lock);
    return on;
}

void disk_try_now(struct disk *d)
{
    pthread_mutex_lock(&d->lock);
    d->retry_ns = 0;
    pthread_mutex_unlock(&d->lock);
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

/* ---- Power loss -------------------------------------------------------- */

/* Locked. The first file from @number on that is due. */
static struct segment_file *next_unsynced(struct disk *d, uint64_t number,
                                          unsigned min_age_ms)
{
    uint64_t now = now_ns(d);

    for (size_t i = lower_bound(d, number); i < d->n_files; i++) {
        struct segment_file *f = &d->files[i];

        if (f->n_held > 0 && f->n_synced_bytes < f->n_bytes &&
            f->phase != SEGMENT_CLAIMED &&
            now - f->unsynced_since_ns >= min_age_ms * MS_NS)
            return f;
    }
    return NULL;
}

/* Locked. A descriptor of its own for the file, and how much is written of it:
 * without an append under way, whose bytes are counted before they are there. */
static int begin_sync(struct disk *d, uint64_t *number, unsigned min_age_ms,
                      uint64_t *n_bytes, int *copy)
{
    struct segment_file *f;
    int rc = 0;

    pthread_mutex_lock(&d->append_lock);
    pthread_mutex_lock(&d->lock);
    f = next_unsynced(d, *number, min_age_ms);
    *number = 0;
    if (f != NULL) {
        *number = f->number;
        *n_bytes = f->n_bytes;
        rc = disk_fd(d, f->number, false);
        *copy = rc < 0 ? -1 : fcntl(rc, F_DUPFD_CLOEXEC, 0);
        if (rc >= 0)
            rc = *copy < 0 ? -errno : 0;
    }
    pthread_mutex_unlock(&d->lock);
    pthread_mutex_unlock(&d->append_lock);
    return rc;
}

/* Cut back meanwhile, a file may have grown again: then it is due again. */
static void end_sync(struct disk *d, uint64_t number, uint64_t n_bytes,
                     bool well)
{
    struct segment_file *f;

    pthread_mutex_lock(&d->lock);
    f = disk_find(d, number);
    if (f != NULL) {
        f->n_synced_bytes = f->n_bytes < n_bytes || !well ? 0 : n_bytes;
        f->unsynced_since_ns = now_ns(d);
        f->sync_failed = !well;
    }
    pthread_mutex_unlock(&d->lock);
}

static int sync_folder(struct disk *d)
{
    bool changed;
    int copy = -1;
    int rc = 0;

    pthread_mutex_lock(&d->lock);
    changed = d->folder_changed;
    d->folder_changed = false;
    if (changed)
        copy = fcntl(d->folder, F_DUPFD_CLOEXEC, 0);
    pthread_mutex_unlock(&d->lock);
    if (!changed)
        return 0;
    if (copy < 0 || fsync(copy) != 0)
        rc = -errno;
    if (copy >= 0)
        close(copy);
    return rc;
}

int disk_sync(struct disk *d, unsigned min_age_ms)
{
    uint64_t number = 1;
    uint64_t n_bytes = 0;
    int first_rc = 0;

    for (;; number++) {
        int copy = -1;
        int rc = begin_sync(d, &number, min_age_ms, &n_bytes, &copy);

        if (number == 0)
            break;
        if (rc == 0 && fdatasync(copy) != 0)
            rc = -errno;
        if (copy >= 0)
            close(copy);
        if (rc == 0)
            rc = sync_folder(d);
        end_sync(d, number, n_bytes, rc == 0);
        if (first_rc == 0)
            first_rc = rc;
    }
    if (first_rc != 0) {
        pthread_mutex_lock(&d->lock);
        disk_failed(d, first_rc, "payloads could not be synced");
        pthread_mutex_unlock(&d->lock);
    }
    return first_rc;
}

bool disk_is_safe(struct disk *d, struct disk_place p)
{
    char name[DISK_NAME_BYTES];
    struct segment_file *f;
    bool safe;

    disk_name(p.segment, name);
    pthread_mutex_lock(&d->lock);
    f = disk_find(d, p.segment);
    safe = f != NULL && !f->sync_failed && d->folder >= 0 &&
           faccessat(d->folder, name, F_OK, 0) == 0;
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
