/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that processes run: opening them as the process sees them, and what we need
 * to know of each, read once per inode.
 *
 * Thread:  the helper thread.
 * Memory:  IMAGE_CACHE entries in struct images; the oldest of a slot is forgotten.
 * Promise: paths of a process are resolved below its own root, symbolic links too,
 *          and only regular files are opened.
 */
#ifndef RETRIEVER_BPF_IMAGE_H
#define RETRIEVER_BPF_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bpf/events.h"

#define IMAGE_CACHE 512u
#define IMAGE_PATH_BYTES 256u

struct image_key {
    dev_t dev;
    ino_t ino;
};

struct image {
    struct image_key key;
    int64_t changed_ns; /* of the file: an inode number may be used again */
    bool is_elf;
    bool is_fixed;    /* not moved when it is loaded */
    bool is_static;   /* asks for no loader */
    bool has_environ; /* defines the variable, or a copy of libc's */
    uint32_t n_functions;
    uint64_t offsets[ENV_N_FUNCTIONS];    /* in the file; 0 = has none */
    uint64_t environ_address;             /* as linked */
    uint64_t first_address, first_offset; /* of the lowest segment */
    char interpreter[IMAGE_PATH_BYTES];
};

struct images;

int images_create(struct images **out);
void images_close(struct images *s);

/** Open @path as @root_fd (of a /proc/PID/root; -1 = our own) sees it. Returns a
 *  descriptor for reading, or -errno. */
int image_open(int root_fd, const char *path);

/** Open what the link @name of folder @dir_fd points to, such as `exe`. */
int image_open_link(int dir_fd, const char *name);

/** What the file @fd is; borrowed until the next call. NULL: it cannot be read. */
const struct image *image_get(struct images *s, int fd);

/** As @fd says. 0 or -errno. */
int image_key_of(int fd, struct image_key *out);

static inline bool image_same(struct image_key a, struct image_key b)
{
    return a.dev == b.dev && a.ino == b.ino;
}

#endif
