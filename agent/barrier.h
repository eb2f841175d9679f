/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `retriever flush --wait`: a barrier through the whole pipeline. Everything
 * received before it is closed, encoded and settled when it answers.
 *
 *   asked -> reader closed all parts -> parts encoded -> payloads settled -> done
 *
 * One barrier is under way at a time; requests that come meanwhile share the
 * next one. A client that leaves does not end the flush it asked for.
 *
 * Thread:  the loop.
 * Memory:  one embedded struct; at most CONTROL_MAX_CLIENTS wait.
 * Promise: each request is answered once, in the end by barrier_abort(), unless
 *          barrier_forget() was told of it.
 */
#ifndef RETRIEVER_AGENT_BARRIER_H
#define RETRIEVER_AGENT_BARRIER_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/control.h"
#include "agent/parts.h"
#include "forwarder/forwarder.h"

struct barrier {
    struct reader *reader;
    struct parts *parts;
    struct forwarder *forwarder;
    struct store *store;
    struct control_request *now[CONTROL_MAX_CLIENTS];
    struct control_request *next[CONTROL_MAX_CLIENTS];
    uint32_t n_now, n_next;
    bool running;   /* a barrier is under way, with or without who waits */
    bool again;     /* another one was asked for */
    bool closed;    /* the reader answered */
    bool settling;  /* waiting for the forwarder */
    uint64_t token; /* of the order to the reader */
    uint64_t seq;   /* parts up to it must be encoded */
    uint64_t began_ns;
    struct delivery_counts before;
};

void barrier_init(struct barrier *b, struct reader *reader, struct parts *parts,
                  struct forwarder *forwarder, struct store *store);

/** A client waits. */
void barrier_ask(struct barrier *b, struct control_request *rq);

/** The client left: no answer. */
void barrier_forget(struct barrier *b, struct control_request *rq);

/** READER_CLOSED came with @token. @closed: false when the reader declined, since
 *  flushes come faster than the seconds that their parts need. */
void barrier_closed(struct barrier *b, uint64_t token, bool closed);

/** A part was encoded. */
void barrier_encoded(struct barrier *b);

/** The stop is over: whoever still waits is told how far it got. */
void barrier_abort(struct barrier *b);

#endif
