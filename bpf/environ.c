/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C library's variable `environ` points to an array of pointers to the strings.
 * It lies in the program where that has a copy of it (or is static), else in libc.
 * Memory is read through /proc/PID/mem: unlike process_vm_readv() an open one
 * belongs to that memory, and never to the next process of that number.
 */
#include "bpf/environ.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "bpf/procfs.h"

#define PAGE 4096u
#define POINTERS 128u
#define TRIES 3

/* ---- Entries ------------------------------------------------------------ */

static void take_entry(const struct watch *w, struct environ_values *out,
                       const char *entry, size_t n)
{
    int i = watch_find(w, entry, n);
    struct environ_value *v;

    if (i < 0 || out->v[i].is_set) /* getenv() finds the first */
        return;
    v = &out->v[i];
    entry += w->v[i].n_name + 1;
    n -= w->v[i].n_name + 1;
    v->is_set = true;
    v->is_cut = n > sizeof(v->text);
    v->n = (uint32_t)(v->is_cut ? sizeof(v->text) : n);
    memcpy(v->text, entry, v->n);
}

static void forget_values(struct environ_values *out)
{
    out->is_void = false;
    for (size_t i = 0; i < ENV_MAX_NAMES; i++) {
        out->v[i].is_set = false;
        out->v[i].is_cut = false;
        out->v[i].n = 0;
    }
}

void environ_scan_init(struct environ_scan *s, const struct watch *w,
                       struct environ_values *out)
{
    s->watch = w;
    s->out = out;
    s->n = 0;
    forget_values(out);
}

void environ_scan_bytes(struct environ_scan *s, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '\0') {
            take_entry(s->watch, s->out, s->entry, s->n);
            s->n = 0;
        } else if (s->n < sizeof(s->entry)) {
            s->entry[s->n++] = bytes[i];
        }
    }
}

int environ_read_start(int proc_fd, const struct watch *w,
                       struct environ_values *out)
{
    struct environ_scan s;
    char piece[4096];
    int fd = openat(proc_fd, "environ", O_RDONLY | O_CLOEXEC);
    ssize_t n;
    size_t total = 0;

    if (fd < 0)
        return -errno;
    environ_scan_init(&s, w, out);
    do {
        n = read(fd, piece, sizeof(piece));
        if (n > 0)
            environ_scan_bytes(&s, piece, (size_t)n);
        total += n > 0 ? (size_t)n : 0;
    } while (n > 0 && total < ENVIRON_MAX_BYTES);
    n = n < 0 ? -errno : 0;
    /* Nothing at all: a kernel thread, or a process that has gone. */
    if (n == 0 && total == 0)
        n = -ESRCH;
    (void)close(fd);
    explicit_bzero(piece, sizeof(piece));
    explicit_bzero(s.entry, sizeof(s.entry));
    return (int)n;
}

bool environ_same(const struct watch *w, const struct environ_values *a,
                  const struct environ_values *b)
{
    for (uint32_t i = 0; i < w->n; i++) {
        const struct environ_value *x = &a->v[i], *y = &b->v[i];

        if (x->is_set != y->is_set || x->n != y->n ||
            memcmp(x->text, y->text, x->n) != 0)
            return false;
    }
    return true;
}

/* ---- Where it lies ------------------------------------------------------ */

struct seek {
    struct images *images;
    int proc_fd;
    struct image exe;
    char exe_path[IMAGE_PATH_BYTES];
    uint64_t address; /* of `environ`; 0 = not found */
};

static uint64_t place(const struct image *im, const struct procfs_map *m)
{
    if (!im->has_environ)
        return 0;
    if (im->is_fixed)
        return im->environ_address;
    if (m->offset != (im->first_offset & ~(uint64_t)(PAGE - 1)))
        return 0;
    return m->start - (im->first_address & ~(uint64_t)(PAGE - 1)) +
           im->environ_address;
}

/* The first mapping of a file is its lowest segment. */
static bool try_map(void *arg, const struct procfs_map *m)
{
    struct seek *s = arg;

    if (s->exe.has_environ) {
        if (strcmp(m->path, s->exe_path) == 0)
            s->address = place(&s->exe, m);
    } else if (procfs_is_libc(m->path)) {
        int fd = procfs_open_map(s->proc_fd, m);
        const struct image *im = fd >= 0 ? image_get(s->images, fd) : NULL;

        if (im != NULL)
            s->address = place(im, m);
        if (fd >= 0)
            (void)close(fd);
    }
    return s->address == 0;
}

