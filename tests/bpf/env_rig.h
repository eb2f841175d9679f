/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The feature `env` at work without an agent around it, and children that change
 * their environment when they are told to.
 *
 * Thread:  one.
 * Memory:  fixed.
 * Promise: env_rig_close() and child_end() take away what was made.
 */
#ifndef RETRIEVER_TESTS_BPF_ENV_RIG_H
#define RETRIEVER_TESTS_BPF_ENV_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/types.h>

#include "bpf/env.h"
#include "bpf/event_ring.h"
#include "bpf/features.h"

#define RIG_NAME "RETRIEVER_TEST_VALUE"
#define RIG_TAG "rtv"

struct env_rig {
    struct event_ring ring;
    struct proctags *tags;
    struct feature_opts opts;
    struct feature_env env;
    struct loader_cause cause;
    void *self;
    struct lines lines;
    char text[1 << 16];
    size_t n_text;
    uint64_t n_env; /* EVENT_ENV records so far */
};

void env_rig_open(struct env_rig *r, enum attach_mode best);
/** Where nothing can be attached: .cause says why. */
void env_rig_open_without(struct env_rig *r);
void env_rig_close(struct env_rig *r);

/** Pass on records, do what is due. Returns when neither has anything for
 *  @quiet_ms. */
void env_rig_settle(struct env_rig *r, int quiet_ms);

/** Records as life.bpf.c makes them, from /proc. */
void env_rig_exec(struct env_rig *r, pid_t pid);
void env_rig_fork(struct env_rig *r, pid_t parent, pid_t child);
void env_rig_exit(struct env_rig *r, pid_t pid, uint64_t start_ns);
uint64_t env_rig_start_ns(pid_t pid);

/** Value of the tag RIG_TAG of @pid, or NULL. Borrowed until the next call. */
const char *env_rig_value(struct env_rig *r, pid_t pid);

/** Collect into text. */
void env_rig_collect(struct env_rig *r, bool last);

struct child {
    pid_t pid;
    int in, out;
};

/** Start @argv with the variables @envp, below @root (NULL = ours): returns behind
 *  its exec. */
void child_start(struct child *c, const char *root, const char *const argv[],
                 const char *const envp[]);
void child_go(struct child *c);
/** What getenv() says: bytes into @out with a NUL; false = nothing. */
bool child_tells(struct child *c, char *out, size_t size);
/** A number that it writes before that. */
long child_number(struct child *c);
void child_end(struct child *c);

#endif
