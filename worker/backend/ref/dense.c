/* Convolution, linear layers, attention. */
#include <math.h>
#include <stdlib.h>

#include "worker/backend/ref/ref.h"

static enum status no_memory(enum op_kind k, struct error *err)
{
    return FAIL(err, OUT_OF_MEMORY, "%s: out of memory for the reference's operands", op_name(k));
}

/* finish adds what follows the product at one element, and stores it. */
static void finish(const struct op_desc *d, unsigned char *arena, int64_t p, int c, double v)
{
    if (operand_set(&d->residual))
        v += get(arena, &d->residual, p, c);
    put(arena, &d->y, p, c, ref_act(d->act, v));
}

/* conv_sum returns the sum of output channel O at row I, column J of sample N. W is one output channel's [cin, kh, kw]. */
static double conv_sum(const struct op_desc *d, const double *x, const double *w, int n, int i, int j)
{
    const int64_t *shape = weight_source_of(d->weight)->shape;
    int kh = (int)shape[2], kw = (int)shape[3], cin = d->x.c;
    double sum = 0;
    for (int r = 0; r < kh; r++) {
        int row = i * d->conv.stride + r - d->conv.pad_top;
        if (row < 0 || row >= d->x.h)
            continue;
        for (int s = 0; s < kw; s++) {
            int col = j * d->conv.stride + s - d->conv.pad_left;
            if (col < 0 || col >= d->x.w)
                continue;
            const double *px = x + (((size_t)n * (size_t)d->x.h + (size_t)row) * (size_t)d->x.w + (size_t)col) * (size_t)cin;
            const double *pw = w + r * kw + s;
            for (int c = 0; c < cin; c++)
                sum += px[c] * pw[(size_t)c * (size_t)(kh * kw)];
        }
    }
    return sum;
}

enum status ref_conv2d(const struct op_desc *d, unsigned char *arena, struct error *err)
{
    const int64_t *shape = weight_source_of(d->weight)->shape;
    size_t per_channel = (size_t)(shape[1] * shape[2] * shape[3]);
    double *x = ref_operand(arena, &d->x), *w = ref_weight(d->weight), *bias = d->bias ? ref_weight(d->bias) : NULL;
    bool whole = x && w && (bias || !d->bias);
    const struct operand *add = &d->conv.add;
    for (int64_t p = 0; whole && p < operand_pixels(&d->y); p++) {
        int j = (int)(p % d->y.w), i = (int)(p / d->y.w % d->y.h), n = (int)(p / d->y.w / d->y.h);
        for (int o = 0; o < d->y.c; o++) {
            double v = conv_sum(d, x, w + (size_t)o * per_channel, n, i, j) + (bias ? bias[o] : 0);
            if (operand_set(add))
                v += get(arena, add, operand_pixels(add) == 1 ? 0 : n, o);
            finish(d, arena, p, o, v);
        }
    }
    free(x);
    free(w);
    free(bias);
    return whole ? ST_OK : no_memory(d->kind, err);
}

static double dot(const double *a, const double *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

enum status ref_linear(const struct op_desc *d, unsigned char *arena, struct error *err)
{
    double *x = ref_operand(arena, &d->x), *w = ref_weight(d->weight), *bias = d->bias ? ref_weight(d->bias) : NULL;
    bool whole = x && w && (bias || !d->bias);
    size_t in = (size_t)d->x.c;
    for (int64_t p = 0; whole && p < operand_pixels(&d->y); p++)
        for (int o = 0; o < d->y.c; o++) {
            double v = dot(x + (size_t)p * in, w + (size_t)o * in, d->x.c) + (bias ? bias[o] : 0);
            if (d->linear.geglu) {
                size_t gate = (size_t)(o + d->y.c);
                v *= ref_act(FN_GELU, dot(x + (size_t)p * in, w + gate * in, d->x.c) + (bias ? bias[gate] : 0));
            }
            finish(d, arena, p, o, v);
        }
    free(x);
    free(w);
    free(bias);
    return whole ? ST_OK : no_memory(d->kind, err);
}

struct heads {
    const double *q, *k, *v, *mask;
    double *scores;
    int tq, tk, width;
};

/* attend fills the DIM outputs of query I of sample N from channel FIRST on. Keys that are all hidden give zeros. */
static void attend(const struct op_desc *d, unsigned char *arena, const struct heads *h, int n, int i, int first, int dim)
{
    size_t width = (size_t)h->width, keys = (size_t)n * (size_t)h->tk;
    const double *q = h->q + ((size_t)n * (size_t)h->tq + (size_t)i) * width + first;
    int seen = d->attention.causal && i + 1 < h->tk ? i + 1 : h->tk;
    double max = -INFINITY, sum = 0;
    for (int j = 0; j < seen; j++) {
        double s =
            (double)d->attention.scale * dot(q, h->k + (keys + (size_t)j) * width + first, dim) + (h->mask ? h->mask[keys + (size_t)j] : 0);
        h->scores[j] = s;
        max = s > max ? s : max;
    }
    for (int j = 0; j < seen; j++) {
        h->scores[j] = max == -INFINITY ? 0 : exp(h->scores[j] - max);
        sum += h->scores[j];
    }
    for (int c = first; c < first + dim; c++) {
        double v = 0;
        for (int j = 0; j < seen; j++)
            v += h->scores[j] * h->v[(keys + (size_t)j) * width + (size_t)c];
        put(arena, &d->y, (int64_t)n * h->tq + i, c, sum > 0 ? v / sum : 0);
    }
}

enum status ref_attention(const struct op_desc *d, unsigned char *arena, struct error *err)
{
    const struct operand *key = &d->attention.key, *mask = &d->attention.mask;
    int tq = d->x.h * d->x.w, tk = key->h * key->w, dim = d->x.c / d->attention.heads;
    double *q = ref_operand(arena, &d->x), *k = ref_operand(arena, key), *v = ref_operand(arena, &d->attention.value);
    double *m = operand_set(mask) ? ref_operand(arena, mask) : NULL, *scores = malloc((size_t)tk * sizeof *scores);
    bool whole = q && k && v && scores && (m || !operand_set(mask));
    struct heads h = {q, k, v, m, scores, tq, tk, d->x.c};
    for (int n = 0; whole && n < d->x.n; n++)
        for (int head = 0; head < d->attention.heads; head++)
            for (int i = 0; i < tq; i++)
                attend(d, arena, &h, n, i, head * dim, dim);
    free(q);
    free(k);
    free(v);
    free(m);
    free(scores);
    return whole ? ST_OK : no_memory(d->kind, err);
}
