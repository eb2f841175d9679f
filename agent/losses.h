/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who lost datagrams at our sockets, and what kept the reader from taking them, on
 * the way from the kernel side (bpf/drop.h, bpf/runq.h) to receipt, status and log.
 *
 * Thread:  losses_waited(), losses_collected() and what is behind a close by the kernel
 *          thread; the rest by the loop.
 * Memory:  one report of some 8 KiB, embedded.
 * Promise: a report is read as it was written, whole. Whoever lost most is named in
 *          the log at once, then at most once a minute. Sums go on where a feature is
 *          closed and opened again; senders are those since.
 */
#ifndef RETRIEVER_AGENT_LOSSES_H
#define RETRIEVER_AGENT_LOSSES_H

#include <pthread.h>

#include "agent/base/buf.h"
#include "agent/base/json.h"
#include "agent/sockets.h"
#include "bpf/features.h"

struct losses {
    pthread_mutex_t lock; /* of what is known, and both reports */
    bool known;
    struct drop_report report;
    bool waits_known;
    struct own_waits_report waits;
    /* Of the kernel thread: */
    void *runq;       /* what waits come from; NULL = none */
    uint64_t told_ns; /* when the log was told; 0 = never */
    /* What was known when the features were closed, to open again. */
    struct drop_total lost_before[DROP_N_TRANSPORTS];
    struct drop_total unknown_before[DROP_N_TRANSPORTS];
    struct own_waits_report waits_before;
};

void losses_init(struct losses *l);
void losses_fini(struct losses *l);

/** Have the features watch the sockets in @s and the reader, and report to @l. */
void losses_watch(struct losses *l, const struct sockets *s,
                  struct feature_opts *opts);

/** Behind each collect() of the feature @runq, which comes before that of drop. */
void losses_waited(void *arg, void *runq);

/** Behind each collect() of the feature @drop. */
void losses_collected(void *arg, void *drop);

/** The feature runq, or drop, is closed. */
void losses_waited_end(void *arg);
void losses_collected_end(void *arg);

/** The last report; false when there was none, *out is untouched then. */
bool losses_get(struct losses *l, struct drop_report *out);
bool losses_get_waits(struct losses *l, struct own_waits_report *out);

/** The members "lost" and "lost_by_sender" of an open object. */
void losses_write_members(const struct drop_report *r, struct json *j);

/** The same for people: a paragraph, or nothing when nothing was lost. */
void losses_write_text(const struct drop_report *r, struct buf *out);

/** Members of the open object "reader"; one line of text, or nothing. */
void losses_write_waits(const struct own_waits_report *w, struct json *j);
void losses_write_waits_text(const struct own_waits_report *w, struct buf *out);

#endif
