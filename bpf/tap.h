/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tap: a filter on our own datagram sockets that puts what arrives into a ring
 * (tap.bpf.c). Loading and attaching; reading is the reader's (ring.h).
 *
 * Thread:  tap_load() by a helper thread; the rest by whoever owns the sockets.
 * Memory:  the ring, TAP_RING_BYTES in the kernel, and a program per socket.
 * Promise: a datagram is either in the ring or in the socket's queue, or the kernel
 *          had no room in both and counts it as dropped. Detached, the programs
 *          that were running end within one RCU grace period.
 */
#ifndef RETRIEVER_BPF_TAP_H
#define RETRIEVER_BPF_TAP_H

#include "bpf/ring.h"

#define TAP_RING_BYTES (4u << 20)
#define TAP_MAX_SOURCES 32

struct tap_source {
    uint32_t source;       /* what the caller calls it, below TAP_MAX_SOURCES */
    uint32_t socket;       /* what its records say */
    uint32_t header_bytes; /* 8 for UDP, 0 for Unix sockets */
};

struct tap_opts {
    uint32_t max_bytes; /* longer datagrams go to the socket */
    const struct tap_source *sources;
    uint32_t n_sources;
};

struct tap {
    int programs[TAP_MAX_SOURCES]; /* by source; -1 = none */
};

/** Load a program for each source, writing to the ring of @ring. Returns 0,
 *  LOADER_REFUSED (@cause filled) or -errno. */
int tap_load(struct tap *t, const struct ring *ring,
             const struct tap_opts *opts, struct loader_cause *cause);

/** Put the program of @source on @socket_fd, in place of any other. 0 or -errno. */
int tap_attach(const struct tap *t, uint32_t source, int socket_fd);

/** No program is begun for @socket_fd any more; fine when there is none. Returns 0
 *  or -errno. */
int tap_detach(int socket_fd);

/** Close the programs; those that are attached live on with their sockets. */
void tap_close(struct tap *t);

#endif
