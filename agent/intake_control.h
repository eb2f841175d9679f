/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /control: the behaviour of the stand-in intake, changed while it runs.
 *
 *   {"latency_ms":N, "fail":["500:0.2",...], "script":"200,429/2,...",
 *    "seed":N, "down":true, "down_ms":N, "api_key":"...", "reset":true}
 *
 * Every member is optional; what is not named stays.
 *
 * Thread:  one at a time; the caller locks.
 * Memory:  embedded.
 * Promise: a message with any fault changes nothing.
 */
#ifndef RETRIEVER_AGENT_INTAKE_CONTROL_H
#define RETRIEVER_AGENT_INTAKE_CONTROL_H

#include <stddef.h>

#include "agent/intake_fault.h"

#define INTAKE_LATENCY_MAX_MS 3600000

struct intake_settings {
    struct fault_plan plan;
    unsigned latency_ms;
    int down;          /* until told otherwise */
    char api_key[128]; /* the only one that is taken; "" = any */
};

/* What a message asks for once. */
struct intake_order {
    unsigned down_ms; /* close the port for so long; 0 = no */
    int reset;        /* forget all that came */
};

enum intake_control_rc { INTAKE_CONTROL_BAD = 1 };

/** Returns 0, or INTAKE_CONTROL_BAD with the reason in @why (printable ASCII
 *  without quotes), or -ENOMEM. */
int intake_control(struct intake_settings *s, const char *body, size_t n,
                   struct intake_order *order, char *why, size_t n_why);

#endif
