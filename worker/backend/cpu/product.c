/* Convolution and linear layers. A task is a block of rows (pixels of y) times a group of panels; the rows' pointers are made once per
 * task, and a panel's part that fits the L2 cache meets all rows of the block before the next part is read. */
#include <stdlib.h>

#include "worker/backend/cpu/cpu.h"

enum {
    POINTERS_MAX = 4096, /* rows of a block times taps */
    BLOCK_ROWS_MAX = 384,
    BLOCK_ROWS_MIN = 96,
    BLOCK_FLOATS = 32768,        /* of x that a block of rows covers: with the block's part of y it fits an L2 cache */
    PANEL_DEPTH = 2048,          /* rows of a panel that stay in the L2 cache */
    FINISH_ROWS = 48,            /* whole tiles of every kernel */
    INLINE_MULTIPLIES = 1 << 20, /* a product below this is not worth waking anybody */
};

/* point fills ROWS[t * COUNT + i] with where tap t of row FIRST + i begins. */
static void point(const struct cpu_run *r, const float **rows, int first, int count)
{
    const struct op_desc *d = &r->op->desc;
    const float *x = run_floats(r, &d->x);
    size_t ld = (size_t)d->x.ld;
    if (d->kind == OP_LINEAR) {
        for (int i = 0; i < count; i++)
            rows[i] = x + (size_t)(first + i) * ld;
        return;
    }
    const int64_t *shape = weight_source_of(d->weight)->shape;
    int kh = (int)shape[2], kw = (int)shape[3], j = first % d->y.w, i = first / d->y.w % d->y.h, n = first / d->y.w / d->y.h;
    for (int at = 0; at < count; at++) {
        int top = i * d->conv.stride - d->conv.pad_top, left = j * d->conv.stride - d->conv.pad_left;
        for (int t = 0; t < kh * kw; t++) {
            int row = top + t / kw, col = left + t % kw;
            bool inside = row >= 0 && row < d->x.h && col >= 0 && col < d->x.w;
            rows[t * count + at] =
                inside ? x + (((size_t)n * (size_t)d->x.h + (size_t)row) * (size_t)d->x.w + (size_t)col) * ld : r->b->zeros;
        }
        if (++j == d->y.w) {
            j = 0;
            if (++i == d->y.h) {
                i = 0;
                n++;
            }
        }
    }
}

/* point_add fills ADD[i] with the per-channel operand of row FIRST + i; returns whether there is one. */
static bool point_add(const struct cpu_run *r, const float **add, int first, int count)
{
    const struct op_desc *d = &r->op->desc;
    if (d->kind != OP_CONV2D || !operand_set(&d->conv.add))
        return false;
    const float *from = run_floats(r, &d->conv.add);
    bool shared = operand_pixels(&d->conv.add) == 1;
    int plane = d->y.h * d->y.w;
    for (int i = 0; i < count; i++)
        add[i] = from + (shared ? 0 : (size_t)((first + i) / plane) * (size_t)d->conv.add.ld);
    return true;
}

/* One panel's share of a task. */
struct share {
    const struct cpu_run *r;
    const float *const *rows;
    int count;
    const float *panel;
    struct epilogue e; /* of the first row */
};

/* tile_rows returns how many of COUNT rows the next tile takes: all tiles of a block within one of the same height. */
static int tile_rows(int count, int most) { return ceil_int(count, ceil_int(count, most)); }

static void finish_rows(const struct share *s, int first, int rows, const float *c)
{
    struct epilogue e = s->e;
    e.y += (size_t)first * e.y_ld;
    e.residual = e.residual ? e.residual + (size_t)first * e.residual_ld : NULL;
    e.add = e.add ? e.add + first : NULL;
    s->r->b->k->finish(&e, c, (size_t)rows);
}

/* multiply makes and finishes the share: FINISH_ROWS rows at a time if the panel fits the cache, else a few taps of it through all rows at
 * a time. */
static void multiply(const struct share *s)
{
    const struct product *p = &s->r->op->product;
    const struct kernels *k = s->r->b->k;
    float c[BLOCK_ROWS_MAX * NR_MAX] __attribute__((aligned(64)));
    size_t nr = op_columns(s->r->b);
    int step = p->block_taps >= (size_t)p->taps ? FINISH_ROWS : s->count;
    for (int from = 0; from < s->count; from += step) {
        int to = from + step < s->count ? from + step : s->count;
        for (int t = 0; t < p->taps; t += (int)p->block_taps) {
            int taps = (int)min_size(p->block_taps, (size_t)(p->taps - t));
            for (int i = from, mr; i < to; i += mr) {
                mr = tile_rows(to - i, k->mr);
                k->gemm(mr, s->rows + (size_t)t * (size_t)s->count + i, (size_t)s->count, taps, p->depth,
                        s->panel + (size_t)t * p->depth * nr, c + (size_t)(i - from) * nr, nr, t == 0);
            }
        }
        finish_rows(s, from, to - from, c);
    }
}

