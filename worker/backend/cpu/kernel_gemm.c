#include "worker/backend/cpu/kernels_internal.h"
#include "worker/backend/cpu/vec.h"

#if defined __AVX512F__
enum { MR = 12 };
#else
enum { MR = 6 };
#endif
enum { NV = 2, NR = NV * W };

/* tile computes M <= MR rows; M is a constant wherever it is inlined, so that the sums live in registers. */
INLINE void tile(const size_t m, const float *const *rows, size_t stride, int taps, size_t depth, const float *b, float *c, size_t c_ld,
                 bool first)
{
    vf sum[MR][NV];
    UNROLL
    for (size_t r = 0; r < m; r++) {
        sum[r][0] = first ? (vf){0} : v_load(c + r * c_ld);
        sum[r][1] = first ? (vf){0} : v_load(c + r * c_ld + W);
    }
    for (int t = 0; t < taps; t++, rows += stride) {
        const float *a[MR];
        UNROLL
        for (size_t r = 0; r < m; r++)
            a[r] = rows[r];
        for (size_t k = 0; k < depth; k++, b += NR) {
            vf b0 = v_load(b), b1 = v_load(b + W);
            UNROLL
            for (size_t r = 0; r < m; r++) {
                vf x = v_splat(a[r][k]);
                sum[r][0] = v_fma(x, b0, sum[r][0]);
                sum[r][1] = v_fma(x, b1, sum[r][1]);
            }
        }
    }
    UNROLL
    for (size_t r = 0; r < m; r++) {
        v_store(c + r * c_ld, sum[r][0]);
        v_store(c + r * c_ld + W, sum[r][1]);
    }
}

void KERNEL(kernel_gemm)(int mr, const float *const *rows, size_t stride, int taps, size_t depth, const float *b, float *c, size_t c_ld,
                         bool first)
{
    switch (mr) {
    case 1: tile(1, rows, stride, taps, depth, b, c, c_ld, first); break;
    case 2: tile(2, rows, stride, taps, depth, b, c, c_ld, first); break;
    case 3: tile(3, rows, stride, taps, depth, b, c, c_ld, first); break;
    case 4: tile(4, rows, stride, taps, depth, b, c, c_ld, first); break;
    case 5: tile(5, rows, stride, taps, depth, b, c, c_ld, first); break;
    case 6: tile(6, rows, stride, taps, depth, b, c, c_ld, first); break;
#if defined __AVX512F__
    case 7: tile(7, rows, stride, taps, depth, b, c, c_ld, first); break;
    case 8: tile(8, rows, stride, taps, depth, b, c, c_ld, first); break;
    case 9: tile(9, rows, stride, taps, depth, b, c, c_ld, first); break;
    case 10: tile(10, rows, stride, taps, depth, b, c, c_ld, first); break;
    case 11: tile(11, rows, stride, taps, depth, b, c, c_ld, first); break;
    case 12: tile(12, rows, stride, taps, depth, b, c, c_ld, first); break;
#endif
    default: break;
    }
}

INLINE vf apply(enum act act, vf v)
{
    switch (act) {
    case FN_SILU: return v_silu(v);
    case FN_GELU: return v_gelu(v);
    case FN_QUICK_GELU: return v_quick_gelu(v);
    case FN_NONE: break;
    }
    return v;
}

/* finish_part finishes columns [J, J + N), N <= W, of row R. */
INLINE void finish_part(const struct epilogue *e, const float *c, size_t r, size_t j, const size_t n, vf bias, const enum act act)
{
    vf v = v_load(c + r * NR + j) + bias;
    if (e->add)
        v += n == W ? v_load(e->add[r] + j) : v_load_n(e->add[r] + j, n);
    if (e->residual) {
        const float *from = e->residual + r * e->residual_ld + j;
        v += n == W ? v_load(from) : v_load_n(from, n);
    }
    float *to = e->y + r * e->y_ld + j;
    if (n == W)
        v_store(to, apply(act, v));
    else
        v_store_n(to, apply(act, v), n);
}

