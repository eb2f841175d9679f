/* SPDX-License-Identifier: Apache-2.0 */
/*
 * New records and new files, and when they are synced. A record is one
 * pwritev(); what it left when it failed is cut off again, so that within a file
 * of ours only the last record can be torn.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "forwarder/disk_private.h"

#define MS_NS UINT64_C(1000000)
#define FIRST_NUMBERS 64 /* tried when a name is taken */

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
    disk_drop_active(d);
    if (f != NULL && f->n_held == 0)
        disk_release(d, f);
    rc = disk_open_folder(d);
    if (rc == 0)
        rc = create_file(d);
    if (rc != -ENOENT)
        return rc;
    close(d->folder);
    d->folder = -1;
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

    if (!d->started || (d->failing && disk_now_ns(d) < d->retry_ns))
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
        f->unsynced_since_ns = disk_now_ns(d);
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
        disk_drop_active(d);
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
    rc = disk_pwritev(fd, v, 4, p.at);
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
    on = d->started && (!d->failing || disk_now_ns(d) >= d->retry_ns);
    pthread_mutex_unlock(&d->lock);
    return on;
}

void disk_try_now(struct disk *d)
{
    pthread_mutex_lock(&d->lock);
    d->retry_ns = 0;
    pthread_mutex_unlock(&d->lock);
}

/* ---- Power loss -------------------------------------------------------- */

/* Locked. The first file from @number on that is due. */
static struct segment_file *next_unsynced(struct disk *d, uint64_t number,
                                          unsigned min_age_ms)
{
    uint64_t now = disk_now_ns(d);

    for (size_t i = disk_lower_bound(d, number); i < d->n_files; i++) {
        struct segment_file *f = &d->files[i];

        if (f->n_held > 0 && !f->broken && f->n_synced_bytes < f->n_bytes &&
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

/* Of one file. */
struct sync_result {
    uint64_t number;
    uint64_t n_bytes; /* synced, when rc is 0 */
    int rc;
    bool file_lost;   /* the disk failed, not only a call before it */
    bool folder_lost; /* the same for the names of files */
};

static void break_file(struct disk *d, struct segment_file *f)
{
    f->broken = true;
    if (f->number == d->active)
        disk_drop_active(d);
}

/* After an error the kernel takes the pages for clean: the next sync of the same
 * file says that all is well, and nothing in it can be trusted any more. */
static void note_loss(struct disk *d, struct segment_file *f,
                      const struct sync_result *r)
{
    if (r->file_lost && f != NULL)
        break_file(d, f);
    for (size_t i = 0; r->folder_lost && i < d->n_files; i++) {
        f = &d->files[i];
        if (f->life == d->opts.life && f->n_held > 0 &&
            f->n_synced_bytes < f->n_bytes)
            break_file(d, f);
    }
}

/* Cut back meanwhile, a file may have grown again: then it is due again. No append
 * is under way, since the active file may change. */
static void end_sync(struct disk *d, const struct sync_result *r)
{
    struct segment_file *f;

    pthread_mutex_lock(&d->append_lock);
    pthread_mutex_lock(&d->lock);
    f = disk_find(d, r->number);
    if (f != NULL) {
        f->n_synced_bytes =
            f->n_bytes < r->n_bytes || r->rc != 0 ? 0 : r->n_bytes;
        f->unsynced_since_ns = disk_now_ns(d);
        f->sync_failed = r->rc != 0;
    }
    note_loss(d, f, r);
    if (f != NULL && f->broken && f->n_held == 0)
        disk_release(d, f);
    pthread_mutex_unlock(&d->lock);
    pthread_mutex_unlock(&d->append_lock);
}

static int sync_folder(struct disk *d, bool *lost)
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
    *lost = rc != 0 && copy >= 0;
    if (copy >= 0)
        close(copy);
    if (rc != 0) {
        pthread_mutex_lock(&d->lock);
        d->folder_changed = true;
        pthread_mutex_unlock(&d->lock);
    }
    return rc;
}

/* The next file from r->number on. False: there is none. */
static bool sync_one(struct disk *d, unsigned min_age_ms, struct sync_result *r)
{
    int copy = -1;

    r->file_lost = r->folder_lost = false;
    r->rc = begin_sync(d, &r->number, min_age_ms, &r->n_bytes, &copy);
    if (r->number == 0)
        return false;
    if (r->rc == 0 && fdatasync(copy) != 0) {
        r->rc = -errno;
        r->file_lost = true;
    }
    if (copy >= 0)
        close(copy);
    if (r->rc == 0)
        r->rc = sync_folder(d, &r->folder_lost);
    end_sync(d, r);
    return true;
}

static bool any_broken(struct disk *d)
{
    bool any = false;

    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->n_files; i++)
        any |= d->files[i].broken && d->files[i].n_held > 0;
    pthread_mutex_unlock(&d->lock);
    return any;
}

int disk_sync(struct disk *d, unsigned min_age_ms)
{
    struct sync_result r = {.number = 1};
    int first_rc = 0;

    for (; sync_one(d, min_age_ms, &r); r.number++) {
        if (first_rc == 0)
            first_rc = r.rc;
    }
    if (first_rc == 0)
        return any_broken(d) ? -EIO : 0;
    pthread_mutex_lock(&d->lock);
    disk_failed(d, first_rc, "payloads could not be synced");
    pthread_mutex_unlock(&d->lock);
    return first_rc;
}
