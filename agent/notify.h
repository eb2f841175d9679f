/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol of sd_notify(3): the service manager is told that we serve and
 * that we stop, and keeps our sockets open from one life to the next (its file
 * descriptor store).
 *
 * Thread:  the keeper's; the manager listens to the main process alone.
 * Memory:  one embedded struct, constant after notify_init(); a socket per call.
 * Promise: without a manager every call is a no-op. A call never waits longer
 *          than NOTIFY_WAIT_MS.
 */
#ifndef RETRIEVER_AGENT_NOTIFY_H
#define RETRIEVER_AGENT_NOTIFY_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define NOTIFY_WAIT_MS 1000
#define NOTIFY_MAX_FDS 64 /* in one message; the manager takes 253 and more */

struct notify {
    struct sockaddr_un to;
    socklen_t n_to;     /* 0 = nobody wants to be told */
    uint32_t store_max; /* descriptors that the manager keeps; 0 = no store */
};

/** From the variables NOTIFY_SOCKET and FDSTORE. Returns 0, also when there is no
 *  manager, or -EINVAL for an address that nothing can be sent to. */
int notify_init(struct notify *n);

/** We serve; @status is one short line for people. Returns 0 or -errno. */
int notify_ready(const struct notify *n, const char *status);

/** The stop has begun. Never waits. Returns 0 or -errno. */
int notify_stopping(const struct notify *n, const char *status);

/** Give the manager @n_fds descriptors to keep under @name (at most 255 characters,
 *  printable, no colon), until notify_unstore() or for as long as the unit lives,
 *  whatever their other end does. At most NOTIFY_MAX_FDS. Returns 0, -ENOTSUP
 *  without a store, or -errno. */
int notify_store(const struct notify *n, const char *name, const int *fds,
                 unsigned n_fds);

/** Have the manager close everything it keeps under @name. It does so when it comes
 *  to it: see notify_barrier(). Returns 0 or -errno. */
int notify_unstore(const struct notify *n, const char *name);

/** Wait until the manager has obeyed all earlier messages. Returns 0, -ETIMEDOUT
 *  or -errno. */
int notify_barrier(const struct notify *n);

#endif
