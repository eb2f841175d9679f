/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which requests the stand-in intake spoils, and how: a script of outcomes
 * first, then faults by probability, then none.
 *
 *   outcome   accept or a 2xx status    take it (and answer so)
 *             STATUS or STATUS/SECONDS  refuse it so (with Retry-After)
 *             reset                     cut the connection, take nothing
 *             late-reset                take it, cut instead of an answer
 *             stall                     take nothing, never answer
 *   script    OUTCOME[*TIMES],...       for the first requests, in order
 *   fault     OUTCOME:PROBABILITY       e.g. 500:0.3
 *
 * Thread:  one at a time; the caller locks.
 * Memory:  embedded, bounded: FAULT_SCRIPT_MAX and FAULT_RULES_MAX entries.
 * Promise: the same seed gives the same outcomes in the order of requests.
 */
#ifndef RETRIEVER_AGENT_INTAKE_FAULT_H
#define RETRIEVER_AGENT_INTAKE_FAULT_H

#include <stddef.h>
#include <stdint.h>

#define FAULT_SCRIPT_MAX 256
#define FAULT_RULES_MAX 16

enum fault_kind {
    FAULT_ACCEPT,
    FAULT_STATUS,
    FAULT_RESET,
    FAULT_LATE_RESET,
    FAULT_STALL
};

struct fault_outcome {
    enum fault_kind kind;
    unsigned status;        /* FAULT_STATUS; FAULT_ACCEPT: 0 = the usual one */
    unsigned retry_after_s; /* 0 = no such header */
};

struct fault_plan {
    struct {
        struct fault_outcome outcome;
        uint32_t n_times;
    } script[FAULT_SCRIPT_MAX];
    size_t n_script, at_script;
    struct {
        struct fault_outcome outcome;
        double probability;
    } rules[FAULT_RULES_MAX];
    size_t n_rules;
    uint64_t random;
};

enum fault_rc { FAULT_BAD = 1 };

void fault_init(struct fault_plan *p, uint64_t seed);

/** Replace the script. Returns 0 or FAULT_BAD (nothing changed); "" = none. */
int fault_set_script(struct fault_plan *p, const char *text);

/** Add one rule. Returns 0 or FAULT_BAD (syntax, too many, or the sum of the
 *  probabilities passes 1). */
int fault_add_rule(struct fault_plan *p, const char *text);

void fault_clear_rules(struct fault_plan *p);

/** The outcome of the next request. */
struct fault_outcome fault_next(struct fault_plan *p);

#endif
