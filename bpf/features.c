/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/features.h"

const struct feature *const feature_table[] = {
    &runq_feature,     &self_feature,
    &drop_feature,     &life_feature, /* before those that need its records */
    &activity_feature, &env_feature,
    &programs_feature, NULL,
};

_Static_assert(sizeof(feature_table) / sizeof(feature_table[0]) <=
                   FEATURES_MAX + 1,
               "whoever keeps a state for each has no room");
