/* Norms and what touches each element once; and the table of this instruction set's kernels. */
#include <math.h>

#include "worker/backend/cpu/kernels_internal.h"
#include "worker/backend/cpu/vec.h"
#include "worker/backend/half.h"

/* lane_act returns ACT of V. */
INLINE vf lane_act(const enum act act, vf v)
{
    switch (act) {
    case FN_SILU: return v_silu(v);
    case FN_GELU: return v_gelu(v);
    case FN_QUICK_GELU: return v_quick_gelu(v);
    case FN_NONE: break;
    }
    return v;
}

enum { COLUMNS = 4 * W };

/* wide_sums adds up COLUMNS channels of PIXELS rows: of x with SHIFT NULL, of (x - shift)^2 otherwise. */
INLINE void wide_sums(float *ret, const float *x, size_t ld, size_t pixels, const float *shift)
{
    vf sum[4] = {0}, from[4] = {0};
    UNROLL
    for (int i = 0; i < 4 && shift; i++)
        from[i] = v_load(shift + i * W);
    for (size_t p = 0; p < pixels; p++, x += ld)
        UNROLL
    for (int i = 0; i < 4; i++) {
        vf v = v_load(x + i * W) - from[i];
        sum[i] = shift ? v_fma(v, v, sum[i]) : sum[i] + v;
    }
    UNROLL
    for (int i = 0; i < 4; i++)
        v_store(ret + i * W, sum[i]);
}

/* narrow_sums is wide_sums for N <= W channels. */
INLINE void narrow_sums(float *ret, const float *x, size_t ld, size_t pixels, size_t n, const float *shift)
{
    vf sum = {0}, from = shift ? v_load_n(shift, n) : (vf){0};
    for (size_t p = 0; p < pixels; p++, x += ld) {
        vf v = (n == W ? v_load(x) : v_load_n(x, n)) - from;
        sum = shift ? v_fma(v, v, sum) : sum + v;
    }
    v_store_n(ret, sum, n);
}

static void column_sums(float *ret, const float *x, size_t ld, size_t pixels, size_t channels, const float *shift)
{
    size_t c = 0;
    if (shift)
        for (; c + COLUMNS <= channels; c += COLUMNS)
            wide_sums(ret + c, x + c, ld, pixels, shift + c);
    else
        for (; c + COLUMNS <= channels; c += COLUMNS)
            wide_sums(ret + c, x + c, ld, pixels, NULL);
    for (; c < channels; c += W)
        narrow_sums(ret + c, x + c, ld, pixels, channels - c < W ? channels - c : W, shift ? shift + c : NULL);
}

/* Floats summed in float32 at a time: few enough to lose nothing that matters, and to be in the cache still for the second pass. */
enum { STATS_FLOATS = 12288 };

static void merge(struct norm_stat *into, double count, double mean, double square)
{
    double total = into->count + count, off = mean - into->mean; /* Chan, Golub & LeVeque 1983, eq. 2.1 */
    into->mean += off * count / total;
    into->square += square + off * off * into->count * count / total;
    into->count = total;
}

void KERNEL(kernel_group_stats)(const float *x, size_t ld, size_t pixels, size_t channels, size_t groups, float *scratch,
                                struct norm_stat *stats)
{
    size_t each = channels / groups, most = STATS_FLOATS / channels + 1;
    float *sums = scratch, *means = scratch + channels;
    for (size_t done = 0; done < pixels; done += most) {
        size_t now = pixels - done < most ? pixels - done : most;
        const float *from = x + done * ld;
        column_sums(sums, from, ld, now, channels, NULL);
        for (size_t g = 0; g < groups; g++) {
            double sum = 0;
            for (size_t c = g * each; c < (g + 1) * each; c++)
                sum += (double)sums[c];
            for (size_t c = g * each; c < (g + 1) * each; c++)
                means[c] = (float)(sum / (double)(now * each));
        }
        column_sums(sums, from, ld, now, channels, means);
        for (size_t g = 0; g < groups; g++) {
            double square = 0;
            for (size_t c = g * each; c < (g + 1) * each; c++)
                square += (double)sums[c];
            merge(&stats[g], (double)(now * each), (double)means[g * each], square);
        }
    }
}

INLINE void apply_rows(float *y, size_t y_ld, const float *x, size_t x_ld, size_t pixels, size_t channels, const float *mean,
                       const float *scale, const float *shift, const enum act act)
{
    for (size_t p = 0; p < pixels; p++, x += x_ld, y += y_ld) {
        size_t c = 0;
        for (; c + W <= channels; c += W)
            v_store(y + c, lane_act(act, v_fma(v_load(x + c) - v_load(mean + c), v_load(scale + c), v_load(shift + c))));
        size_t n = channels - c;
        if (n)
            v_store_n(y + c,
                      lane_act(act, v_fma(v_load_n(x + c, n) - v_load_n(mean + c, n), v_load_n(scale + c, n), v_load_n(shift + c, n))), n);
    }
}

void KERNEL(kernel_group_apply)(float *y, size_t y_ld, const float *x, size_t x_ld, size_t pixels, size_t channels, const float *mean,
                                const float *scale, const float *shift, enum act act)
{
    switch (act) {
    case FN_NONE: apply_rows(y, y_ld, x, x_ld, pixels, channels, mean, scale, shift, FN_NONE); break;
    case FN_SILU: apply_rows(y, y_ld, x, x_ld, pixels, channels, mean, scale, shift, FN_SILU); break;
    case FN_GELU: apply_rows(y, y_ld, x, x_ld, pixels, channels, mean, scale, shift, FN_GELU); break;
    case FN_QUICK_GELU: apply_rows(y, y_ld, x, x_ld, pixels, channels, mean, scale, shift, FN_QUICK_GELU); break;
    }
}

