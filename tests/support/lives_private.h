/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the lives (lives.c) and the judgement of their outcome
 * (lives_outcome.c) share.
 *
 * Thread:  one.
 * Memory:  none.
 */
#ifndef RETRIEVER_TESTS_SUPPORT_LIVES_PRIVATE_H
#define RETRIEVER_TESTS_SUPPORT_LIVES_PRIVATE_H

#include "aggregator/agg.h"
#include "tests/support/lives.h"

/* In the intake, before each body. */
struct lives_sent {
    uint64_t id;
    uint32_t kind; /* enum payload_kind */
    uint32_t n_bytes;
};

void lives_agg_config(const struct lives *v, struct agg_config *cfg);

#endif
