/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kernel programs know of the watched variables of processes: written by whoever
 * runs exec, fork or setenv(), so it is there before what that process sends, and
 * still there when it is gone. It is the answer for those that the feature `env` has
 * not heard of yet; the feature goes by its own records.
 *
 * Places are few and processes many: a process loses its place to one that is younger
 * by a multiple of ENV_TABLE_PLACES numbers. By then it is usually known otherwise.
 *
 * Thread:  one writer (the helper thread) for what is mapped and the rules; readers
 *          anywhere. No lock, no system call, and nobody waits.
 * Memory:  4 MiB in the kernel. Without it, as much address space, of zeroes. Rules:
 *          ENV_TABLE_MAX_RULES of them at most, each while the table lasts.
 * Promise: a look-up returns what was written last, or, while that is being replaced,
 *          nothing; never a mixture, never what is another process'.
 */
#ifndef RETRIEVER_BPF_ENV_TABLE_H
#define RETRIEVER_BPF_ENV_TABLE_H

#include "bpf/env_tags.h"
#include "bpf/environ.h"
#include "bpf/proctags.h"

#define ENV_TABLE_MAX_RULES 64u

struct env_table;

/** Returns 0 or -errno. Empty. */
int env_table_create(struct env_table **out);
void env_table_close(struct env_table *t);

/* ---- The writer --------------------------------------------------------- */

/** Show readers the map @table_fd, an array of struct env_place, and @pids_fd, an
 *  array of tgids (of 64 bits, which is what the kernel lays out) by the number in our own pid namespace (-1: that is the same
 *  number). Both stay the caller's. Returns 0 or -errno; empty then. */
int env_table_map(struct env_table *t, int table_fd, int pids_fd);
/** Empty again. */
void env_table_unmap(struct env_table *t);

/** What values mean from now on. Before the first there are no tags. */
void env_table_set_rules(struct env_table *t, const struct env_rules *rules);

/* ---- Readers ------------------------------------------------------------ */

/** Changes whenever what is said of this number may have. */
uint64_t env_table_stamp(const struct env_table *t, enum proctags_space space,
                         uint32_t number);

enum env_table_rc {
    ENV_TABLE_NOTHING = 1, /* nothing is known that is newer */
    ENV_TABLE_UNSURE       /* something newer is, and not what */
};

/** Tags of the process with that number, if they are newer than @since_ns, into @out
 *  (PROCTAGS_MAX_BYTES). Returns 0 (*n is set, 0 = none) or enum env_table_rc. */
int env_table_get(const struct env_table *t, enum proctags_space space,
                  uint32_t number, uint64_t since_ns, char *out, size_t *n);

/** Is anything newer known? */
bool env_table_is_newer(const struct env_table *t, enum proctags_space space,
                        uint32_t number, uint64_t since_ns);

/** The place of the process, as it is at one moment. False: it has none, or something
 *  in it is unsure. */
bool env_table_read(const struct env_table *t, enum proctags_space space,
                    uint32_t number, struct env_place *out);

/** The value of the variable @i in what was read. */
struct env_text env_place_value(const struct env_place *p, uint32_t i);

/** What the table says of a process since @since_ns; *as_of_ns is when. False:
 *  nothing newer, or nothing sure; both are untouched. */
bool env_table_values(const struct env_table *t, enum proctags_space space,
                      uint32_t number, uint64_t since_ns,
                      struct environ_values *out, uint64_t *as_of_ns);

#endif
