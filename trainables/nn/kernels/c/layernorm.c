/* LayerNorm of dropout(x) + residual, forwards and backwards. */
#include <math.h>
#include <stdlib.h>

#include "rows.h"
#include "philox.h"

#define LANES 64       /* sums that run beside each other, since the compiler may not reorder sums of floats */
#define ROWS_SUMMED 32 /* gradients of weights are summed over this many rows before they join the rest */

static inline float sum_of_lanes(float lanes[LANES]) {
    for (int l = 0; l < 32; l++) lanes[l] += lanes[l + 32];
    for (int l = 0; l < 16; l++) lanes[l] += lanes[l + 16];
    for (int l = 0; l < 8; l++) lanes[l] += lanes[l + 8];
    for (int l = 0; l < 4; l++) lanes[l] += lanes[l + 4];
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

static inline float mean_of(const float *restrict row, int64_t width) {
    float lanes[LANES] = {0};
    int64_t e = 0;
    for (; e + LANES <= width; e += LANES)
        for (int l = 0; l < LANES; l++) lanes[l] += row[e + l];
    for (int l = 0; e < width; e++, l++) lanes[l] += row[e];
    return sum_of_lanes(lanes) / (float)width;
}

static inline float mean_product_of(const float *restrict row, const float *restrict other, int64_t width) {
    float lanes[LANES] = {0};
    int64_t e = 0;
    for (; e + LANES <= width; e += LANES)
        for (int l = 0; l < LANES; l++) lanes[l] += row[e + l] * other[e + l];
    for (int l = 0; e < width; e++, l++) lanes[l] += row[e] * other[e];
    return sum_of_lanes(lanes) / (float)width;
}

/* Weight and bias are float32, with steps of 0 or `width` between the trials. residual, normed, rstd and keys may be
   NULL. Returns 0, or 1 where memory does not suffice. */
int layernorm_forward(int is_bf16, int64_t num_rows, int64_t width, int64_t num_trials, const void *x,
                      const void *residual, const float *weight, int64_t weight_step, const float *bias,
                      int64_t bias_step, float eps, void *out, void *normed, float *rstd, const Keys *keys) {
    float *row = malloc(2 * width * sizeof(float)), *other = row + width;
    if (row == NULL) return 1;
    int64_t per_trial = num_rows / num_trials;
    for (int64_t n = 0; n < num_rows; n++) {
        int64_t trial = n / per_trial;
        load_row(x, n * width, width, row, is_bf16);
        if (keys != NULL) {
            drop_row(row, width, keys, trial_keys(keys, trial), n);
            round_row(row, width, is_bf16);
        }
        if (residual != NULL) {
            load_row(residual, n * width, width, other, is_bf16);
            for (int64_t e = 0; e < width; e++) row[e] += other[e];
        }
        float mean = mean_of(row, width);
        for (int64_t e = 0; e < width; e++) row[e] -= mean;
        float inverse = 1.0f / sqrtf(mean_product_of(row, row, width) + eps);
        for (int64_t e = 0; e < width; e++) row[e] *= inverse;
        if (normed != NULL) {
            store_row(normed, n * width, width, row, is_bf16);
            rstd[n] = inverse;
        }
        const float *restrict scale = weight + trial * weight_step, *restrict shift = bias + trial * bias_step;
        for (int64_t e = 0; e < width; e++) row[e] = row[e] * scale[e] + shift[e];
        store_row(out, n * width, width, row, is_bf16);
    }
    free(row);
    return 0;
}

static void add_row(float *restrict total, float *restrict part, int64_t width) {
    for (int64_t e = 0; e < width; e++) total[e] += part[e];
    memset(part, 0, width * sizeof(float));
}

/* grad_x, grad_residual, and, each (trials, width), grad_weight and grad_bias may be NULL; keys may be NULL. */
int layernorm_backward(int is_bf16, int64_t num_rows, int64_t width, int64_t num_trials, const void *grad,
                       const void *normed, const float *rstd, const float *weight, int64_t weight_step, void *grad_x,
                       void *grad_residual, float *grad_weight, float *grad_bias, const Keys *keys) {
    float *row = calloc(4 * width, sizeof(float));
    if (row == NULL) return 1;
    float *other = row + width, *part_weight = row + 2 * width, *part_bias = row + 3 * width;
    int64_t per_trial = num_rows / num_trials;
    if (grad_weight != NULL) memset(grad_weight, 0, num_trials * width * sizeof(float));
    if (grad_bias != NULL) memset(grad_bias, 0, num_trials * width * sizeof(float));
    for (int64_t n = 0; n < num_rows; n++) {
        int64_t trial = n / per_trial, within = n % per_trial;
        load_row(grad, n * width, width, row, is_bf16);
        load_row(normed, n * width, width, other, is_bf16);
        int is_due = within % ROWS_SUMMED == ROWS_SUMMED - 1 || within == per_trial - 1;
        if (grad_weight != NULL) {
            for (int64_t e = 0; e < width; e++) part_weight[e] += row[e] * other[e];
            if (is_due) add_row(grad_weight + trial * width, part_weight, width);
        }
        if (grad_bias != NULL) {
            for (int64_t e = 0; e < width; e++) part_bias[e] += row[e];
            if (is_due) add_row(grad_bias + trial * width, part_bias, width);
        }
        if (grad_x == NULL && grad_residual == NULL) continue;
        const float *restrict scale = weight + trial * weight_step;
        for (int64_t e = 0; e < width; e++) row[e] *= scale[e];
        float mean = mean_of(row, width);
        float along = mean_product_of(row, other, width), inverse = rstd[n];
        for (int64_t e = 0; e < width; e++) row[e] = (row[e] - mean - other[e] * along) * inverse;
        if (grad_residual != NULL) store_row(grad_residual, n * width, width, row, is_bf16);
        if (grad_x == NULL) continue;
        if (keys != NULL) {
            round_row(row, width, is_bf16);
            drop_row(row, width, keys, trial_keys(keys, trial), n);
        }
        store_row(grad_x, n * width, width, row, is_bf16);
    }
    free(row);
    return 0;
}
