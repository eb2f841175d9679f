/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <run_path>/payloads/: segment files with the records of payloads (segment.h).
 *
 * Records are only appended, each file by the process that made it; later only
 * their state words change. A file goes when all of its records are settled; the
 * one being written is cut back to its head instead, so a healthy agent rewrites
 * the same few pages and syncs nothing.
 *
 * What earlier lives (or a killed worker of this one) left is found in two
 * passes: disk_list() looks at names, heads and this life's own records,
 * disk_next() reads the others through, segment by segment, newest first.
 *
 * Thread:  append, list, next and sync: any but the reader, one at a time for
 *          list and next. The rest: any. A lock held for an append of one record
 *          keeps appends apart; the one of the table is never held for more than
 *          a few bytes of I/O.
 * Memory:  some 80 bytes per file, 24 per claimed record until the end of the
 *          second pass.
 * Promise: no failure of the disk is fatal. It is said once with what to do,
 *          tried again after DISK_RETRY_MS, and said once when it is over; files
 *          that are not ours or of a newer version are never touched.
 */
#ifndef RETRIEVER_FORWARDER_DISK_H
#define RETRIEVER_FORWARDER_DISK_H

#include "agent/base/clock.h"
#include "forwarder/segment.h"

#define DISK_FOLDER "payloads"
#define DISK_RETRY_MS 10000u
#define DISK_SEGMENT_MIN (256u << 10)
#define DISK_SEGMENT_MAX (4u << 20)

struct disk; /* opaque */

struct disk_opts {
    int run_dir; /* borrowed */
    uint64_t life;
    uint64_t max_bytes; /* of all files */
    double max_ratio;   /* nothing is written while more of the filesystem is
                           used; 1 = no such limit */
    const struct clock *clock;
};

/** Touches nothing on disk yet. Returns 0 or -ENOMEM. */
int disk_open(struct disk **out, const struct disk_opts *opts);
void disk_close(struct disk *d);

/** Before disk_list(): a payload that is in the store already lies at @p.
 *  Returns 0 or -ENOMEM. */
int disk_claim(struct disk *d, struct disk_place p);

/** First pass. @own_from: number of the first file that the present store made, 0 =
 *  none yet. Records in those that nobody claimed were never committed and are
 *  settled now; in all others they count as found. Returns 0; -EAGAIN: failed
 *  shortly before; -errno (said). */
int disk_list(struct disk *d, uint64_t own_from);

/** From now on records may be appended. Returns the least number that a file of
 *  ours will have; 0 before disk_list() was well. */
uint64_t disk_start(struct disk *d);

struct disk_found {
    struct disk_place place;
    struct segment_record record;
    bool own; /* of this life */
};

/** Second pass: up to @max unsettled records that nobody claimed, bytes checked,
 *  latest first. Returns how many; 0 = that was all. May return fewer than are
 *  left. Each counts as held until it is settled. */
size_t disk_next(struct disk *d, struct disk_found *to, size_t max);
/** The second pass is over. */
bool disk_all_read(struct disk *d);

/** Append one record (@r->check is set). Returns 0 and *place; DISK_FULL: over
 *  max_bytes less @reserved, something must be settled first; DISK_OFF: not now
 *  (said when it began). */
enum disk_rc { DISK_FULL = 1, DISK_OFF };
int disk_append(struct disk *d, struct segment_record *r, const void *body,
                const void *index, uint64_t reserved, struct disk_place *place);

/** Would an append of @n bytes be DISK_FULL? */
bool disk_is_full(struct disk *d, uint64_t n, uint64_t reserved);
/** False: an append now would be DISK_OFF for sure. */
bool disk_is_on(struct disk *d);
/** Do not wait for the next try: there will be none. */
void disk_try_now(struct disk *d);

/** Change a record's state in place. */
void disk_mark(struct disk *d, struct disk_place p, enum record_state s);
/** It is done with; its file goes with the last one. */
void disk_settle(struct disk *d, struct disk_place p);

/** Body and index to @to. Returns 0; -EBADMSG: not the bytes of *@r, or gone;
 *  else -errno: perhaps another time. */
int disk_read(struct disk *d, struct disk_place p,
              const struct segment_record *r, void *to);

/** Make files with unsettled records that were written at least @min_age_ms ago
 *  outlive a power loss. Returns 0 or the first -errno (said; -EIO for as long as
 *  there are some in a file that failed before). May take long; no lock is
 *  held. */
int disk_sync(struct disk *d, unsigned min_age_ms);
/** The record at @p may be lost whatever is synced from now on: its file is gone,
 *  or the disk failed to sync it. Such a file gets no further record. */
bool disk_is_lost(struct disk *d, struct disk_place p);
/** It is not, and the last sync of its file did not fail. */
bool disk_is_safe(struct disk *d, struct disk_place p);

void disk_stats(struct disk *d, struct disk_stats *out);

/** Of any file: all @n bytes. Return 0, -EBADMSG (the file is shorter) or
 *  -errno. */
int disk_pread(int fd, void *to, size_t n, uint64_t at);
int disk_pwrite(int fd, const void *p, size_t n, uint64_t at);

#endif
