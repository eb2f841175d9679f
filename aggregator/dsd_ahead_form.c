/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which compilation of dsd_ahead.c runs here. Each is told by its flags what it may
 * use (CMakeLists.txt), and what that is has to be asked for here.
 */
#include <stddef.h>

#include "aggregator/dsd_ahead.h"

extern const struct dsd_ahead_form dsd_ahead_base;

#if defined(__x86_64__)

#include <cpuid.h>

extern const struct dsd_ahead_form dsd_ahead_avx2;
extern const struct dsd_ahead_form dsd_ahead_vaes;
extern const struct dsd_ahead_form dsd_ahead_avx512;

/* Not among the names that all compilers know. */
static bool has_wide_aes(void)
{
    unsigned a, b, c, d;

    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (c & 1u << 9) != 0;
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("aes");
}

static bool has_vaes(void)
{
    return has_avx2() && has_wide_aes();
}

/* The kernel's part, the wide registers, is in the name. */
static bool has_avx512(void)
{
    return has_vaes() && __builtin_cpu_supports("avx512bw");
}

const struct dsd_ahead_form *dsd_ahead_form(unsigned i)
{
    if (has_avx512() && i-- == 0)
        return &dsd_ahead_avx512;
    if (has_vaes() && i-- == 0)
        return &dsd_ahead_vaes;
    if (has_avx2() && i-- == 0)
        return &dsd_ahead_avx2;
    return i == 0 ? &dsd_ahead_base : NULL;
}

#else

const struct dsd_ahead_form *dsd_ahead_form(unsigned i)
{
    return i == 0 ? &dsd_ahead_base : NULL;
}

#endif
