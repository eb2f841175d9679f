/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The receipt between who composes it and who prints it. A worker may die at any
 * instruction and its successor does its work again, so a line that the worker
 * itself printed could come twice. It only composes: the line lies in memory that
 * outlives it, whole from one store on, and the keeper, which has no successor,
 * prints it.
 *
 * Thread:  one composer until it is ready, then one printer.
 * Memory:  part of struct supervision; pages that no line reaches cost nothing.
 * Promise: composed any number of times, ready once, printed at most once.
 */
#ifndef RETRIEVER_AGENT_RECEIPT_H
#define RETRIEVER_AGENT_RECEIPT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define RECEIPT_MAX_BYTES (64u * 1024)

struct ledger;
struct ledger_facts;

enum receipt_state { RECEIPT_NONE, RECEIPT_READY, RECEIPT_PRINTED };

struct receipt {
    _Atomic uint32_t state; /* enum receipt_state; stored last */
    _Atomic int32_t exit_status;
    _Atomic uint32_t n_bytes; /* 0: it could not be composed */
    char text[RECEIPT_MAX_BYTES];
};

/** Write line and exit status, then make them ready. Nothing once it is. */
void receipt_compose(struct receipt *r, const struct ledger *l,
                     const struct ledger_facts *facts);

/** There is a receipt, printed or not: nothing that its composer still had to do
 *  matters to anybody. */
static inline bool receipt_is_ready(const struct receipt *r)
{
    return atomic_load(&r->state) != RECEIPT_NONE;
}

/** Print a receipt that is ready and not printed: one line on stderr (may block
 *  until @deadline_ns of CLOCK_MONOTONIC on a full pipe, never longer), and
 *  receipt.json in @run_dir (-1 = none), replaced as a whole. */
void receipt_print(struct receipt *r, int run_dir, uint64_t deadline_ns);

#endif
