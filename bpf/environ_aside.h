/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks at live environments from a process of their own.
 *
 * What an environment points to is its owner's choice: a file of a file system that
 * answers when it pleases (FUSE), read through /proc/PID/mem, holds whoever reads it
 * for ever, and not even SIGKILL ends that. So somebody else reads, who can be left
 * behind, and who has nothing open that anybody would miss.
 *
 * Thread:  the helper thread, for every call.
 * Memory:  one process, made at the first look, which shares our pages; at most
 *          ASIDE_MAX_LEFT more that did not come back.
 * Promise: a look lasts ASIDE_WAIT_MS at most. After one that did not come back there
 *          is none for ASIDE_PAUSE_MS: nobody can hold up the thread for more than a
 *          tenth of its time. The process ends with the thread, or when it may.
 */
#ifndef RETRIEVER_BPF_ENVIRON_ASIDE_H
#define RETRIEVER_BPF_ENVIRON_ASIDE_H

#include "bpf/environ.h"

#define ASIDE_WAIT_MS 200
#define ASIDE_PAUSE_MS 2000
#define ASIDE_MAX_LEFT 4

struct aside;

/** @watch is borrowed. Returns 0 or -ENOMEM. */
int aside_create(struct aside **out, const struct watch *watch);
void aside_close(struct aside *a);

/** environ_read_live(). -ETIMEDOUT: it did not come back; -EBUSY: too many did not,
 *  or one just now. */
int aside_read(struct aside *a, int proc_fd, struct environ_values *out);

#endif
