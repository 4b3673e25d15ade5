/* Rows of bf16 or float32 numbers, worked on as float32. */
#ifndef ROWS_H
#define ROWS_H

#include <stdint.h>
#include <string.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

static inline float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* To the nearest bf16, ties to even, as torch rounds; what is not a number stays so. */
static inline uint32_t bf16_bits(float value) {
    uint32_t bits = to_bits(value);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded;
}

static inline void load_row(const void *rows, int64_t offset, int64_t width, float *restrict out, int is_bf16) {
    if (is_bf16) {
        const uint16_t *restrict row = (const uint16_t *)rows + offset;
        for (int64_t e = 0; e < width; e++) out[e] = from_bits((uint32_t)row[e] << 16);
    } else {
        memcpy(out, (const float *)rows + offset, width * sizeof(float));
    }
}

static inline void store_row(void *rows, int64_t offset, int64_t width, const float *restrict row, int is_bf16) {
    if (is_bf16) {
        uint16_t *restrict out = (uint16_t *)rows + offset;
        int64_t e = 0;
#ifdef __AVX512BF16__ /* the same but for numbers below 2**-126, which become 0 */
        for (; e + 32 <= width; e += 32) {
            __m512 low = _mm512_loadu_ps(row + e), high = _mm512_loadu_ps(row + e + 16);
            _mm512_storeu_si512(out + e, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
#endif
        for (; e < width; e++) out[e] = (uint16_t)bf16_bits(row[e]);
    } else {
        memcpy((float *)rows + offset, row, width * sizeof(float));
    }
}

/* What storing and loading makes of a row. */
static inline void round_row(float *restrict row, int64_t width, int is_bf16) {
    if (!is_bf16) return;
    int64_t e = 0;
#ifdef __AVX512BF16__
    for (; e + 16 <= width; e += 16) {
        __m512i bits = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(row + e)));
        _mm512_storeu_ps(row + e, (__m512)_mm512_slli_epi32(bits, 16));
    }
#endif
    for (; e < width; e++) row[e] = from_bits(bf16_bits(row[e]) << 16);
}

#endif
