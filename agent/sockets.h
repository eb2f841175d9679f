/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listeners: bound by the keeper before anything slow, held by it for the
 * life of the agent, read by the workers. Also the control socket.
 *
 * Thread:  opened by the keeper before the first fork; constant afterwards.
 * Memory:  one embedded struct of SOCKETS_MAX entries.
 * Promise: a path is unlinked only while it still is the one we made.
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
    dev_t device;        /* of that path as we made it */
    ino_t inode;
    uint16_t port; /* UDP */
    uint32_t granted_rcvbuf_bytes;
    uint32_t pace_us; /* so long the reader may stay away under full load */
};

struct sockets {
    struct socket_entry entries[SOCKETS_MAX];
    uint32_t n;
};

/** Bind everything the configuration asks for, and adopt what a socket unit hands
 *  over (LISTEN_FDS; never in @exec_mode, where that is the job's). A failure of
 *  one listener is reported through log and *n_failed; the others still come
 *  up. A default path that cannot be made is only a warning. Returns 0 or -EMFILE
 *  when there are more than SOCKETS_MAX. */
int sockets_open(struct sockets *s, const struct config *cfg, bool exec_mode,
                 unsigned *n_failed);

/** @fd is a connection that the listener @entry accepted, in this process's
 *  table. */
bool sockets_is_conn_of(const struct sockets *s, uint32_t entry, int fd);

/** Close all and unlink the paths that are still ours (same inode). */
void sockets_close(struct sockets *s);

#endif
