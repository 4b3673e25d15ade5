/* Self-attention of sequences laid end to end, a head of a sequence at a time, forwards and backwards.

   A head of a sequence has L rows of V numbers. Where rows of scores are worked on together, their keys are padded with
   zeros to a multiple of LANES; widths likewise. Queries go in blocks, so that scores of long sequences stay in the
   cache. */
#include <float.h>
#include <stdlib.h>

#include "rows.h"
#include "philox.h"
#include "products.h"

#define QUERIES 64 /* of a block */

/* Where the rows of a sequence lie: row r of part p of head h at base + r * step + h * width. With one query a sequence,
   queries and what comes of them are of one row a sequence. */
typedef struct {
    int is_bf16, is_first;
    int64_t num_sequences, num_trials, num_heads, width, longest;
    const int32_t *starts, *lengths;
    const void *query, *key, *value;
    int64_t query_step, key_step, value_step;
    float *largest, *inverse; /* of each query and head: its largest score, and 1 / the sum of powers */
    const Keys *keys;         /* NULL: nothing is dropped */
} Attention;

/* Scratch of one head. */
typedef struct {
    float *query, *key, *key_turned, *value, *value_turned, *grad, *scores, *grad_scores, *factors, *out;
    float *grad_key, *grad_value;
} Scratch;

static inline int64_t padded(int64_t size) { return (size + LANES - 1) / LANES * LANES; }

static float *allocate(const Attention *a, Scratch *s) {
    int64_t rows = padded(a->longest), width = padded(a->width), block = QUERIES * (rows + 64);
    size_t sizes[] = {rows * width, rows * width, rows * width, rows * width, rows * width, rows * width,
                      block,        block,        block,        QUERIES * width, rows * width, rows * width};
    float **parts[] = {&s->query, &s->key, &s->key_turned, &s->value, &s->value_turned, &s->grad,
                       &s->scores, &s->grad_scores, &s->factors, &s->out, &s->grad_key, &s->grad_value};
    size_t total = 0, count = sizeof sizes / sizeof *sizes;
    for (size_t i = 0; i < count; i++) total += sizes[i];
    float *memory = aligned_alloc(64, (total * sizeof(float) + 63) / 64 * 64);
    if (memory == NULL) return NULL;
    memset(memory, 0, total * sizeof(float));
    float *next = memory;
    for (size_t i = 0; i < count; next += sizes[i++]) *parts[i] = next;
    return memory;
}

/* Rows of a head to float32, each padded with zeros. */
static void load_head(const void *rows, int64_t first, int64_t step, int64_t count, int64_t width, float *out,
                      int is_bf16) {
    int64_t to = padded(width);
    for (int64_t r = 0; r < count; r++) {
        load_row(rows, first + r * step, width, out + r * to, is_bf16);
        for (int64_t e = width; e < to; e++) out[r * to + e] = 0;
    }
}

static void store_head(void *rows, int64_t first, int64_t step, int64_t count, int64_t width, const float *head,
                       int is_bf16) {
    for (int64_t r = 0; r < count; r++) store_row(rows, first + r * step, width, head + r * padded(width), is_bf16);
}

/* The factors of some queries' probabilities, rows of `row` numbers. */
static void draw_factors(const Keys *keys, TrialKeys trial, int64_t place, int64_t head, int64_t first, int64_t queries,
                         int64_t length, int64_t row, float *factors) {
    int64_t draws = (length + 7) / 8, count = queries * draws;
    uint16_t numbers[NUMBERS];
    int64_t query = 0, column = 0;
    for (int64_t done = 0; done < count; done += DRAWS) {
        u64x8 x0 = {0}, x1 = {0};
        float *targets[DRAWS];
        for (int d = 0; d < DRAWS; d++) {
            x0[d] = (uint64_t)column | (uint64_t)head << 16;
            x1[d] = (uint64_t)(first + query);
            targets[d] = factors + query * row + column * 8;
            if (++column == draws) column = 0, query++;
        }
        draw(x0, x1, (uint64_t)place | (uint64_t)keys->site << 16, trial.step, trial.seed, numbers);
        for (int d = 0; d < DRAWS && done + d < count; d++)
            for (int e = 0; e < 8; e++) targets[d][e] = numbers[d * 8 + e] >= trial.threshold ? trial.scale : 0.0f;
    }
}

