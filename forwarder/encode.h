/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A closed part to finished payloads: series v2 and sketches (protobuf), events
 * and service checks (JSON), compressed, within the intake's limits.
 *
 * Thread:  the encoder thread; one struct encoder each.
 * Memory:  during encoder_run() one raw and one compressed buffer of the largest
 *          payload and a compressor, nothing between; bodies go into blocks of
 *          the store.
 * Promise: every item of the part is in exactly one draft or one loss; an item
 *          is never torn, except one series with more points than a payload may
 *          have. No draft exceeds its limits.
 */
#ifndef RETRIEVER_FORWARDER_ENCODE_H
#define RETRIEVER_FORWARDER_ENCODE_H

#include "aggregator/series.h"
#include "forwarder/store.h"

/** Payload limits of one kind, in bytes of the body. */
struct encode_limits {
    uint32_t max_bytes;     /* compressed */
    uint32_t max_raw_bytes; /* before compression */
    uint32_t max_points;    /* 0 = no limit */
};

/** The store was full: make room for a block of @n bytes. Called on the encoder's
 *  thread; may block. Returns 0 (try again) or STORE_FULL. */
typedef int encode_room_fn(void *arg, size_t n);

/** Borrowed for the life of the struct encoder. Limits are narrowed where they
 *  cannot work: a body is at most a quarter of the store, max_points at least
 *  what one context can have in a part (FLUSH_MAX_SERIES). */
struct encode_config {
    enum payload_encoding encoding;
    int level, stop_level; /* the second while stopping */
    struct encode_limits limits[PAYLOAD_N_KINDS];
    const char *internal_hostname; /* of the events envelope; "" = none */
    bool have_endpoint; /* false: no API key; everything becomes a loss */
    encode_room_fn *make_room; /* NULL: what finds no room is lost */
    void *arg;
};

struct encoder;
int encoder_create(struct encoder **out, struct store *s,
                   const struct encode_config *cfg);
void encoder_close(struct encoder *e);

/** Between two runs: have_endpoint of the configuration, changed. */
void encoder_set_endpoint(struct encoder *e, bool have_endpoint);

struct encode_result {
    struct payload_draft *drafts; /* valid until the next call */
    size_t n_drafts;
    struct store_loss *losses;
    size_t n_losses;
};

/** Encode the whole part behind @it. @stopping: the faster level. Returns 0 and
 *  the result, whose blocks are the caller's (store_commit_part() takes them), or
 *  -ENOMEM: nothing is kept; try again with a new iterator. */
int encoder_run(struct encoder *e, struct part_iter *it, bool stopping,
                struct encode_result *out);

#endif
