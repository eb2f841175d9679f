/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tags of the process that sent a datagram: written by the thread that learns them,
 * read by the one that receives.
 *
 * A process has two numbers: `tgid` in the initial pid namespace, which the tap's
 * records carry, and `pid` in ours, which SCM_CREDENTIALS carries. They are two
 * spaces: each look-up says which one it means.
 *
 * A process that nobody has told of is asked for: the look-up leaves its number for
 * the writer, who finds out and sets tags, or none. Until then it has none here; what
 * kernel programs have written of it is in env_table.h, which lies beside this.
 *
 * Thread:  one writer, one reader; no lock, and neither ever waits for the other.
 * Memory:  PROCTAGS_MAX_IDS numbers and PROCTAGS_MAX_PROCS processes with tags, 3.5
 *          MiB of address space that is touched as far as it is used.
 * Promise: a look-up returns the tags that were set last, or, while they are being
 *          replaced, those before or none; never a mixture, never those of another
 *          process. Tags never set again stay until they are removed.
 */
#ifndef RETRIEVER_BPF_PROCTAGS_H
#define RETRIEVER_BPF_PROCTAGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROCTAGS_MAX_BYTES 640u
#define PROCTAGS_MAX_PROCS 4096u
#define PROCTAGS_MAX_IDS 8192u /* of either kind */
#define PROCTAGS_MAX_ASKED 256u

enum proctags_space { PROCTAGS_TGID, PROCTAGS_PID, PROCTAGS_N_SPACES };

struct proctags;
struct env_table;

int proctags_create(struct proctags **out);
void proctags_close(struct proctags *t);

/** Made and closed with it. */
struct env_table *proctags_env(struct proctags *t);

/** Of tags of @n bytes, so many as are whole and have room. */
size_t proctags_whole(const char *tags, size_t n);

/* ---- The writer --------------------------------------------------------- */

enum proctags_rc { PROCTAGS_FULL = 1 };

/** Tags "a:b,c:d" of @n bytes (0: it is known and has none) for the process with these
 *  numbers; 0 = it has none of that kind. Longer ones than PROCTAGS_MAX_BYTES are
 *  cut behind a whole tag. @as_of_ns (CLOCK_MONOTONIC): they heed what the process
 *  did until then. Returns 0, or PROCTAGS_FULL: it has none. */
int proctags_set(struct proctags *t, uint32_t tgid, uint32_t pid,
                 const char *tags, size_t n, uint64_t as_of_ns);

/** Forget the process (before its numbers are given to another one): when its number is looked up again it is asked for. */
void proctags_remove(struct proctags *t, uint32_t tgid, uint32_t pid);

/** Calls @fn with each number that was asked for since the last call. */
typedef void proctags_asked_fn(void *arg, enum proctags_space space,
                               uint32_t number);
void proctags_asked(struct proctags *t, proctags_asked_fn *fn, void *arg);

uint32_t proctags_n(const struct proctags *t);

/* ---- The reader --------------------------------------------------------- */

#define PROCTAGS_UNKNOWN                                                       \
    UINT64_MAX /* a generation: nobody has told of it yet */

/** Changes whenever anything in the table may have. */
uint64_t proctags_version(const struct proctags *t);

/** Tags of the process with that number into @out (PROCTAGS_MAX_BYTES); returns
 *  their length, 0 = none. *generation (may be NULL) changes whenever the tags of
 *  this number may have, so that what was made of them can be kept;
 *  PROCTAGS_UNKNOWN: it was asked for. *as_of_ns (may be NULL): as it was set, or
 *  older; 0 = unknown. */
size_t proctags_get(struct proctags *t, enum proctags_space space,
                    uint32_t number, char *out, uint64_t *generation,
                    uint64_t *as_of_ns);

/** Ask for a process that is known, too: it has changed since. */
void proctags_ask(struct proctags *t, enum proctags_space space,
                  uint32_t number);

#endif
