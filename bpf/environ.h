/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watched variables of another process, as it would see them by getenv() this
 * moment; or as it was started with.
 *
 * Thread:  the helper thread. 0.1 to 0.5 ms; 5 ms for a big program's first time.
 * Memory:  the caller's struct environ_values.
 * Promise: needs no kernel program, only the right to read the process' memory
 *          (CAP_SYS_PTRACE, or a descendant of our own user). Strings of variables
 *          that are not watched are overwritten before the call returns. A process
 *          that changes its environment meanwhile, or that has damaged it, costs a
 *          result, no more.
 */
#ifndef RETRIEVER_BPF_ENVIRON_H
#define RETRIEVER_BPF_ENVIRON_H

#include "bpf/image.h"
#include "bpf/watch.h"

#define ENVIRON_MAX_VALUE 4096u /* longer values are cut */
/* What exec allows; but a process may say later that its environment lies in terabytes
 * of nothing. */
#define ENVIRON_MAX_BYTES (6u << 20)
#define ENVIRON_MAX_ENTRIES 16384u /* of one environment */

struct environ_values {
    /* Live: no environment at all. It was cleared, or a new program has not got so far
     * yet. */
    bool is_void;
    struct environ_value {
        bool is_set;
        bool is_cut;
        uint32_t n;
        char text[ENVIRON_MAX_VALUE];
    } v[ENV_MAX_NAMES];
};

enum environ_rc {
    ENVIRON_UNKNOWN = 1 /* nothing tells where it lies */
};

/** Of the process whose folder of /proc is open, as it is now. Returns 0,
 *  ENVIRON_UNKNOWN or -errno. Allocates nothing. May last as long as that process
 *  wants it to: environ_aside.h. */
int environ_read_live(struct images *images, int proc_fd, const struct watch *w,
                      struct environ_values *out);

/** As the process was started with it. Returns 0 or -errno. */
int environ_read_start(int proc_fd, const struct watch *w,
                       struct environ_values *out);

/** Does each variable have the same value in both? */
bool environ_same(const struct watch *w, const struct environ_values *a,
                  const struct environ_values *b);

/** Entries of an environment, NUL behind each, in pieces: pure part of the above. */
struct environ_scan {
    const struct watch *watch;
    struct environ_values *out;
    size_t n; /* bytes of the entry so far */
    char entry[ENV_NAME_BYTES + ENVIRON_MAX_VALUE + 1];
};

void environ_scan_init(struct environ_scan *s, const struct watch *w,
                       struct environ_values *out);
void environ_scan_bytes(struct environ_scan *s, const char *bytes, size_t n);

#endif
