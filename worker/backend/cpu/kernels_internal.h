/* Joins the kernel files of one instruction set: KERNEL_ISA is plain, avx2 or avx512. */
#pragma once
#include "worker/backend/cpu/kernels.h"

#define KERNEL_JOIN2(name, isa) name##_##isa
#define KERNEL_JOIN(name, isa) KERNEL_JOIN2(name, isa)
#define KERNEL(name) KERNEL_JOIN(name, KERNEL_ISA)
#define KERNEL_TEXT2(isa) #isa
#define KERNEL_TEXT(isa) KERNEL_TEXT2(isa)

void KERNEL(kernel_gemm)(int mr, const float *const *rows, size_t stride, int taps, size_t depth, const float *b, float *c, size_t c_ld,
                         bool first);
void KERNEL(kernel_finish)(const struct epilogue *e, const float *c, size_t rows);
void KERNEL(kernel_winograd_in)(const float *const d[16], size_t channels, float *v, size_t plane);
void KERNEL(kernel_winograd_out)(const float *m, size_t plane, float *top, float *bottom);
float KERNEL(kernel_softmax)(float *s, size_t count, size_t padded, float scale, const float *mask, float *max, float *sum);
void KERNEL(kernel_scale)(float *y, const float *x, size_t n, float factor);
void KERNEL(kernel_group_stats)(const float *x, size_t ld, size_t pixels, size_t channels, size_t groups, float *scratch,
                                struct norm_stat *stats);
void KERNEL(kernel_group_apply)(float *y, size_t y_ld, const float *x, size_t x_ld, size_t pixels, size_t channels, const float *mean,
                                const float *scale, const float *shift, enum act act);
void KERNEL(kernel_layer_norm)(float *y, const float *x, size_t n, const float *scale, const float *shift, float eps);
