/* The arithmetic of the simulated libcudnn: float32 inside, 16-bit operands widened once, sums over k in ascending order. */
#include <math.h>
#include <stdlib.h>

#include "tests/vgpu/cudnn.h"
#include "worker/backend/cpu/kernels.h"
#include "worker/backend/half.h"

static const struct kernels *kernels(void)
{
#if defined __x86_64__
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw"))
        return &kernels_avx512;
    if (avx2)
        return &kernels_avx2;
#endif
    return &kernels_plain;
}

static size_t bytes_of(cudnnDataType_t t) { return t == CUDNN_DATA_FLOAT ? 4 : 2; }

/* holds tells whether all of T is the device's, from its first to its last element. */
static bool holds(const struct cudnn_tensor *t)
{
    int64_t last = 0;
    for (int i = 0; i < CUDNN_RANK; i++)
        last += (t->dim[i] - 1) * t->stride[i];
    return vgpu_holds((CUdeviceptr)t->at, (size_t)(last + 1) * bytes_of(t->type));
}

/* widen copies N elements of T from element OFFSET on. */
static void widen(float *to, const struct cudnn_tensor *t, int64_t offset, int64_t n)
{
    const char *from = (const char *)t->at + (size_t)offset * bytes_of(t->type);
    if (t->type == CUDNN_DATA_FLOAT)
        memcpy(to, from, (size_t)n * sizeof *to);
    else
        for (int64_t i = 0; i < n; i++) {
            uint16_t h = ((const uint16_t *)(const void *)from)[i];
            to[i] = t->type == CUDNN_DATA_HALF ? half_to_float(h) : bf16_to_float(h);
        }
}

static void narrow(const struct cudnn_tensor *t, int64_t offset, const float *from, int64_t n)
{
    char *to = (char *)(uintptr_t)t->at + (size_t)offset * bytes_of(t->type);
    if (t->type == CUDNN_DATA_FLOAT)
        memcpy(to, from, (size_t)n * sizeof *from);
    else
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)(void *)to)[i] = t->type == CUDNN_DATA_HALF ? float_to_half(from[i]) : float_to_bf16(from[i]);
}

static float *floats(int64_t n) { return calloc((size_t)n, sizeof(float)); }

static int64_t panels(const struct kernels *k, int64_t columns) { return (columns + 2 * k->width - 1) / (2 * k->width); }

/* ---- convolution */

struct conv_run {
    const struct cudnn_conv *c;
    const struct kernels *k;
    float *x, *w, *bias, *row, *tile, *z; /* x: one sample; row: zeros for the padding */
    const float **rows;
    int64_t cin, cout, kh, kw, nr;
};

/* pack_filter lays the filter out in panels of NR output channels, [tap][cin][NR]. */
static void pack_filter(const struct conv_run *r)
{
    const struct cudnn_tensor *w = &r->c->w;
    for (int64_t o = 0; o < r->cout; o++)
        for (int64_t tap = 0; tap < r->kh * r->kw; tap++) {
            float *to = r->w + ((o / r->nr * r->kh * r->kw + tap) * r->cin) * r->nr + o % r->nr;
            widen(r->row, w, o * w->stride[0] + tap / r->kw * w->stride[2] + tap % r->kw * w->stride[3], r->cin);
            for (int64_t i = 0; i < r->cin; i++)
                to[i * r->nr] = r->row[i];
        }
    memset(r->row, 0, (size_t)r->cin * sizeof *r->row);
}

static void load_sample(const struct conv_run *r, int64_t n)
{
    const struct cudnn_tensor *x = &r->c->x;
    for (int64_t i = 0; i < x->dim[2]; i++)
        for (int64_t j = 0; j < x->dim[3]; j++)
            widen(r->x + (i * x->dim[3] + j) * r->cin, x, n * x->stride[0] + i * x->stride[2] + j * x->stride[3], r->cin);
}

/* point fills the pointers of M output pixels from FIRST on to what their taps see. */
static void point(const struct conv_run *r, int64_t first, int m)
{
    const struct cudnn_conv *c = r->c;
    for (int64_t tap = 0; tap < r->kh * r->kw; tap++)
        for (int p = 0; p < m; p++) {
            int64_t i = (first + p) / c->y.dim[3] * c->stride[0] + tap / r->kw - c->before[0];
            int64_t j = (first + p) % c->y.dim[3] * c->stride[1] + tap % r->kw - c->before[1];
            bool inside = i >= 0 && i < c->x.dim[2] && j >= 0 && j < c->x.dim[3];
            r->rows[tap * r->k->mr + p] = inside ? r->x + (i * c->x.dim[3] + j) * r->cin : r->row;
        }
}

