/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that lose datagrams, the sockets that have no room for them, and the
 * lines that the feature writes about it.
 *
 * Thread:  one; senders are processes of their own.
 * Memory:  a page shared with the senders, lines in a fixed buffer.
 * Promise: drop_rig_close() takes away all that was made.
 */
#ifndef RETRIEVER_TESTS_BPF_DROP_RIG_H
#define RETRIEVER_TESTS_BPF_DROP_RIG_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <setjmp.h>

#include <cmocka.h>

#include <sys/socket.h>
#include <sys/types.h>

#include "bpf/drop.h"
#include "bpf/drop_probe.h"
#include "bpf/features.h"

#define RIG_MAX_SENDERS 8
#define RIG_PAYLOAD_BYTES 40u

struct rig_sender {
    int pid;
    uint32_t sent;     /* the kernel took it, or said so */
    uint32_t refused;  /* EAGAIN */
    uint32_t received; /* found in the socket or the ring */
};

struct rig_socket {
    int fd;
    struct sockaddr_storage address;
    socklen_t n_address;
};

struct drop_rig {
    struct feature_opts opts;
    struct feature_env env;
    void *self; /* the feature */
    struct rig_socket udp, uds;
    struct rig_sender *senders; /* shared with them */
    struct lines lines;
    char text[1 << 20];
    size_t n_text;
    char cgroup[128];  /* made for a sender; "" = none */
    uint64_t cgid;     /* of it */
    char starved[128]; /* cgroup with no memory for sockets; "" = none */
};

/** Ends the program as skipped, or as failed, where it cannot work (skips.h). */
void rig_require_bpf(void);

/** Sockets with little room, watched; then the feature, on @k (NULL: as it is). */
void drop_rig_open(struct drop_rig *r, const struct drop_kernel *k);
void drop_rig_close(struct drop_rig *r);

/** Receiver with little room on a loopback address (AF_INET, AF_INET6), or an abstract
 *  Unix socket. */
void rig_socket_open(struct rig_socket *s, int family);

/** A cgroup of this machine can limit the memory of its sockets. */
bool rig_can_starve(void);

/** UDP receiver with a large buffer but little memory to fill it with. Returns false
 *  where that cannot be done. */
bool rig_starved_socket_open(struct drop_rig *r, struct rig_socket *s);

/** Make a cgroup for senders. Returns false where that cannot be done. */
bool rig_make_cgroup(struct drop_rig *r);

/** Sender @i begins: @n datagrams to @to, without waiting for room. */
void rig_send(struct drop_rig *r, uint32_t i, const struct rig_socket *to,
              uint32_t n, bool in_cgroup);

/** All senders have ended. */
void rig_wait(struct drop_rig *r);

/** Take all that @s has, and count it with its sender. */
void rig_receive(struct drop_rig *r, const struct rig_socket *s);

/** The payload of a datagram of a sender. */
void rig_count(struct drop_rig *r, const void *payload);

/** Collect; lines are added to those in text. */
void rig_collect(struct drop_rig *r, bool last);

/** Sum of the values of metric @name in lines with tag @tag (NULL = all). */
uint64_t rig_sum(const struct drop_rig *r, const char *name, const char *tag);

/** The same for the datagrams of sender @i. */
uint64_t rig_lost_by(const struct drop_rig *r, uint32_t i);

/** What the kernel itself counts as dropped on a socket. */
uint32_t rig_kernel_drops(int fd);

#endif
