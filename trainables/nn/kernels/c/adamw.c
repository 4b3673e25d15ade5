/* AdamW with clipping at a global norm, a trial at a time. */
#include <math.h>
#include <stdint.h>
#include <stddef.h>

#include "rows.h"

#define LANES 16
#define BLOCK 4096 /* squares that are summed in float32 before they join the rest in float64 */

static double norm_of(const float *grads, int64_t size) {
    double total = 0;
    for (int64_t first = 0; first < size; first += BLOCK) {
        int64_t last = first + BLOCK < size ? first + BLOCK : size, e = first;
        float lanes[LANES] = {0};
        for (; e + LANES <= last; e += LANES)
            for (int l = 0; l < LANES; l++) lanes[l] += grads[e + l] * grads[e + l];
        for (; e < last; e++) total += (double)grads[e] * grads[e];
        for (int l = 0; l < LANES; l++) total += lanes[l];
    }
    return sqrt(total);
}

static void step(float *restrict values, float *restrict grads, float *restrict first, float *restrict second,
                 int64_t size, float clip, float keep, float gain1, float beta2, float gain2, float step_size,
                 float correction, float eps) {
    for (int64_t e = 0; e < size; e++) {
        float grad = grads[e] * clip;
        float mean = first[e] + gain1 * (grad - first[e]);
        float square = second[e] * beta2 + gain2 * grad * grad;
        grads[e] = grad;
        first[e] = mean;
        second[e] = square;
        values[e] = values[e] * keep - step_size * mean / (sqrtf(square) / correction + eps);
    }
}

/* Numbers that are one a trial are float64; `seen`, bf16, may be NULL. */
void adamw(int64_t num_trials, int64_t size, int64_t num_decayed, float *values, float *grads, float *first,
           float *second, uint16_t *seen, const double *rates, const double *decays, const double *max_norms,
           const int64_t *steps, double eps, double beta1, double beta2) {
    for (int64_t k = 0; k < num_trials; k++) {
        int64_t at = k * size;
        float clip = (float)max_norms[k] / ((float)norm_of(grads + at, size) + 1e-6f);
        clip = clip > 1.0f ? 1.0f : clip; /* what is not a number stays so */
        double step_size = rates[k] / (1 - pow(beta1, (double)steps[k]));
        double correction = sqrt(1 - pow(beta2, (double)steps[k])), keep = 1 - rates[k] * decays[k];
        int64_t bounds[3] = {0, num_decayed, size};
        for (int part = 0; part < 2; part++) {
            int64_t from = at + bounds[part];
            step(values + from, grads + from, first + from, second + from, bounds[part + 1] - bounds[part], clip,
                 part == 0 ? (float)keep : 1.0f, (float)(1 - beta1), (float)beta2, (float)(1 - beta2), (float)step_size,
                 (float)correction, (float)eps);
        }
        if (seen != NULL) store_row(seen, at, size, values + at, 1);
    }
}
