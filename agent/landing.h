/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The landing zone: memory shared between the workers into which the kernel
 * itself writes what it hands over, lengths included. A message whose length is
 * set was received; one whose length still is LANDING_EMPTY was not. What was
 * received and is not yet committed by aggregation is applied by whoever comes
 * next.
 *
 * Thread:  the reader.
 * Memory:  n_slots buffers for datagrams and one buffer pair per stream connection,
 *          all in one memfd, populated before use so that no receive call
 *          sleeps in a page fault.
 * Promise: after a kill at any instruction each received byte is applied exactly
 *          once (positions move with the commit of the ingest region).
 */
#ifndef RETRIEVER_AGENT_LANDING_H
#define RETRIEVER_AGENT_LANDING_H

#include <sys/socket.h>

#include "aggregator/ingest.h"

#define LANDING_EMPTY (~0u) /* msg_len before the kernel has set it */
#define LANDING_SLOTS 64

/** Datagrams of one recvmmsg call. In shared memory, as is all it points to. */
struct landing_batch {
    struct ingest_pos pos; /* record = slot */
    uint32_t source;       /* index into struct sockets, set before receiving */
    uint32_t n_slots;
    struct mmsghdr msgs[LANDING_SLOTS];
    struct iovec iovs[LANDING_SLOTS];
    unsigned char *slots; /* n_slots * slot_bytes */
    uint32_t slot_bytes;  /* dogstatsd_buffer_size + room for a terminator */
    /* Poison: where the last worker died, and how often there. */
    struct ingest_pos death_pos;
    uint32_t n_deaths;
};

/** One stream connection; see landing.c for the layout of its two halves. */
struct landing_conn;

/** Process handle; plain data that fork copies. */
struct landing {
    struct landing_batch *batch;
    struct landing_conn *conns;
    uint32_t n_conns; /* stream_max_connections */
    uint32_t max_frame_bytes;
    void *map;
    size_t map_bytes;
    int fd;
};

struct landing_opts {
    uint32_t buffer_bytes;    /* longest datagram */
    uint32_t n_conns;
    uint32_t max_frame_bytes;
};

int landing_create(struct landing *l, const struct landing_opts *opts);
void landing_close(struct landing *l);

#endif
