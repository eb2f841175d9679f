/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of disk.h: the table of files and their use (disk.c), new records
 * (disk_append.c), what earlier processes left (disk_scan.c).
 *
 * Thread:  the table under disk->lock, which disk_lock'ed functions name; the
 *          cursor of the scan belongs to whoever calls disk_list and disk_next.
 * Memory:  see disk.h.
 */
#ifndef RETRIEVER_FORWARDER_DISK_PRIVATE_H
#define RETRIEVER_FORWARDER_DISK_PRIVATE_H

#include <pthread.h>

#include "forwarder/disk.h"

enum segment_phase {
    SEGMENT_CLAIMED, /* known from the store, not seen yet */
    SEGMENT_WAITING, /* seen; its records are read in the second pass */
    SEGMENT_READY    /* goes with its last unsettled record */
};

struct segment_file {
    uint64_t number; /* of its name */
    uint64_t n_bytes;
    uint64_t n_synced_bytes;
    uint64_t unsynced_since_ns;
    uint64_t life;
    uint32_t n_held; /* unsettled records that the store has or will have */
    enum segment_phase phase;
    bool damaged;     /* goes by another name when nothing in it is held */
    bool sync_failed; /* the last one; the next may be well */
    bool broken;      /* a sync failed at the disk, which says so only once */
};

struct disk {
    struct disk_opts opts;
    uint32_t max_segment_bytes;
    pthread_mutex_t append_lock; /* before the other one */
    pthread_mutex_t lock;

    /* under the lock */
    int folder;                 /* -1: not open */
    bool folder_changed;        /* a name was added since it was synced */
    struct segment_file *files; /* ascending numbers */
    size_t n_files, cap_files;
    uint64_t n_bytes;
    uint64_t next_number;
    uint64_t active; /* number of the file being written; 0 = none */
    int active_fd;
    uint64_t cached; /* number of the file used last; 0 = none */
    int cached_fd;
    bool cached_readonly;
    bool listed;
    bool started; /* records may be appended */
    bool failing;
    uint64_t retry_ns;
    bool marks_failing;
    uint64_t n_damaged_bytes;

    struct disk_place *claims; /* sorted by disk_list() */
    size_t n_claims, cap_claims;

    /* the cursor of the second pass */
    uint64_t reading; /* number; 0 = none begun */
    uint64_t reading_at;
    bool all_read;
};

#define DISK_NAME_BYTES 40

void disk_name(uint64_t number, char name[DISK_NAME_BYTES]);

/** The folder, made if need be. Returns 0 or -errno. Locked. */
int disk_open_folder(struct disk *d);

/** Locked. NULL = unknown. */
struct segment_file *disk_find(struct disk *d, uint64_t number);
/** Locked. A new row, or the one that is there. NULL = no memory. */
struct segment_file *disk_add(struct disk *d, uint64_t number);

/** Locked. A descriptor to use before the lock is given back; -errno. */
int disk_fd(struct disk *d, uint64_t number, bool to_write);

/** Locked. Nothing in it is held any more: it goes. */
void disk_release(struct disk *d, struct segment_file *f);

/** Locked. The disk refused something: said once, tried again later. */
void disk_failed(struct disk *d, int rc, const char *what);

/** Locked. Index of the first file that is not before @number. */
size_t disk_lower_bound(const struct disk *d, uint64_t number);
/** Locked. Nothing more is written to the active file. */
void disk_drop_active(struct disk *d);
struct iovec;
/** All of @n_v pieces (which are used up). Returns 0 or -errno. */
int disk_pwritev(int fd, struct iovec *v, int n_v, uint64_t at);

static inline uint64_t disk_now_ns(const struct disk *d)
{
    return clock_mono_ns(d->opts.clock);
}

/** Locked. It takes something again. */
void disk_works(struct disk *d);

#endif