static void product_task(void *arg, int task)
{
    const struct cpu_run *r = arg;
    const struct product *p = &r->op->product;
    const struct op_desc *d = &r->op->desc;
    const float *rows[POINTERS_MAX], *add[BLOCK_ROWS_MAX];
    int first = task % p->row_blocks * p->block_rows, group = task / p->row_blocks;
    int count = p->rows - first < p->block_rows ? p->rows - first : p->block_rows;
    point(r, rows, first, count);
    bool has_add = point_add(r, add, first, count), has_residual = operand_set(&d->residual);
    size_t nr = op_columns(r->b), begin = p->n_panels * (size_t)group / (size_t)p->panel_groups;
    size_t end = p->n_panels * ((size_t)group + 1) / (size_t)p->panel_groups;
    for (size_t panel = begin; panel < end; panel++) {
        size_t column = panel * p->step;
        struct share s = {r,
                          rows,
                          count,
                          p->panels + panel * nr * p->depth * (size_t)p->taps,
                          {.bias = p->bias + panel * nr,
                           .add = has_add ? add : NULL,
                           .act = d->act,
                           .columns = min_size(p->step, p->columns - column),
                           .y = run_floats(r, &d->y) + (size_t)first * (size_t)d->y.ld + column,
                           .y_ld = (size_t)d->y.ld,
                           .residual = has_residual ? run_floats(r, &d->residual) + (size_t)first * (size_t)d->residual.ld + column : NULL,
                           .residual_ld = (size_t)d->residual.ld,
                           .geglu = d->kind == OP_LINEAR && d->linear.geglu}};
        for (int i = 0; has_add && i < count; i++)
            add[i] += panel == begin ? column : p->step;
        multiply(&s);
    }
}

static void product_run(const struct cpu_run *r)
{
    pool_run(r->b->pool, r->op->product.row_blocks * r->op->product.panel_groups, product_task, (void *)(uintptr_t)r);
}

/* split cuts the work into tasks: blocks of rows whose part of x fits the cache, groups of panels if there are too few of those. */
static void split(const struct cpu_backend *b, struct product *p)
{
    int threads = pool_threads(b->pool), mr = b->k->mr, most = (int)(BLOCK_FLOATS / p->depth);
    double work = (double)p->rows * (double)p->n_panels * (double)op_columns(b) * (double)p->depth * p->taps;
    int want = threads == 1 || work < INLINE_MULTIPLIES ? 1 : 4 * threads;
    most = most < BLOCK_ROWS_MIN ? BLOCK_ROWS_MIN : most > BLOCK_ROWS_MAX ? BLOCK_ROWS_MAX : most;
    most = most > POINTERS_MAX / p->taps ? POINTERS_MAX / p->taps : most;
    int blocks = ceil_int(p->rows, most);
    p->panel_groups = (int)min_size(p->n_panels, (size_t)ceil_int(want, blocks));
    if (blocks * p->panel_groups < want)
        blocks = ceil_int(want, p->panel_groups);
    p->block_rows = ceil_int(ceil_int(p->rows, blocks), mr) * mr;
    p->block_rows = p->block_rows > most ? most : p->block_rows;
    p->row_blocks = ceil_int(p->rows, p->block_rows);
}

/* geglu_bias moves the halves of BIAS, padded to N, to where the interleaved panels want them. */
static float *geglu_bias(const struct cpu_backend *b, const struct bweight *bias, size_t columns, size_t n, size_t half)
{
    float *plain = cpu_vector(b, bias, 2 * columns, 0), *v = plain ? calloc(n, sizeof *v) : NULL;
    for (size_t i = 0; v && i < columns; i++) {
        v[i / half * 2 * half + i % half] = plain[i];
        v[i / half * 2 * half + half + i % half] = plain[columns + i];
    }
    free(plain);
    return v;
}

enum status cpu_pad(struct cpu_backend *b, size_t n, struct error *err)
{
    if (n <= b->n_zeros)
        return ST_OK;
    float *zeros = calloc(n, sizeof *zeros);
    if (!zeros)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the padding of a convolution");
    free(b->zeros);
    b->zeros = zeros;
    b->n_zeros = n;
    return ST_OK;
}

enum status cpu_product(struct cpu_backend *b, struct bop *op, struct error *err)
{
    const struct op_desc *d = &op->desc;
    const struct weight_source *s = weight_source_of(d->weight);
    struct product *p = &op->product;
    bool geglu = d->kind == OP_LINEAR && d->linear.geglu;
    size_t nr = op_columns(b);
    p->taps = d->kind == OP_CONV2D ? (int)(s->shape[2] * s->shape[3]) : 1;
    if (p->taps > POINTERS_MAX / MR_MAX)
        return FAIL(err, UNSUPPORTED, "conv2d: a kernel of %d taps, at most %d", p->taps, POINTERS_MAX / MR_MAX);
    if (operand_pixels(&d->y) > INT32_MAX / 2)
        return FAIL(err, UNSUPPORTED, "%s: %lld pixels, at most %d", op_name(d->kind), (long long)operand_pixels(&d->y), INT32_MAX / 2);
    p->depth = (size_t)d->x.c;
    p->columns = (size_t)d->y.c;
    p->step = geglu ? nr / 2 : nr;
    p->n_panels = ceil_div(p->columns, p->step);
    p->block_taps = p->depth >= PANEL_DEPTH ? 1 : PANEL_DEPTH / p->depth;
    p->rows = (int)operand_pixels(&d->y);
    split(b, p);
    TRY(cpu_pad(b, p->depth, err));
    TRY(cpu_panels(b, d->weight, geglu ? PACK_GEGLU : PACK_PLAIN, &p->panels, err));
    p->bias = geglu ? geglu_bias(b, d->bias, p->columns, p->n_panels * nr, nr / 2) : cpu_vector(b, d->bias, p->n_panels * nr, 0);
    if (!p->bias)
        return FAIL(err, OUT_OF_MEMORY, "%s: out of memory for the bias", op_name(d->kind));
    op->run = product_run;
    return ST_OK;
}