static int find_environ(struct images *images, int proc_fd, uint64_t *out)
{
    struct seek s = {.images = images, .proc_fd = proc_fd};
    int fd = image_open_link(proc_fd, "exe");
    const struct image *im;
    ssize_t n;
    int rc;

    if (fd < 0)
        return fd;
    im = image_get(images, fd);
    if (im != NULL)
        s.exe = *im;
    (void)close(fd);
    n = readlinkat(proc_fd, "exe", s.exe_path, sizeof(s.exe_path) - 1);
    if (n < 0)
        return -errno;
    s.exe_path[n] = '\0';
    if (s.exe.has_environ && s.exe.is_fixed) {
        *out = s.exe.environ_address;
        return 0;
    }
    rc = procfs_maps(proc_fd, try_map, &s);
    if (rc != 0)
        return rc;
    *out = s.address;
    return s.address != 0 ? 0 : ENVIRON_UNKNOWN;
}

/* ---- Reading it --------------------------------------------------------- */

static int read_memory(int mem, uint64_t at, void *to, size_t n)
{
    ssize_t got = pread(mem, to, n, (off_t)at);

    if (got == (ssize_t)n)
        return 0;
    return got < 0 ? -errno : -ESRCH; /* 0: that memory is gone */
}

/* Up to the NUL, the room's end, or @enough bytes. Not past the end of a page in
 * one go: the next one may not be there. */
static int read_text(int mem, uint64_t at, char *to, size_t size, size_t enough,
                     size_t *n, bool *ends)
{
    while (*n < size && *n < enough && !*ends) {
        size_t want = PAGE - ((at + *n) & (PAGE - 1));
        size_t room = size - *n < 256 ? size - *n : 256;
        const char *nul;
        int rc;

        want = want < room ? want : room;
        rc = read_memory(mem, at + *n, to + *n, want);
        if (rc != 0)
            return rc;
        nul = memchr(to + *n, '\0', want);
        *ends = nul != NULL;
        *n = nul != NULL ? (size_t)(nul - to) : *n + want;
    }
    return 0;
}

static void read_entry(const struct watch *w, struct environ_values *out,
                       int mem, uint64_t at)
{
    char text[ENV_NAME_BYTES + ENVIRON_MAX_VALUE + 1];
    bool ends = false;
    size_t n = 0;

    if (read_text(mem, at, text, sizeof(text), ENV_NAME_BYTES, &n, &ends) ==
            0 &&
        watch_find(w, text, n) >= 0 &&
        read_text(mem, at, text, sizeof(text), sizeof(text), &n, &ends) == 0)
        take_entry(w, out, text, n);
    explicit_bzero(text, sizeof(text)); /* what lay behind it, too */
}

static int read_entries(const struct watch *w, struct environ_values *out,
                        int mem, uint64_t array)
{
    uint64_t pointers[POINTERS];

    for (uint32_t done = 0; done < ENVIRON_MAX_ENTRIES;) {
        uint64_t at = array + 8 * (uint64_t)done;
        size_t n = (PAGE - (at & (PAGE - 1))) / 8;
        int rc;

        if (at % 8 != 0)
            return -EPROTO;
        n = n < POINTERS ? n : POINTERS;
        rc = read_memory(mem, at, pointers, n * 8);
        if (rc != 0)
            return rc;
        for (size_t i = 0; i < n; i++) {
            if (pointers[i] == 0)
                return 0;
            read_entry(w, out, mem, pointers[i]);
        }
        done += (uint32_t)n;
    }
    return 0;
}

/* Whoever adds a variable moves the array; so it must still be there when we are
 * through. */
int environ_read_live(struct images *images, int proc_fd, const struct watch *w,
                      struct environ_values *out)
{
    uint64_t at = 0, array = 0, after = 0;
    int mem = -1;
    int rc = find_environ(images, proc_fd, &at);

    if (rc != 0)
        return rc;
    mem = openat(proc_fd, "mem", O_RDONLY | O_CLOEXEC);
    if (mem < 0)
        return -errno;
    for (int i = 0; i < TRIES; i++) {
        forget_values(out);
        rc = read_memory(mem, at, &array, sizeof(array));
        out->is_void = rc == 0 && array == 0;
        if (rc == 0 && array != 0)
            rc = read_entries(w, out, mem, array);
        if (rc == 0)
            rc = read_memory(mem, at, &after, sizeof(after));
        if (rc == 0 && after == array)
            break;
        rc = rc != 0 ? rc : -EAGAIN;
    }
    (void)close(mem);
    return rc;
}