/* e^x of x <= 0, to float32's precision (Cephes' polynomial); what is not a number stays so. */
static inline float power(float x) {
    x = x < -87.0f ? -87.0f : x;
    float n = x * 1.44269504088896341f + 12582912.0f; /* in these units a float has no fraction */
    n -= 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return (p * r * r + r + 1.0f) * from_bits((uint32_t)((int32_t)n + 127) << 23);
}

/* Scores to probabilities. `length` of a row's numbers are scores, `row` is a multiple of LANES. */
static void softmax(float *scores, int64_t queries, int64_t length, int64_t row, float scale, float *largest,
                    float *inverse, int64_t step) {
    for (int64_t i = 0; i < queries; i++) {
        float *restrict mine = scores + i * row;
        float most[LANES], lanes[LANES] = {0}, peak = -FLT_MAX, sum = 0;
        for (int64_t j = length; j < row; j++) mine[j] = -INFINITY;
        for (int l = 0; l < LANES; l++) most[l] = -FLT_MAX;
        for (int64_t j = 0; j < row; j += LANES)
            for (int l = 0; l < LANES; l++) most[l] = mine[j + l] > most[l] ? mine[j + l] : most[l];
        for (int l = 0; l < LANES; l++) peak = most[l] > peak ? most[l] : peak;
        for (int64_t j = 0; j < row; j++) mine[j] = power((mine[j] - peak) * scale);
        for (int64_t j = length; j < row; j++) mine[j] = 0;
        for (int64_t j = 0; j < row; j += LANES)
            for (int l = 0; l < LANES; l++) lanes[l] += mine[j + l];
        for (int l = 0; l < LANES; l++) sum += lanes[l];
        float over = 1.0f / sum;
        for (int64_t j = 0; j < row; j++) mine[j] *= over;
        largest[i * step] = peak;
        inverse[i * step] = over;
    }
}

/* The same from what was kept of each row. */
static void softmax_again(float *scores, int64_t queries, int64_t length, int64_t row, float scale,
                          const float *largest, const float *inverse, int64_t step) {
    for (int64_t i = 0; i < queries; i++) {
        float *restrict mine = scores + i * row;
        float peak = largest[i * step], over = inverse[i * step];
        for (int64_t j = 0; j < row; j++) mine[j] = power((mine[j] - peak) * scale) * over;
        for (int64_t j = length; j < row; j++) mine[j] = 0;
    }
}

/* From probabilities, factors and the gradients of their products: those products, and the gradients of scores. */
static void differentiate(float *scores, float *grads, const float *factors, int64_t queries, int64_t row,
                          float scale) {
    for (int64_t i = 0; i < queries; i++) {
        float *restrict mine = scores + i * row, *restrict grad = grads + i * row;
        const float *restrict factor = factors == NULL ? NULL : factors + i * row;
        float lanes[LANES] = {0}, along = 0;
        if (factor != NULL)
            for (int64_t j = 0; j < row; j++) grad[j] *= factor[j];
        for (int64_t j = 0; j < row; j += LANES)
            for (int l = 0; l < LANES; l++) lanes[l] += mine[j + l] * grad[j + l];
        for (int l = 0; l < LANES; l++) along += lanes[l];
        for (int64_t j = 0; j < row; j++) grad[j] = mine[j] * (grad[j] - along) * scale;
        if (factor != NULL)
            for (int64_t j = 0; j < row; j++) mine[j] *= factor[j];
    }
}

