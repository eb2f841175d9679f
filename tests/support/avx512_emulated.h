/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX-512 instructions that dsd_ahead.c uses, done with AVX2 and AES: so that
 * its form for these is tested on processors without them, too. Included ahead of it
 * (tests/unit/CMakeLists.txt).
 *
 * Promise: a masked load touches no byte but those of its mask.
 */
#ifndef RETRIEVER_TESTS_SUPPORT_AVX512_EMULATED_H
#define RETRIEVER_TESTS_SUPPORT_AVX512_EMULATED_H

#include <immintrin.h>
#include <stdint.h>

struct emulated512 {
    __m256i low, high;
};

static inline struct emulated512 emulated_load(const void *p)
{
    const __m256i *at = p;

    return (struct emulated512){_mm256_loadu_si256(at),
                                _mm256_loadu_si256(at + 1)};
}

static inline struct emulated512 emulated_load_masked(uint64_t mask,
                                                      const void *p)
{
    const volatile char *from = p; /* no wider than a byte */
    char bytes[64] = {0};

    for (unsigned i = 0; i < 64; i++) {
        if ((mask >> i & 1) != 0)
            bytes[i] = from[i];
    }
    return emulated_load(bytes);
}

static inline struct emulated512 emulated_xor(struct emulated512 x,
                                              struct emulated512 y)
{
    return (struct emulated512){x.low ^ y.low, x.high ^ y.high};
}

static inline __m256i emulated_aesenc_half(__m256i x, __m256i key)
{
    return _mm256_set_m128i(_mm_aesenc_si128(_mm256_extracti128_si256(x, 1),
                                             _mm256_extracti128_si256(key, 1)),
                            _mm_aesenc_si128(_mm256_castsi256_si128(x),
                                             _mm256_castsi256_si128(key)));
}

static inline struct emulated512 emulated_aesenc(struct emulated512 x,
                                                 struct emulated512 key)
{
    return (struct emulated512){emulated_aesenc_half(x.low, key.low),
                                emulated_aesenc_half(x.high, key.high)};
}

static inline __m128i emulated_low128(struct emulated512 x)
{
    return _mm256_castsi256_si128(x.low);
}

static inline __m256i emulated_low256(struct emulated512 x)
{
    return x.low;
}

static inline __m256i emulated_half(struct emulated512 x, int i)
{
    return i == 0 ? x.low : x.high;
}

static inline struct emulated512 emulated_all(char c)
{
    return (struct emulated512){_mm256_set1_epi8(c), _mm256_set1_epi8(c)};
}

static inline uint64_t emulated_equal(struct emulated512 x,
                                      struct emulated512 y)
{
    uint32_t low =
        (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(x.low, y.low));
    uint32_t high =
        (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(x.high, y.high));

    return low | (uint64_t)high << 32;
}

#undef _mm512_extracti64x4_epi64 /* a macro without optimisation */

#define __m512i struct emulated512
#define __mmask64 uint64_t
#define _mm512_loadu_si512 emulated_load
#define _mm512_maskz_loadu_epi8 emulated_load_masked
#define _mm512_xor_si512 emulated_xor
#define _mm512_aesenc_epi128 emulated_aesenc
#define _mm512_castsi512_si128 emulated_low128
#define _mm512_castsi512_si256 emulated_low256
#define _mm512_extracti64x4_epi64 emulated_half
#define _mm512_set1_epi8 emulated_all
#define _mm512_cmpeq_epi8_mask emulated_equal

#endif
