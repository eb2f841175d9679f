/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration as each part of the pipeline wants it: aggregator/ and
 * forwarder/ know no struct config.
 *
 * Thread:  made once per worker, constant afterwards.
 * Memory:  borrows from the worker_env; owns two small arrays.
 * Promise: what it made stays valid until wiring_fini().
 */
#ifndef RETRIEVER_AGENT_WIRING_H
#define RETRIEVER_AGENT_WIRING_H

#include "agent/lifecycle.h"
#include "agent/worker.h"
#include "bpf/features.h"
#include "forwarder/encode.h"
#include "forwarder/forwarder.h"

struct wiring {
    struct agg_config agg;
    struct dsd_parser_opts parser;
    struct encode_config encode;
    struct forwarder_config forwarder;
    struct lifecycle_config lifecycle;
    struct feature_opts features;
    struct family_rule *families;
    uint64_t flush_delay_ns; /* from a bucket's end to its encoding */
    struct view *tags;
    struct view *prefix_exempt;
};

/** The store's options, and what they point to. */
struct wiring_store {
    struct store_opts opts;
    struct store_disk_opts disk;
};
void wiring_store(struct wiring_store *w, const struct worker_env *env);
/** Bytes of bodies that the store's region must have room for. */
size_t wiring_store_memory_bytes(const struct config *c);

/** Returns 0 or -ENOMEM. */
int wiring_init(struct wiring *w, const struct worker_env *env);
void wiring_fini(struct wiring *w);

#endif
