/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of all features.
 *
 * Thread:  written before the features are opened.
 * Memory:  plain data.
 * Promise: features read their own member only.
 */
#ifndef RETRIEVER_BPF_FEATURES_H
#define RETRIEVER_BPF_FEATURES_H

#include "bpf/activity.h"
#include "bpf/life.h"

struct feature_opts {
    struct activity_opts activity;
    struct life_opts life;
};

#endif
