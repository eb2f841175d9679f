/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagrams that senders could not get into our sockets, by sender (drop.bpf.c):
 * what no agent can count by itself. A datagram that the tap takes is not lost, and
 * not counted.
 *
 * Metrics: retriever.ingress.lost, retriever.ingress.lost_bytes (feature.h:
 * collect). Report: totals and the worst senders since the start, for the receipt
 * and the status.
 *
 * Thread:  the helper thread; drop_add_socket() by whoever owns the sockets. A
 *          struct drop_report is plain data and may be handed to other threads.
 * Memory:  DROP_MAX_SENDERS in a map of the kernel (some 600 KiB) and as many here,
 *          each made at its first loss.
 * Promise: the sum of all senders and of "unknown" is what the kernel refused,
 *          exactly, also when there are more senders than there is room for.
 */
#ifndef RETRIEVER_BPF_DROP_H
#define RETRIEVER_BPF_DROP_H

#include "bpf/drop_senders.h"
#include "bpf/feature.h"

struct drop_opts {
    struct drop_socket sockets[DROP_MAX_SOCKETS];
    uint32_t n_sockets;
    bool client_pid; /* add the sender's pid as a tag */
    /* Behind each collect(), in its thread: what drop_report() and drop_top() say is
     * new. NULL = nobody asks. */
    void (*collected)(void *arg, void *self);
    void (*closed)(void *arg); /* what comes next counts from zero; or NULL */
    void *arg;
};

/** Have losses of the socket @fd counted: UDP or a Unix datagram socket, others are
 *  passed over. Returns 0, -ENOSPC or -errno. */
int drop_add_socket(struct drop_opts *o, int fd);

/** Behind collect(): totals and the worst senders since open(). */
void drop_report(const void *self, struct drop_report *out);

/** Who lost most since the last call of it that said something, one line for the
 *  log. Returns false when nobody lost anything. */
bool drop_top(void *self, char *line, size_t size);

/** Its row of `retriever ebpf status`. */
#define DROP_WHAT "datagrams lost, by sender"
extern const struct feature drop_feature;

/** open() of drop_feature, as on a kernel that offers no more than @k. */
struct drop_kernel;
int drop_open_on(void **self, const struct feature_env *env,
                 const struct drop_kernel *k, struct loader_cause *cause);

#endif
