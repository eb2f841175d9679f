/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record: 16 bytes of head (magic, bytes of JSON), the JSON, the bytes of
 * open frames. Numbers of 64 bits that are no counts (ids, inodes) are text, since
 * JSON's numbers end at 2^53.
 */
#include "agent/handover.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/buf.h"
#include "agent/handover_counts.h"

#define RECORD_MAGIC "rtvhand1"
#define BATON_MAGIC "rtvbaton"
#define MAX_CONNS 65536u
#define MAX_NODES (5 * MAX_CONNS + 4096u) /* an object of four members each */

struct record_head {
    char magic[8];
    uint64_t n_json;
};

/* ---- Files ------------------------------------------------------------- */

static int make_memfd(const char *name, int *fd)
{
    *fd = memfd_create(name, MFD_CLOEXEC);
    return *fd >= 0 ? 0 : -errno;
}

static int map_baton(struct handover_files *f)
{
    void *map = mmap(NULL, sizeof(struct baton), PROT_READ | PROT_WRITE,
                     MAP_SHARED, f->baton_fd, 0);

    if (map == MAP_FAILED)
        return -errno;
    f->baton = map;
    return 0;
}

int handover_files_create(struct handover_files *f)
{
    int rc;

    *f = (struct handover_files){-1, -1, -1, -1, NULL};
    rc = make_memfd("retriever-record", &f->record);
    if (rc == 0)
        rc = make_memfd("retriever-payloads", &f->payloads);
    if (rc == 0)
        rc = make_memfd("retriever-points", &f->points);
    if (rc == 0)
        rc = make_memfd("retriever-baton", &f->baton_fd);
    if (rc == 0 && ftruncate(f->baton_fd, sizeof(struct baton)) != 0)
        rc = -errno;
    if (rc == 0)
        rc = map_baton(f);
    if (rc != 0) {
        handover_files_close(f);
        return rc;
    }
    memcpy(f->baton->magic, BATON_MAGIC, sizeof(f->baton->magic));
    f->baton->format = HANDOVER_FORMAT;
    return 0;
}

