/* 3x3 convolutions of stride 1 by Winograd's minimal filtering F(2x2, 3x3) (Lavin & Gray 2016): a 2 x 2 tile of y takes 16 products per
 * pair of channels instead of 36, for a few additions. In float32 it is about as exact as the plain sum (the larger F(4x4) is not). A batch
 * of tiles at a time goes through three steps: transform the tiles of x, sixteen matrix products, transform back. */
#include <stdlib.h>

#include "worker/backend/cpu/cpu.h"

enum {
    CHANNELS_MIN = 24,        /* below, the transforms cost what they save */
    WEIGHTS_PER_TILE = 32768, /* transformed weights are 16/9 the size: few tiles do not pay for reading them */
    BATCH_FLOATS = 1 << 18,   /* of the transformed tiles and products of a batch, per thread: 1 MiB */
    BATCH_MIN = 128,
    RUN = 16,                /* tiles finished together */
    INLINE_FLOATS = 1 << 15, /* a transform below this wakes nobody */
};

/* One batch of an op. Workspace: in[16][batch][channels of x], then out[16][batch][n_panels * NR]. */
struct batch {
    const struct cpu_run *r;
    size_t first, count; /* tiles */
    size_t in_plane, out_plane, out_ld;
    float *in, *out;
};

bool cpu_winograd_fits(const struct op_desc *d)
{
    const int64_t *s = weight_source_of(d->weight)->shape;
    int64_t tiles =
        (int64_t)((d->y.h + 1) / 2) * ((d->y.w + 1) / 2); /* of one sample: the choice must not depend on how many run together */
    return s[2] == 3 && s[3] == 3 && d->conv.stride == 1 && s[0] >= CHANNELS_MIN && s[1] >= CHANNELS_MIN &&
           s[0] * s[1] <= tiles * WEIGHTS_PER_TILE;
}

/* corner returns sample, row and column of the upper left pixel of y in tile T. */
static void corner(const struct winograd *w, size_t t, int *n, int *row, int *col)
{
    size_t wide = (size_t)w->wide, high = (size_t)w->high;
    *n = (int)(t / wide / high);
    *row = 2 * (int)(t / wide % high);
    *col = 2 * (int)(t % wide);
}

static void in_task(void *arg, int task)
{
    const struct batch *b = arg;
    const struct cpu_run *r = b->r;
    const struct op_desc *d = &r->op->desc;
    const float *x = run_floats(r, &d->x);
    size_t from = (size_t)task * RUN, to = min_size(from + RUN, b->count), channels = (size_t)d->x.c;
    for (size_t t = from; t < to; t++) {
        int n, row, col;
        const float *px[16];
        corner(&r->op->winograd, b->first + t, &n, &row, &col);
        for (int i = 0; i < 16; i++) {
            int y = row + i / 4 - d->conv.pad_top, z = col + i % 4 - d->conv.pad_left;
            bool inside = y >= 0 && y < d->x.h && z >= 0 && z < d->x.w;
            px[i] = inside ? x + (((size_t)n * (size_t)d->x.h + (size_t)y) * (size_t)d->x.w + (size_t)z) * (size_t)d->x.ld : r->b->zeros;
        }
        r->b->k->winograd_in(px, channels, b->in + t * channels, b->in_plane);
    }
}

/* multiply_task makes one of the sixteen products for a group of panels. */
static void multiply_task(void *arg, int task)
{
    const struct batch *b = arg;
    const struct winograd *w = &b->r->op->winograd;
    const struct kernels *k = b->r->b->k;
    size_t nr = op_columns(b->r->b), depth = (size_t)b->r->op->desc.x.c, which = (size_t)(task % 16), group = (size_t)(task / 16);
    size_t begin = w->n_panels * group / (size_t)w->panel_groups, end = w->n_panels * (group + 1) / (size_t)w->panel_groups;
    const float *in = b->in + which * b->in_plane;
    for (size_t panel = begin; panel < end; panel++)
        for (size_t i = 0, rows; i < b->count; i += rows) {
            const float *at[MR_MAX];
            rows = ceil_div(b->count - i, ceil_div(b->count - i, (size_t)k->mr));
            for (size_t q = 0; q < rows; q++)
                at[q] = in + (i + q) * depth;
            k->gemm((int)rows, at, 0, 1, depth, w->panels + (panel * 16 + which) * depth * nr,
                    b->out + which * b->out_plane + i * b->out_ld + panel * nr, b->out_ld, true);
        }
}

