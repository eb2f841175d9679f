/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thing that the kernel tells us about: what runs behind a row of
 * `retriever ebpf status`. Features do not know each other, nor who calls them.
 *
 * Thread:  the helper thread ("kernel"), for every call. It may be slow: read maps,
 *          /proc and ELF files.
 * Memory:  each feature's own, bounded by its options.
 * Promise: a feature that cannot run says why and is off; nothing it does can end
 *          the process or hold up datagrams.
 */
#ifndef RETRIEVER_BPF_FEATURE_H
#define RETRIEVER_BPF_FEATURE_H

#include <linux/capability.h>
#include <stdbool.h>
#include <stdint.h>

#include "bpf/events.h"
#include "bpf/lines.h"
#include "bpf/loader.h"

struct btf;
#define FEATURE_CAP(cap) (UINT64_C(1) << (cap))
/** To read maps (before Linux 6.0), and to find the names of cgroups. */
#define FEATURE_CAPS_READ                                                      \
    (FEATURE_CAP(CAP_BPF) | FEATURE_CAP(CAP_DAC_READ_SEARCH))

struct cgroups;
struct feature_opts; /* features.h: options of all features */

/** What all features share. Borrowed until close(). */
struct feature_env {
    const struct feature_opts *opts;
    int events_fd; /* the ring that EVENT_* records go to; -1 = none */
    int events_control_fd;
    int events_stats_fd;     /* event_stats */
    int watched_fd;          /* life_watched (life.h); -1 = none */
    struct cgroups *cgroups; /* names of cgroups */
    /* The kernel's, during open(). May be NULL: probe.h, loader_open(). */
    const struct btf *types;
    const char *types_path; /* a file with those that programs name */
    uint32_t own_tgid;      /* of the agent's worker, initial namespace */
    uint32_t workload_pid;  /* of the job of `exec`; 0 = none */
};

struct feature {
    const char *name;      /* "runq" */
    const char *what;      /* one line for people */
    bool by_cgroup;        /* ids of cgroups are in its programs or maps: it is
                              closed and opened again when these are to be of
                              another hierarchy */
    uint64_t capabilities; /* FEATURE_CAP(...)s that it needs behind open(), if
                               it has them; the thread gives up all others */
    /** Load and attach. Returns 0 (*self is set), LOADER_REFUSED (@cause filled;
     *  it may have switched to a fallback instead: then 0, and @cause says what is
     *  missing, and what is left) or -errno. @cause comes empty; without a why, a refusal or a
     *  fallback is for want of the ring, or map, that @env lacks. */
    int (*open)(void **self, const struct feature_env *env,
                struct loader_cause *cause);
    /** A record of the ring, whole and of the length of its type. NULL: none. */
    void (*event)(void *self, const struct event_hdr *ev);
    /** Write what was measured since the last call. @last: all that is left; the
     *  stop waits for it, and detaching a program may take longer than that (a grace
     *  period of RCU), so it is better left to close(). */
    void (*collect)(void *self, struct lines *out, bool last);
    /** Do what has been put off until @now_ns (CLOCK_MONOTONIC), and say when to come
     *  again: to be called behind open(), event() and collect(), too. UINT64_MAX:
     *  nothing is put off. NULL: never is. */
    uint64_t (*due)(void *self, uint64_t now_ns);
    /** Detach and free; NULL-safe. */
    void (*close)(void *self);
};

/** Have the three maps of an object that includes events.bpf.h be the agent's.
 *  Returns 0 or -errno (-ENOENT: it has none of that name, or there is no ring). */
struct bpf_object;
int feature_share_events(struct bpf_object *o, const struct feature_env *env);

#endif
