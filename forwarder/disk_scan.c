/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What earlier processes left. Names and heads first, since a new file needs a
 * number that nobody used; records after that, a bounded number at a time, so
 * that who reads them can do other things in between.
 *
 * Reading a file stops at the first record that is not whole: behind it nothing
 * says where the next one begins.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "forwarder/disk_private.h"

#define MODULE "store"
#define CHUNK_BYTES 65536u
/* Numbers grow by one with each file: larger ones are not ours, and behind the
 * last one they would begin again. */
#define MAX_NUMBER (UINT64_MAX / 2)

/* ---- Claims ------------------------------------------------------------ */

int disk_claim(struct disk *d, struct disk_place p)
{
    struct segment_file *f;

    if (d->n_claims == d->cap_claims) {
        size_t cap = d->cap_claims * 2 + 64;
        struct disk_place *more = reallocarray(d->claims, cap, sizeof(*more));

        if (more == NULL)
            return -ENOMEM;
        d->claims = more;
        d->cap_claims = cap;
    }
    f = disk_add(d, p.segment);
    if (f == NULL)
        return -ENOMEM;
    f->n_held++;
    d->claims[d->n_claims++] = p;
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct disk_place *x = a;
    const struct disk_place *y = b;

    if (x->segment != y->segment)
        return x->segment < y->segment ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static bool is_claimed(const struct disk *d, struct disk_place p)
{
    return d->n_claims > 0 &&
           bsearch(&p, d->claims, d->n_claims, sizeof(p), by_place) != NULL;
}

/* ---- One file ---------------------------------------------------------- */

/* An open file of the scan. */
struct scan_file {
    int fd;
    uint64_t number;
    uint64_t n_bytes;
    struct segment_head head;
    char name[DISK_NAME_BYTES];
};

/* Not under the lock: who else has this file open only changes its states. */
static int open_file(struct disk *d, uint64_t number, struct scan_file *s)
{
    unsigned char head[SEGMENT_HEAD_BYTES];
    struct stat st;
    int rc;

    s->number = number;
    disk_name(number, s->name);
    s->fd = openat(d->folder, s->name,
                   O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (s->fd < 0)
        return -errno;
    if (fstat(s->fd, &st) != 0)
        rc = -errno;
    else if (!S_ISREG(st.st_mode))
        rc = SEGMENT_FOREIGN;
    else {
        size_t n = st.st_size < (off_t)sizeof(head) ? (size_t)st.st_size
                                                    : sizeof(head);

        s->n_bytes = (uint64_t)st.st_size;
        rc = disk_pread(s->fd, head, n, 0);
        if (rc == 0)
            rc = segment_head_read(&s->head, head, n);
    }
    if (rc != 0)
        close(s->fd);
    return rc;
}

static int check_bytes(const struct scan_file *s, uint64_t at,
                       const unsigned char *head,
                       const struct segment_record *r)
{
    unsigned char *chunk = malloc(CHUNK_BYTES);
    struct segment_check *c = segment_check_create();
    uint64_t left = (uint64_t)r->n_bytes + r->n_index_bytes;
    int rc = chunk == NULL || c == NULL ? -ENOMEM : 0;

    if (rc == 0)
        segment_check_begin(c, head);
    at += SEGMENT_RECORD_BYTES;
    while (rc == 0 && left > 0) {
        size_t n = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;

        rc = disk_pread(s->fd, chunk, n, at);
        if (rc == 0)
            segment_check_add(c, chunk, n);
        at += n;
        left -= n;
    }
    if (rc == 0 && segment_check_end(c) != r->check)
        rc = SEGMENT_DAMAGED;
    segment_check_free(c);
    free(chunk);
    return rc;
}

/* The record at @at. Returns 0, an enum segment_rc or -errno. */
static int read_record(const struct scan_file *s, uint64_t at, bool check,
                       struct segment_record *r)
{
    unsigned char head[SEGMENT_RECORD_BYTES];
    uint64_t left = s->n_bytes - at;
    int rc;

    if (left < sizeof(head) || at > UINT32_MAX)
        return SEGMENT_SHORT;
    rc = disk_pread(s->fd, head, sizeof(head), at);
    if (rc == 0)
        rc = segment_record_read(r, head, left);
    if (rc == 0 && check && r->state != RECORD_SETTLED)
        rc = check_bytes(s, at, head, r);
    return rc;
}

/* A record that ends too early was being written when its writer died, so it
 * was never frozen. Anything else is damage: the file is kept. */
static void report_end(struct disk *d, const struct scan_file *s, uint64_t at,
                       int rc)
{
    uint64_t n = s->n_bytes - at;
    struct segment_file *f;

    if (rc == SEGMENT_SHORT) {
        log_info(MODULE,
                 "the last record of a file was never finished and is left "
                 "out file=%s bytes=%" PRIu64,
                 s->name, n);
        return;
    }
    log_error(MODULE,
              "payloads on disk are damaged; what is before them is used, the "
              "file stays as *.damaged file=%s bytes=%" PRIu64,
              s->name, n);
    pthread_mutex_lock(&d->lock);
    d->n_damaged_bytes += n;
    f = disk_find(d, s->number);
    if (f != NULL)
        f->damaged = true;
    pthread_mutex_unlock(&d->lock);
}

static void report_unread(const char *name, int rc)
{
    switch (rc) {
    case SEGMENT_NEWER:
        log_warn(MODULE,
                 "payloads on disk were written by a newer retriever and are "
                 "left for it file=%s",
                 name);
        break;
    case SEGMENT_FOREIGN:
        log_warn(MODULE, "a file that is not ours was left alone file=%s",
                 name);
        break;
    default:
        log_warn(MODULE,
                 "payloads on disk could not be read and are left for the "
                 "next start file=%s cause=\"%s\"",
                 name, strerror(-rc));
        break;
    }
}

/* All of the file was looked at: from now on it goes with its last record. */
static void file_ready(struct disk *d, uint64_t number)
{
    struct segment_file *f;

    pthread_mutex_lock(&d->lock);
    f = disk_find(d, number);
    if (f != NULL) {
        f->phase = SEGMENT_READY;
        if (f->n_held == 0)
            disk_release(d, f);
    }
    pthread_mutex_unlock(&d->lock);
}

/* ---- First pass -------------------------------------------------------- */

/* This life's own file: bodies were written by a process that nothing but a kill
 * ended, so its record heads tell all. */
static void settle_unclaimed(struct disk *d, struct scan_file *s)
{
    uint64_t at = SEGMENT_HEAD_BYTES;
    int rc = 0;

    while (at < s->n_bytes) {
        struct disk_place p = {s->number, (uint32_t)at};
        struct segment_record r;

        rc = read_record(s, at, false, &r);
        if (rc != 0)
            break;
        if (r.state != RECORD_SETTLED && !is_claimed(d, p))
            disk_mark(d, p, RECORD_SETTLED);
        at += segment_record_size(&r);
    }
    if (rc < 0) {
        report_unread(s->name, rc);
        return; /* not ready: it stays as it is */
    }
    if (rc == SEGMENT_DAMAGED)
        report_end(d, s, at, rc);
    file_ready(d, s->number);
}

/* Returns 0 or -ENOMEM. */
static int note_file(struct disk *d, const struct scan_file *s)
{
    struct segment_file *f;
    int rc = 0;

    pthread_mutex_lock(&d->lock);
    f = disk_add(d, s->number);
    if (f != NULL) {
        d->n_bytes += s->n_bytes - f->n_bytes; /* listed before: a retry */
        f->n_bytes = s->n_bytes;
        f->life = s->head.life;
        if (f->phase == SEGMENT_CLAIMED)
            f->phase = SEGMENT_WAITING;
    } else {
        rc = -ENOMEM;
    }
    pthread_mutex_unlock(&d->lock);
    return rc;
}

/* Its head is lost, and with it all that follows. */
static void set_aside(struct disk *d, struct scan_file *s)
{
    struct stat st;

    if (fstatat(d->folder, s->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        s->n_bytes = (uint64_t)st.st_size;
    if (note_file(d, s) != 0)
        return;
    report_end(d, s, 0, SEGMENT_DAMAGED);
    file_ready(d, s->number);
}

static int look_at(struct disk *d, uint64_t number, uint64_t own_from)
{
    struct scan_file s = {.number = number};
    int rc = open_file(d, number, &s);

    pthread_mutex_lock(&d->lock);
    if (number >= d->next_number)
        d->next_number = number + 1;
    pthread_mutex_unlock(&d->lock);
    switch (rc) {
    case 0:
        rc = note_file(d, &s);
        if (rc == 0 && s.head.life == d->opts.life && own_from != 0 &&
            number >= own_from)
            settle_unclaimed(d, &s);
        close(s.fd);
        return rc;
    case SEGMENT_DAMAGED:
        set_aside(d, &s);
        return 0;
    case SEGMENT_SHORT: /* its first write was never finished */
        if (note_file(d, &s) == 0)
            file_ready(d, number);
        return 0;
    default:
        report_unread(s.name, rc);
        return 0;
    }
}

/* Only names that we would give. */
static uint64_t number_of(const char *name)
{
    char again[DISK_NAME_BYTES];
    uint64_t number = 0;

    if (strncmp(name, "segment-", 8) != 0 || strlen(name) != 24)
        return 0;
    for (const char *p = name + 8; *p != '\0'; p++) {
        int digit = *p >= '0' && *p <= '9'   ? *p - '0'
                    : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10
                                             : -1;

        if (digit < 0)
            return 0;
        number = number << 4 | (uint64_t)digit;
    }
    disk_name(number, again);
    return number <= MAX_NUMBER && strcmp(again, name) == 0 ? number : 0;
}

static int look_at_all(struct disk *d, uint64_t own_from)
{
    int fd = openat(d->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    int rc = 0;

    if (dir == NULL) {
        rc = -errno;
        if (fd >= 0)
            close(fd);
        return rc;
    }
    while (rc == 0 && (errno = 0, e = readdir(dir)) != NULL) {
        uint64_t number = number_of(e->d_name);

        if (number != 0)
            rc = look_at(d, number, own_from);
    }
    if (rc == 0 && errno != 0)
        rc = -errno;
    closedir(dir);
    return rc;
}

int disk_list(struct disk *d, uint64_t own_from)
{
    int rc;

    if (d->listed)
        return 0;
    if (d->failing && clock_mono_ns(d->opts.clock) < d->retry_ns)
        return -EAGAIN;
    if (d->n_claims > 0)
        qsort(d->claims, d->n_claims, sizeof(*d->claims), by_place);
    pthread_mutex_lock(&d->lock);
    rc = disk_open_folder(d);
    pthread_mutex_unlock(&d->lock);
    if (rc == 0)
        rc = look_at_all(d, own_from);
    pthread_mutex_lock(&d->lock);
    if (rc == 0) {
        /* The folder may be empty again: what is below counts as found. */
        if (own_from > d->next_number && own_from <= MAX_NUMBER)
            d->next_number = own_from;
        d->listed = true;
        disk_works(d);
    } else {
        disk_failed(d, rc, "its folder payloads/ cannot be used");
    }
    pthread_mutex_unlock(&d->lock);
    return rc;
}

/* ---- Second pass ------------------------------------------------------- */

/* The latest file before @number that waits; 0 = none. */
static uint64_t next_waiting(struct disk *d, uint64_t number)
{
    uint64_t found = 0;

    pthread_mutex_lock(&d->lock);
    for (size_t i = d->n_files; i-- > 0 && found == 0;) {
        const struct segment_file *f = &d->files[i];

        if (f->phase == SEGMENT_WAITING && f->number < number)
            found = f->number;
    }
    pthread_mutex_unlock(&d->lock);
    return found;
}

static void hold(struct disk *d, uint64_t number, size_t n)
{
    struct segment_file *f;

    pthread_mutex_lock(&d->lock);
    f = disk_find(d, number);
    if (f != NULL)
        f->n_held += (uint32_t)n;
    pthread_mutex_unlock(&d->lock);
}

/* Up to @max records from the cursor on. At the end of the file it is ready. */
static size_t read_some(struct disk *d, struct scan_file *s,
                        struct disk_found *to, size_t max)
{
    size_t n = 0;
    int rc = 0;

    while (n < max && d->reading_at < s->n_bytes) {
        struct disk_found *f = &to[n];

        f->place = (struct disk_place){s->number, (uint32_t)d->reading_at};
        rc = read_record(s, d->reading_at, true, &f->record);
        if (rc != 0)
            break;
        f->own = s->head.life == d->opts.life;
        d->reading_at += segment_record_size(&f->record);
        if (f->record.state != RECORD_SETTLED && !is_claimed(d, f->place))
            n++;
    }
    hold(d, s->number, n);
    if (rc > 0)
        report_end(d, s, d->reading_at, rc);
    if (rc < 0)
        report_unread(s->name, rc); /* the rest waits for the next start */
    else if (rc > 0 || d->reading_at >= s->n_bytes)
        file_ready(d, s->number);
    if (rc != 0 || d->reading_at >= s->n_bytes)
        d->reading_at = 0;
    return n;
}

static void reverse(struct disk_found *f, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        struct disk_found x = f[i];

        f[i] = f[n - 1 - i];
        f[n - 1 - i] = x;
    }
}

/* Nothing is looked up among the claims any more. */
static void finish(struct disk *d)
{
    free(d->claims);
    d->claims = NULL;
    d->n_claims = d->cap_claims = 0;
    pthread_mutex_lock(&d->lock);
    d->all_read = true;
    pthread_mutex_unlock(&d->lock);
}

size_t disk_next(struct disk *d, struct disk_found *to, size_t max)
{
    if (!d->listed)
        return 0;
    while (!d->all_read) {
        struct scan_file s;
        size_t n;
        int rc;

        if (d->reading_at == 0) {
            d->reading =
                next_waiting(d, d->reading != 0 ? d->reading : UINT64_MAX);
            d->reading_at = SEGMENT_HEAD_BYTES;
        }
        if (d->reading == 0) {
            finish(d);
            break;
        }
        rc = open_file(d, d->reading, &s);
        if (rc != 0) {
            report_unread(s.name, rc);
            d->reading_at = 0; /* it waits for the next start */
            continue;
        }
        n = read_some(d, &s, to, max);
        close(s.fd);
        if (n > 0) {
            reverse(to, n);
            return n;
        }
    }
    return 0;
}

uint64_t disk_start(struct disk *d)
{
    uint64_t number;

    pthread_mutex_lock(&d->lock);
    d->started = d->listed;
    number = d->listed ? d->next_number : 0;
    pthread_mutex_unlock(&d->lock);
    return number;
}

bool disk_all_read(struct disk *d)
{
    bool all_read;

    pthread_mutex_lock(&d->lock);
    all_read = d->all_read;
    pthread_mutex_unlock(&d->lock);
    return all_read;
}
