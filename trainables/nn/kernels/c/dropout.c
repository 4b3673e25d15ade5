/* Keyed dropout of rows. */
#include <stdlib.h>

#include "rows.h"
#include "philox.h"

/* Returns 0, or 1 where memory does not suffice. */
int dropout_rows(int is_bf16, int64_t num_rows, int64_t width, int64_t num_trials, const void *x, void *out,
                 const Keys *keys) {
    float *row = malloc(width * sizeof(float));
    if (row == NULL) return 1;
    int64_t per_trial = num_rows / num_trials;
    for (int64_t n = 0; n < num_rows; n++) {
        load_row(x, n * width, width, row, is_bf16);
        drop_row(row, width, keys, trial_keys(keys, n / per_trial), n);
        store_row(out, n * width, width, row, is_bf16);
    }
    free(row);
    return 0;
}
