/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uprobes on C libraries, and how long each stays. A probe holds the file, the file
 * holds its mount, and a mount that is held cannot be unmounted: so a probe on
 * another filesystem than ours goes with the last process that uses it, at once.
 *
 * Thread:  the helper thread.
 * Memory:  max_inodes places, ATTACH_MAX_PINS uses by processes.
 * Promise: one probe for each inode, in whichever of three ways the kernel allows.
 *          What does not work for a file is remembered, not tried for each of its
 *          processes.
 */
#ifndef RETRIEVER_BPF_ENV_ATTACH_H
#define RETRIEVER_BPF_ENV_ATTACH_H

#include "bpf/image.h"
#include "bpf/loader.h"

#define ATTACH_MAX_PINS 65536u

/** Best first. */
enum attach_mode {
    ATTACH_MULTI,  /* one link for a file; CAP_BPF and CAP_PERFMON */
    ATTACH_PERF,   /* a perf event for each function; CAP_SYS_ADMIN */
    ATTACH_RETURN, /* two for each: this kernel's programs cannot sleep */
    ATTACH_N_MODES
};

struct attach_opts {
    struct env_config config;
    int events_fd, control_fd, stats_fd;
    int table_fd; /* env_table; -1 = nobody has one */
    uint32_t max_inodes;
    enum attach_mode best; /* better ones are not tried */
};

enum attach_rc {
    ATTACH_MADE = 1, /* this call attached it: earlier calls went unseen */
    ATTACH_BAD,      /* failed for this file, now or before */
    ATTACH_FULL      /* no place */
};

struct attach;

/** Load. @types: as for loader_open(), during the call. Returns 0, LOADER_REFUSED
 *  (@cause filled) or -errno. */
int attach_create(struct attach **out, const struct attach_opts *o,
                  const char *types, struct loader_cause *cause);
void attach_close(struct attach *a);

/** Process @pid uses the file @fd, which is @im. Returns 0, enum attach_rc or
 *  -errno. */
int attach_use(struct attach *a, int fd, const struct image *im, uint32_t pid);

/** @child uses what @parent uses. */
void attach_fork(struct attach *a, uint32_t parent, uint32_t child);

/** @pid uses nothing any more. */
void attach_release(struct attach *a, uint32_t pid);

/** Around the attach_use() of a process with a new program: what it used before and
 *  does not now is released, what it uses still is never let go meanwhile. */
void attach_renew_begin(struct attach *a, uint32_t pid);
void attach_renew_end(struct attach *a, uint32_t pid);

/** Between these, attach_use() for every process there is: what nobody has used by
 *  then is let go, on our own filesystem too, and failures are forgotten. */
void attach_scan_begin(struct attach *a);
void attach_scan_end(struct attach *a);

/** attach_release() whoever @lives says is gone. */
void attach_sweep(struct attach *a, bool (*lives)(uint32_t pid));

struct attach_counts {
    uint32_t n_attached;
    uint64_t n_errors, n_full; /* since the beginning */
};
void attach_count(const struct attach *a, struct attach_counts *out);

/** Mode in use, and why attaching failed last ("" = it did not). */
enum attach_mode attach_mode_of(const struct attach *a);
const char *attach_mode_name(enum attach_mode m);
const struct loader_cause *attach_cause(const struct attach *a);

#endif
