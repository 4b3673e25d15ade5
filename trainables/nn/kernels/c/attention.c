/* Self-attention of sequences laid end to end, a head of a sequence at a time, forwards and backwards.

   A head of a sequence has L rows of V numbers, whose width is padded with zeros to a multiple of LANES. Scores stand
   turned: a row is a key, and its lanes are queries, so that sums over keys need no sums across lanes. Queries go in
   blocks, so that the scores of long sequences stay in the cache; lanes past the last query hold what nobody reads. */
#include <stdlib.h>

#include "rows.h"
#include "philox.h"
#include "products.h"

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

/* Scratch of one head: rows (L, V) but where said. */
typedef struct {
    float *query, *key, *value, *grad, *out, *grad_key, *grad_value;
    float *query_turned, *grad_turned;     /* (V, queries) */
    float *scores, *grad_scores, *dropped; /* (L, queries) */
} Scratch;

static inline int64_t padded(int64_t size) { return (size + LANES - 1) / LANES * LANES; }

static float *allocate(const Attention *a, Scratch *s) {
    float **parts[] = {&s->query, &s->key, &s->value, &s->grad, &s->out, &s->grad_key, &s->grad_value,
                       &s->query_turned, &s->grad_turned, &s->scores, &s->grad_scores, &s->dropped};
    int64_t width = padded(a->width), longest = padded(a->longest), count = sizeof parts / sizeof *parts;
    int64_t each = (longest > QUERIES ? longest : QUERIES) * (width > QUERIES ? width : QUERIES) + LANES;
    float *memory = aligned_alloc(64, count * each * sizeof(float)), *next = memory;
    if (memory == NULL) return NULL;
    for (int64_t i = 0; i < count; i++, next += each) *parts[i] = next;
    return memory;
}

/* Rows of a head to float32, each padded with zeros. */
static void load_head(const void *rows, int64_t first, int64_t step, int64_t count, int64_t width, float *out,
                      int is_bf16) {
    int64_t to = padded(width);
    if (is_bf16 && width == to) {
        const uint16_t *row = (const uint16_t *)rows + first;
        for (int64_t r = 0; r < count; r++, row += step, out += to)
            for (int64_t e = 0; e < to; e += LANES)
                for (int l = 0; l < LANES; l++) out[e + l] = from_bits((uint32_t)row[e + l] << 16);
        return;
    }
    for (int64_t r = 0; r < count; r++) {
        load_row(rows, first + r * step, width, out + r * to, is_bf16);
        for (int64_t e = width; e < to; e++) out[r * to + e] = 0;
    }
}

static void store_head(void *rows, int64_t first, int64_t step, int64_t count, int64_t width, const float *head,
                       int is_bf16) {
    for (int64_t r = 0; r < count; r++) store_row(rows, first + r * step, width, head + r * padded(width), is_bf16);
}

static void clear_rows(void *rows, int64_t first, int64_t last, int64_t step, int64_t width, int is_bf16) {
    size_t size = is_bf16 ? sizeof(uint16_t) : sizeof(float);
    for (int64_t r = first; r < last; r++) memset((char *)rows + r * step * size, 0, width * size);
}

/* Clear the rows between the sequence before this one and this one, where there are any. */
static void clear_before(const Attention *a, int64_t n, void *rows, int64_t step) {
    int64_t first = n == 0 ? 0 : a->starts[n - 1] + a->lengths[n - 1];
    clear_rows(rows, first, n == a->num_sequences ? a->num_rows : a->starts[n], step, a->num_heads * a->width,
               a->is_bf16);
}

typedef struct {
    TrialKeys trial;
    uint64_t head, place; /* with the site */
    int is_active;
} Mask;

