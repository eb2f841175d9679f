/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What our programs in the kernel cost. Counting costs 20 to 30 ns per run itself, of
 * all programs on the machine, so the kernel is asked to do it for one second of each
 * minute only (BPF_ENABLE_STATS, Linux 5.8).
 *
 *   retriever.ebpf.prog.run_cnt   gauge; program: runs per second, on all CPUs
 *   retriever.ebpf.prog.run_ns    gauge; program: their nanoseconds per second
 *
 * Those of one name (the tap has one per socket) count together.
 *
 * Thread:  as feature.h says.
 * Memory:  a row per program, at most PROGRAMS_MAX.
 * Promise: off unless asked for. The kernel counts for nobody when we do not, also
 *          when this process is killed meanwhile: it does so while a descriptor is
 *          open.
 */
#ifndef RETRIEVER_BPF_PROGRAMS_H
#define RETRIEVER_BPF_PROGRAMS_H

#include "bpf/feature.h"

#define PROGRAMS_MAX 64u
#define PROGRAMS_COUNT_NS UINT64_C(1000000000)
#define PROGRAMS_EVERY_NS UINT64_C(60000000000)

struct programs_opts {
    bool on;
};

/** Its row of `retriever ebpf status`. */
#define PROGRAMS_WHAT                                                          \
    "what our kernel programs cost, for one second of each minute"
extern const struct feature programs_feature;

#endif
