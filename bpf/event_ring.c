/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/event_ring.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/bpf.h>

int event_ring_create(struct event_ring *er, uint32_t n_bytes,
                      struct loader_cause *cause)
{
    int rc = ring_create(&er->ring, n_bytes, cause);

    er->stats_fd = -1;
    while (rc == LOADER_REFUSED && strcmp(cause->reason, "no_memory") == 0 &&
           n_bytes / 2 >= EVENT_RING_LEAST_BYTES) {
        n_bytes /= 2;
        rc = ring_create(&er->ring, n_bytes, cause);
    }
    if (rc != 0) {
        er->ring =
            (struct ring){.ring_fd = -1, .control_fd = -1, .wait_fd = -1};
        return rc;
    }
    er->stats_fd = bpf_map_create(BPF_MAP_TYPE_PERCPU_ARRAY, "event_stats",
                                  sizeof(uint32_t), sizeof(struct event_stats),
                                  EVENT_N_TYPES, NULL);
    if (er->stats_fd < 0) {
        loader_explain(cause, "the kernel refused the books of the ring",
                       errno);
        event_ring_close(er);
        return LOADER_REFUSED;
    }
    return 0;
}

void event_ring_close(struct event_ring *er)
{
    ring_close(&er->ring, false);
    if (er->stats_fd >= 0)
        (void)close(er->stats_fd);
    er->stats_fd = -1;
}

uint32_t event_ring_n_cpus(void)
{
    int n = libbpf_num_possible_cpus();

    return n > 0 ? (uint32_t)n : 1;
}

int event_ring_read(int stats_fd, uint32_t type, struct event_stats *cpus)
{
    return bpf_map_lookup_elem(stats_fd, &type, cpus) == 0 ? 0 : -errno;
}

void event_ring_totals(int stats_fd, struct event_stats *sum)
{
    uint32_t n_cpus = event_ring_n_cpus();
    struct event_stats *cpus = NULL;

    *sum = (struct event_stats){0};
    if (stats_fd >= 0)
        cpus = calloc(n_cpus, sizeof(*cpus));
    for (uint32_t type = 0; cpus != NULL && type < EVENT_N_TYPES; type++) {
        if (event_ring_read(stats_fd, type, cpus) != 0)
            break;
        for (uint32_t i = 0; i < n_cpus; i++) {
            sum->sent += cpus[i].sent;
            sum->lost += cpus[i].lost;
            sum->bytes += cpus[i].bytes;
        }
    }
    free(cpus);
}