int handover_files_adopt(struct handover_files *f)
{
    struct stat st;
    int rc;

    if (fstat(f->baton_fd, &st) != 0)
        return -errno;
    if (st.st_size < (off_t)sizeof(struct baton))
        return -EBADMSG;
    rc = map_baton(f);
    if (rc == 0 && memcmp(f->baton->magic, BATON_MAGIC, 8) != 0)
        rc = -EBADMSG;
    return rc;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void handover_files_close(struct handover_files *f)
{
    if (f->baton != NULL)
        munmap(f->baton, sizeof(*f->baton));
    f->baton = NULL;
    close_fd(&f->record);
    close_fd(&f->payloads);
    close_fd(&f->points);
    close_fd(&f->baton_fd);
}

/* ---- Writing ----------------------------------------------------------- */

static const char *const kind_names[] = {
    [SOCKET_UDP] = "udp",
    [SOCKET_UNIXGRAM] = "unixgram",
    [SOCKET_UNIXSTREAM] = "unixstream",
    [SOCKET_CONTROL] = "control",
};
#define N_KINDS (sizeof(kind_names) / sizeof(kind_names[0]))

static void member_text64(struct json *j, const char *key, uint64_t v)
{
    char text[24];

    (void)snprintf(text, sizeof(text), "%" PRIu64, v);
    json_member_str(j, key, text);
}

static void write_sockets(struct json *j, const struct handover *h)
{
    json_key(j, "sockets");
    json_array(j);
    for (uint32_t i = 0; i < h->sockets.n; i++) {
        const struct socket_entry *e = &h->sockets.entries[i];

        json_object(j);
        json_member_i64(j, "fd", e->fd);
        json_member_str(j, "kind", kind_names[e->kind]);
        json_member_bool(j, "shared_outside", e->shared_outside);
        json_member_bool(j, "stored", e->stored);
        json_member_bool(j, "orphan", e->orphan);
        json_member_str(j, "path", e->path);
        member_text64(j, "device", e->device);
        member_text64(j, "inode", e->inode);
        json_member_u64(j, "drops_seen", h->drops_seen[i]);
        json_end(j);
    }
    json_end(j);
}

static const unsigned char *open_frame(const struct landing *l, uint32_t i,
                                       uint32_t *n)
{
    const struct landing_recv *st = landing_state(&l->conns[i]);

    *n = landing_filled(st) - st->pos.record;
    return landing_half(l, i, st->half) + st->pos.record;
}

static void write_conns(struct json *j, const struct landing *l)
{
    uint64_t at = 0;

    json_key(j, "connections");
    json_array(j);
    for (uint32_t i = 0; i < l->n_conns; i++) {
        uint32_t n;

        if (l->conns[i].fd < 0)
            continue;
        (void)open_frame(l, i, &n);
        json_object(j);
        json_member_i64(j, "fd", l->conns[i].fd);
        json_member_u64(j, "listener", l->conns[i].listener);
        json_member_u64(j, "at", at);
        json_member_u64(j, "bytes", n);
        json_end(j);
        at += n;
    }
    json_end(j);
}

static int write_json(struct buf *out, const struct handover *h,
                      const struct landing *landing)
{
    struct json j;

    json_init(&j, out);
    json_object(&j);
    json_member_u64(&j, "handover", HANDOVER_FORMAT);
    json_member_str(&j, "version", h->version);
    member_text64(&j, "life", h->life);
    json_member_u64(&j, "started_ms", h->started_ms);
    json_member_i64(&j, "life_start_s", h->life_start_s);
    json_member_i64(&j, "last_stamp_s", h->last_stamp_s);
    json_member_u64(&j, "worker_deaths", h->worker_deaths);
    json_member_u64(&j, "upgrades", h->n_upgrades);
    json_member_i64(&j, "worker_pid", h->worker_pid);
    json_member_u64(&j, "rested_us", h->rested_us);
    json_member_i64(&j, "run_dir", h->run_dir);
    json_member_i64(&j, "doorbell", h->doorbell);
    json_member_i64(&j, "payloads", h->payloads);
    json_member_i64(&j, "points", h->points);
    json_member_i64(&j, "baton", h->baton_fd);
    json_key(&j, "ingest");
    handover_write_ingest(&j, &h->ingest);
    json_key(&j, "delivery");
    handover_write_books(&j, &h->books);
    json_key(&j, "restored");
    handover_write_books(&j, &h->restored);
    write_sockets(&j, h);
    write_conns(&j, landing);
    json_end(&j);
    return json_finish(&j);
}

static int put(int fd, const void *p, size_t n, off_t *at)
{
    while (n > 0) {
        ssize_t w = pwrite(fd, p, n, *at);

        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return w < 0 ? -errno : -ENOSPC;
        p = (const char *)p + w;
        n -= (size_t)w;
        *at += w;
    }
    return 0;
}

/* The next image would refuse what this one cannot read, and there would be no way
 * on. */
static int verify(int fd)
{
    struct handover h;
    const char *why;
    int rc = handover_read(&h, fd, &why);

    if (rc == 0)
        handover_fini(&h);
    return rc == HANDOVER_REFUSED ? -E2BIG : rc;
}

int handover_write(int fd, const struct handover *h,
                   const struct landing *landing)
{
    struct record_head head = {.magic = RECORD_MAGIC};
    struct buf json;
    off_t at = 0;
    int rc;

    buf_init(&json, HANDOVER_MAX_JSON);
    rc = write_json(&json, h, landing);
    head.n_json = json.n;
    if (rc == 0 && ftruncate(fd, 0) != 0)
        rc = -errno;
    if (rc == 0)
        rc = put(fd, &head, sizeof(head), &at);
    if (rc == 0)
        rc = put(fd, json.data, json.n, &at);
    for (uint32_t i = 0; rc == 0 && i < landing->n_conns; i++) {
        const unsigned char *bytes;
        uint32_t n;

        if (landing->conns[i].fd < 0)
            continue;
        bytes = open_frame(landing, i, &n);
        rc = put(fd, bytes, n, &at);
    }
    buf_fini(&json);
    return rc != 0 ? rc : verify(fd);
}

/* ---- Reading ----------------------------------------------------------- */

struct reading {
    const struct jsonread *d;
    const struct jsonread_node *root;
    bool bad; /* a member is missing or of the wrong form */
};

static int64_t number_in(struct reading *r, const struct jsonread_node *o,
                         const char *key, int64_t min, int64_t max)
{
    int64_t n = 0;

    if (jsonread_int(jsonread_get(r->d, o, key), &n) != 0 || n < min || n > max)
        r->bad = true;
    return r->bad ? min : n;
}

static int64_t number(struct reading *r, const char *key, int64_t min,
                      int64_t max)
{
    return number_in(r, r->root, key, min, max);
}

static int fd_of(struct reading *r, const char *key)
{
    return (int)number(r, key, -1, INT32_MAX);
}

static void text_in(struct reading *r, const struct jsonread_node *o,
                    const char *key, char *to, size_t n)
{
    const struct jsonread_node *v = jsonread_get(r->d, o, key);

    to[0] = '\0';
    if (v == NULL || v->type != JSONREAD_STRING || v->n >= n) {
        r->bad = true;
        return;
    }
    if (v->n > 0)
        memcpy(to, v->text, v->n);
    to[v->n] = '\0';
}

static uint64_t text64_in(struct reading *r, const struct jsonread_node *o,
                          const char *key)
{
    char text[24];
    char *end;
    uint64_t v;

    text_in(r, o, key, text, sizeof(text));
    errno = 0;
    v = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0)
        r->bad = true;
    return v;
}