static void conv_tile(const struct conv_run *r, int64_t n, int64_t first, int m)
{
    const struct cudnn_tensor *y = &r->c->y, *z = &r->c->z;
    size_t panel = (size_t)(r->kh * r->kw * r->cin * r->nr);
    point(r, first, m);
    for (int64_t o = 0; o < r->cout; o += r->nr) {
        int64_t columns = r->cout - o < r->nr ? r->cout - o : r->nr;
        r->k->gemm(m, r->rows, (size_t)r->k->mr, (int)(r->kh * r->kw), (size_t)r->cin, r->w + (size_t)(o / r->nr) * panel, r->tile,
                   (size_t)r->nr, true);
        for (int p = 0; p < m; p++) {
            float *sum = r->tile + p * r->nr;
            int64_t pixel = first + p;
            if (z->at)
                widen(r->z, z, n * z->stride[0] + pixel / y->dim[3] * z->stride[2] + pixel % y->dim[3] * z->stride[3] + o, columns);
            for (int64_t k = 0; k < columns; k++)
                sum[k] = sum[k] + r->z[k] + r->bias[o + k];
            narrow(y, n * y->stride[0] + pixel / y->dim[3] * y->stride[2] + pixel % y->dim[3] * y->stride[3] + o, sum, columns);
        }
    }
}

static void conv_samples(struct conv_run *r)
{
    const struct cudnn_conv *c = r->c;
    int64_t pixels = c->y.dim[2] * c->y.dim[3];
    pack_filter(r);
    if (c->bias.at)
        widen(r->bias, &c->bias, 0, r->cout);
    for (int64_t n = 0; n < c->x.dim[0]; n++) {
        load_sample(r, n);
        for (int64_t p = 0; p < pixels; p += r->k->mr)
            conv_tile(r, n, p, (int)(pixels - p < r->k->mr ? pixels - p : r->k->mr));
    }
}

void cudnn_run_conv(const void *args)
{
    const struct cudnn_conv *c = args;
    if (!holds(&c->x) || !holds(&c->w) || !holds(&c->y) || (c->bias.at && !holds(&c->bias)) || (c->z.at && !holds(&c->z)) ||
        !vgpu_holds((CUdeviceptr)c->workspace, (size_t)c->workspace_bytes)) {
        vgpu_fail(CUDA_ERROR_ILLEGAL_ADDRESS, "cudnn: convolution");
        return;
    }
    struct conv_run r = {.c = c, .k = kernels(), .cin = c->x.dim[1], .cout = c->y.dim[1], .kh = c->w.dim[2], .kw = c->w.dim[3]};
    int64_t taps = r.kh * r.kw;
    r.nr = 2 * r.k->width;
    r.x = floats(c->x.dim[2] * c->x.dim[3] * r.cin);
    r.w = floats(panels(r.k, r.cout) * taps * r.cin * r.nr);
    r.bias = floats(r.cout);
    r.row = floats(r.cin);
    r.tile = floats(MR_MAX * NR_MAX);
    r.z = floats(NR_MAX);
    r.rows = calloc((size_t)(taps * r.k->mr), sizeof *r.rows);
    if (r.x && r.w && r.bias && r.row && r.tile && r.z && r.rows)
        conv_samples(&r);
    else
        vgpu_fail(CUDA_ERROR_UNKNOWN, "cudnn: no host memory");
    free(r.x);
    free(r.w);
    free(r.bias);
    free(r.row);
    free(r.tile);
    free(r.z);
    free(r.rows);
}

/* ---- attention */

struct sdpa_run {
    const struct cudnn_sdpa *s;
    const struct kernels *k;
    float *q, *keys, *values, *row, *scores, *tile;
    int64_t tq, tk, dim, nr, wide; /* wide: tk in whole panels */
};

