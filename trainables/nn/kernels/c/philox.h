/* Philox 4x32-10 (Salmon et al. 2011), eight counters at once, and the masks that follow from it. */
#ifndef PHILOX_H
#define PHILOX_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#define DRAWS 8    /* counters at once */
#define NUMBERS 64 /* 16-bit numbers of these, eight a draw */

typedef uint64_t u64x8 __attribute__((vector_size(64)));

/* What the masks of a site follow from; see trainables/nn/kernels/philox.py. */
typedef struct {
    const int64_t *seeds, *steps;
    const float *rates;
    const int32_t *places, *positions;
    uint32_t site;
} Keys;

/* A trial's part of the keys. */
typedef struct {
    uint64_t seed, step;
    uint16_t threshold;
    float scale;
} TrialKeys;

static inline TrialKeys trial_keys(const Keys *keys, int64_t trial) {
    float rate = keys->rates[trial], threshold = rintf(rate * 65536.0f);
    TrialKeys mine;
    mine.seed = (uint64_t)keys->seeds[trial];
    mine.step = (uint64_t)keys->steps[trial] & 0xffffffffu;
    mine.threshold = (uint16_t)(threshold < 65535.0f ? threshold : 65535.0f);
    mine.scale = 1.0f / (1.0f - rate);
    return mine;
}

static inline int keeps_all(TrialKeys trial) { return trial.threshold == 0 && trial.scale == 1.0f; }

/* The 64-bit products of the low 32 bits of each lane, whatever its high ones are. */
static inline u64x8 multiply_low(u64x8 lanes, uint64_t multiplier) {
#if defined(__AVX512F__)
    return (u64x8)_mm512_mul_epu32((__m512i)lanes, _mm512_set1_epi64((long long)multiplier));
#elif defined(__AVX2__)
    union { u64x8 whole; __m256i halves[2]; } both = {lanes};
    __m256i by = _mm256_set1_epi64x((long long)multiplier);
    both.halves[0] = _mm256_mul_epu32(both.halves[0], by);
    both.halves[1] = _mm256_mul_epu32(both.halves[1], by);
    return both.whole;
#else
    return (lanes & 0xffffffffu) * multiplier;
#endif
}

/* The four words of eight draws, in the low halves of `words`. The words of a counter stand in the low halves of 64-bit
   lanes, where a product leaves the next round's words without a shuffle; high halves hold remains. */
static inline void draw(u64x8 x0, u64x8 x1, uint64_t c2, uint64_t c3, uint64_t seed, u64x8 words[4]) {
    u64x8 x2 = (u64x8){0} + c2, x3 = (u64x8){0} + c3;
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        u64x8 product0 = multiply_low(x0, 0xD2511F53u), product1 = multiply_low(x2, 0xCD9E8D57u);
        x0 = (product1 >> 32) ^ x1 ^ (uint64_t)key0;
        x1 = product1;
        x2 = (product0 >> 32) ^ x3 ^ (uint64_t)key1;
        x3 = product0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    words[0] = x0, words[1] = x1, words[2] = x2, words[3] = x3;
}

/* The numbers of eight draws, a draw's eight one after the other. */
static inline void draw_in_turn(u64x8 x0, u64x8 x1, uint64_t c2, uint64_t c3, uint64_t seed, uint16_t *out) {
    u64x8 x[4];
    draw(x0, x1, c2, c3, seed, x);
    u64x8 low = (x[0] & 0xffffffffu) | (x[1] << 32), high = (x[2] & 0xffffffffu) | (x[3] << 32);
    uint64_t words[16];
    for (int d = 0; d < DRAWS; d++) {
        words[2 * d] = low[d];
        words[2 * d + 1] = high[d];
    }
    memcpy(out, words, sizeof words);
}

/* Multiply the elements of a row by 0 or 1 / (1 - rate). */
static inline void drop_row(float *restrict row, int64_t width, const Keys *keys, TrialKeys trial, int64_t n) {
    const u64x8 lanes = {0, 1, 2, 3, 4, 5, 6, 7};
    uint64_t position = (uint32_t)keys->positions[n], place = (uint32_t)keys->places[n] | keys->site << 16;
    uint16_t numbers[NUMBERS];
    if (keeps_all(trial)) return;
    for (int64_t first = 0; first < width; first += NUMBERS) {
        draw_in_turn(lanes + (uint64_t)first / 8, (u64x8){0} + position, place, trial.step, trial.seed, numbers);
        if (width - first >= NUMBERS) {
            for (int e = 0; e < NUMBERS; e++) row[first + e] *= numbers[e] >= trial.threshold ? trial.scale : 0.0f;
        } else {
            for (int e = 0; e < width - first; e++) row[first + e] *= numbers[e] >= trial.threshold ? trial.scale : 0.0f;
        }
    }
}

#endif
