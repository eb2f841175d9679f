/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one image of the program leaves for the next, so that an upgrade loses
 * nothing: a record with a format of its own, since the memory of two builds
 * never fits. docs/upgrade.md describes the format.
 *
 *   record    memfd: the ledger, sockets, stream connections with the bytes of
 *             frames that are not complete, by name (JSON)
 *   payloads  memfd: what is frozen, not settled and not on disk: one segment of
 *             the payload store
 *   baton     one shared page: the word that says whose the sockets are
 *
 * The four files are made before the first worker and live across execve().
 *
 * Thread:  made and read by the keeper; written by a worker at rest.
 * Memory:  the record is at most HANDOVER_MAX_BYTES; reading it copies it.
 * Promise: a record is taken as a whole or refused: bytes that are not one are
 *          told apart, whatever they are. Of two images exactly one gets the
 *          baton, and a killed one cannot take it along.
 */
#ifndef RETRIEVER_AGENT_HANDOVER_H
#define RETRIEVER_AGENT_HANDOVER_H

#include <stdatomic.h>
#include <sys/types.h>

#include "agent/landing.h"
#include "agent/sockets.h"
#include "aggregator/counts.h"
#include "forwarder/store.h"

/** Grows when an older image could not read what a newer one writes, or the
 *  other way round. */
#define HANDOVER_FORMAT 1u
#define HANDOVER_MAX_BYTES (256u * 1024 * 1024)
#define HANDOVER_MAX_JSON (32u * 1024 * 1024)

/** The state of the baton. Changed by compare-and-swap from OFFERED only, or by
 *  the old image while no new one runs. */
enum baton_state {
    BATON_HELD,    /* by the old image: it serves */
    BATON_OFFERED, /* the record is written, the old worker rests */
    BATON_TAKEN,   /* the new image serves: the old worker ends */
    BATON_KEPT     /* the old worker went on alone, its keeper being dead */
};

/** Layout for all formats. */
struct baton {
    char magic[8];
    uint32_t format;
    _Atomic uint32_t state;
};

struct handover_files {
    int record, payloads, points; /* memfds; -1 = none */
    int baton_fd;
    struct baton *baton;
};

/** Make them. Returns 0 or -errno. */
int handover_files_create(struct handover_files *f);
/** Of descriptors from an earlier image: map the baton. Returns 0, -EBADMSG for
 *  a page that is no baton, or -errno. */
int handover_files_adopt(struct handover_files *f);
void handover_files_close(struct handover_files *f);

/** One stream connection. */
struct handover_conn {
    int fd;
    uint32_t listener; /* index into sockets */
    uint32_t n_bytes;  /* of a frame that is not complete */
    uint32_t at;       /* of them, in the bytes behind the record's JSON */
};

/** Numbers that go on, and what holds the connections to the outside. */
struct handover {
    char version[32];     /* of the image that wrote it */
    uint64_t life;        /* of the payload segments */
    uint64_t started_ms;  /* CLOCK_MONOTONIC */
    int64_t life_start_s; /* unix time */
    int64_t last_stamp_s;
    uint32_t worker_deaths, n_upgrades;
    pid_t worker_pid;   /* the old worker, at rest */
    uint64_t rested_us; /* CLOCK_MONOTONIC: it read the sockets until then */
    int run_dir;        /* descriptor, locked; -1 = none */
    int doorbell;       /* eventfd that the old worker looks at */
    int payloads, points, baton_fd;

    struct ingest_counts ingest;
    struct store_books books;    /* of this life */
    struct store_books restored; /* of earlier ones */

    struct sockets sockets;
    uint32_t drops_seen[SOCKETS_MAX]; /* kernel's counters when last read */

    struct handover_conn *conns;
    uint32_t n_conns;
    unsigned char *bytes; /* of open frames, all connections */
    size_t n_bytes;
};

/** Replace what @fd holds. conns and bytes are taken from @landing. Returns 0,
 *  -E2BIG (nobody would read so much) or -errno. */
int handover_write(int fd, const struct handover *h,
                   const struct landing *landing);

/** Returns 0, HANDOVER_REFUSED with *why in a few static words (a newer format,
 *  not a record), or -errno. handover_fini() is due only after 0. */
enum handover_rc { HANDOVER_REFUSED = 1 };
int handover_read(struct handover *h, int fd, const char **why);
void handover_fini(struct handover *h);

#endif
