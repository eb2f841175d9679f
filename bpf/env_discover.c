/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attaching must win a race with the loader: a process may call setenv() 150 us
 * after its exec. So the places where loaders look by default are tried at once, and
 * only what lies elsewhere waits for the mappings to show it.
 */
#include "bpf/env_discover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bpf/procfs.h"

#define SEEN 1024u /* power of two */
#define STAYS 128u /* private flag: what is attached is on our own filesystem */

#if defined(__aarch64__)
#define TRIPLET "aarch64-linux-gnu"
#else
#define TRIPLET "x86_64-linux-gnu"
#endif

static const char *const libc_paths[] = {
    "/lib/" TRIPLET "/libc.so.6", "/usr/lib/" TRIPLET "/libc.so.6",
    "/lib64/libc.so.6",           "/usr/lib64/libc.so.6",
    "/usr/lib/libc.so.6",         "/lib/libc.so.6",
};

struct discover {
    struct images *images;
    struct attach *attach;
    struct image_key own_root;
    struct image_key seen[SEEN]; /* programs below our own root */
};

int discover_create(struct discover **out, struct images *images,
                    struct attach *attach)
{
    struct discover *d = calloc(1, sizeof(*d));
    int root = open("/", O_PATH | O_CLOEXEC);

    if (d == NULL) {
        if (root >= 0)
            (void)close(root);
        return -ENOMEM;
    }
    d->images = images;
    d->attach = attach;
    if (root >= 0) {
        (void)image_key_of(root, &d->own_root);
        (void)close(root);
    }
    *out = d;
    return 0;
}

void discover_close(struct discover *d)
{
    free(d);
}

void discover_forget(struct discover *d)
{
    memset(d->seen, 0, sizeof(d->seen));
}

static struct image_key *seen_slot(struct discover *d, struct image_key key)
{
    return &d->seen[(key.ino ^ key.ino >> 10) & (SEEN - 1)];
}

/* Attach to @fd if it has one of the functions. Consumes @fd. Returns whether it has;
 * *flags get DISCOVER_MADE. */
static bool use(struct discover *d, int fd, uint32_t pid, unsigned *flags)
{
    const struct image *im = fd >= 0 ? image_get(d->images, fd) : NULL;
    bool has = im != NULL && im->n_functions > 0;

    if (has && attach_use(d->attach, fd, im, pid) == ATTACH_MADE)
        *flags |= DISCOVER_MADE;
    if (has && im->key.dev == d->own_root.dev)
        *flags |= STAYS;
    if (fd >= 0)
        (void)close(fd);
    return has;
}

/* The loader itself is the library (musl), or has it beside it, or in one of the
 * usual places. */
static void use_libc(struct discover *d, int root, const char *interpreter,
                     uint32_t pid, unsigned *flags)
{
    char path[IMAGE_PATH_BYTES + 16];
    const char *slash = strrchr(interpreter, '/');

    if (use(d, image_open(root, interpreter), pid, flags))
        return;
    for (size_t i = 0; i < sizeof(libc_paths) / sizeof(libc_paths[0]); i++) {
        if (use(d, image_open(root, libc_paths[i]), pid, flags))
            break;
    }
    if (slash == NULL)
        return;
    (void)snprintf(path, sizeof(path), "%.*s/libc.so.6",
                   (int)(slash - interpreter), interpreter);
    (void)use(d, image_open(root, path), pid, flags);
}

static unsigned look_at_program(struct discover *d, int exe, int root,
                                uint32_t pid)
{
    char interpreter[IMAGE_PATH_BYTES];
    const struct image *im = image_get(d->images, exe);
    unsigned flags = 0;

    if (im == NULL || !im->is_elf)
        return DISCOVER_STATIC;
    if (im->is_static) {
        int fd = fcntl(exe, F_DUPFD_CLOEXEC, 0);

        (void)use(d, fd, pid, &flags);
        return flags | DISCOVER_STATIC;
    }
    memcpy(interpreter, im->interpreter, sizeof(interpreter));
    use_libc(d, root, interpreter, pid, &flags);
    return flags;
}

/* An ordinary program of our own root, all of whose probes stay: most of them are,
 * and this costs two system calls. */
static bool is_seen(struct discover *d, uint32_t pid, struct image_key *exe)
{
    struct stat st, root;
    char path[40];

    *exe = (struct image_key){0};
    (void)snprintf(path, sizeof(path), "/proc/%" PRIu32 "/root", pid);
    if (stat(path, &root) != 0 || root.st_dev != d->own_root.dev ||
        root.st_ino != d->own_root.ino)
        return false;
    (void)snprintf(path, sizeof(path), "/proc/%" PRIu32 "/exe", pid);
    if (stat(path, &st) != 0)
        return false;
    *exe = (struct image_key){st.st_dev, st.st_ino};
    return image_same(*seen_slot(d, *exe), *exe);
}

unsigned discover_exec(struct discover *d, uint32_t pid)
{
    unsigned flags = DISCOVER_STATIC;
    int proc_fd, exe = -1, root = -1;
    struct image_key key;

    if (is_seen(d, pid, &key))
        return DISCOVER_SEEN;
    proc_fd = procfs_open(pid);
    if (proc_fd < 0)
        return flags;
    exe = image_open_link(proc_fd, "exe");
    root = openat(proc_fd, "root", O_PATH | O_CLOEXEC);
    if (exe >= 0 && root >= 0)
        flags = look_at_program(d, exe, root, pid);
    if ((flags & STAYS) != 0 && key.ino != 0)
        *seen_slot(d, key) = key;
    if (exe >= 0)
        (void)close(exe);
    if (root >= 0)
        (void)close(root);
    (void)close(proc_fd);
    return flags & ~STAYS;
}

struct walk {
    struct discover *d;
    int proc_fd;
    uint32_t pid;
    unsigned flags;
    uint64_t last_ino; /* of what was tried last: segments follow each other */
};

static bool try_map(void *arg, const struct procfs_map *m)
{
    struct walk *w = arg;

    if (!m->may_run || m->ino == w->last_ino || !procfs_is_libc(m->path))
        return true;
    w->last_ino = m->ino;
    (void)use(w->d, procfs_open_map(w->proc_fd, m), w->pid, &w->flags);
    return true;
}

unsigned discover_maps(struct discover *d, uint32_t pid)
{
    struct walk w = {.d = d, .pid = pid, .proc_fd = procfs_open(pid)};
    int exe;

    if (w.proc_fd < 0)
        return 0;
    exe = image_open_link(w.proc_fd, "exe");
    if (exe >= 0) {
        const struct image *im = image_get(d->images, exe);

        if (im != NULL && im->is_elf && im->is_static)
            (void)use(d, exe, pid, &w.flags);
        else
            (void)close(exe);
    }
    (void)procfs_maps(w.proc_fd, try_map, &w);
    (void)close(w.proc_fd);
    return w.flags & ~STAYS;
}