/* finish_rows is kernel_finish for one constant ACT. */
INLINE void finish_rows(const struct epilogue *e, const float *c, size_t rows, const enum act act)
{
    vf bias[2] = {v_load(e->bias), v_load(e->bias + W)};
    size_t n = e->columns;
    for (size_t r = 0; r < rows; r++) {
        if (n == NR) {
            finish_part(e, c, r, 0, W, bias[0], act);
            finish_part(e, c, r, W, W, bias[1], act);
        } else if (n > W) {
            finish_part(e, c, r, 0, W, bias[0], act);
            finish_part(e, c, r, W, n - W, bias[1], act);
        } else {
            finish_part(e, c, r, 0, n, bias[0], act);
        }
    }
}

static void finish_geglu(const struct epilogue *e, const float *c, size_t rows)
{
    for (size_t r = 0; r < rows; r++, c += NR) {
        vf v = (v_load(c) + v_load(e->bias)) * v_gelu(v_load(c + W) + v_load(e->bias + W));
        if (e->columns >= W)
            v_store(e->y + r * e->y_ld, v);
        else
            v_store_n(e->y + r * e->y_ld, v, e->columns);
    }
}

void KERNEL(kernel_finish)(const struct epilogue *e, const float *c, size_t rows)
{
    if (e->geglu) {
        finish_geglu(e, c, rows);
        return;
    }
    switch (e->act) {
    case FN_NONE: finish_rows(e, c, rows, FN_NONE); break;
    case FN_SILU: finish_rows(e, c, rows, FN_SILU); break;
    case FN_GELU: finish_rows(e, c, rows, FN_GELU); break;
    case FN_QUICK_GELU: finish_rows(e, c, rows, FN_QUICK_GELU); break;
    }
}

/* add_mask turns scores into s * SCALE + mask, in place. */
static void add_mask(float *s, size_t whole, float scale, const float *mask)
{
    for (size_t j = 0; j < whole; j += W)
        v_store(s + j, v_fma(v_load(s + j), v_splat(scale), v_load(mask + j)));
}

float KERNEL(kernel_softmax)(float *s, size_t count, size_t padded, float scale, const float *mask, float *max, float *sum)
{
    size_t whole = (count + W - 1) / W * W;
    if (mask) {
        add_mask(s, whole, scale, mask);
        scale = 1;
    }
    for (size_t j = count; j < whole; j++)
        s[j] = -__builtin_inff(); /* lanes past the end: hidden keys */
    vf high[2] = {v_splat(-__builtin_inff()), v_splat(-__builtin_inff())}, total = {0};
    size_t j = 0;
    for (; j + 2 * W <= whole; j += 2 * W) {
        high[0] = v_max(high[0], v_load(s + j));
        high[1] = v_max(high[1], v_load(s + j + W));
    }
    if (j < whole)
        high[0] = v_max(high[0], v_load(s + j));
    float top = v_highest(v_max(high[0], high[1])) * scale, before = *max;
    top = top > before ? top : before;
    *max = top;
    if (top == -__builtin_inff())
        top = 0; /* every key so far is hidden: exp(-inf - 0) = 0 */
    for (j = 0; j < whole; j += W) {
        vf p = v_exp_low(v_fma(v_load(s + j), v_splat(scale), v_splat(-top)));
        v_store(s + j, p);
        total += p;
    }
    for (j = whole; j < padded; j++)
        s[j] = 0;
    float factor = before == top ? 1 : v_exp_low(v_splat(before - top))[0]; /* exactly 1 where nothing changes: see rescale */
    *sum = *sum * factor + v_sum(total);
    return factor;
}

void KERNEL(kernel_scale)(float *y, const float *x, size_t n, float factor)
{
    size_t j = 0;
    for (; j + W <= n; j += W)
        v_store(y + j, v_load(x + j) * factor);
    for (; j < n; j++)
        y[j] = x[j] * factor;
}
