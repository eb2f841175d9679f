/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which compilation of dsd_ahead.c runs here. Each is told by its flags what it may
 * use (CMakeLists.txt), and what that is has to be asked for here.
 */
#include <stddef.h>

#include "aggregator/dsd_ahead.h"

dsd_ahead_fn dsd_ahead_base;

#if defined(__x86_64__)

dsd_ahead_fn dsd_ahead_avx2, dsd_ahead_avx512;

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2");
}

dsd_ahead_fn *dsd_ahead_form(unsigned i)
{
    dsd_ahead_fn *const forms[] = {
        has_avx2() && __builtin_cpu_supports("avx512bw") ? dsd_ahead_avx512
                                                         : NULL,
        has_avx2() ? dsd_ahead_avx2 : NULL,
        dsd_ahead_base,
    };

    for (size_t k = 0; k < sizeof(forms) / sizeof(forms[0]); k++) {
        if (forms[k] != NULL && i-- == 0)
            return forms[k];
    }
    return NULL;
}

#else

dsd_ahead_fn *dsd_ahead_form(unsigned i)
{
    return i == 0 ? dsd_ahead_base : NULL;
}

#endif
