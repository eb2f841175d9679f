/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listeners: bound by the keeper before anything slow, held by it for the
 * life of the agent, read by the workers. Also the control socket.
 *
 * Thread:  opened by the keeper before the first fork; constant afterwards.
 */
#ifndef RETRIEVER_AGENT_SOCKETS_H
#define RETRIEVER_AGENT_SOCKETS_H

#include "agent/config.h"
#include "aggregator/counts.h"

#define SOCKETS_MAX 32

enum socket_kind {
    SOCKET_UDP,
    SOCKET_UNIXGRAM,
    SOCKET_UNIXSTREAM, /* listener; frames with a 4-byte length */
    SOCKET_CONTROL     /* listener of the control protocol */
};

struct socket_entry {
    int fd;
    enum socket_kind kind;
    enum transport transport;
    bool shared_outside; /* somebody else holds it too: never shut it down */
    char name[160];      /* "udp 127.0.0.1:8125", "/run/dsd.socket" */
    char path[112];      /* to unlink at the end; "" = none (abstract, UDP) */
    uint32_t granted_rcvbuf_bytes;
};

struct sockets {
    struct socket_entry entries[SOCKETS_MAX];
    uint32_t n;
};

/** Bind everything the configuration asks for. A failure of one listener is
 *  reported through log and *n_failed; the others still come up. Returns 0 or
 *  -errno when memory or descriptors are out. */
int sockets_open(struct sockets *s, const struct config *cfg, bool exec_mode,
                 unsigned *n_failed);

/** Close all and unlink the paths that are still ours (same inode). */
void sockets_close(struct sockets *s);

#endif