static bool flag_in(struct reading *r, const struct jsonread_node *o,
                    const char *key)
{
    const struct jsonread_node *v = jsonread_get(r->d, o, key);

    if (v == NULL || (v->type != JSONREAD_TRUE && v->type != JSONREAD_FALSE))
        r->bad = true;
    return v != NULL && v->type == JSONREAD_TRUE;
}

static void read_socket(struct reading *r, const struct jsonread_node *o,
                        struct handover *h)
{
    const struct jsonread_node *kind = jsonread_get(r->d, o, "kind");
    struct socket_entry *e = &h->sockets.entries[h->sockets.n];
    size_t k = 0;

    if (h->sockets.n == SOCKETS_MAX) {
        r->bad = true;
        return;
    }
    *e = (struct socket_entry){.fd = -1};
    while (k < N_KINDS && !jsonread_is(kind, kind_names[k]))
        k++;
    if (k == N_KINDS) { /* of a later build; its place counts */
        h->sockets.n++;
        return;
    }
    e->kind = (enum socket_kind)k;
    e->fd = (int)number_in(r, o, "fd", 0, INT32_MAX);
    e->shared_outside = flag_in(r, o, "shared_outside");
    e->stored = flag_in(r, o, "stored");
    e->orphan = flag_in(r, o, "orphan");
    text_in(r, o, "path", e->path, sizeof(e->path));
    e->device = (dev_t)text64_in(r, o, "device");
    e->inode = (ino_t)text64_in(r, o, "inode");
    h->drops_seen[h->sockets.n] =
        (uint32_t)number_in(r, o, "drops_seen", 0, UINT32_MAX);
    h->sockets.n++;
}

static void read_conn(struct reading *r, const struct jsonread_node *o,
                      struct handover *h, struct handover_conn *c)
{
    c->fd = (int)number_in(r, o, "fd", 0, INT32_MAX);
    c->listener =
        (uint32_t)number_in(r, o, "listener", 0, (int64_t)SOCKETS_MAX - 1);
    c->at = (uint32_t)number_in(r, o, "at", 0, (int64_t)h->n_bytes);
    c->n_bytes = (uint32_t)number_in(r, o, "bytes", 0,
                                     (int64_t)h->n_bytes - (int64_t)c->at);
}

static int read_lists(struct reading *r, struct handover *h)
{
    const struct jsonread_node *sockets =
        jsonread_get(r->d, r->root, "sockets");
    const struct jsonread_node *conns =
        jsonread_get(r->d, r->root, "connections");

    if (sockets == NULL || sockets->type != JSONREAD_ARRAY || conns == NULL ||
        conns->type != JSONREAD_ARRAY || conns->n > MAX_CONNS) {
        r->bad = true;
        return 0;
    }
    for (const struct jsonread_node *o = jsonread_child(r->d, sockets);
         o != NULL && !r->bad; o = jsonread_next(r->d, o))
        read_socket(r, o, h);
    h->conns = calloc((size_t)conns->n + 1, sizeof(*h->conns));
    if (h->conns == NULL)
        return -ENOMEM;
    for (const struct jsonread_node *o = jsonread_child(r->d, conns);
         o != NULL && !r->bad; o = jsonread_next(r->d, o))
        read_conn(r, o, h, &h->conns[h->n_conns++]);
    return 0;
}

