/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each record carries its own checksum, so that a torn one, or a block that a power
 * loss left as zeros, costs itself only. Writing anew goes to a second file that
 * takes the name when it is whole.
 */
#include "agent/stamps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "aggregator/hash.h"
#include "aggregator/used_walk.h"

#define MODULE "stamps"
#define NEW_FILE STAMPS_FILE ".new"
#define BATCH 512u                  /* records read or written at once */
#define READ_MAX_RECORDS (1u << 20) /* of the end of a file */
#define COMPACT_MIN_BYTES 65536u

static const char magic_of_all[7] = "rtvstmp";
#define VERSION '2'
#define VERSION_STAMP_ONLY '1' /* magic, then the last stamp */

enum record_kind { RECORD_PART = 1, RECORD_POINT = 2 };

struct header {
    char magic[8]; /* the last one is the version */
    int64_t stamp_s;
};

struct record {
    uint32_t kind;
    uint32_t second_s;
    struct used_id id; /* RECORD_POINT */
    uint64_t check;
};
_Static_assert(sizeof(struct record) == 32, "the format");
_Static_assert(sizeof(struct header) == 16, "the format");

static uint64_t check_of(const struct record *r)
{
    return hash_bytes(r, offsetof(struct record, check), VERSION).lo;
}

static struct record make_record(enum record_kind kind, uint32_t second_s,
                                 struct used_id id)
{
    struct record r = {.kind = kind, .second_s = second_s, .id = id};

    r.check = check_of(&r);
    return r;
}

/* ---- In memory ---------------------------------------------------------- */

void stamps_used(const struct stamps *s, struct used_seconds *out)
{
    *out = (struct used_seconds){.stamps_s = s->seconds_s,
                                 .n_stamps = s->n_seconds,
                                 .points = s->points,
                                 .n_points = s->n_points};
}

void stamps_fini(struct stamps *s)
{
    free(s->seconds_s);
    free(s->points);
    *s = (struct stamps){0};
}

static int compare_seconds(const void *x, const void *y)
{
    uint32_t a = *(const uint32_t *)x;
    uint32_t b = *(const uint32_t *)y;

    return a < b ? -1 : a > b;
}

static size_t sort_unique(void *items, size_t n, size_t bytes,
                          int (*compare)(const void *, const void *))
{
    char *p = items;
    size_t n_kept = 0;

    if (n > 0)
        qsort(items, n, bytes, compare);
    for (size_t i = 0; i < n; i++) {
        if (n_kept > 0 && compare(p + (n_kept - 1) * bytes, p + i * bytes) == 0)
            continue;
        memmove(p + n_kept * bytes, p + i * bytes, bytes);
        n_kept++;
    }
    return n_kept;
}

/* What comes last displaces what came first. */
struct collector {
    int64_t oldest_s;
    uint32_t *seconds_s;
    struct used_point *points;
    size_t n_seconds, n_points; /* given so far */
};

static int collect_init(struct collector *c, int64_t now_s)
{
    *c = (struct collector){
        .oldest_s = now_s > STAMPS_LOOK_BACK_S ? now_s - STAMPS_LOOK_BACK_S : 0,
        .seconds_s = malloc(STAMPS_MAX_SECONDS * sizeof(*c->seconds_s)),
        .points = malloc(STAMPS_MAX_POINTS * sizeof(*c->points))};
    if (c->seconds_s != NULL && c->points != NULL)
        return 0;
    free(c->seconds_s);
    free(c->points);
    return -ENOMEM;
}

static void collect_second(struct collector *c, uint32_t second_s)
{
    if (second_s >= c->oldest_s)
        c->seconds_s[c->n_seconds++ % STAMPS_MAX_SECONDS] = second_s;
}

static void collect_point(struct collector *c, const struct used_point *p)
{
    if (p->second_s >= c->oldest_s)
        c->points[c->n_points++ % STAMPS_MAX_POINTS] = *p;
}

static void collect_stamps(struct collector *c, const struct stamps *s)
{
    for (size_t i = 0; i < s->n_seconds; i++)
        collect_second(c, s->seconds_s[i]);
    for (size_t i = 0; i < s->n_points; i++)
        collect_point(c, &s->points[i]);
}

