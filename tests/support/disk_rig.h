/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A payload store with a disk: lives, successors and what they find, for tests.
 *
 * Thread:  one.
 * Memory:  a region of 16 MiB; files under a folder of its own in /tmp.
 */
#ifndef RETRIEVER_TESTS_SUPPORT_DISK_RIG_H
#define RETRIEVER_TESTS_SUPPORT_DISK_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include "forwarder/segment.h"
#include "forwarder/store.h"

#define KIB 1024u
#define NOW_S INT64_C(1800000000)

struct disk_rig {
    char path[64]; /* run_path */
    int run_dir;
    struct region r;
    struct store *s;
    size_t max_bytes;
    uint64_t life;
    double max_ratio;
    struct test_clock clock;
};

/** A first life of a store of @max_bytes; short ones prove each commit. */
void rig_begin(struct disk_rig *f, size_t max_bytes);
/** The same in a folder that is there. */
void rig_begin_at(struct disk_rig *f, const char *path, size_t max_bytes);
/** The folder goes, too. */
void rig_end(struct disk_rig *f);

/** Keeper and worker are killed: what is left is the disk, and not looked at. */
void rig_kill_both(struct disk_rig *f);
/** All that is on disk is looked through. */
void rig_look(struct disk_rig *f);
/** Both. */
void rig_next_life(struct disk_rig *f);
/** The same life goes on in a region of its own, not looked at. */
void rig_fresh_region(struct disk_rig *f);
/** The worker is killed; its successor has not looked at the disk. */
void rig_successor(struct disk_rig *f);
void rig_pass_seconds(struct disk_rig *f, unsigned n);

/** A draft of @n times @fill; one goes to disk, or several; one is frozen. */
struct payload_draft rig_draft(struct disk_rig *f, enum payload_kind kind,
                               size_t n, char fill, uint64_t n_samples);
void rig_write_drafts(struct disk_rig *f, struct payload_draft *d, size_t n);
void rig_put(struct disk_rig *f, enum payload_kind kind, size_t n, char fill,
             uint64_t n_samples);
/** What a stop does: all goes to disk, is synced, and is counted. */
void rig_save(struct disk_rig *f);
/** The next payload is this one; it is delivered. */
struct payload *rig_take(struct disk_rig *f, size_t n, char fill,
                         uint64_t n_samples);
void rig_deliver(struct disk_rig *f, size_t n, char fill, uint64_t n_samples);

struct store_stats rig_stats(struct disk_rig *f);
uint64_t rig_dropped(const struct delivery_counts *c);
void rig_assert_balanced(struct disk_rig *f);

/** Files in payloads/; @name (may be NULL) is the last one's. */
unsigned rig_n_files(struct disk_rig *f, char name[400]);
void rig_remove_all(const char *path);
/** One bit of a file changes. */
void rig_flip(const char *path, off_t at);

#endif
