/* Functions of single bf16 numbers, looked up: there are 65,536 of them. */
#include "rows.h"

#define BLOCK 64

void look_up(int64_t count, const uint16_t *restrict table, const uint16_t *restrict x, uint16_t *restrict out) {
    for (int64_t e = 0; e < count; e++) out[e] = table[x[e]];
}

/* out = gradient * table[x], the product in float32. */
void look_up_and_multiply(int64_t count, const float *restrict table, const uint16_t *restrict x,
                          const uint16_t *restrict gradient, uint16_t *restrict out) {
    float factors[BLOCK], row[BLOCK];
    for (int64_t first = 0; first < count; first += BLOCK) {
        int64_t size = count - first < BLOCK ? count - first : BLOCK;
        for (int64_t e = 0; e < size; e++) factors[e] = table[x[first + e]];
        load_row(gradient, first, size, row, 1);
        for (int64_t e = 0; e < size; e++) row[e] *= factors[e];
        store_row(out, first, size, row, 1);
    }
}
