/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cgroups with processes that want a CPU, and the feature "runq" that watches them.
 *
 * Thread:  one, and the processes that it starts.
 * Memory:  lines in a buffer that grows; processes and cgroups in fixed arrays.
 * Promise: runq_rig_close() ends every process and removes every cgroup that was
 *          made, after a failure too; what a killed test left behind is removed by
 *          the next.
 */
#ifndef RETRIEVER_TESTS_BPF_RUNQ_RIG_H
#define RETRIEVER_TESTS_BPF_RUNQ_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bpf/cgroup.h"
#include "bpf/event_ring.h"
#include "bpf/features.h"
#include "bpf/runq.h"

#define RIG_MAX 32
#define VICTIM_ID                                                              \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HOG_ID                                                                 \
    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define SHORT_ID                                                               \
    "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
#define VICTIM "container_id:" VICTIM_ID
#define HOG "container_id:" HOG_ID

struct runq_rig {
    struct cgroups *cgroups;
    struct event_ring ring;
    struct feature_opts opts;
    struct feature_env env;
    void *self; /* of runq_feature; NULL = not open */
    uint64_t n_events[EVENT_N_TYPES];
    char top[40];   /* ours, below the mount of the hierarchy */
    char back[512]; /* the v1 cpu cgroup that we came from; "" = none */
    char dirs[RIG_MAX][512];
    size_t n_dirs;
    _Atomic uint64_t *late_ns; /* shared with the process that is late */
    pid_t pids[RIG_MAX];
    size_t n_pids;
    char *text;
    size_t n_text;
};

/** Ends the program as skipped, or as failed, where it cannot work (require.h). */
void runq_rig_require(void);

/** @hierarchy as for cgroups_use(). Where the cpu controller is of v1, all that follows
 *  runs in a group that outweighs all other load. */
void runq_rig_open(struct runq_rig *r, const char *hierarchy);
void runq_rig_close(struct runq_rig *r);

/** Open, let all records through for @ms, collect, close the feature. */
void runq_rig_start(struct runq_rig *r);
void runq_rig_pass(struct runq_rig *r, int ms);
void runq_rig_collect(struct runq_rig *r, bool last);
void runq_rig_end(struct runq_rig *r);

/** Folder of a new cgroup @name of the hierarchy @in (NULL: the one in use), or of
 *  one that the rig made before. */
const char *runq_rig_cgroup(struct runq_rig *r, const char *in,
                            const char *name);
void runq_rig_write(const char *dir, const char *file, const char *text);

/** May use the CPU for 20 ms in each 100 ms who is in the container @name of v2.
 *  Returns the second folder to be in; NULL = none. */
const char *runq_rig_quota(struct runq_rig *r, const char *name);

/** The hierarchy is mounted. */
bool runq_rig_has(const char *hierarchy);

enum work {
    WORK_DUTY,  /* 4 ms of work every 10 ms */
    WORK_HOG,   /* never sleeps */
    WORK_CALLS, /* never sleeps, in system calls that take long */
    WORK_LATE   /* sleeps until a time, and adds up how late that ended */
};

/** A process on CPU @cpu with priority @nice in the cgroups @dirs (two at most, NULL
 *  = none). Returns when it runs there. */
pid_t runq_rig_spawn(struct runq_rig *r, enum work work, int cpu, int nice,
                     const char *dir, const char *dir2);
void runq_rig_kill(struct runq_rig *r);

/** Sum of the values of metric @name whose tags contain @tags, each, separated by
 *  commas. Distributions: the number of values. */
double runq_rig_sum(const struct runq_rig *r, const char *name,
                    const char *tags);

/** Percentile 0..100 of a distribution. */
double runq_rig_percentile(const struct runq_rig *r, const char *name,
                           const char *tags, double p);

/** What a process with WORK_LATE has added up so far; there may be one. */
uint64_t runq_rig_late_ns(const struct runq_rig *r);

/** ns that @pid has waited for a CPU, by the scheduler. */
uint64_t runq_rig_waited_ns(pid_t pid);

uint64_t runq_rig_now_ns(void);

#endif
