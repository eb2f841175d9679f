/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the forwarder, shared by forwarder.c (life, drain, the step),
 * forwarder_send.c (payloads and their fates) and forwarder_key.c (the key).
 *
 * Everything that happens only rings (forwarder_ring()); forwarder.c's step does
 * what is due, from the loop. So no callback of a caller ever runs inside a call
 * of that caller.
 *
 * Thread:  the loop.
 * Memory:  struct forwarder.
 * Promise: each payload taken is in a flight or parked, and goes back to the
 *          store or is settled.
 */
#ifndef RETRIEVER_FORWARDER_FORWARDER_IMPL_H
#define RETRIEVER_FORWARDER_FORWARDER_IMPL_H

#include "forwarder/endpoint.h"
#include "forwarder/forwarder.h"
#include "forwarder/http_module.h"
#include "forwarder/inflight.h"
#include "forwarder/retry.h"

#define FORWARDER_MS_NS UINT64_C(1000000)
#define FORWARDER_NEVER UINT64_MAX
/** A refused key is validated again at least so often. */
#define FORWARDER_REVALIDATE_S 60u

enum module_state { MODULE_NONE, MODULE_LOADING, MODULE_READY, MODULE_FAILED };

/** One kind of payload: a route of the intake. */
struct route_state {
    struct breaker breaker;
    uint64_t last_failed_id; /* a probe prefers another payload */
    bool failing;            /* reported, not recovered yet */
    bool failed_in_drain;    /* and no answer since */
    enum http_error error;   /* what was reported */
    int status;
    uint64_t failing_since_ns;
};

struct key_cycle {
    char key[ENDPOINT_KEY_MAX + 1]; /* "" = none */
    char masked[ENDPOINT_MASK_MAX];
    enum key_state state;
    uint32_t generation;
    bool refused;        /* a payload met 401 or 403: nothing is sent */
    bool may_probe;      /* but one payload, after a validation */
    uint64_t refused_id; /* the probe prefers another payload */
    bool validating;
    bool unknown_reported;
    uint32_t validating_generation;
    uint64_t validate_at_ns;
};

/* A payload whose key was refused. */
struct parked {
    struct payload *payload;
    int status; /* 401 or 403 */
};

struct settled_waiter {
    struct settled_waiter *next;
    uint64_t age; /* all up to this one */
    bool awaits;  /* and those that an earlier image left on disk */
    forwarder_idle_fn *fn;
    void *arg;
};

struct forwarder {
    uv_loop_t *loop;
    struct store *store;
    const struct forwarder_config *cfg;
    struct endpoint endpoint;
    struct retry_policy policy;
    struct retry_rng rng;
    uv_timer_t timer;

    int module_fd;
    enum module_state module_state;
    bool module_open;     /* module.bell is on the loop */
    bool module_retiring; /* and is being closed, for another try */
    uint64_t module_retry_ns;
    uint32_t n_module_failures;
    uint32_t n_drain_failures; /* of it, in this drain */
    struct http_module module;
    const struct http_ops *ops;
    struct http *http;

    struct key_cycle key;
    struct route_state routes[PAYLOAD_N_KINDS];
    struct inflight inflight;
    bool failing; /* the last exchange */
    char last_error[160];

    bool paused; /* no request begins; idle is told when none is in flight */
    bool frozen; /* and what those say that are is not heard */
    bool draining;
    bool safe; /* forwarder_set_safe() */
    uint64_t deadline_ns;
    forwarder_idle_fn *idle;
    void *idle_arg;
    /* While draining: payloads whose key was refused, still taken so that the
     * others get their one try. */
    struct parked *parked;
    size_t n_parked, n_parked_max;
    struct settled_waiter *waiters;

    bool closing;
    unsigned n_open; /* parts of ours that are not closed yet */
    void (*closed)(void *arg);
    void *closed_arg;
};

/** Do what is due, from the loop, soon. */
void forwarder_ring(struct forwarder *f);

/** Send what the limits allow. */
void forwarder_send(struct forwarder *f, uint64_t now_ns);
/** Parked payloads go back to the store. */
void forwarder_unpark(struct forwarder *f);
/** @fmt is for people: last_error. */
void forwarder_note_error(struct forwarder *f, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/** Begin a validation if one is due. */
void forwarder_key_step(struct forwarder *f, uint64_t now_ns);
/** A payload that went with the present key was taken, or answered at least. */
void forwarder_key_accepted(struct forwarder *f, bool delivered);
/** A payload that went with the present key met 401 or 403. */
void forwarder_key_refused(struct forwarder *f, uint64_t id, int status);

#endif
