/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What we know of the watched variables of processes: the rules by which an event, a
 * look at the live environment and the one at start replace each other.
 *
 * Thread:  one.
 * Memory:  at most ENV_STATE_MAX_PROCS processes and ENV_STATE_MAX_BYTES of values;
 *          what finds no room is unknown, and counted.
 * Promise: pure: time and bytes in, state out. A process is its number and its start,
 *          so numbers that are used again join nothing. What is older than what is
 *          known is ignored.
 */
#ifndef RETRIEVER_BPF_ENV_STATE_H
#define RETRIEVER_BPF_ENV_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/events.h"

#define ENV_STATE_MAX_PROCS 65536u
#define ENV_STATE_MAX_BYTES (8u << 20)
#define ENV_STATE_KEEP_NS UINT64_C(30000000000) /* behind the exit */

enum env_known { ENV_UNKNOWN, ENV_IS_UNSET, ENV_IS_SET };
enum env_source {
    ENV_FROM_NOWHERE,
    ENV_FROM_START,
    ENV_FROM_LIVE,
    ENV_FROM_RUNTIME
};

struct env_proc {
    uint32_t tgid; /* initial pid namespace; 0 = not known */
    uint32_t pid;  /* our own; 0 = not visible there */
    uint64_t start_ticks;
    uint64_t cgid;       /* 0 = not known */
    uint64_t gone_ns;    /* 0 = lives */
    uint64_t generation; /* grows with each change of a value */
    /* Of whoever fills it: what the process did until then is known; when it was
     * last looked at. */
    uint64_t as_of_ns, looked_ns;
    struct env_value {
        enum env_known known;
        enum env_source source;
        uint64_t ts_ns;
        uint32_t n;
        char *text; /* not ended by NUL; NULL unless ENV_IS_SET */
    } v[ENV_MAX_NAMES];
    /* private */
    struct env_proc *next_tgid, *next_pid;
};

/** Who: either number may be 0. @start_ns: CLOCK_BOOTTIME. */
struct env_id {
    uint32_t tgid, pid;
    uint64_t start_ns;
};

enum env_state_rc {
    ENV_SAME = 1, /* known already, or older than what is known */
    ENV_LOOK,     /* only a look at the process can tell */
    ENV_FULL      /* no room; counted */
};

struct env_state;

typedef void env_proc_fn(void *arg, struct env_proc *p);

/** @gone (may be NULL) sees each process before it is forgotten. Returns 0 or
 *  -ENOMEM. */
int env_state_create(struct env_state **out, env_proc_fn *gone, void *arg);
void env_state_close(struct env_state *s);

/** The process, made if need be. NULL: no room. */
struct env_proc *env_state_get(struct env_state *s, const struct env_id *id);
/** NULL: not known. */
struct env_proc *env_state_find(struct env_state *s, const struct env_id *id);
/** By one number alone: whoever has it now. */
struct env_proc *env_state_by_tgid(struct env_state *s, uint32_t tgid);
struct env_proc *env_state_by_pid(struct env_state *s, uint32_t pid);

/** Forget it, before its time. */
void env_state_remove(struct env_state *s, struct env_proc *p);

/** @text of @n bytes for ENV_IS_SET. Returns 0 (changed), ENV_SAME or ENV_FULL. */
int env_state_set(struct env_state *s, struct env_proc *p, uint32_t name,
                  enum env_source source, uint64_t ts_ns, enum env_known known,
                  const char *text, size_t n);

/** A record, whole. Returns 0 (*p changed), ENV_SAME, ENV_LOOK (*p is set) or
 *  ENV_FULL. ENV_CLEAR: 0 when any has changed. */
int env_state_event(struct env_state *s, const struct event_env *e,
                    struct env_proc **p);

/** @child begins with what @parent has. NULL: that is nothing. A process that had
 *  its number is forgotten. */
struct env_proc *env_state_fork(struct env_state *s, const struct env_id *child,
                                uint32_t parent_tgid, uint64_t cgid);

/** A new program: what is known is so no more. NULL: not known anyway; whoever had
 *  its number before is forgotten. */
struct env_proc *env_state_exec(struct env_state *s, const struct env_id *id,
                                uint64_t ts_ns);

void env_state_exit(struct env_state *s, const struct env_id *id,
                    uint64_t now_ns);

/** Forget what exited ENV_STATE_KEEP_NS ago. */
void env_state_expire(struct env_state *s, uint64_t now_ns);

/** @fn may remove the one it gets. */
void env_state_each(struct env_state *s, env_proc_fn *fn, void *arg);

size_t env_state_n(const struct env_state *s);
uint64_t env_state_n_full(const struct env_state *s);

#endif
