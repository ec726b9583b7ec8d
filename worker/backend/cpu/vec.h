/* Vectors of W floats for the kernels, which are compiled once per instruction set. Only kernel files include this. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined __x86_64__
#include <immintrin.h>
#endif

#if defined __AVX512F__
enum { W = 16 };
#define VECTOR_BYTES 64
#elif defined __AVX2__
enum { W = 8 };
#define VECTOR_BYTES 32
#else
enum { W = 4 };
#define VECTOR_BYTES 16
#endif

#define INLINE static inline __attribute__((always_inline))
#if defined __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

typedef float vf __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t vi __attribute__((vector_size(VECTOR_BYTES)));
typedef float vf_any __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias)); /* in memory, at any float */

INLINE vf v_load(const float *p) { return *(const vf_any *)p; }
INLINE void v_store(float *p, vf v) { *(vf_any *)p = v; }
INLINE vf v_splat(float x) { return x - (vf){0}; }

/* v_load_n and v_store_n touch the first N < W floats only; lanes past them read as 0. */
#if defined __AVX512F__
INLINE vf v_load_n(const float *p, size_t n) { return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
INLINE void v_store_n(float *p, vf v, size_t n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v); }
#elif defined __AVX2__
INLINE __m256i v_first(size_t n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
INLINE vf v_load_n(const float *p, size_t n) { return (vf)_mm256_maskload_ps(p, v_first(n)); }
INLINE void v_store_n(float *p, vf v, size_t n) { _mm256_maskstore_ps(p, v_first(n), (__m256)v); }
#else
INLINE vf v_load_n(const float *p, size_t n)
{
    float lanes[W] = {0};
    memcpy(lanes, p, n * sizeof *p);
    return v_load(lanes);
}

INLINE void v_store_n(float *p, vf v, size_t n)
{
    float lanes[W];
    v_store(lanes, v);
    memcpy(p, lanes, n * sizeof *p);
}
#endif

/* v_fma returns a * b + c, rounded once where the instruction set has it. */
INLINE vf v_fma(vf a, vf b, vf c)
{
#if defined __AVX512F__
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined __FMA__
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

/* v_min and v_max return the second operand where either is NaN. */
INLINE vf v_min(vf a, vf b)
{
#if defined __AVX512F__
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined __AVX2__
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    vi less = a < b;
    return (vf)(((vi)a & less) | ((vi)b & ~less));
#endif
}

INLINE vf v_max(vf a, vf b)
{
#if defined __AVX512F__
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined __AVX2__
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    vi more = a > b;
    return (vf)(((vi)a & more) | ((vi)b & ~more));
#endif
}

INLINE float v_sum(vf v)
{
    float lanes[W];
    v_store(lanes, v);
    for (int n = W / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            lanes[i] += lanes[i + n];
    return lanes[0];
}

INLINE float v_highest(vf v)
{
    float lanes[W];
    v_store(lanes, v);
    for (int n = W / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            lanes[i] = lanes[i] > lanes[i + n] ? lanes[i] : lanes[i + n];
    return lanes[0];
}

/* v_exp_low returns e^x for x <= 88.02 within about 2 units in the last place: 2^n e^r, n the nearest integer to x / ln 2, e^r by a
 * Chebyshev fit of degree 5 on |r| <= 0.35 (error 8e-8). 0 below -87.33, where the result would be subnormal. */
INLINE vf v_exp_low(vf x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    const vf lowest = v_splat(-87.33f);
    vf in = v_max(lowest, x);
    vf shifted = v_fma(in, v_splat(1.44269504088896341f), v_splat(magic)), n = shifted - magic;
    vf r = v_fma(n, v_splat(-0.693359375f), in); /* ln 2 in two parts, the first exact in 10 bits */
    r = v_fma(n, v_splat(2.12194440e-4f), r);
    vf p = v_splat(0.00836986975425f);
    p = v_fma(p, r, v_splat(0.04192256156f));
    p = v_fma(p, r, v_splat(0.166664986985f));
    p = v_fma(p, r, v_splat(0.499988233973f));
    p = v_fma(p, r, v_splat(1.00000001143f));
    p = v_fma(p, r, v_splat(1.0000000801f));
    vi scaled = (vi)p + ((vi)shifted << 23), under = x < lowest;
    return (vf)(scaled & ~under);
}

/* v_exp is v_exp_low for any x: infinity above 88.02, NaN for NaN. */
INLINE vf v_exp(vf x)
{
    const vf highest = v_splat(88.02f), infinity = v_splat(__builtin_inff());
    vi over = x > highest, nan = x != x;
    vi in_range = (vi)v_exp_low(v_min(highest, x)) & ~over;
    return (vf)(in_range | ((vi)infinity & over) | nan);
}

/* v_normal_tail returns the standard normal's upper tail at A >= 0, 1 - Phi(A) = exp(-A^2 / 2) R(A): R = t q(t), t = 1 / (1 + 0.3 A), q a
 * Chebyshev fit of degree 8 over 0 <= A <= 13.5 (error 2e-8). */
INLINE vf v_normal_tail(vf a)
{
    vf t = 1.0f / v_fma(v_splat(0.3f), a, v_splat(1.0f)), q = v_splat(0.001101765257f);
    q = v_fma(q, t, v_splat(0.03142958844f));
    q = v_fma(q, t, v_splat(-0.1506668551f));
    q = v_fma(q, t, v_splat(0.2013251219f));
    q = v_fma(q, t, v_splat(-0.05179763345f));
    q = v_fma(q, t, v_splat(0.1283776594f));
    q = v_fma(q, t, v_splat(0.09981952437f));
    q = v_fma(q, t, v_splat(0.1207841522f));
    q = v_fma(q, t, v_splat(0.1196266956f));
    return q * t * v_exp_low(-0.5f * a * a);
}

INLINE vf v_silu(vf x) { return x / (1.0f + v_exp(-x)); }
INLINE vf v_quick_gelu(vf x) { return x / (1.0f + v_exp(-1.702f * x)); }
/* v_gelu returns x Phi(x) = max(x, 0) - |x| (1 - Phi(|x|)). */
INLINE vf v_gelu(vf x)
{
    vf size = v_max(x, -x), positive = v_max(v_splat(0.0f), x);
    return positive - size * v_normal_tail(size);
}
