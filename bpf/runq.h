/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long the tasks of each container wait for a CPU, and who makes them wait: a
 * neighbour, themselves, the system, or nobody (a quota).
 *
 * With CAP_BPF every switch is counted in the kernel (sched.bpf.c); without, the
 * scheduler's own sums of the agent's container are read (schedstat.h).
 *
 * Thread:  as feature.h says.
 * Memory:  bounded by the maps of sched.bpf.c: at most 18 MiB there; here 848 bytes
 *          for each of at most 4096 cgroups, and 3 KiB more while a report is made.
 * Promise: what is reported of a container are sums over all its waits, not a
 *          sample, except in stream mode.
 */
#ifndef RETRIEVER_BPF_RUNQ_H
#define RETRIEVER_BPF_RUNQ_H

#include <stdbool.h>
#include <stdint.h>

#include "bpf/feature.h"
#include "bpf/own_waits.h"

struct runq_opts {
    bool off;
    bool stream;    /* records of single waits instead of sums */
    bool system;    /* report what is in no container, too */
    bool voluntary; /* sched.switch.voluntary */
    /* Globs of names and paths, with spaces or commas between; "" or NULL:
     * include all, exclude none. */
    const char *include, *exclude;
    /* As for cgroups_use(), of which it is the caller: a feature that reads
     * cgroups_subsys() is opened behind this one. NULL: as it is. */
    const char *hierarchy;
    uint32_t min_interval_us; /* stream: per cgroup and CPU */
    uint32_t min_pair_us;     /* shorter waits name nobody */
    uint32_t top_neighbors;   /* named per container; the rest is "other" */
    uint32_t max_containers;  /* per report; the rest is "other" */
    /* The agent's own thread whose waits runq_waits() tells, by name; NULL: none. */
    const char *own_thread;
    /* Behind each collect() that has read them, in its thread. NULL = nobody asks. */
    void (*collected)(void *arg, void *self);
    void (*closed)(void *arg); /* what comes next counts from zero; or NULL */
    void *arg;
};

#define RUNQ_OPTS_DEFAULT                                                      \
    {                                                                          \
        .min_interval_us = 1000, .min_pair_us = 100, .top_neighbors = 5,       \
        .max_containers = 512,                                                 \
    }

/** Behind collect(): what the thread own_thread has waited since open(), and the line
 *  about what was not told yet (own_waits_tell()). */
void runq_waits(const void *self, struct own_waits_report *out);
char *runq_tell_waits(void *self, char *line, size_t size);

extern const struct feature runq_feature;

#endif