/* Memory that is not used goes back: most lives remember next to nothing. */
static void collect_end(struct collector *c, struct stamps *out)
{
    size_t n = c->n_seconds;
    void *less;

    if (n > STAMPS_MAX_SECONDS)
        n = STAMPS_MAX_SECONDS;
    *out = (struct stamps){.seconds_s = c->seconds_s, .points = c->points};
    out->n_seconds =
        sort_unique(c->seconds_s, n, sizeof(*c->seconds_s), compare_seconds);
    n = c->n_points < STAMPS_MAX_POINTS ? c->n_points : STAMPS_MAX_POINTS;
    out->n_points = sort_unique(c->points, n, sizeof(*c->points), used_compare);
    if (out->n_seconds > 0)
        out->last_s = out->seconds_s[out->n_seconds - 1];
    less = realloc(c->seconds_s, (out->n_seconds + 1) * sizeof(*c->seconds_s));
    if (less != NULL)
        out->seconds_s = less;
    less = realloc(c->points, (out->n_points + 1) * sizeof(*c->points));
    if (less != NULL)
        out->points = less;
}

int stamps_join(struct stamps *out, const struct stamps *earlier,
                const struct agg *agg)
{
    struct used_span spans[USED_MAX_SPANS];
    size_t n = used_region_spans(agg, spans);
    struct used_walk w;
    struct used_point p;
    struct collector c;
    int rc = collect_init(&c, 0);

    if (rc != 0)
        return rc;
    collect_stamps(&c, earlier);
    for (size_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k <= spans[i].max_shift; k++)
            collect_second(&c, spans[i].stamp_s + k);
    }
    used_walk_region(&w, agg);
    while (used_walk_next(&w, &p))
        collect_point(&c, &p);
    collect_end(&c, out);
    out->foreign = earlier->foreign;
    return 0;
}

/* ---- Reading ------------------------------------------------------------ */

static int read_header(int fd, struct header *h)
{
    ssize_t n = pread(fd, h, sizeof(*h), 0);

    if (n < 0)
        return -errno;
    if (n != sizeof(*h) ||
        memcmp(h->magic, magic_of_all, sizeof(magic_of_all)) != 0)
        return -EBADMSG;
    if (h->magic[7] != VERSION && h->magic[7] != VERSION_STAMP_ONLY)
        return -EPROTONOSUPPORT;
    return 0;
}

static void collect_record(struct collector *c, const struct record *r)
{
    if (r->check != check_of(r))
        return;
    if (r->kind == RECORD_PART)
        collect_second(c, r->second_s);
    else if (r->kind == RECORD_POINT)
        collect_point(c, &(struct used_point){.id = r->id,
                                              .second_s = r->second_s});
}

/* The last records are enough, however long the file is. */
static int collect_file(struct collector *c, int fd)
{
    struct record batch[BATCH];
    struct stat st;
    uint64_t n_records;
    uint64_t i = 0;

    if (fstat(fd, &st) != 0)
        return -errno;
    n_records = st.st_size > (off_t)sizeof(struct header)
                    ? ((uint64_t)st.st_size - sizeof(struct header)) /
                          sizeof(struct record)
                    : 0;
    if (n_records > READ_MAX_RECORDS)
        i = n_records - READ_MAX_RECORDS;
    while (i < n_records) {
        ssize_t n =
            pread(fd, batch, sizeof(batch),
                  (off_t)(sizeof(struct header) + i * sizeof(batch[0])));

        if (n < 0)
            return -errno;
        if ((size_t)n < sizeof(batch[0]))
            break; /* shorter than it was */
        for (size_t k = 0; k < (size_t)n / sizeof(batch[0]); k++)
            collect_record(c, &batch[k]);
        i += (size_t)n / sizeof(batch[0]);
    }
    return 0;
}

