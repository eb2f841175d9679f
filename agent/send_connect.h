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

/** A UDP socket to "HOST:PORT" or "[ADDR]:PORT"; names are looked up. Returns
 *  the descriptor or -errno (-EHOSTUNREACH: no such name). */
int send_connect_udp(const char *to);

/** A Unix socket of @type (SOCK_DGRAM, SOCK_STREAM) to @path; "@NAME" is one of
 *  the abstract namespace. Returns the descriptor or -errno. */
int send_connect_unix(const char *path, int type);

#endif
