/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listeners: bound by the keeper before anything slow, held by it for the
 * life of the agent, read by the workers. Also the control socket.
 *
 * Thread:  opened by the keeper before the first fork; constant afterwards.
 * Memory:  one embedded struct of SOCKETS_MAX entries, and at start the numbers of
 *          kept connections, as many as the service manager handed over.
 * Promise: a path is unlinked only while it still is the one we made.
 */
#ifndef RETRIEVER_AGENT_SOCKETS_H
#define RETRIEVER_AGENT_SOCKETS_H

#include "agent/config.h"
#include "agent/notify.h"
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
    uint32_t was;        /* index + 1 in the image before this one; 0 = new */
    bool shared_outside; /* somebody else holds it too: never shut it down */
    bool stored;         /* that is the service manager, for our next life */
    bool orphan; /* of before, and its path is gone or another's now: served to
                       the end, not kept again */
    char name[160]; /* "udp 127.0.0.1:8125", "/run/dsd.socket" */
    char path[112]; /* to unlink at the end unless stored; "" = none
                            (abstract, UDP, a socket unit's) */
    dev_t device;   /* of that path as we made it */
    ino_t inode;
    uint16_t port; /* UDP */
    uint32_t granted_rcvbuf_bytes;
    uint32_t pace_us; /* so long the reader may stay away under full load */
};

struct sockets {
    struct socket_entry entries[SOCKETS_MAX];
    uint32_t n;
    int *kept_conns; /* connections of our life before; taken by the keeper */
    uint32_t n_kept_conns;
    int kept_ring[2]; /* the tap's maps, of a life that was killed */
    uint32_t n_kept_ring;
};

/** The manager keeps all connections under this name. */
#define SOCKETS_CONN_NAME "retriever-connection"
/** And the maps of the tap's ring under this one. */
#define SOCKETS_RING_NAME "retriever-ring"

/** Bind everything the configuration asks for, behind adopting what @manager hands
 *  over (LISTEN_FDS): the sockets of a socket unit, and those of our life before
 *  that it kept. Of these, what the configuration no longer asks for is closed.
 *  NULL = adopt nothing (`exec`: they are the job's). A failure of one listener is
 *  reported through log and *n_failed; the others still come up. A default path
 *  that cannot be made is only a warning. Returns 0 or -EMFILE when there are more
 *  than SOCKETS_MAX. */
int sockets_open(struct sockets *s, const struct config *cfg,
                 const struct notify *manager, unsigned *n_failed);

/** The same for a program that goes on as another image: of @held, what the
 *  configuration still asks for is taken, path and queue as they are; the rest is
 *  closed. */
int sockets_reopen(struct sockets *s, const struct config *cfg,
                   const struct sockets *held, const struct notify *manager,
                   unsigned *n_failed);

/** Have @manager keep the listeners for our next life, as far as it offers to: they
 *  are shared_outside and stored then. Not the control socket: a client that
 *  meets nobody should hear so. */
void sockets_keep(struct sockets *s, const struct notify *manager);

/** @fd is a connection that the listener @entry accepted, in this process's
 *  table. */
bool sockets_is_conn_of(const struct sockets *s, uint32_t entry, int fd);

/** The path is one that we unlink, and still leads to this socket. */
bool sockets_path_is_ours(const struct socket_entry *e);

/** Close one, and unlink its path when that ends with us and is still ours (same
 *  inode). */
void sockets_close_entry(struct socket_entry *e);

/** Their paths are not ours to unlink any more. */
void sockets_leave(struct sockets *s);

/** Close all and unlink the paths that end with us and are still ours (same
 *  inode). */
void sockets_close(struct sockets *s);

#endif
