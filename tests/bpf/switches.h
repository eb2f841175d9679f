/* SPDX-License-Identifier: Apache-2.0 */
/* What switches.bpf.c and its test tell each other. */
#ifndef RETRIEVER_TESTS_BPF_SWITCHES_H
#define RETRIEVER_TESTS_BPF_SWITCHES_H

#include <linux/types.h>

#define SWITCHES_RING_BYTES (256u * 1024)

struct switches_config {
    __s32 own_tgid;
    __u32 pad;
};

struct switches_counts {
    __u64 sent; /* switches seen */
    __u64 lost; /* found no room */
};

struct switches_record {
    __u64 ts_ns;
    __s32 prev, next; /* threads */
    __u64 rest[4];
};

_Static_assert(sizeof(struct switches_record) == 48,
               "the size that was measured");

#endif
