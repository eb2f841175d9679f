/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sockets that `retriever send` sends on.
 *
 * Thread:  any.
 * Memory:  none; each call opens one descriptor, the caller's.
 * Promise: what is returned is connected, blocking and close-on-exec.
 */
#ifndef RETRIEVER_AGENT_SEND_CONNECT_H
#define RETRIEVER_AGENT_SEND_CONNECT_H

#include <stdbool.h>

/** True for "HOST:PORT" or "[ADDR]:PORT", the port 1 to 65535. */
bool send_connect_is_udp(const char *to);

/** A UDP socket to @to, which send_connect_is_udp() took; names are looked up.
 *  Returns the descriptor or -errno. @why: untouched, or what the look-up of the
 *  name said, as static text. */
int send_connect_udp(const char *to, const char **why);

/** A Unix socket of @type (SOCK_DGRAM, SOCK_STREAM) to @path; "@NAME" is one of
 *  the abstract namespace. Returns the descriptor or -errno. */
int send_connect_unix(const char *path, int type);

#endif
