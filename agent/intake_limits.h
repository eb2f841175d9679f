/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limits that the Datadog intake puts on a series: one that breaks them
 * makes it refuse the whole payload.
 *
 * Thread:  pure function.
 * Memory:  none.
 * Promise: the first rule that a series breaks is named; 0 means that none is.
 */
#ifndef RETRIEVER_AGENT_INTAKE_LIMITS_H
#define RETRIEVER_AGENT_INTAKE_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#include "agent/intake_payload.h"

#define INTAKE_NAME_MAX 350
#define INTAKE_TAG_MAX 200
#define INTAKE_HOST_MAX 255
#define INTAKE_FUTURE_MAX_S 600

enum intake_limits_rc { INTAKE_REFUSED = 100 };

/** Returns 0, or INTAKE_REFUSED with the reason in @why (printable ASCII, at
 *  most @n bytes with its end). @now_s: wall clock. */
int intake_limits_check(const struct intake_series *s, int64_t now_s, char *why,
                        size_t n);

#endif
