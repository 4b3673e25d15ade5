/* Attention of bf16 rows with products of bf16, two at a time, on CPUs that have them (AVX-512 BF16).

   A pair is two neighbours of the direction that is summed over, in 32 bits. Rows in memory are pairs along their width
   as they lie, so products over the width read queries, keys and gradients where they are. Sums, softmax and its
   gradient are float32, as in torch. */
#ifndef ATTENTION_PAIRS_H
#define ATTENTION_PAIRS_H

#include "attention.h"

#ifdef __AVX512BF16__
#include <immintrin.h>

/* Whether rows can be read as pairs: whole vectors of them. */
static inline int has_pairs(const Attention *a) {
    int64_t odd = (a->query_step | a->key_step | a->value_step) & 1;
    return a->is_bf16 && a->width % (2 * LANES) == 0 && !odd;
}

static inline int64_t halved(int64_t count) { return (count + 1) / 2; }

static inline const void *row_of(const void *rows, int64_t row, int64_t step, int64_t at) {
    return (const uint16_t *)rows + row * step + at;
}

static inline __attribute__((always_inline)) void pair_tile(const uint32_t *a, int64_t a_row, int64_t a_column,
                                                            const uint32_t *b, int64_t b_row, float *c, int64_t c_row,
                                                            int64_t depth, int is_added, int rows, int columns) {
    __m512 sums[ROWS][2];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < columns; v++)
            sums[r][v] = is_added ? _mm512_loadu_ps(c + r * c_row + v * LANES) : _mm512_setzero_ps();
    for (int64_t k = 0; k < depth; k++) {
        __m512bh right[2];
        for (int v = 0; v < columns; v++) right[v] = (__m512bh)_mm512_loadu_si512(b + k * b_row + v * LANES);
        for (int r = 0; r < rows; r++) {
            int32_t pair;
            memcpy(&pair, a + r * a_row + k * a_column, sizeof pair);
            __m512bh left = (__m512bh)_mm512_set1_epi32(pair);
            for (int v = 0; v < columns; v++) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], left, right[v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < columns; v++) _mm512_storeu_ps(c + r * c_row + v * LANES, sums[r][v]);
}

#define PAIR_TILE(rows, columns) \
    pair_tile(left, a_row, a_column, b + j, b_row, out, c_row, depth, is_added, rows, columns)
#define PAIR_TILES(columns)                              \
    switch (height - i < ROWS ? height - i : ROWS) {     \
        case 1: PAIR_TILE(1, columns); break;            \
        case 2: PAIR_TILE(2, columns); break;            \
        case 3: PAIR_TILE(3, columns); break;            \
        case 4: PAIR_TILE(4, columns); break;            \
        case 5: PAIR_TILE(5, columns); break;            \
        default: PAIR_TILE(6, columns);                  \
    }

/* `product` of pairs: C (height, width), or what is added to it, with `depth` pairs. */
static void pair_product(const void *a_pairs, int64_t a_row, int64_t a_column, const uint32_t *b, int64_t b_row,
                         float *c, int64_t c_row, int64_t height, int64_t width, int64_t depth, int is_added) {
    const uint32_t *a = a_pairs;
    for (int64_t j = 0; j < width; j += 2 * LANES) {
        for (int64_t i = 0; i < height; i += ROWS) {
            const uint32_t *left = a + i * a_row;
            float *out = c + i * c_row + j;
            if (width - j > LANES) {
                PAIR_TILES(2)
            } else {
                PAIR_TILES(1)
            }
        }
    }
}

/* Pairs of two rows, element by element. */
static inline __m512i pair_up(__m256i first, __m256i second) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
}

/* Rows (count, width) as pairs of neighbouring rows (halved(count), width); an odd last one pairs with zeros. */
static void pair_rows(const uint16_t *row, int64_t step, int64_t count, int64_t width, uint32_t *out) {
    for (int64_t r = 0; r < count; r += 2, row += 2 * step, out += width)
        for (int64_t e = 0; e < width; e += LANES) {
            __m256i first = _mm256_loadu_si256((const __m256i *)(row + e));
            __m256i second = r + 1 < count ? _mm256_loadu_si256((const __m256i *)(row + step + e))
                                           : _mm256_setzero_si256();
            _mm512_storeu_si512(out + e, pair_up(first, second));
        }
}

