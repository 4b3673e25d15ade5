/* Self-attention of sequences laid end to end, a head of a sequence at a time, forwards and backwards.

   A head of a sequence has L rows of V numbers, whose width is padded with zeros to a multiple of LANES. Scores stand
   turned: a row is a key, and its lanes are queries, so that sums over keys need no sums across lanes. Queries go in
   blocks, so that the scores of long sequences stay in the cache; lanes past the last query hold what nobody reads. */
#include <stdlib.h>

#include "attention.h"
#include "attention_pairs.h"

static float *allocate(const Attention *a, Scratch *s) {
    float **parts[] = {&s->query, &s->key, &s->value, &s->grad, &s->out, &s->grad_key, &s->grad_value,
                       &s->query_turned, &s->grad_turned, &s->scores, &s->grad_scores, &s->dropped, &s->pairs};
    int64_t width = padded(a->width), longest = padded(a->longest), count = sizeof parts / sizeof *parts;
    int64_t each = (longest > QUERIES ? longest : QUERIES) * (width > QUERIES ? width : QUERIES) + LANES;
    size_t size = (count * each * sizeof(float) + 63) / 64 * 64; /* C11 gives whole multiples of the alignment alone */
    float *memory = aligned_alloc(64, size), *next = memory;
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

static void forward_head(const Attention *a, const Head *head, const Scratch *s, void *out) {
    int64_t width = a->width, to = padded(width), length = head->length, out_step = a->num_heads * width;
    float most[QUERIES], over[QUERIES];
    load_head(a->key, head->start * a->key_step + head->at, a->key_step, length, width, s->key, a->is_bf16);
    load_head(a->value, head->start * a->value_step + head->at, a->value_step, length, width, s->value, a->is_bf16);
    for (int64_t i = 0; i < head->queries; i += QUERIES) {
        int64_t count = queries_of_block(head, i), row = padded(count), from = head->first + i;
        load_head(a->query, from * a->query_step + head->at, a->query_step, count, width, s->query, a->is_bf16);
        turn(s->query, to, count, to, s->query_turned, row);
        product(s->key, to, 1, s->query_turned, row, s->scores, row, length, row, width, 0);
        softmax(s->scores, length, row, head->scale, &head->mask, i, most, over);
        memcpy(a->largest + head->kept + i, most, count * sizeof(float));
        memcpy(a->inverse + head->kept + i, over, count * sizeof(float));
        product(s->scores, 1, row, s->value, to, s->out, to, count, to, length, 0);
        store_head(out, from * out_step + head->at, out_step, count, width, s->out, a->is_bf16);
    }
}

static void backward_head(const Attention *a, const Head *head, const Scratch *s, const Gradients *g) {
    int64_t width = a->width, to = padded(width), length = head->length, out_step = a->num_heads * width;
    float most[QUERIES] = {0}, over[QUERIES] = {0};
    load_head(a->key, head->start * a->key_step + head->at, a->key_step, length, width, s->key, a->is_bf16);
    load_head(a->value, head->start * a->value_step + head->at, a->value_step, length, width, s->value, a->is_bf16);
    for (int64_t i = 0; i < head->queries; i += QUERIES) {
        int64_t count = queries_of_block(head, i), row = padded(count), from = head->first + i;
        load_head(a->query, from * a->query_step + head->at, a->query_step, count, width, s->query, a->is_bf16);
        load_head(g->out, from * out_step + head->at, out_step, count, width, s->grad, a->is_bf16);
        turn(s->query, to, count, to, s->query_turned, row);
        turn(s->grad, to, count, to, s->grad_turned, row);
        memcpy(most, a->largest + head->kept + i, count * sizeof(float));
        memcpy(over, a->inverse + head->kept + i, count * sizeof(float));
        product(s->key, to, 1, s->query_turned, row, s->scores, row, length, row, width, 0);
        product(s->value, to, 1, s->grad_turned, row, s->grad_scores, row, length, row, width, 0);
        differentiate(s->scores, s->grad_scores, s->dropped, length, row, head->scale, &head->mask, i, most, over);
        product(s->dropped, row, 1, s->grad, to, s->grad_value, to, length, to, count, i > 0);
        product(s->grad_scores, row, 1, s->query, to, s->grad_key, to, length, to, count, i > 0);
        product(s->grad_scores, 1, row, s->key, to, s->out, to, count, to, length, 0);
        store_head(g->query, from * g->query_step + head->at, g->query_step, count, width, s->out, a->is_bf16);
    }
    store_head(g->key, head->start * g->step + head->at, g->step, length, width, s->grad_key, a->is_bf16);
    store_head(g->value, head->start * g->step + head->at, g->step, length, width, s->grad_value, a->is_bf16);
}

/* `out` has rows of step num_heads * width, by row, or by sequence with one query; `largest` and `inverse` are (heads,
   such rows). Rows of no sequence, and sequences of no rows, give zeros. Returns 0, or 1 where memory does not suffice. */
int attention_forward(const Attention *a, void *out) {
    Scratch s;
    float *memory = allocate(a, &s);
    if (memory == NULL) return 1;
    int64_t out_step = a->num_heads * a->width;
    for (int64_t n = 0; n < a->num_sequences; n++) {
        if (!a->is_first) clear_before(a, n, out, out_step);
        else if (a->lengths[n] == 0) clear_rows(out, n, n + 1, out_step, out_step, a->is_bf16);
        for (int64_t h = 0; h < a->num_heads && a->lengths[n]; h++) {
            Head head = head_of(a, n, h);
            if (has_pairs(a)) forward_head_in_pairs(a, &head, &s, out);
            else forward_head(a, &head, &s, out);
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
    Gradients g = {grad, grad_query, grad_key, grad_value, grad_query_step, grad_step};
    float *memory = allocate(a, &s);
    if (memory == NULL) return 1;
    int64_t out_step = a->num_heads * a->width;
    for (int64_t n = 0; n < a->num_sequences; n++) {
        clear_before(a, n, grad_key, grad_step);
        clear_before(a, n, grad_value, grad_step);
        if (!a->is_first) clear_before(a, n, grad_query, grad_query_step);
        else if (a->lengths[n] == 0) clear_rows(grad_query, n, n + 1, grad_query_step, out_step, a->is_bf16);
        for (int64_t h = 0; h < a->num_heads && a->lengths[n]; h++) {
            Head head = head_of(a, n, h);
            if (has_pairs(a)) backward_head_in_pairs(a, &head, &s, &g);
            else backward_head(a, &head, &s, &g);
        }
    }
    clear_before(a, a->num_sequences, grad_key, grad_step);
    clear_before(a, a->num_sequences, grad_value, grad_step);
    if (!a->is_first) clear_before(a, a->num_sequences, grad_query, grad_query_step);
    free(memory);
    return 0;
}
