/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unix datagram sockets: shutdown(SHUT_RD) makes every further send fail with
 * EPIPE, under the same lock that queues a datagram, and leaves the queue
 * readable: exact.
 */
#include "agent/ingress.h"

#include <errno.h>

int ingress_uds_stop(int fd)
{
    return shutdown(fd, SHUT_RD) == 0 ? 0 : -errno;
}