/* load_head widens one head: queries as rows, keys in panels [dim][NR], values in panels [tk][NR]. */
static void load_head(const struct sdpa_run *r, int64_t n, int64_t head)
{
    const struct cudnn_tensor *q = &r->s->q, *k = &r->s->k, *v = &r->s->v;
    for (int64_t i = 0; i < r->tq; i++)
        widen(r->q + i * r->dim, q, n * q->stride[0] + head * q->stride[1] + i * q->stride[2], r->dim);
    for (int64_t j = 0; j < r->tk; j++) {
        widen(r->row, k, n * k->stride[0] + head * k->stride[1] + j * k->stride[2], r->dim);
        for (int64_t i = 0; i < r->dim; i++)
            r->keys[(j / r->nr * r->dim + i) * r->nr + j % r->nr] = r->row[i];
        widen(r->row, v, n * v->stride[0] + head * v->stride[1] + j * v->stride[2], r->dim);
        for (int64_t i = 0; i < r->dim; i++)
            r->values[(i / r->nr * r->tk + j) * r->nr + i % r->nr] = r->row[i];
    }
}

static void sdpa_tile(const struct sdpa_run *r, int64_t n, int64_t head, int64_t first, int m)
{
    const struct cudnn_tensor *o = &r->s->o;
    const float *rows[MR_MAX];
    float sum[MR_MAX];
    for (int p = 0; p < m; p++)
        rows[p] = r->q + (first + p) * r->dim;
    for (int64_t j = 0; j < r->wide; j += r->nr)
        r->k->gemm(m, rows, 0, 1, (size_t)r->dim, r->keys + j * r->dim, r->scores + j, (size_t)r->wide, true);
    for (int p = 0; p < m; p++) {
        float max = -INFINITY;
        sum[p] = 0;
        rows[p] = r->scores + p * r->wide;
        r->k->softmax(r->scores + p * r->wide, (size_t)r->tk, (size_t)r->wide, r->s->scale, NULL, &max, &sum[p]);
    }
    for (int64_t c = 0; c < r->dim; c += r->nr) {
        r->k->gemm(m, rows, 0, 1, (size_t)r->tk, r->values + c * r->tk, r->tile, (size_t)r->nr, true);
        int64_t columns = r->dim - c < r->nr ? r->dim - c : r->nr;
        for (int p = 0; p < m; p++) {
            for (int64_t i = 0; i < columns; i++)
                r->tile[p * r->nr + i] /= sum[p];
            narrow(o, n * o->stride[0] + head * o->stride[1] + (first + p) * o->stride[2] + c, r->tile + p * r->nr, columns);
        }
    }
}

static void sdpa_heads(struct sdpa_run *r)
{
    for (int64_t n = 0; n < r->s->q.dim[0]; n++)
        for (int64_t head = 0; head < r->s->q.dim[1]; head++) {
            load_head(r, n, head);
            for (int64_t i = 0; i < r->tq; i += r->k->mr)
                sdpa_tile(r, n, head, i, (int)(r->tq - i < r->k->mr ? r->tq - i : r->k->mr));
        }
}

void cudnn_run_sdpa(const void *args)
{
    const struct cudnn_sdpa *s = args;
    if (!holds(&s->q) || !holds(&s->k) || !holds(&s->v) || !holds(&s->o) ||
        !vgpu_holds((CUdeviceptr)s->workspace, (size_t)s->workspace_bytes)) {
        vgpu_fail(CUDA_ERROR_ILLEGAL_ADDRESS, "cudnn: attention");
        return;
    }
    struct sdpa_run r = {.s = s, .k = kernels(), .tq = s->q.dim[2], .tk = s->k.dim[2], .dim = s->q.dim[3]};
    r.nr = 2 * r.k->width;
    r.wide = panels(r.k, r.tk) * r.nr;
    r.q = floats(r.tq * r.dim);
    r.keys = floats(r.wide * r.dim);
    r.values = floats(panels(r.k, r.dim) * r.nr * r.tk);
    r.row = floats(r.dim);
    r.scores = floats(MR_MAX * r.wide);
    r.tile = floats(MR_MAX * NR_MAX);
    if (r.q && r.keys && r.values && r.row && r.scores && r.tile)
        sdpa_heads(&r);
    else
        vgpu_fail(CUDA_ERROR_UNKNOWN, "cudnn: no host memory");
    free(r.q);
    free(r.keys);
    free(r.values);
    free(r.row);
    free(r.scores);
    free(r.tile);
}
