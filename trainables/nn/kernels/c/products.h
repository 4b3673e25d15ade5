/* Small products of float32 matrices in the cache. */
#ifndef PRODUCTS_H
#define PRODUCTS_H

#include <stdint.h>

#if defined(__AVX512F__)
#define LANES 16
#else
#define LANES 8
#endif

typedef float lanes_t __attribute__((vector_size(LANES * 4)));
typedef int32_t places_t __attribute__((vector_size(LANES * 4)));

/* Lanes of a and b by number, those of b after those of a. */
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (places_t){__VA_ARGS__})
#endif

/* Of two rows, the lower and the higher halves of each group of twice so many lanes. */
#if LANES == 16
#define LOW_1 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30
#define HIGH_1 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31
#define LOW_2 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define HIGH_2 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define LOW_4 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define HIGH_4 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define LOW_8 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define HIGH_8 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#else
#define LOW_1 0, 8, 2, 10, 4, 12, 6, 14
#define HIGH_1 1, 9, 3, 11, 5, 13, 7, 15
#define LOW_2 0, 1, 8, 9, 4, 5, 12, 13
#define HIGH_2 2, 3, 10, 11, 6, 7, 14, 15
#define LOW_4 0, 1, 2, 3, 8, 9, 10, 11
#define HIGH_4 4, 5, 6, 7, 12, 13, 14, 15
#endif

#define ROWS 6 /* with two columns of lanes the sums fit into the registers */

static inline lanes_t load_lanes(const float *from) {
    lanes_t out;
    __builtin_memcpy(&out, from, sizeof out);
    return out;
}

static inline void store_lanes(float *to, lanes_t from) { __builtin_memcpy(to, &from, sizeof from); }

/* `rows` rows and `columns` columns of lanes of `product`; both are constants where it is called. */
static inline __attribute__((always_inline)) void tile(const float *a, int64_t a_row, int64_t a_column, const float *b,
                                                       int64_t b_row, float *c, int64_t c_row, int64_t depth,
                                                       int is_added, int rows, int columns) {
    lanes_t sums[ROWS][2];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < columns; v++)
            sums[r][v] = is_added ? load_lanes(c + r * c_row + v * LANES) : (lanes_t){0};
    for (int64_t k = 0; k < depth; k++) {
        lanes_t right[2];
        for (int v = 0; v < columns; v++) right[v] = load_lanes(b + k * b_row + v * LANES);
        for (int r = 0; r < rows; r++) {
            float left = a[r * a_row + k * a_column];
            for (int v = 0; v < columns; v++) sums[r][v] += left * right[v];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < columns; v++) store_lanes(c + r * c_row + v * LANES, sums[r][v]);
}

#define TILE(rows, columns) tile(left, a_row, a_column, b + j, b_row, out, c_row, depth, is_added, rows, columns)
#define TILES(columns)                                \
    switch (height - i < ROWS ? height - i : ROWS) {  \
        case 1: TILE(1, columns); break;              \
        case 2: TILE(2, columns); break;              \
        case 3: TILE(3, columns); break;              \
        case 4: TILE(4, columns); break;              \
        case 5: TILE(5, columns); break;              \
        default: TILE(ROWS, columns);                 \
    }

/* C (height, width) = A (height, depth) B (depth, width), added to what C holds or not. The width is a multiple of
   LANES; A's numbers are a_row and a_column apart, so it may be transposed. */
static __attribute__((unused)) void product(const float *a, int64_t a_row, int64_t a_column, const float *b,
                                            int64_t b_row, float *c, int64_t c_row, int64_t height, int64_t width,
                                            int64_t depth, int is_added) {
    for (int64_t j = 0; j < width; j += 2 * LANES) {
        for (int64_t i = 0; i < height; i += ROWS) {
            const float *left = a + i * a_row;
            float *out = c + i * c_row + j;
            if (width - j > LANES) {
                TILES(2)
            } else {
                TILES(1)
            }
        }
    }
}

/* Exchange, between rows `step` apart, the halves of groups of 2 * step numbers. */
#define EXCHANGE(block, step)                                    \
    for (int r = 0; r < LANES; r++) {                            \
        if (r & step) continue;                                  \
        lanes_t upper = block[r], lower = block[r + step];       \
        block[r] = SHUFFLE(upper, lower, LOW_##step);            \
        block[r + step] = SHUFFLE(upper, lower, HIGH_##step);    \
    }

/* The transpose of (rows, width), `step` apart, as (width, to), padded with zeros; width and `to` are multiples of LANES.
   Numbers are only moved, so they may be anything of 32 bits. */
static __attribute__((unused)) void turn(const void *from, int64_t step, int64_t rows, int64_t width, void *out,
                                         int64_t to) {
    for (int64_t j = 0; j < to; j += LANES) {
        for (int64_t e = 0; e < width; e += LANES) {
            lanes_t block[LANES];
            for (int r = 0; r < LANES; r++)
                block[r] = j + r < rows ? load_lanes((const float *)from + (j + r) * step + e) : (lanes_t){0};
            EXCHANGE(block, 1)
            EXCHANGE(block, 2)
            EXCHANGE(block, 4)
#if LANES == 16
            EXCHANGE(block, 8)
#endif
            for (int r = 0; r < LANES; r++) store_lanes((float *)out + (e + r) * to + j, block[r]);
        }
    }
}

#endif