static int read_members(struct reading *r, struct handover *h)
{
    const int64_t most = INT64_C(1) << 53;

    text_in(r, r->root, "version", h->version, sizeof(h->version));
    h->life = text64_in(r, r->root, "life");
    h->started_ms = (uint64_t)number(r, "started_ms", 0, most);
    h->life_start_s = number(r, "life_start_s", -most, most);
    h->last_stamp_s = number(r, "last_stamp_s", 0, most);
    h->worker_deaths = (uint32_t)number(r, "worker_deaths", 0, UINT32_MAX);
    h->n_upgrades = (uint32_t)number(r, "upgrades", 0, UINT32_MAX);
    h->worker_pid = (pid_t)number(r, "worker_pid", 1, INT32_MAX);
    h->rested_us = (uint64_t)number(r, "rested_us", 0, most);
    h->run_dir = fd_of(r, "run_dir");
    h->doorbell = fd_of(r, "doorbell");
    h->payloads = fd_of(r, "payloads");
    h->points = fd_of(r, "points");
    h->baton_fd = fd_of(r, "baton");
    if (handover_read_ingest(r->d, jsonread_get(r->d, r->root, "ingest"),
                             &h->ingest) != 0 ||
        handover_read_books(r->d, jsonread_get(r->d, r->root, "delivery"),
                            &h->books) != 0 ||
        handover_read_books(r->d, jsonread_get(r->d, r->root, "restored"),
                            &h->restored) != 0)
        r->bad = true;
    return read_lists(r, h);
}

static int parse(struct handover *h, const char *json, size_t n,
                 const char **why)
{
    struct jsonread d;
    struct reading r = {.d = &d};
    int64_t format = 0;
    int rc = jsonread_parse(&d, json, n, MAX_NODES);

    if (rc == JSONREAD_BAD) {
        *why = "it is no handover record";
        rc = HANDOVER_REFUSED;
    }
    if (rc != 0)
        goto out;
    r.root = jsonread_root(&d);
    if (jsonread_int(jsonread_get(&d, r.root, "handover"), &format) != 0 ||
        format != HANDOVER_FORMAT) {
        *why = "its format is another one";
        rc = HANDOVER_REFUSED;
        goto out;
    }
    rc = read_members(&r, h);
    if (rc == 0 && r.bad) {
        *why = "a member is missing or not of its form";
        rc = HANDOVER_REFUSED;
    }
out:
    jsonread_fini(&d);
    return rc;
}

static int get(int fd, void *p, size_t n, off_t at)
{
    while (n > 0) {
        ssize_t r = pread(fd, p, n, at);

        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return r < 0 ? -errno : -EBADMSG;
        p = (char *)p + r;
        n -= (size_t)r;
        at += r;
    }
    return 0;
}

int handover_read(struct handover *h, int fd, const char **why)
{
    struct handover got = {0};
    struct record_head head;
    char *json = NULL;
    struct stat st;
    int rc = fstat(fd, &st) == 0 ? 0 : -errno;

    if (rc == 0)
        rc = get(fd, &head, sizeof(head), 0);
    if (rc == -EBADMSG ||
        (rc == 0 && (memcmp(head.magic, RECORD_MAGIC, 8) != 0 ||
                     head.n_json > HANDOVER_MAX_JSON ||
                     st.st_size > (off_t)HANDOVER_MAX_BYTES ||
                     st.st_size - (off_t)sizeof(head) < (off_t)head.n_json))) {
        *why = "it is no handover record";
        return HANDOVER_REFUSED;
    }
    if (rc != 0)
        return rc;
    got.n_bytes = (size_t)st.st_size - sizeof(head) - head.n_json;
    json = malloc(head.n_json + 1);
    got.bytes = malloc(got.n_bytes + 1);
    rc = json == NULL || got.bytes == NULL ? -ENOMEM : 0;
    if (rc == 0)
        rc = get(fd, json, head.n_json, sizeof(head));
    if (rc == 0)
        rc = get(fd, got.bytes, got.n_bytes,
                 (off_t)(sizeof(head) + head.n_json));
    if (rc == 0)
        rc = parse(&got, json, head.n_json, why);
    free(json);
    if (rc != 0)
        handover_fini(&got);
    else
        *h = got;
    return rc;
}

void handover_fini(struct handover *h)
{
    free(h->conns);
    free(h->bytes);
    h->conns = NULL;
    h->bytes = NULL;
}
