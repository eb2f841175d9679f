/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which compilation of dsd_ahead.c runs here. Each is told by its flags what it may
 * use (CMakeLists.txt), and what that is has to be asked for here.
 */
#include <stddef.h>

#include "aggregator/dsd_ahead.h"

dsd_ahead_fn dsd_ahead_base;

#if defined(__x86_64__)

dsd_ahead_fn dsd_ahead_avx2;

dsd_ahead_fn *dsd_ahead_form(unsigned i)
{
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
        __builtin_cpu_supports("bmi2") && i-- == 0)
        return dsd_ahead_avx2;
    return i == 0 ? dsd_ahead_base : NULL;
}

#else

dsd_ahead_fn *dsd_ahead_form(unsigned i)
{
    return i == 0 ? dsd_ahead_base : NULL;
}

#endif