static inline __m256i rounded(lanes_t numbers) { return (__m256i)_mm512_cvtneps_pbh((__m512)numbers); }

/* Scores (length, row) to dropped-out probabilities, as pairs of keys (halved(length), row). */
static void softmax_in_pairs(float *scores, uint32_t *pairs, int64_t length, int64_t row, const Head *head,
                             int64_t first, float *largest, float *inverse) {
    for (int64_t c = 0; c < row; c += LANES) {
        float *mine = scores + c;
        lanes_t most = load_lanes(mine), sum = {0};
        for (int64_t j = 1; j < length; j++) most = larger(load_lanes(mine + j * row), most);
        for (int64_t j = 0; j < length; j++) {
            lanes_t powers = power((load_lanes(mine + j * row) - most) * head->scale);
            sum += powers;
            store_lanes(mine + j * row, powers);
        }
        lanes_t over = 1.0f / sum;
        store_lanes(largest + c, most);
        store_lanes(inverse + c, over);
        for (int64_t j = 0; j < length; j += 8) {
            lanes_t factors[8];
            int64_t count = length - j < 8 ? length - j : 8;
            if (head->mask.is_active) draw_factors(&head->mask, first + c, j / 8, factors);
            __m256i before = _mm256_setzero_si256();
            for (int64_t e = 0; e < count; e++) {
                lanes_t probability = load_lanes(mine + (j + e) * row) * over;
                __m256i kept = rounded(head->mask.is_active ? probability * factors[e] : probability);
                uint32_t *pair = pairs + (j + e) / 2 * row + c;
                if (e % 2) _mm512_storeu_si512(pair, pair_up(before, kept));
                else if (e + 1 == count) _mm512_storeu_si512(pair, pair_up(kept, _mm256_setzero_si256()));
                before = kept;
            }
        }
    }
}

/* From scores, what was kept of them, and the gradients of dropped-out probabilities: these probabilities and the
   gradients of the scores, (length, row), these also as pairs of keys. Scores and gradients are overwritten. */
static void differentiate_in_pairs(float *scores, float *grads, uint16_t *dropped, uint16_t *grad_scores,
                                   uint32_t *grad_pairs, int64_t length, int64_t row, const Head *head, int64_t first,
                                   const float *largest, const float *inverse) {
    for (int64_t c = 0; c < row; c += LANES) {
        lanes_t most = load_lanes(largest + c), over = load_lanes(inverse + c), along = {0};
        for (int64_t j = 0; j < length; j += 8) {
            lanes_t factors[8];
            int64_t count = length - j < 8 ? length - j : 8;
            if (head->mask.is_active) draw_factors(&head->mask, first + c, j / 8, factors);
            for (int64_t e = 0; e < count; e++) {
                int64_t at = (j + e) * row + c;
                lanes_t grad = load_lanes(grads + at);
                lanes_t probability = power((load_lanes(scores + at) - most) * head->scale) * over;
                lanes_t kept = head->mask.is_active ? probability * factors[e] : probability;
                along += kept * grad;
                store_lanes(scores + at, probability);
                store_lanes(grads + at, kept * grad);
                _mm256_storeu_si256((__m256i *)(dropped + at), rounded(kept));
            }
        }
        __m256i before = _mm256_setzero_si256();
        for (int64_t j = 0; j < length; j++) {
            int64_t at = j * row + c;
            lanes_t grad = (load_lanes(grads + at) - load_lanes(scores + at) * along) * head->scale;
            __m256i kept = rounded(grad);
            _mm256_storeu_si256((__m256i *)(grad_scores + at), kept);
            uint32_t *pair = grad_pairs + j / 2 * row + c;
            if (j % 2) _mm512_storeu_si512(pair, pair_up(before, kept));
            else if (j + 1 == length) _mm512_storeu_si512(pair, pair_up(kept, _mm256_setzero_si256()));
            before = kept;
        }
    }
}

static void store_in_rows(void *rows, int64_t first, int64_t step, int64_t at, int64_t count, int64_t width,
                          const float *head) {
    for (int64_t r = 0; r < count; r++) store_row(rows, (first + r) * step + at, width, head + r * width, 1);
}