int stamps_read(struct stamps *out, int fd, int64_t now_s)
{
    struct collector c;
    struct header h;
    int rc = read_header(fd, &h);

    if (rc != 0)
        return rc;
    if (h.magic[7] == VERSION_STAMP_ONLY &&
        (h.stamp_s <= 0 || h.stamp_s > UINT32_MAX))
        return -EBADMSG;
    rc = collect_init(&c, now_s);
    if (rc != 0)
        return rc;
    if (h.magic[7] == VERSION)
        rc = collect_file(&c, fd);
    else
        collect_second(&c, (uint32_t)h.stamp_s);
    if (rc != 0) {
        free(c.seconds_s);
        free(c.points);
        return rc;
    }
    collect_end(&c, out);
    return 0;
}

/* Nothing but a file: a link would have us write elsewhere, a pipe would have us
 * wait for its other end. Returns a descriptor or -errno. */
static int open_stamps(int run_dir, int access)
{
    struct stat st;
    int fd = openat(run_dir, STAMPS_FILE,
                    access | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int rc = 0;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) != 0)
        rc = -errno;
    else if (!S_ISREG(st.st_mode))
        rc = -EBADMSG;
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

void stamps_load(struct stamps *out, int run_dir, int64_t now_s)
{
    int fd = open_stamps(run_dir, O_RDONLY);
    int rc = fd;

    *out = (struct stamps){0};
    if (fd >= 0)
        rc = stamps_read(out, fd, now_s);
    if (fd >= 0)
        close(fd);
    out->foreign = rc == -EPROTONOSUPPORT;
    if (out->foreign)
        log_warn(MODULE, "stamps in run_path are of another version and are "
                         "left as they are; a restart within ten seconds may "
                         "replace points");
    else if (rc != 0 && rc != -ENOENT)
        log_warn(MODULE,
                 "stamps of earlier lives were not read and begin anew "
                 "cause=%s",
                 strerror(-rc));
}

/* ---- Writing ------------------------------------------------------------ */

struct writer {
    int fd;
    uint64_t at;
    struct record batch[BATCH];
    size_t n;
    int rc;
};

static void write_out(struct writer *w)
{
    size_t n = w->n * sizeof(w->batch[0]);
    ssize_t done;

    if (w->rc != 0 || n == 0)
        return;
    done = pwrite(w->fd, w->batch, n, (off_t)w->at);
    if (done < 0)
        w->rc = -errno;
    else if ((size_t)done != n)
        w->rc = -ENOSPC;
    else
        w->at += n;
    w->n = 0;
}

static void put(struct writer *w, enum record_kind kind, uint32_t second_s,
                struct used_id id)
{
    if (w->n == BATCH)
        write_out(w);
    w->batch[w->n++] = make_record(kind, second_s, id);
}

static int compare_age(const void *x, const void *y)
{
    const struct used_point *a = x;
    const struct used_point *b = y;

    return a->second_s < b->second_s ? -1 : a->second_s > b->second_s;
}

/* The oldest first: they are what a reader with too many leaves out. */
static int put_points_by_age(struct writer *w, const struct stamps *s)
{
    struct used_point *points = malloc((s->n_points + 1) * sizeof(*points));

    if (points == NULL)
        return -ENOMEM;
    if (s->n_points > 0) {
        memcpy(points, s->points, s->n_points * sizeof(*points));
        qsort(points, s->n_points, sizeof(*points), compare_age);
    }
    for (size_t i = 0; i < s->n_points; i++)
        put(w, RECORD_POINT, points[i].second_s, points[i].id);
    free(points);
    return 0;
}

static int write_all(const struct stamps *s, int fd, uint64_t *end)
{
    struct header h = {.stamp_s = 0};
    struct writer w = {.fd = fd, .at = sizeof(h)};
    ssize_t n;

    memcpy(h.magic, magic_of_all, sizeof(magic_of_all));
    h.magic[7] = VERSION;
    n = pwrite(fd, &h, sizeof(h), 0);
    if (n != sizeof(h))
        return n < 0 ? -errno : -ENOSPC;
    for (size_t i = 0; i < s->n_seconds; i++)
        put(&w, RECORD_PART, s->seconds_s[i], (struct used_id){0});
    if (put_points_by_age(&w, s) != 0)
        return -ENOMEM;
    write_out(&w);
    *end = w.at;
    return w.rc;
}

