/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seconds that lives of one identity on this host took, whatever became of
 * them, without configuration: a small file in memory (/dev/shm) that belongs to
 * this user and outlives every process, not the machine.
 *
 * Thread:  opened and closed by the keeper; seconds_claim(): the reader, or whoever
 *          has its place. Any number of processes at once.
 * Memory:  by value; a file of at most 64 KiB for each identity and intake. Those
 *          that nobody has open and nobody wrote to for two hours are removed.
 * Promise: a second is given to one life, as long as the file knows it: more than an
 *          hour. Never waits for another process. Whatever the file says, the worst
 *          is that seconds count as taken: a file, folder or link of another user is
 *          not followed, and of a wrong content each word counts for one second only.
 */
#ifndef RETRIEVER_AGENT_SECONDS_H
#define RETRIEVER_AGENT_SECONDS_H

#include "aggregator/agg.h"

/** A second has its place in the file, modulo this. */
#define SECONDS_SLOTS 4096u
#define SECONDS_OURS 64u

struct seconds {
    int fd; /* -1: nothing is kept */
    uint64_t life;
    uint32_t ours_s[SECONDS_OURS]; /* known to be ours, modulo */
};

/** Have the file of @hash (identity_hash()) for the life @life, or none: @s is valid in
 *  any case. Returns 0 or the -errno of the last place. @now_s: wall clock. */
int seconds_open(struct seconds *s, uint64_t hash, uint64_t life,
                 int64_t now_s);
/** The same in the first of the folders @places that can be used; NULL is none. */
int seconds_open_in(struct seconds *s, const char *const places[], size_t n,
                    uint64_t hash, uint64_t life, int64_t now_s);

/** Another life has the file open. */
bool seconds_is_shared(const struct seconds *s);

/** For struct agg_config; @arg: the struct seconds. */
enum agg_claim seconds_claim(void *arg, int64_t t_s, bool steady);

void seconds_close(struct seconds *s);

#endif
