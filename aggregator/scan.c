/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/scan.h"

#include <stddef.h>

static uint64_t scalar_64(const char *p, char c)
{
    uint64_t bits = 0;

    for (unsigned i = 0; i < 64; i++)
        bits |= (uint64_t)(p[i] == c) << i;
    return bits;
}

void scan_scalar(struct scan *s, const char *p)
{
    s->lf[0] = scalar_64(p, '\n');
    s->lf[1] = scalar_64(p + 64, '\n');
    s->bar[0] = scalar_64(p, '|');
    s->bar[1] = scalar_64(p + 64, '|');
    s->colon = scalar_64(p, ':');
}

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET(name) __attribute__((target(name)))

static inline uint64_t sse2_64(const __m128i v[4], char c)
{
    const __m128i all = _mm_set1_epi8(c);
    uint64_t bits = 0;

    for (int i = 0; i < 4; i++)
        bits |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v[i], all))
                << (16 * i);
    return bits;
}

static void scan_sse2(struct scan *s, const char *p)
{
    __m128i v[8];

    for (int i = 0; i < 8; i++)
        v[i] = _mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i));
    s->lf[0] = sse2_64(v, '\n');
    s->lf[1] = sse2_64(v + 4, '\n');
    s->bar[0] = sse2_64(v, '|');
    s->bar[1] = sse2_64(v + 4, '|');
    s->colon = sse2_64(v, ':');
}

TARGET("avx2") static inline uint64_t avx2_64(__m256i x, __m256i y, char c)
{
    const __m256i all = _mm256_set1_epi8(c);
    uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(x, all));
    uint32_t high = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(y, all));

    return low | (uint64_t)high << 32;
}

TARGET("avx2") static void scan_avx2(struct scan *s, const char *p)
{
    const __m256i *at = (const void *)p;
    __m256i v0 = _mm256_loadu_si256(at);
    __m256i v1 = _mm256_loadu_si256(at + 1);
    __m256i v2 = _mm256_loadu_si256(at + 2);
    __m256i v3 = _mm256_loadu_si256(at + 3);

    s->lf[0] = avx2_64(v0, v1, '\n');
    s->lf[1] = avx2_64(v2, v3, '\n');
    s->bar[0] = avx2_64(v0, v1, '|');
    s->bar[1] = avx2_64(v2, v3, '|');
    s->colon = avx2_64(v0, v1, ':');
}

TARGET("avx512bw") static void scan_avx512(struct scan *s, const char *p)
{
    __m512i v0 = _mm512_loadu_si512((const void *)p);
    __m512i v1 = _mm512_loadu_si512((const void *)(p + 64));
    const __m512i lf = _mm512_set1_epi8('\n');
    const __m512i bar = _mm512_set1_epi8('|');

    s->lf[0] = _mm512_cmpeq_epi8_mask(v0, lf);
    s->lf[1] = _mm512_cmpeq_epi8_mask(v1, lf);
    s->bar[0] = _mm512_cmpeq_epi8_mask(v0, bar);
    s->bar[1] = _mm512_cmpeq_epi8_mask(v1, bar);
    s->colon = _mm512_cmpeq_epi8_mask(v0, _mm512_set1_epi8(':'));
}

scan_fn *scan_form(unsigned i)
{
    scan_fn *const forms[] = {
        __builtin_cpu_supports("avx512bw") ? scan_avx512 : NULL,
        __builtin_cpu_supports("avx2") ? scan_avx2 : NULL,
        scan_sse2,
        scan_scalar,
    };

    for (size_t k = 0; k < sizeof(forms) / sizeof(forms[0]); k++) {
        if (forms[k] != NULL && i-- == 0)
            return forms[k];
    }
    return NULL;
}

#else

scan_fn *scan_form(unsigned i)
{
    return i == 0 ? scan_scalar : NULL;
}

#endif
