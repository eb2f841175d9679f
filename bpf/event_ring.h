/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring of kernel events with its books: how many records each CPU sent and how
 * many found no room, by type.
 *
 * Thread:  created and closed by the helper thread; the ring is read by the reader
 *          (ring.h); event_ring_totals() by any thread in between.
 * Memory:  the ring, in the kernel; one table row per CPU while it is read.
 * Promise: what is asked for is made, or less, down to EVENT_RING_LEAST_BYTES,
 *          where memory is short.
 */
#ifndef RETRIEVER_BPF_EVENT_RING_H
#define RETRIEVER_BPF_EVENT_RING_H

#include "bpf/ring.h"

#define EVENT_RING_LEAST_BYTES 65536u

struct event_ring {
    struct ring ring;
    int stats_fd; /* -1 = none */
};

/** @n_bytes: power of two. Returns 0, LOADER_REFUSED (@cause filled) or -errno; *er
 *  is closed then. */
int event_ring_create(struct event_ring *er, uint32_t n_bytes,
                      struct loader_cause *cause);
void event_ring_close(struct event_ring *er);

/** CPUs that may ever be; what event_ring_read() needs room for. */
uint32_t event_ring_n_cpus(void);

/** The books of @type by CPU: event_ring_n_cpus() entries. 0 or -errno. */
int event_ring_read(int stats_fd, uint32_t type, struct event_stats *cpus);

/** Sum over types and CPUs; zeros where there is nothing to read. */
void event_ring_totals(int stats_fd, struct event_stats *sum);

#endif
