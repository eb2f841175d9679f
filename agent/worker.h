/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker: the process that serves sockets, aggregates and delivers. Forked
 * from the keeper without exec, any number of times in the keeper's life.
 *
 * Thread:  worker_main() runs the main loop on the calling thread and starts the
 *          reader and the encoder.
 * Memory:  the regions outlive it; the rest ends with the process.
 * Promise: killed at any instruction, its successor goes on from the last commit.
 */
#ifndef RETRIEVER_AGENT_WORKER_H
#define RETRIEVER_AGENT_WORKER_H

#include "agent/base/region.h"
#include "agent/config.h"
#include "agent/handover.h"
#include "agent/landing.h"
#include "agent/seconds.h"
#include "agent/sockets.h"
#include "agent/stamps.h"
#include "agent/supervision.h"
#include "aggregator/agg.h"

struct store;

/** All that outlives a worker; made by the keeper before the first fork. */
struct worker_env {
    const struct config *config;
    struct region *ingest_region; /* reader is the writer */
    struct region *store_region;  /* loop is the writer */
    struct landing *landing;
    struct sockets *sockets; /* bound listeners; control socket among them */
    struct supervision *sup;
    int http_module;       /* descriptor of retriever-http.so, -1 = missing */
    int httpd_module;      /* of retriever-httpd.so, -1 = missing */
    int run_dir;           /* descriptor of run_path, -1 = none */
    uint64_t seed[2];      /* hashes of the ingest region */
    uint32_t n_keep_conns; /* connections that go on in the next life at most */
    bool has_start;        /* a fresh ingest region goes on from start */
    struct agg_start start;
    uint64_t life; /* names this life in the payload segments */
    struct handover_files
        *handover; /* for the next image; NULL = none can be */
    const struct handover *inherited; /* from the image before; NULL = none */
    struct handover_files *inherited_files;
    const struct stamps *stamps; /* what earlier lives used */
    struct seconds *seconds;     /* shared with others of this host */
    bool exec_mode;
    const char *host;         /* default host name; "" = none */
    const char *instance_tag; /* "retriever_instance:..." or "" */
    uint32_t job_pid;         /* exec: of the job; 0 = none */
    const char *no_api_key;   /* NULL, or why nothing can be sent (exec) */
    const struct loader_cause *no_tap; /* NULL, or why there is no ring */
    bool ring_held; /* the service manager holds it, beside our sockets */
};

/** Serve until told to stop. Returns the exit status of `run`. The successor
 *  of a dead worker calls the same. */
int worker_main(const struct worker_env *env);

/** What the image before left of its store becomes @s's, once. Before anything is
 *  taken from it. Whoever is alone with the store. */
void worker_handover_import(const struct worker_env *env, struct store *s);

#endif
