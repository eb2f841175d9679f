/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reader beside a loop, as in the worker, with a datagram and a stream socket.
 *
 * Thread:  one, and the reader's own.
 * Memory:  one struct reader_rig per test, made by reader_rig_setup() as cmocka's
 *          state.
 * Promise: reader_rig_teardown() ends the reader, and fails the test unless the loop
 *          and the sockets' folder are left empty.
 */
#ifndef RETRIEVER_TESTS_SUPPORT_READER_RIG_H
#define RETRIEVER_TESTS_SUPPORT_READER_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/ingress.h"
#include "agent/reader.h"
#include "agent/sockets_private.h"

#define N_CONNS 3
#define MAX_FRAME 1000
#define BUFFER 512
#define GRAM 0
#define STREAM 1

struct reader_rig {
    char folder[64], gram[96], stream[96];
    struct sockets s;
    struct landing landing;
    struct region region;
    struct process_clock clock;
    _Atomic uint32_t serving;
    uv_loop_t loop;
    struct reader *reader;
    struct ingest_counts counts; /* at the end */
    uint64_t open_samples;
    uint64_t n_parts; /* announced */
    uint64_t closed_token, n_parts_at_close;
    bool drained;
    unsigned n_paused;
    uint64_t n_tapped;
    struct loader_cause cause; /* why there is no ring */
    uint64_t n_left;
    uint32_t n_keep_conns;
};

int reader_rig_setup(void **state);
int reader_rig_teardown(void **state);

/** Another reader behind the one that ended: as a successor does. */
void reader_rig_start(struct reader_rig *f);

/** Stop, drain, end the thread; keep the counts. */
void reader_rig_end(struct reader_rig *f);

/** Returns when the reader rests. */
void reader_rig_rest(struct reader_rig *f);

/** Everything that is connected is accepted and read behind this. */
void reader_rig_take_all(struct reader_rig *f, uint64_t token);

/** A connected socket of that type (SOCK_DGRAM, ...). */
int reader_rig_connect(const char *path, int type);

#endif
