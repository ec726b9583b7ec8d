/* The inner loops, compiled once per instruction set (plain, AVX2 + FMA, AVX-512) and picked when the backend opens. All float32.
 *
 * Own loops instead of a library's: oneDNN 2.6.3 on one core of a Zen 3 reached 46 to 86 GFLOP/s in 3x3 convolutions and 73 to 92 in
 * products, these reach 96 to 99 (160 to 200 by Winograd's method) and 75 to 98, need no compiling at run time, and give the same bits for
 * any number of threads.
 *
 * Products go through one micro-kernel, gemm: rows of A are given by pointers (one per tap of a convolution and pixel; padding points at
 * zeros), B is packed in panels of NR = 2 * WIDTH columns, [k][NR], and each sum runs over k in ascending order. So a result depends
 * neither on the tile it falls into nor on the thread. */
#pragma once
#include "worker/backend/backend.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MR_MAX = 12, NR_MAX = 32 };

/* What follows a product: y[row] = act(c[row] + bias + add[row] + residual[row]), or with GEGLU half = NR / 2 columns
 * (c + bias)[j] * gelu((c + bias)[half + j]). */
struct epilogue {
    const float *bias;       /* NR of them, padded */
    const float *const *add; /* per row, at the panel's first column; NULL: none */
    const float *residual;   /* NULL: none */
    float *y;
    size_t residual_ld, y_ld;
    size_t columns; /* that exist of the panel's NR (GEGLU: of its half) */
    enum act act;
    bool geglu;
};

struct norm_stat {
    double count, mean, square;
}; /* square: sum of squares about the mean */

struct kernels {
    const char *name;
    int width, mr; /* floats in a vector; rows of a full tile */

    /* c[r][0 .. NR) = (FIRST ? 0 : c[r]) + sum over taps t and k < DEPTH of rows[t * STRIDE + r][k] * b[t * DEPTH + k][0 .. NR), for r <
     * MR. Rows of C are C_LD floats apart. */
    void (*gemm)(int mr, const float *const *rows, size_t stride, int taps, size_t depth, const float *b, float *c, size_t c_ld,
                 bool first);
    void (*finish)(const struct epilogue *e, const float *c, size_t rows); /* C packed */

    /* Winograd's F(2x2, 3x3). IN: v[16][plane apart] = B^T d B of the 4 x 4 pixels D of CHANNELS floats. OUT: the 2 x 2 pixels A^T m A of
     * NR columns of m[16][plane apart]: TOP gets the upper two, BOTTOM the lower two, NR floats each. */
    void (*winograd_in)(const float *const d[16], size_t channels, float *v, size_t plane);
    void (*winograd_out)(const float *m, size_t plane, float *top, float *bottom);

    /* One block of scores, in place: s = s * SCALE + mask (NULL: none), then p = exp(s - new maximum); MAX and SUM are the row's running
     * values. Returns what earlier sums must be multiplied with. COUNT columns count; those up to PADDED become 0. S and MASK reach to a
     * whole vector. */
    float (*softmax)(float *s, size_t count, size_t padded, float scale, const float *mask, float *max, float *sum);
    void (*scale)(float *y, const float *x, size_t n, float factor);

    /* Adds the statistics of PIXELS x CHANNELS floats (rows LD apart), GROUPS groups, to STATS[GROUPS]. SCRATCH: 2 * CHANNELS floats. */
    void (*group_stats)(const float *x, size_t ld, size_t pixels, size_t channels, size_t groups, float *scratch, struct norm_stat *stats);
    /* y = act((x - mean) * scale + shift), each per channel. */
    void (*group_apply)(float *y, size_t y_ld, const float *x, size_t x_ld, size_t pixels, size_t channels, const float *mean,
                        const float *scale, const float *shift, enum act act);
    void (*layer_norm)(float *y, const float *x, size_t n, const float *scale, const float *shift, float eps);

    void (*act)(float *y, const float *x, size_t n, enum act act);
    void (*binary)(float *y, const float *x, const float *z, size_t n, enum binary_fn fn);
    void (*lincomb)(float *y, const float *const *in, const float *coef, int count, size_t n);
    void (*guide)(float *y, const float *neg, const float *pos, size_t n, float s, float factor);
    void (*pack_u8)(unsigned char *y, const float *x, size_t n);
    void (*from_half)(float *y, const uint16_t *x, size_t n, enum dtype t); /* t: DT_F16, DT_BF16 */
    void (*to_half)(uint16_t *y, const float *x, size_t n, enum dtype t);
};

extern const struct kernels kernels_plain;
#if defined __x86_64__
extern const struct kernels kernels_avx2, kernels_avx512;
#endif
