/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <run_path>/stamps: the seconds that points of ours have used, so that no later
 * life replaces one at the intake. The same bytes in a memfd hand them to the
 * next program of an upgrade.
 *
 * A file is a magic and version, then records of 32 bytes with a checksum each: a
 * second of a part, or a second of one series. It only grows, by one write for a
 * part, until it is written anew with what is still of use. Of the oldest format
 * (16 bytes: the last stamp) the stamp is read.
 *
 * Thread:  struct stamps: read before the first worker, then never changed.
 *          struct stamps_file: the encoder.
 * Memory:  at most STAMPS_MAX_POINTS and STAMPS_MAX_SECONDS, the newest, of the
 *          last STAMPS_LOOK_BACK_S.
 * Promise: a kill leaves whole records and perhaps a torn one, which is skipped. A
 *          file of a newer format is left as it is, and nothing is remembered.
 *          Not synced: after a power loss a life goes on as without the file.
 */
#ifndef RETRIEVER_AGENT_STAMPS_H
#define RETRIEVER_AGENT_STAMPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "aggregator/used.h"

#define STAMPS_FILE "stamps"
#define STAMPS_MAX_POINTS 65536u
#define STAMPS_MAX_SECONDS 4096u
#define STAMPS_LOOK_BACK_S 14400 /* the most that any intake looks back */

/** What earlier lives used. All zero: nothing. */
struct stamps {
    uint32_t *seconds_s; /* ascending, unique */
    size_t n_seconds;
    struct used_point *points; /* ascending, unique */
    size_t n_points;
    int64_t last_s; /* latest of seconds_s; 0 = none */
    bool foreign;   /* of a newer format: not to be written */
};

/** For struct agg_config; borrows from @s. */
void stamps_used(const struct stamps *s, struct used_seconds *out);

void stamps_fini(struct stamps *s);

/** Read <run_path>/stamps; what is wrong with it is logged, and is nothing then.
 *  @now_s: wall clock, by which old records are left out; 0 = none is. */
void stamps_load(struct stamps *out, int run_dir, int64_t now_s);

/** The same from any descriptor that can be read at an offset. Returns 0,
 *  -EPROTONOSUPPORT (another format), -EBADMSG, -ENOMEM or what reading said;
 *  @out is untouched then. */
int stamps_read(struct stamps *out, int fd, int64_t now_s);

/** Write all of it to @fd from offset 0 on. Returns 0 or -errno. */
int stamps_write(const struct stamps *s, int fd);

/** What @earlier has and what the region of @agg remembers: with it, whoever goes on
 *  with an empty region knows what this one does. The reader must be at rest.
 *  Returns 0 or -ENOMEM. */
struct agg;
int stamps_join(struct stamps *out, const struct stamps *earlier,
                const struct agg *agg);

/* ---- While serving ------------------------------------------------------ */

/** The file, for adding to it. Zero-initialise; run_dir -1: nothing is kept. */
struct stamps_file {
    int run_dir;
    int fd; /* valid when at > 0 */
    uint64_t at;
    uint64_t compact_at; /* this long: to be written anew */
    int64_t last_s;      /* last part that was added ... */
    uint32_t last_shift; /* ... and how far it reached */
};

/** Add the closed part @seq of @agg with its stamps @stamp_s to @stamp_s +
 *  @max_shift. Returns 0 or -errno; the same part may be added again. */
int stamps_file_add(struct stamps_file *f, const struct agg *agg, uint64_t seq,
                    int64_t stamp_s, uint32_t max_shift);

void stamps_file_close(struct stamps_file *f);

#endif
