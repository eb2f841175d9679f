/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shorthand for the rows of the table of keys.
 *
 * Thread:  none; macros only.
 * Memory:  none.
 * Promise: included by config_keys*.c alone.
 */
#ifndef RETRIEVER_AGENT_CONFIG_ROW_H
#define RETRIEVER_AGENT_CONFIG_ROW_H

#include "agent/config_table.h"

#define FIELD(f)                                                               \
    .offset = offsetof(struct config, f),                                      \
    .size = sizeof(((struct config *)0)->f)
#define RANGE(lo, hi) .min = (lo), .max = (hi)

/* A duration: unit of a plain number, unit of the field. */
#define SECONDS_TO_MS                                                          \
    .type = KEY_DURATION, .unit = "s", .unit_ms = 1000, .field_ms = 1
#define SECONDS                                                                \
    .type = KEY_DURATION, .unit = "s", .unit_ms = 1000, .field_ms = 1000
#define MINUTES                                                                \
    .type = KEY_DURATION, .unit = "min", .unit_ms = 60000, .field_ms = 1000
#define MILLISECONDS                                                           \
    .type = KEY_DURATION, .unit = "ms", .unit_ms = 1, .field_ms = 1
#define BYTES .type = KEY_BYTES, .unit = "bytes"

#endif
