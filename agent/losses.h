/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who lost datagrams at our sockets, on its way from the kernel side (bpf/drop.h) to
 * receipt, status and log.
 *
 * Thread:  losses_collected() by the kernel thread; the rest by the loop.
 * Memory:  one report of some 7 KiB, embedded.
 * Promise: a report is read as it was written, whole. Whoever lost most is named in
 *          the log at once, then at most once a minute.
 */
#ifndef RETRIEVER_AGENT_LOSSES_H
#define RETRIEVER_AGENT_LOSSES_H

#include <pthread.h>

#include "agent/base/buf.h"
#include "agent/base/json.h"
#include "agent/sockets.h"
#include "bpf/drop.h"

struct losses {
    pthread_mutex_t lock; /* of known and report */
    bool known;
    struct drop_report report;
    uint64_t
        told_ns; /* of the kernel thread: when the log was told; 0 = never */
};

void losses_init(struct losses *l);
void losses_fini(struct losses *l);

/** Have the feature watch the sockets in @s, and report to @l. */
void losses_watch(struct losses *l, const struct sockets *s,
                  struct drop_opts *opts);

/** Behind each collect() of the feature @drop. */
void losses_collected(void *arg, void *drop);

/** The last report; false when there was none, *out is untouched then. */
bool losses_get(struct losses *l, struct drop_report *out);

/** The members "lost" and "lost_by_sender" of an open object. */
void losses_write_members(const struct drop_report *r, struct json *j);

/** The same for people: a paragraph, or nothing when nothing was lost. */
void losses_write_text(const struct drop_report *r, struct buf *out);

#endif
