/* What attention needs whatever the dtype of its products: where rows lie, masks, powers. */
#ifndef ATTENTION_H
#define ATTENTION_H

#include "philox.h"
#include "products.h"
#include "rows.h"

#define QUERIES 64 /* of a block */

/* Where the rows of a sequence lie: row r of part p of head h at base + r * step + h * width. With one query a sequence,
   queries and what comes of them are of one row a sequence. */
typedef struct {
    int is_bf16, is_first;
    int64_t num_sequences, num_trials, num_heads, width, longest, num_queries, num_rows;
    const int32_t *starts, *lengths;
    const void *query, *key, *value;
    int64_t query_step, key_step, value_step;
    float *largest, *inverse; /* of each query and head: its largest score, and 1 / the sum of powers */
    const Keys *keys;         /* NULL: nothing is dropped */
} Attention;

static inline int64_t padded(int64_t size) { return (size + LANES - 1) / LANES * LANES; }

static inline void clear_rows(void *rows, int64_t first, int64_t last, int64_t step, int64_t width, int is_bf16) {
    size_t size = is_bf16 ? sizeof(uint16_t) : sizeof(float);
    for (int64_t r = first; r < last; r++) memset((char *)rows + r * step * size, 0, width * size);
}

/* Clear the rows between the sequence before this one and this one, where there are any. */
static inline void clear_before(const Attention *a, int64_t n, void *rows, int64_t step) {
    int64_t first = n == 0 ? 0 : a->starts[n - 1] + a->lengths[n - 1];
    clear_rows(rows, first, n == a->num_sequences ? a->num_rows : a->starts[n], step, a->num_heads * a->width,
               a->is_bf16);
}

typedef struct {
    TrialKeys trial;
    uint64_t head, place; /* with the site */
    int is_active;
} Mask;

static inline Mask mask_of(const Attention *a, int64_t n, int64_t head) {
    Mask mask = {0};
    if (a->keys == NULL) return mask;
    int64_t per_trial = a->num_sequences / a->num_trials;
    mask.trial = trial_keys(a->keys, n / per_trial);
    mask.head = (uint64_t)head << 16;
    mask.place = (uint64_t)(n % per_trial) | (uint64_t)a->keys->site << 16;
    mask.is_active = !keeps_all(mask.trial);
    return mask;
}

/* One head of one sequence. */
typedef struct {
    int64_t start, length;  /* its rows */
    int64_t first, queries; /* the rows of its queries, and of what comes of them */
    int64_t at;             /* where the head begins in a row */
    int64_t kept;           /* where its first query's numbers stand in `largest` and `inverse` */
    float scale;
    Mask mask;
} Head;

static inline Head head_of(const Attention *a, int64_t n, int64_t h) {
    int64_t start = a->starts[n], length = a->lengths[n], first = a->is_first ? n : start;
    return (Head){start, length, first, a->is_first && length ? 1 : length, h * a->width, h * a->num_queries + first,
                  1.0f / sqrtf((float)a->width), mask_of(a, n, h)};
}

/* Scratch of one head: rows (L, V) but where said. */
typedef struct {
    float *query, *key, *value, *grad, *out, *grad_key, *grad_value;
    float *query_turned, *grad_turned;     /* (V, queries) */
    float *scores, *grad_scores, *dropped; /* (L, queries) */
    float *pairs;                          /* of bf16 (L / 2, queries) */
} Scratch;

/* Of what comes out, of queries, and of keys and values, which have one step. */
typedef struct {
    const void *out;
    void *query, *key, *value;
    int64_t query_step, step;
} Gradients;

static inline int64_t queries_of_block(const Head *head, int64_t first) {
    return head->queries - first < QUERIES ? head->queries - first : QUERIES;
}

/* The factors of eight keys from 8 * column on, each for LANES queries from `query` on. */
static inline void draw_factors(const Mask *mask, int64_t query, int64_t column, lanes_t factors[8]) {
    const u64x8 lanes = {0, 1, 2, 3, 4, 5, 6, 7};
    union { uint32_t words[4][LANES]; places_t lanes[4]; } drawn;
    for (int part = 0; part < LANES / DRAWS; part++) {
        u64x8 words[4];
        draw((u64x8){0} + ((uint64_t)column | mask->head), lanes + (uint64_t)(query + part * DRAWS), mask->place,
             mask->trial.step, mask->trial.seed, words);
        for (int w = 0; w < 4; w++)
            for (int d = 0; d < DRAWS; d++) drawn.words[w][part * DRAWS + d] = (uint32_t)words[w][d];
    }
    int32_t threshold = mask->trial.threshold;
    places_t scale = (places_t)((lanes_t){0} + mask->trial.scale);
    for (int e = 0; e < 8; e++) {
        places_t number = (e % 2 ? drawn.lanes[e / 2] >> 16 : drawn.lanes[e / 2]) & 0xffff;
        factors[e] = (lanes_t)((number >= threshold) & scale);
    }
}

static inline lanes_t larger(lanes_t a, lanes_t b) {
    places_t is_larger = a > b;
    return (lanes_t)((is_larger & (places_t)a) | (~is_larger & (places_t)b));
}

/* e^x of x <= 0, to float32's precision (Cephes' polynomial); what is not a number stays so. */
static inline lanes_t power(lanes_t x) {
    const lanes_t lowest = (lanes_t){0} - 87.0f;
    places_t is_low = x < lowest;
    x = (lanes_t)((is_low & (places_t)lowest) | (~is_low & (places_t)x));
    lanes_t n = x * 1.44269504088896341f + 12582912.0f; /* in these units a float has no fraction */
    n -= 12582912.0f;
    lanes_t r = x - n * 0.693359375f + n * 2.12194440e-4f;
    lanes_t p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return (p * r * r + r + 1.0f) * (lanes_t)((__builtin_convertvector(n, places_t) + 127) << 23);
}

#endif
