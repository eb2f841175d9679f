/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What /proc says of one process.
 *
 * Thread:  the helper thread.
 * Memory:  none but stack; of the list of mappings PROCFS_MAX_MAPS_BYTES are read.
 * Promise: a folder that is open stays that process: when it is gone everything
 *          below it fails, and never belongs to the next one of that number.
 */
#ifndef RETRIEVER_BPF_PROCFS_H
#define RETRIEVER_BPF_PROCFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PROCFS_MAX_MAPS_BYTES (8u << 20)
/* Of the start of a process, as /proc tells it: records tell it to the ns. */
#define PROCFS_TICK_NS 10000000u

struct procfs_map {
    uint64_t start, end, offset;
    uint64_t ino;
    bool may_run;
    const char *path; /* "" = none; borrowed during the call */
};

/** Return false to stop. */
typedef bool procfs_map_fn(void *arg, const struct procfs_map *m);

/** Folder of @pid; a descriptor or -errno. */
int procfs_open(uint32_t pid);

/** CLOCK_BOOTTIME at its start, in ticks; also of a task, by its folder. 0 or
 *  -errno. */
int procfs_start(int proc_fd, uint64_t *ticks);

/** Is there a process @pid? */
bool procfs_lives(uint32_t pid);

/** Mappings of files, in order. 0 or -errno. */
int procfs_maps(int proc_fd, procfs_map_fn *fn, void *arg);

/** One line of `maps` (changed). Returns false for what is no mapping of a file. */
bool procfs_parse_map(char *line, struct procfs_map *out);

/** Field 22 of a `stat` text. Returns false when there is none. */
bool procfs_parse_start(const char *text, uint64_t *ticks);

/** Does the name of the file sound like a C library? */
bool procfs_is_libc(const char *path);

/** The mapped file itself, also where its name leads elsewhere: a descriptor, or
 *  -errno. */
int procfs_open_map(int proc_fd, const struct procfs_map *m);

/** Inode of our own pid namespace; 0 = not known. */
uint32_t procfs_pidns_inode(void);

/** Call @fn with each process there is. 0 or -errno. */
int procfs_each(void (*fn)(void *arg, uint32_t pid), void *arg);

#endif