/* finish_run writes the pixels of COUNT tiles of one row of tiles, the first of them being tile T of the batch. */
static void finish_run(const struct batch *b, size_t t, size_t count)
{
    const struct cpu_run *r = b->r;
    const struct op_desc *d = &r->op->desc;
    const struct winograd *w = &r->op->winograd;
    float pixels[2][2 * RUN * NR_MAX] __attribute__((aligned(64)));
    const float *add[2 * RUN], *add_from = operand_set(&d->conv.add) ? run_floats(r, &d->conv.add) : NULL;
    int n, row, col;
    corner(w, b->first + t, &n, &row, &col);
    size_t nr = op_columns(r->b), wide = min_size(2 * count, (size_t)(d->y.w - col));
    int high = d->y.h - row < 2 ? 1 : 2;
    if (add_from && operand_pixels(&d->conv.add) > 1)
        add_from += (size_t)n * (size_t)d->conv.add.ld;
    for (size_t panel = 0; panel < w->n_panels; panel++) {
        size_t column = panel * nr;
        for (size_t i = 0; i < count; i++)
            r->b->k->winograd_out(b->out + (t + i) * b->out_ld + column, b->out_plane, pixels[0] + 2 * i * nr, pixels[1] + 2 * i * nr);
        for (size_t i = 0; add_from && i < wide; i++)
            add[i] = add_from + column;
        for (int i = 0; i < high; i++) {
            size_t p = ((size_t)n * (size_t)d->y.h + (size_t)(row + i)) * (size_t)d->y.w + (size_t)col;
            struct epilogue e = {.bias = w->bias + column,
                                 .add = add_from ? add : NULL,
                                 .act = d->act,
                                 .columns = min_size(nr, (size_t)d->y.c - column),
                                 .y = run_floats(r, &d->y) + p * (size_t)d->y.ld + column,
                                 .y_ld = (size_t)d->y.ld};
            if (operand_set(&d->residual)) {
                e.residual = run_floats(r, &d->residual) + p * (size_t)d->residual.ld + column;
                e.residual_ld = (size_t)d->residual.ld;
            }
            r->b->k->finish(&e, pixels[i], wide);
        }
    }
}

static void out_task(void *arg, int task)
{
    const struct batch *b = arg;
    size_t wide = (size_t)b->r->op->winograd.wide, to = min_size(((size_t)task + 1) * RUN, b->count);
    for (size_t t = (size_t)task * RUN, count; t < to; t += count) {
        count = min_size(to - t, wide - (b->first + t) % wide);
        finish_run(b, t, count);
    }
}

/* transform runs FN for the batch's runs of tiles; ROW floats are touched per tile. */
static void transform(struct batch *b, size_t row, void (*fn)(void *, int))
{
    int tasks = (int)ceil_div(b->count, RUN);
    if (b->count * row * 16 <= INLINE_FLOATS)
        for (int t = 0; t < tasks; t++)
            fn(b, t);
    else
        pool_run(b->r->b->pool, tasks, fn, b);
}

static void winograd_run(const struct cpu_run *r)
{
    const struct winograd *w = &r->op->winograd;
    struct batch b = {.r = r, .out_ld = w->n_panels * op_columns(r->b), .in = (float *)(void *)r->workspace};
    b.in_plane = w->batch * (size_t)r->op->desc.x.c;
    b.out_plane = w->batch * b.out_ld;
    b.out = b.in + 16 * b.in_plane;
    for (b.first = 0; b.first < w->tiles; b.first += b.count) {
        b.count = min_size(w->batch, w->tiles - b.first);
        transform(&b, (size_t)r->op->desc.x.c, in_task);
        pool_run(r->b->pool, 16 * w->panel_groups, multiply_task, &b);
        transform(&b, b.out_ld, out_task);
    }
}

enum status cpu_winograd(struct cpu_backend *b, struct bop *op, struct error *err)
{
    const struct op_desc *d = &op->desc;
    struct winograd *w = &op->winograd;
    size_t nr = op_columns(b), threads = (size_t)pool_threads(b->pool);
    w->high = (d->y.h + 1) / 2;
    w->wide = (d->y.w + 1) / 2;
    w->tiles = (size_t)d->y.n * (size_t)w->high * (size_t)w->wide;
    w->n_panels = ceil_div((size_t)d->y.c, nr);
    size_t most = threads * BATCH_FLOATS / 16 / ((size_t)d->x.c + w->n_panels * nr),
           batches = ceil_div(w->tiles, most < BATCH_MIN ? BATCH_MIN : most);
    w->batch = ceil_div(w->tiles, batches);
    w->panel_groups = (int)min_size(w->n_panels, ceil_div(threads == 1 ? 1 : 4 * threads, 16));
    TRY(cpu_pad(b, (size_t)d->x.c, err));
    TRY(cpu_panels(b, d->weight, PACK_WINOGRAD, &w->panels, err));
    w->bias = cpu_vector(b, d->bias, w->n_panels * nr, 0);
    if (!w->bias)
        return FAIL(err, OUT_OF_MEMORY, "conv2d: out of memory for the bias");
    op->workspace = 16 * w->batch * ((size_t)d->x.c + w->n_panels * nr) * sizeof(float);
    op->run = winograd_run;
    return ST_OK;
}