/* out: rows of step num_heads * width, by row, or by sequence with one query. Returns 0, or 1 without memory. */
int attention_forward(const Attention *a, void *out) {
    Scratch s;
    float *memory = allocate(a, &s);
    if (memory == NULL) return 1;
    int64_t width = a->width, to = padded(width), out_step = a->num_heads * width;
    int64_t per_trial = a->num_sequences / a->num_trials;
    float scale = 1.0f / sqrtf((float)width);
    for (int64_t n = 0; n < a->num_sequences; n++) {
        int64_t start = a->starts[n], length = a->lengths[n], row = padded(length), queries = a->is_first ? 1 : length;
        int64_t first = a->is_first ? n : start;
        if (length == 0) continue;
        TrialKeys trial = {0};
        if (a->keys != NULL) trial = trial_keys(a->keys, n / per_trial);
        for (int64_t h = 0; h < a->num_heads; h++) {
            int64_t at = h * width;
            load_head(a->query, first * a->query_step + at, a->query_step, queries, width, s.query, a->is_bf16);
            load_head(a->key, start * a->key_step + at, a->key_step, length, width, s.key, a->is_bf16);
            load_head(a->value, start * a->value_step + at, a->value_step, length, width, s.value, a->is_bf16);
            turn(s.key, length, to, s.key_turned, row);
            for (int64_t i = 0; i < queries; i += QUERIES) {
                int64_t count = queries - i < QUERIES ? queries - i : QUERIES, kept = (first + i) * a->num_heads + h;
                product(s.query + i * to, to, 1, s.key_turned, row, s.scores, row, count, row, width, 0);
                softmax(s.scores, count, length, row, scale, a->largest + kept, a->inverse + kept, a->num_heads);
                if (a->keys != NULL) {
                    draw_factors(a->keys, trial, n % per_trial, h, i, count, length, row, s.factors);
                    for (int64_t e = 0; e < count * row; e++) s.scores[e] *= s.factors[e];
                }
                product(s.scores, row, 1, s.value, to, s.out, to, count, to, length, 0);
                store_head(out, (first + i) * out_step + at, out_step, count, width, s.out, a->is_bf16);
            }
        }
    }
    free(memory);
    return 0;
}

/* grad: as `out` forwards. The gradients of query, key and value have the steps given. */
int attention_backward(const Attention *a, const void *grad, void *grad_query, void *grad_key, void *grad_value,
                       int64_t grad_query_step, int64_t grad_step) {
    Scratch s;
    float *memory = allocate(a, &s);
    if (memory == NULL) return 1;
    int64_t width = a->width, to = padded(width), out_step = a->num_heads * width;
    int64_t per_trial = a->num_sequences / a->num_trials;
    float scale = 1.0f / sqrtf((float)width);
    for (int64_t n = 0; n < a->num_sequences; n++) {
        int64_t start = a->starts[n], length = a->lengths[n], row = padded(length), queries = a->is_first ? 1 : length;
        int64_t first = a->is_first ? n : start;
        if (length == 0) continue;
        TrialKeys trial = {0};
        if (a->keys != NULL) trial = trial_keys(a->keys, n / per_trial);
        for (int64_t h = 0; h < a->num_heads; h++) {
            int64_t at = h * width;
            load_head(a->query, first * a->query_step + at, a->query_step, queries, width, s.query, a->is_bf16);
            load_head(a->key, start * a->key_step + at, a->key_step, length, width, s.key, a->is_bf16);
            load_head(a->value, start * a->value_step + at, a->value_step, length, width, s.value, a->is_bf16);
            load_head(grad, first * out_step + at, out_step, queries, width, s.grad, a->is_bf16);
            turn(s.key, length, to, s.key_turned, row);
            turn(s.value, length, to, s.value_turned, row);
            for (int64_t i = 0; i < queries; i += QUERIES) {
                int64_t count = queries - i < QUERIES ? queries - i : QUERIES, kept = (first + i) * a->num_heads + h;
                float *query = s.query + i * to, *out = s.grad + i * to;
                product(query, to, 1, s.key_turned, row, s.scores, row, count, row, width, 0);
                softmax_again(s.scores, count, length, row, scale, a->largest + kept, a->inverse + kept, a->num_heads);
                if (a->keys != NULL)
                    draw_factors(a->keys, trial, n % per_trial, h, i, count, length, row, s.factors);
                product(out, to, 1, s.value_turned, row, s.grad_scores, row, count, row, width, 0);
                differentiate(s.scores, s.grad_scores, a->keys == NULL ? NULL : s.factors, count, row, scale);
                product(s.scores, 1, row, out, to, s.grad_value, to, length, to, count, i > 0);
                product(s.grad_scores, 1, row, query, to, s.grad_key, to, length, to, count, i > 0);
                product(s.grad_scores, row, 1, s.key, to, s.out, to, count, to, length, 0);
                store_head(grad_query, (first + i) * grad_query_step + at, grad_query_step, count, width, s.out,
                           a->is_bf16);
            }
            store_head(grad_key, start * grad_step + at, grad_step, length, width, s.grad_key, a->is_bf16);
            store_head(grad_value, start * grad_step + at, grad_step, length, width, s.grad_value, a->is_bf16);
        }
    }
    free(memory);
    return 0;
}