static void forward_head_in_pairs(const Attention *a, const Head *head, const Scratch *s, void *out) {
    int64_t width = a->width, length = head->length, out_step = a->num_heads * width;
    const void *key = row_of(a->key, head->start, a->key_step, head->at);
    uint32_t *query_turned = (uint32_t *)s->query_turned, *values = (uint32_t *)s->value;
    uint32_t *probabilities = (uint32_t *)s->dropped;
    float most[QUERIES], over[QUERIES];
    pair_rows(row_of(a->value, head->start, a->value_step, head->at), a->value_step, length, width, values);
    for (int64_t i = 0; i < head->queries; i += QUERIES) {
        int64_t count = queries_of_block(head, i), row = padded(count), from = head->first + i;
        turn(row_of(a->query, from, a->query_step, head->at), a->query_step / 2, count, width / 2, query_turned, row);
        pair_product(key, a->key_step / 2, 1, query_turned, row, s->scores, row, length, row, width / 2, 0);
        softmax_in_pairs(s->scores, probabilities, length, row, head, i, most, over);
        memcpy(a->largest + head->kept + i, most, count * sizeof(float));
        memcpy(a->inverse + head->kept + i, over, count * sizeof(float));
        pair_product(probabilities, 1, row, values, width, s->out, width, count, width, halved(length), 0);
        store_in_rows(out, from, out_step, head->at, count, width, s->out);
    }
}

static void backward_head_in_pairs(const Attention *a, const Head *head, const Scratch *s, const Gradients *g) {
    int64_t width = a->width, length = head->length, out_step = a->num_heads * width;
    const void *key = row_of(a->key, head->start, a->key_step, head->at);
    const void *value = row_of(a->value, head->start, a->value_step, head->at);
    uint32_t *query_turned = (uint32_t *)s->query_turned, *grad_turned = (uint32_t *)s->grad_turned;
    uint32_t *keys = (uint32_t *)s->key, *queries = (uint32_t *)s->query, *grads = (uint32_t *)s->grad;
    uint16_t *dropped = (uint16_t *)s->dropped, *grad_scores = (uint16_t *)s->value;
    uint32_t *grad_pairs = (uint32_t *)s->pairs;
    pair_rows(key, a->key_step, length, width, keys);
    for (int64_t i = 0; i < head->queries; i += QUERIES) {
        int64_t count = queries_of_block(head, i), row = padded(count), from = head->first + i;
        const void *query = row_of(a->query, from, a->query_step, head->at);
        const void *grad = row_of(g->out, from, out_step, head->at);
        /* Lanes past the last query are summed over with what stands beside it, so they are zeros. */
        float most[QUERIES] = {0}, over[QUERIES] = {0};
        memcpy(most, a->largest + head->kept + i, count * sizeof(float));
        memcpy(over, a->inverse + head->kept + i, count * sizeof(float));
        turn(query, a->query_step / 2, count, width / 2, query_turned, row);
        turn(grad, out_step / 2, count, width / 2, grad_turned, row);
        pair_rows(query, a->query_step, count, width, queries);
        pair_rows(grad, out_step, count, width, grads);
        pair_product(key, a->key_step / 2, 1, query_turned, row, s->scores, row, length, row, width / 2, 0);
        pair_product(value, a->value_step / 2, 1, grad_turned, row, s->grad_scores, row, length, row, width / 2, 0);
        differentiate_in_pairs(s->scores, s->grad_scores, dropped, grad_scores, grad_pairs, length, row, head, i, most,
                               over);
        pair_product(dropped, row / 2, 1, grads, width, s->grad_value, width, length, width, halved(count), i > 0);
        pair_product(grad_scores, row / 2, 1, queries, width, s->grad_key, width, length, width, halved(count), i > 0);
        pair_product(grad_pairs, 1, row, keys, width, s->out, width, count, width, halved(length), 0);
        store_in_rows(g->query, from, g->query_step, head->at, count, width, s->out);
    }
    store_in_rows(g->key, head->start, g->step, head->at, length, width, s->grad_key);
    store_in_rows(g->value, head->start, g->step, head->at, length, width, s->grad_value);
}

#else

static inline int has_pairs(const Attention *a) { return (void)a, 0; }
static void forward_head_in_pairs(const Attention *a, const Head *head, const Scratch *s, void *out) {
    (void)a, (void)head, (void)s, (void)out;
}
static void backward_head_in_pairs(const Attention *a, const Head *head, const Scratch *s, const Gradients *g) {
    (void)a, (void)head, (void)s, (void)g;
}

#endif
#endif