int stamps_write(const struct stamps *s, int fd)
{
    uint64_t end;

    return write_all(s, fd, &end);
}

/* ---- While serving ------------------------------------------------------ */

/* Written anew: what is still of use, in the present format. */
static int compact(struct stamps_file *f)
{
    struct stamps s = {0};
    uint64_t end = 0;
    int old = open_stamps(f->run_dir, O_RDONLY);
    int fd = -1;
    int rc = 0;

    if (old >= 0)
        rc = stamps_read(&s, old, clock_wall_ns(&clock_real) / CLOCK_NS_PER_S);
    if (rc == -EPROTONOSUPPORT || rc == -ENOMEM)
        goto out;
    /* What cannot be read is replaced: stamps_load() said so. */
    (void)unlinkat(f->run_dir, NEW_FILE, 0); /* of a life that was killed */
    fd = openat(f->run_dir, NEW_FILE,
                O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    rc = fd >= 0 ? write_all(&s, fd, &end) : -errno;
    if (rc == 0 && renameat(f->run_dir, NEW_FILE, f->run_dir, STAMPS_FILE) != 0)
        rc = -errno;
    if (rc != 0)
        goto out;
    stamps_file_close(f);
    f->fd = fd;
    f->at = end;
    f->compact_at = 2 * end + COMPACT_MIN_BYTES;
    fd = -1; /* handed over */
out:
    if (fd >= 0)
        close(fd);
    if (old >= 0)
        close(old);
    stamps_fini(&s);
    return rc;
}

static int open_file(struct stamps_file *f)
{
    struct header h;
    struct stat st;
    int fd = open_stamps(f->run_dir, O_RDWR);
    int rc;

    if (fd == -ENOENT || fd == -EBADMSG || fd == -ELOOP || fd == -ENXIO)
        return compact(f); /* none, or no file: one takes its place */
    if (fd < 0)
        return fd;
    rc = read_header(fd, &h);
    if (rc == 0 && fstat(fd, &st) != 0)
        rc = -errno;
    if (rc == 0 && h.magic[7] == VERSION &&
        st.st_size <= (off_t)COMPACT_MIN_BYTES) {
        /* A torn record at the end is written over. */
        f->fd = fd;
        f->at = (uint64_t)st.st_size -
                ((uint64_t)st.st_size - sizeof(h)) % sizeof(struct record);
        f->compact_at = 2 * COMPACT_MIN_BYTES;
        return 0;
    }
    close(fd);
    return rc == 0 || rc == -EBADMSG ? compact(f) : rc;
}

static void put_points(struct writer *w, const struct agg *agg, uint64_t seq)
{
    struct used_walk walk;
    struct used_point p;

    if (used_walk_part(&walk, agg, seq) != 0)
        return; /* its encoding says that it is gone */
    while (used_walk_next(&walk, &p))
        put(w, RECORD_POINT, p.second_s, p.id);
}

int stamps_file_add(struct stamps_file *f, const struct agg *agg, uint64_t seq,
                    int64_t stamp_s, uint32_t max_shift)
{
    struct writer w;
    int rc = 0;

    if (f->at == 0)
        rc = open_file(f);
    else if (f->at > f->compact_at)
        rc = compact(f);
    if (rc != 0)
        return rc;
    w.fd = f->fd;
    w.at = f->at;
    w.n = 0;
    w.rc = 0;
    /* Pieces of one chain have one stamp. */
    if (stamp_s != f->last_s || max_shift != f->last_shift) {
        for (uint32_t k = 0; k <= max_shift; k++)
            put(&w, RECORD_PART, (uint32_t)(stamp_s + k), (struct used_id){0});
    }
    put_points(&w, agg, seq);
    write_out(&w);
    f->at = w.at;
    if (w.rc == 0) {
        f->last_s = stamp_s;
        f->last_shift = max_shift;
    }
    return w.rc;
}

void stamps_file_close(struct stamps_file *f)
{
    if (f->at > 0)
        close(f->fd);
    f->at = 0;
}
