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

#ifdef __clang__
#define SHUFFLE(a, b, places) shuffle_lanes(a, b, places)
static inline lanes_t shuffle_lanes(lanes_t a, lanes_t b, places_t places) {
    lanes_t out;
    for (int l = 0; l < LANES; l++) out[l] = places[l] < LANES ? a[places[l]] : b[places[l] - LANES];
    return out;
}
#else
#define SHUFFLE(a, b, places) __builtin_shuffle(a, b, places)
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
static inline __attribute__((always_inline)) void exchange(lanes_t block[LANES], int step) {
    places_t low, high;
    for (int l = 0; l < LANES; l++) {
        low[l] = l & step ? LANES + l - step : l;
        high[l] = l & step ? LANES + l : l + step;
    }
    for (int r = 0; r < LANES; r++) {
        if (r & step) continue;
        lanes_t upper = block[r], lower = block[r + step];
        block[r] = SHUFFLE(upper, lower, low);
        block[r + step] = SHUFFLE(upper, lower, high);
    }
}

/* The transpose of (rows, width) as (width, to), padded with zeros; width and `to` are multiples of LANES. */
static __attribute__((unused)) void turn(const float *from, int64_t rows, int64_t width, float *out, int64_t to) {
    for (int64_t j = 0; j < to; j += LANES) {
        for (int64_t e = 0; e < width; e += LANES) {
            lanes_t block[LANES];
            for (int r = 0; r < LANES; r++)
                block[r] = j + r < rows ? load_lanes(from + (j + r) * width + e) : (lanes_t){0};
            exchange(block, 1);
            exchange(block, 2);
            exchange(block, 4);
#if LANES == 16
            exchange(block, 8);
#endif
            for (int r = 0; r < LANES; r++) store_lanes(out + (e + r) * to + j, block[r]);
        }
    }
}

#endif