static Mask mask_of(const Attention *a, int64_t n, int64_t head) {
    Mask mask = {0};
    if (a->keys == NULL) return mask;
    int64_t per_trial = a->num_sequences / a->num_trials;
    mask.trial = trial_keys(a->keys, n / per_trial);
    mask.head = (uint64_t)head << 16;
    mask.place = (uint64_t)(n % per_trial) | (uint64_t)a->keys->site << 16;
    mask.is_active = !keeps_all(mask.trial);
    return mask;
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

/* Scores (length, row) of `row` queries from `first` on to dropped-out probabilities. */
static void softmax(float *scores, int64_t length, int64_t row, float scale, const Mask *mask, int64_t first,
                    float *largest, float *inverse) {
    for (int64_t c = 0; c < row; c += LANES) {
        float *mine = scores + c;
        lanes_t most = load_lanes(mine), sum = {0};
        for (int64_t j = 1; j < length; j++) most = larger(load_lanes(mine + j * row), most);
        for (int64_t j = 0; j < length; j++) {
            lanes_t powers = power((load_lanes(mine + j * row) - most) * scale);
            sum += powers;
            store_lanes(mine + j * row, powers);
        }
        lanes_t over = 1.0f / sum;
        store_lanes(largest + c, most);
        store_lanes(inverse + c, over);
        for (int64_t j = 0; j < length; j += 8) {
            lanes_t factors[8];
            int64_t count = length - j < 8 ? length - j : 8;
            if (mask->is_active) draw_factors(mask, first + c, j / 8, factors);
            for (int64_t e = 0; e < count; e++) {
                float *score = mine + (j + e) * row;
                lanes_t probability = load_lanes(score) * over;
                store_lanes(score, mask->is_active ? probability * factors[e] : probability);
            }
        }
    }
}

/* From scores, what was kept of them, and the gradients of dropped-out probabilities: these probabilities, and in place
   of the gradients those of the scores. */
static void differentiate(float *scores, float *grads, float *dropped, int64_t length, int64_t row, float scale,
                          const Mask *mask, int64_t first, const float *largest, const float *inverse) {
    for (int64_t c = 0; c < row; c += LANES) {
        lanes_t most = load_lanes(largest + c), over = load_lanes(inverse + c), along = {0};
        for (int64_t j = 0; j < length; j += 8) {
            lanes_t factors[8];
            int64_t count = length - j < 8 ? length - j : 8;
            if (mask->is_active) draw_factors(mask, first + c, j / 8, factors);
            for (int64_t e = 0; e < count; e++) {
                int64_t at = (j + e) * row + c;
                lanes_t probability = power((load_lanes(scores + at) - most) * scale) * over;
                lanes_t kept = mask->is_active ? probability * factors[e] : probability;
                along += kept * load_lanes(grads + at);
                store_lanes(scores + at, probability);
                store_lanes(dropped + at, kept);
            }
        }
        for (int64_t j = 0; j < length; j++) {
            int64_t at = j * row + c;
            lanes_t grad = load_lanes(dropped + at) * load_lanes(grads + at) - load_lanes(scores + at) * along;
            store_lanes(grads + at, grad * scale);
        }
    }
}

/* `out` has rows of step num_heads * width, by row, or by sequence with one query; `largest` and `inverse` are (heads,
   such rows). Rows of no sequence, and sequences of no rows, give zeros. Returns 0, or 1 where memory does not suffice. */
int attention_forward(const Attention *a, void *out) {
    Scratch s;
    float *memory = allocate(a, &s), most[QUERIES], over[QUERIES];
    if (memory == NULL) return 1;
    int64_t width = a->width, to = padded(width), out_step = a->num_heads * width;
    float scale = 1.0f / sqrtf((float)width);
    for (int64_t n = 0; n < a->num_sequences; n++) {
        int64_t start = a->starts[n], length = a->lengths[n], queries = a->is_first && length ? 1 : length;
        int64_t first = a->is_first ? n : start;
        if (!a->is_first) clear_before(a, n, out, out_step);
        else if (length == 0) clear_rows(out, n, n + 1, out_step, out_step, a->is_bf16);
        for (int64_t h = 0; h < a->num_heads && length; h++) {
            int64_t at = h * width, kept = h * a->num_queries + first;
            Mask mask = mask_of(a, n, h);
            load_head(a->key, start * a->key_step + at, a->key_step, length, width, s.key, a->is_bf16);
            load_head(a->value, start * a->value_step + at, a->value_step, length, width, s.value, a->is_bf16);
            for (int64_t i = 0; i < queries; i += QUERIES) {
                int64_t count = queries - i < QUERIES ? queries - i : QUERIES, row = padded(count);
                load_head(a->query, (first + i) * a->query_step + at, a->query_step, count, width, s.query, a->is_bf16);
                turn(s.query, count, to, s.query_turned, row);
                product(s.key, to, 1, s.query_turned, row, s.scores, row, length, row, width, 0);
                softmax(s.scores, length, row, scale, &mask, i, most, over);
                memcpy(a->largest + kept + i, most, count * sizeof(float));
                memcpy(a->inverse + kept + i, over, count * sizeof(float));
                product(s.scores, 1, row, s.value, to, s.out, to, count, to, length, 0);
                store_head(out, (first + i) * out_step + at, out_step, count, width, s.out, a->is_bf16);
            }
        }
    }
    if (!a->is_first) clear_before(a, a->num_sequences, out, out_step);
    free(memory);
    return 0;
}

/* `grad` is laid out as `out` was; the gradients of queries, and of keys and values, have the steps given. */
int attention_backward(const Attention *a, const void *grad, void *grad_query, void *grad_key, void *grad_value,
                       int64_t grad_query_step, int64_t grad_step) {
    Scratch s;
    float *memory = allocate(a, &s), most[QUERIES] = {0}, over[QUERIES] = {0};
    if (memory == NULL) return 1;
    int64_t width = a->width, to = padded(width), out_step = a->num_heads * width;
    float scale = 1.0f / sqrtf((float)width);
    for (int64_t n = 0; n < a->num_sequences; n++) {
        int64_t start = a->starts[n], length = a->lengths[n], queries = a->is_first && length ? 1 : length;
        int64_t first = a->is_first ? n : start;
        clear_before(a, n, grad_key, grad_step);
        clear_before(a, n, grad_value, grad_step);
        if (!a->is_first) clear_before(a, n, grad_query, grad_query_step);
        else if (length == 0) clear_rows(grad_query, n, n + 1, grad_query_step, out_step, a->is_bf16);
        for (int64_t h = 0; h < a->num_heads && length; h++) {
            int64_t at = h * width, kept = h * a->num_queries + first;
            Mask mask = mask_of(a, n, h);
            load_head(a->key, start * a->key_step + at, a->key_step, length, width, s.key, a->is_bf16);
            load_head(a->value, start * a->value_step + at, a->value_step, length, width, s.value, a->is_bf16);
            for (int64_t i = 0; i < queries; i += QUERIES) {
                int64_t count = queries - i < QUERIES ? queries - i : QUERIES, row = padded(count), from = first + i;
                load_head(a->query, from * a->query_step + at, a->query_step, count, width, s.query, a->is_bf16);
                load_head(grad, from * out_step + at, out_step, count, width, s.grad, a->is_bf16);
                turn(s.query, count, to, s.query_turned, row);
                turn(s.grad, count, to, s.grad_turned, row);
                memcpy(most, a->largest + kept + i, count * sizeof(float));
                memcpy(over, a->inverse + kept + i, count * sizeof(float));
                product(s.key, to, 1, s.query_turned, row, s.scores, row, length, row, width, 0);
                product(s.value, to, 1, s.grad_turned, row, s.grad_scores, row, length, row, width, 0);
                differentiate(s.scores, s.grad_scores, s.dropped, length, row, scale, &mask, i, most, over);
                product(s.dropped, row, 1, s.grad, to, s.grad_value, to, length, to, count, i > 0);
                product(s.grad_scores, row, 1, s.query, to, s.grad_key, to, length, to, count, i > 0);
                product(s.grad_scores, 1, row, s.key, to, s.out, to, count, to, length, 0);
                store_head(grad_query, from * grad_query_step + at, grad_query_step, count, width, s.out, a->is_bf16);
            }
            store_head(grad_key, start * grad_step + at, grad_step, length, width, s.grad_key, a->is_bf16);
            store_head(grad_value, start * grad_step + at, grad_step, length, width, s.grad_value, a->is_bf16);
        }
    }
    clear_before(a, a->num_sequences, grad_key, grad_step);
    clear_before(a, a->num_sequences, grad_value, grad_step);
    if (!a->is_first) clear_before(a, a->num_sequences, grad_query, grad_query_step);
    free(memory);
    return 0;
}
