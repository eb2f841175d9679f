/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How one listener is made, UDP (sockets_udp.c) and Unix (sockets_unix.c), or
 * taken over (sockets_adopt.c).
 *
 * Thread:  the keeper, before the first fork.
 * Memory:  fills one entry; on failure its descriptor is closed.
 * Promise: a failure is logged here, once, with what the reader can do.
 */
#ifndef RETRIEVER_AGENT_SOCKETS_PRIVATE_H
#define RETRIEVER_AGENT_SOCKETS_PRIVATE_H

#include "agent/sockets.h"

/** Room that a small datagram takes in a receive queue. */
#define SOCKETS_DATAGRAM_BYTES 768u

/** The next free entry, which counts once s->n is raised; NULL = none is left. */
struct socket_entry *sockets_fresh(struct sockets *s, enum socket_kind kind);

/** Take over what @manager hands to this process. */
void sockets_adopt(struct sockets *s, const struct config *cfg,
                   const struct notify *manager);

/** Take over what another image of this program held. */
void sockets_take_over(struct sockets *s, const struct config *cfg,
                       const struct sockets *held);

/** Close the kept socket @i, which is not asked for any more; the last entry takes
 *  its place. */
void sockets_release(struct sockets *s, uint32_t i,
                     const struct notify *manager);

/** Fill name and port from the bound address. */
void sockets_name_udp(struct socket_entry *e);

/** @e is what sockets_bind_udp() would bind to; port 0 is any. */
bool sockets_udp_is(const struct socket_entry *e, const char *host,
                    uint16_t port);

/** Bind to @host ("" = all addresses, both families) and @port (0 = the kernel
 *  chooses). Returns 0 or -errno. */
int sockets_bind_udp(struct socket_entry *e, const struct config *cfg,
                     const char *host, uint16_t port);

struct unix_opts {
    const char *path; /* "@name": abstract */
    uint32_t mode;
    const char *owner, *group; /* "" = as we are */
    bool make_folder;          /* a default path: its folder may be created */
    bool optional;             /* a failure is a warning */
};

/** Bind (and listen, for the stream kinds). e->kind is set by the caller. Returns
 *  0 or -errno. */
int sockets_bind_unix(struct socket_entry *e, const struct config *cfg,
                      const struct unix_opts *opts);

/** Before the first Unix datagram socket: raise net.unix.max_dgram_qlen where
 *  that is allowed; each socket copies it when it is made. */
void sockets_raise_dgram_qlen(void);

/** Ask for the receive buffer; stores what was granted. */
void sockets_set_rcvbuf(struct socket_entry *e, const struct config *cfg);

/** Fill pace_us from kind and buffer. */
void sockets_set_pace(struct socket_entry *e);

#endif
