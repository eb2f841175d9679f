/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The features of this build, and the options of each: the rows of
 * `retriever ebpf status`.
 *
 * Thread:  none; constant data.
 * Memory:  options are borrowed by the features for as long as they are open.
 * Promise: no two features have one name.
 */
#ifndef RETRIEVER_BPF_FEATURES_H
#define RETRIEVER_BPF_FEATURES_H

#include "bpf/activity.h"
#include "bpf/drop.h"
#include "bpf/env.h"
#include "bpf/feature.h"
#include "bpf/life.h"
#include "bpf/programs.h"
#include "bpf/runq.h"
#include "bpf/self.h"

#define FEATURES_MAX 16

/** One member for each feature that has options. */
struct feature_opts {
    struct activity_opts activity;
    struct drop_opts drop;
    struct life_opts life;
    struct runq_opts runq;
    struct env_opts env;
    struct self_opts self;
    struct programs_opts programs;
};

/** In the order in which they are opened; NULL ends it. "runq" comes first: it
 *  chooses the hierarchy of cgroups. */
extern const struct feature *const feature_table[];

#endif
