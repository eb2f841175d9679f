/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of all features, as the agent fills them in from its configuration.
 *
 * Thread:  constant once the first feature is opened.
 * Memory:  the caller's.
 * Promise: one member per feature; each feature reads its own alone.
 */
#ifndef RETRIEVER_BPF_FEATURES_H
#define RETRIEVER_BPF_FEATURES_H

#include "bpf/drop.h"

struct feature_opts {
    struct drop_opts drop;
};

#endif