void KERNEL(kernel_layer_norm)(float *y, const float *x, size_t n, const float *scale, const float *shift, float eps)
{
    size_t whole = n / W * W, rest = n - whole;
    vf sum = {0}, square = {0};
    for (size_t c = 0; c < whole; c += W)
        sum += v_load(x + c);
    if (rest)
        sum += v_load_n(x + whole, rest);
    float mean = v_sum(sum) / (float)n;
    for (size_t c = 0; c < whole; c += W) {
        vf v = v_load(x + c) - mean;
        square = v_fma(v, v, square);
    }
    float squares = v_sum(square);
    for (size_t c = whole; c < n; c++)
        squares += (x[c] - mean) * (x[c] - mean);
    float factor = 1.0f / sqrtf(squares / (float)n + eps);
    for (size_t c = 0; c < whole; c += W)
        v_store(y + c, v_fma((v_load(x + c) - mean) * factor, v_load(scale + c), v_load(shift + c)));
    if (rest)
        v_store_n(y + whole,
                  v_fma((v_load_n(x + whole, rest) - mean) * factor, v_load_n(scale + whole, rest), v_load_n(shift + whole, rest)), rest);
}

INLINE void act_row(float *y, const float *x, size_t n, const enum act act)
{
    size_t c = 0;
    for (; c + W <= n; c += W)
        v_store(y + c, lane_act(act, v_load(x + c)));
    if (c < n)
        v_store_n(y + c, lane_act(act, v_load_n(x + c, n - c)), n - c);
}

static void act_any(float *y, const float *x, size_t n, enum act act)
{
    switch (act) {
    case FN_NONE: act_row(y, x, n, FN_NONE); break;
    case FN_SILU: act_row(y, x, n, FN_SILU); break;
    case FN_GELU: act_row(y, x, n, FN_GELU); break;
    case FN_QUICK_GELU: act_row(y, x, n, FN_QUICK_GELU); break;
    }
}

static void binary(float *y, const float *x, const float *z, size_t n, enum binary_fn fn)
{
    if (fn == BINARY_ADD)
        for (size_t i = 0; i < n; i++)
            y[i] = x[i] + z[i];
    else
        for (size_t i = 0; i < n; i++)
            y[i] = x[i] * z[i];
}

static void lincomb(float *y, const float *const *in, const float *coef, int count, size_t n)
{
    size_t i = 0;
    for (; i + W <= n; i += W) {
        vf v = v_load(in[0] + i) * coef[0];
        for (int k = 1; k < count; k++)
            v = v_fma(v_load(in[k] + i), v_splat(coef[k]), v);
        v_store(y + i, v);
    }
    for (; i < n; i++) {
        float v = in[0][i] * coef[0];
        for (int k = 1; k < count; k++)
            v = v_fma(v_splat(in[k][i]), v_splat(coef[k]), v_splat(v))[0];
        y[i] = v;
    }
}

static void guide(float *y, const float *neg, const float *pos, size_t n, float s, float factor)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (neg[i] + s * (pos[i] - neg[i])) * factor;
}

static void pack_u8(unsigned char *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = x[i] * 0.5f + 0.5f;
        v = v > 0.0f ? v : 0.0f;
        v = v < 1.0f ? v : 1.0f;
        y[i] = (unsigned char)(int)(v * 255.0f + 12582912.0f - 12582912.0f); /* adding 1.5 * 2^23 rounds, ties to even */
    }
}

static void from_half(float *y, const uint16_t *x, size_t n, enum dtype t)
{
    size_t i = 0;
    if (t == DT_BF16) {
        for (; i < n; i++)
            y[i] = bf16_to_float(x[i]);
        return;
    }
#if defined __F16C__
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(x + i))));
#endif
    for (; i < n; i++)
        y[i] = half_to_float(x[i]);
}

static void to_half(uint16_t *y, const float *x, size_t n, enum dtype t)
{
    size_t i = 0;
    if (t == DT_BF16) {
        for (; i < n; i++)
            y[i] = float_to_bf16(x[i]);
        return;
    }
#if defined __F16C__
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < n; i++)
        y[i] = float_to_half(x[i]);
}

const struct kernels KERNEL(kernels) = {
    .name = KERNEL_TEXT(KERNEL_ISA),
    .width = W,
#if defined __AVX512F__
    .mr = 12,
#else
    .mr = 6,
#endif
    .gemm = KERNEL(kernel_gemm),
    .finish = KERNEL(kernel_finish),
    .winograd_in = KERNEL(kernel_winograd_in),
    .winograd_out = KERNEL(kernel_winograd_out),
    .softmax = KERNEL(kernel_softmax),
    .scale = KERNEL(kernel_scale),
    .group_stats = KERNEL(kernel_group_stats),
    .group_apply = KERNEL(kernel_group_apply),
    .layer_norm = KERNEL(kernel_layer_norm),
    .act = act_any,
    .binary = binary,
    .lincomb = lincomb,
    .guide = guide,
    .pack_u8 = pack_u8,
    .from_half = from_half,
    .to_half = to_half,
};
