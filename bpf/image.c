/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container chooses what lies under its paths, and we come with more rights than
 * it has. So a path is first opened without any effect (O_PATH: no device is woken,
 * no pipe waits) and read only if it is a regular file.
 */
#include "bpf/image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bpf/elf_symbols.h"

struct images {
    struct image slots[IMAGE_CACHE];
};

int images_create(struct images **out)
{
    struct images *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return -ENOMEM;
    *out = s;
    return 0;
}

void images_close(struct images *s)
{
    free(s);
}

/* Consumes @fd, which is a place without access. */
static int open_regular(int fd)
{
    char path[40];
    struct stat st;
    int got;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        (void)close(fd);
        return -EINVAL;
    }
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    got = open(path, O_RDONLY | O_CLOEXEC);
    got = got >= 0 ? got : -errno;
    (void)close(fd);
    return got;
}

int image_open(int root_fd, const char *path)
{
    struct open_how how = {
        .flags = O_PATH | O_CLOEXEC,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };

    if (root_fd < 0)
        return open_regular(open(path, O_PATH | O_CLOEXEC));
    return open_regular(
        (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how)));
}

int image_open_link(int dir_fd, const char *name)
{
    return open_regular(openat(dir_fd, name, O_PATH | O_CLOEXEC));
}

int image_key_of(int fd, struct image_key *out)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return -errno;
    *out = (struct image_key){st.st_dev, st.st_ino};
    return 0;
}

static long read_file(void *arg, uint64_t at, void *to, size_t n)
{
    int fd = *(const int *)arg;
    size_t done = 0;

    while (done < n) {
        ssize_t got =
            pread(fd, (char *)to + done, n - done, (off_t)(at + done));

        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (long)done;
}

/* A program that needs a loader exports what libc is to find in it; only static ones
 * keep symbols of libc elsewhere. */
static void look_up(struct image *im, const struct elf *e)
{
    enum { ENVIRON = ENV_N_FUNCTIONS };
    struct elf_symbol symbols[ENV_N_FUNCTIONS + 3] = {
        [ENV_SETENV] = {.name = "setenv"},
        [ENV_PUTENV] = {.name = "putenv"},
        [ENV_UNSETENV] = {.name = "unsetenv"},
        [ENV_CLEARENV] = {.name = "clearenv"},
        [ENVIRON] = {.name = "environ", .kind = ELF_VARIABLE},
        [ENVIRON + 1] = {.name = "__environ", .kind = ELF_VARIABLE},
        [ENVIRON + 2] = {.name = "_environ", .kind = ELF_VARIABLE},
    };
    size_t n = sizeof(symbols) / sizeof(symbols[0]);

    (void)elf_find(e, SHT_DYNSYM, symbols, n);
    if (im->is_static)
        (void)elf_find(e, SHT_SYMTAB, symbols, n);
    for (uint32_t i = 0; i < ENV_N_FUNCTIONS; i++) {
        if (symbols[i].found) {
            im->offsets[i] = symbols[i].offset;
            im->n_functions++;
        }
    }
    for (size_t i = ENVIRON; i < n && !im->has_environ; i++) {
        im->has_environ = symbols[i].found;
        im->environ_address = symbols[i].address;
    }
}

static void inspect(struct image *im, int fd)
{
    struct elf e;
    int rc = elf_init(&e, read_file, &fd);

    if (rc != 0)
        return;
    im->is_elf = true;
    im->is_fixed = e.head.e_type == ET_EXEC;
    rc = elf_interpreter(&e, im->interpreter, sizeof(im->interpreter));
    if (rc != 0)
        im->interpreter[0] = '\0';
    im->is_static = rc == ELF_ABSENT;
    if (elf_first_segment(&e, &im->first_address, &im->first_offset) == 0)
        look_up(im, &e);
}

const struct image *image_get(struct images *s, int fd)
{
    struct image *im;
    struct stat st;
    int64_t changed_ns;

    if (fstat(fd, &st) != 0)
        return NULL;
    changed_ns = (int64_t)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec;
    im =
        &s->slots[(st.st_ino * UINT64_C(0x9e3779b97f4a7c15) ^ st.st_dev) >> 32 &
                  (IMAGE_CACHE - 1)];
    if (im->key.dev != st.st_dev || im->key.ino != st.st_ino ||
        im->changed_ns != changed_ns) {
        *im = (struct image){.key = {st.st_dev, st.st_ino},
                             .changed_ns = changed_ns};
        inspect(im, fd);
    }
    return im;
}
