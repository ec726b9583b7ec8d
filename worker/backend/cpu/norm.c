/* Group and layer normalisation. */
#include <math.h>
#include <stdlib.h>

#include "worker/backend/cpu/cpu.h"

enum { BLOCKS_MAX = 64, BLOCK_FLOATS = 8192, INLINE_FLOATS = 32768, ROWS_FLOATS = 16384 };

/* Workspace of a group norm: stats[n][blocks][groups], then per sample mean, scale, shift of each channel, then scratch of each block. */
struct group_space {
    struct norm_stat *stats;
    float *channels, *scratch;
};

static struct group_space space_of(const struct cpu_run *r)
{
    const struct op_desc *d = &r->op->desc;
    size_t n = (size_t)d->x.n, blocks = (size_t)r->op->norm.blocks;
    struct norm_stat *stats = (struct norm_stat *)(void *)r->workspace;
    float *channels = (float *)(void *)(stats + n * blocks * (size_t)d->norm.groups);
    return (struct group_space){stats, channels, channels + n * 3 * (size_t)d->x.c};
}

static void stats_task(void *arg, int task)
{
    const struct cpu_run *r = arg;
    const struct op_desc *d = &r->op->desc;
    const struct norm *m = &r->op->norm;
    struct group_space s = space_of(r);
    size_t plane = (size_t)d->x.h * (size_t)d->x.w, groups = (size_t)d->norm.groups, c = (size_t)d->x.c;
    size_t n = (size_t)(task / m->blocks), from = (size_t)(task % m->blocks) * (size_t)m->block_pixels;
    struct norm_stat *stats = s.stats + (size_t)task * groups;
    for (size_t g = 0; g < groups; g++)
        stats[g] = (struct norm_stat){0};
    r->b->k->group_stats(run_floats(r, &d->x) + (n * plane + from) * (size_t)d->x.ld, (size_t)d->x.ld,
                         min_size((size_t)m->block_pixels, plane - from), c, groups, s.scratch + (size_t)task * 2 * c, stats);
}

/* join_stats merges the blocks of sample N in their order, and makes the channels' mean, scale and shift. */
static void join_stats(const struct cpu_run *r, const struct group_space *s, size_t n)
{
    const struct op_desc *d = &r->op->desc;
    const struct norm *m = &r->op->norm;
    size_t groups = (size_t)d->norm.groups, c = (size_t)d->x.c, each = c / groups;
    float *mean = s->channels + n * 3 * c, *scale = mean + c, *shift = scale + c;
    for (size_t g = 0; g < groups; g++) {
        struct norm_stat all = {0};
        for (size_t b = 0; b < (size_t)m->blocks; b++) {
            const struct norm_stat *one = &s->stats[(n * (size_t)m->blocks + b) * groups + g];
            double total = all.count + one->count, off = one->mean - all.mean;
            all.mean += off * one->count / total;
            all.square += one->square + off * off * all.count * one->count / total;
            all.count = total;
        }
        double factor = 1 / sqrt(all.square / all.count + (double)d->norm.eps);
        for (size_t k = g * each; k < (g + 1) * each; k++) {
            mean[k] = (float)all.mean;
            scale[k] = (float)(factor * (double)m->scale[k]);
            shift[k] = m->shift[k] + (float)((double)mean[k] - all.mean) * scale[k];
        }
    }
}

static void apply_task(void *arg, int task)
{
    const struct cpu_run *r = arg;
    const struct op_desc *d = &r->op->desc;
    const struct norm *m = &r->op->norm;
    struct group_space s = space_of(r);
    size_t plane = (size_t)d->x.h * (size_t)d->x.w, c = (size_t)d->x.c;
    size_t n = (size_t)(task / m->blocks), from = (size_t)(task % m->blocks) * (size_t)m->block_pixels, p = n * plane + from;
    const float *mean = s.channels + n * 3 * c;
    r->b->k->group_apply(run_floats(r, &d->y) + p * (size_t)d->y.ld, (size_t)d->y.ld, run_floats(r, &d->x) + p * (size_t)d->x.ld,
                         (size_t)d->x.ld, min_size((size_t)m->block_pixels, plane - from), c, mean, mean + c, mean + 2 * c, d->act);
}

/* each_block runs FN for every block, alone if the whole op is small. */
static void each_block(const struct cpu_run *r, int tasks, void (*fn)(void *, int))
{
    if (operand_pixels(&r->op->desc.x) * r->op->desc.x.c <= INLINE_FLOATS)
        for (int t = 0; t < tasks; t++)
            fn((void *)(uintptr_t)r, t);
    else
        pool_run(r->b->pool, tasks, fn, (void *)(uintptr_t)r);
}

static void group_norm_run(const struct cpu_run *r)
{
    struct group_space s = space_of(r);
    int tasks = r->op->desc.x.n * r->op->norm.blocks;
    each_block(r, tasks, stats_task);
    for (int n = 0; n < r->op->desc.x.n; n++)
        join_stats(r, &s, (size_t)n);
    each_block(r, tasks, apply_task);
}

static enum status affine(const struct cpu_backend *b, struct bop *op, struct error *err)
{
    op->norm.scale = cpu_vector(b, op->desc.weight, (size_t)op->desc.x.c, 1);
    op->norm.shift = cpu_vector(b, op->desc.bias, (size_t)op->desc.x.c, 0);
    if (!op->norm.scale || !op->norm.shift)
        return FAIL(err, OUT_OF_MEMORY, "%s: out of memory for %d channels", op_name(op->desc.kind), op->desc.x.c);
    return ST_OK;
}

enum status cpu_group_norm(struct cpu_backend *b, struct bop *op, struct error *err)
{
    const struct op_desc *d = &op->desc;
    TRY(affine(b, op, err));
    int64_t plane = (int64_t)d->x.h * d->x.w;
    int pixels = ceil_int(plane, BLOCKS_MAX), least = BLOCK_FLOATS / d->x.c + 1;
    op->norm.block_pixels = pixels < least ? least : pixels;
    op->norm.blocks = ceil_int(plane, op->norm.block_pixels);
    size_t n = (size_t)d->x.n, blocks = n * (size_t)op->norm.blocks, c = (size_t)d->x.c;
    op->workspace = blocks * (size_t)d->norm.groups * sizeof(struct norm_stat) + (n * 3 + blocks * 2) * c * sizeof(float);
    op->run = group_norm_run;
    return ST_OK;
}

static void layer_task(void *arg, int task)
{
    const struct cpu_run *r = arg;
    const struct op_desc *d = &r->op->desc;
    size_t pixels = (size_t)operand_pixels(&d->x), from = (size_t)task * (size_t)r->op->norm.block_pixels;
    size_t to = min_size(pixels, from + (size_t)r->op->norm.block_pixels);
    for (size_t p = from; p < to; p++)
        r->b->k->layer_norm(run_floats(r, &d->y) + p * (size_t)d->y.ld, run_floats(r, &d->x) + p * (size_t)d->x.ld, (size_t)d->x.c,
                            r->op->norm.scale, r->op->norm.shift, d->norm.eps);
}

static void layer_norm_run(const struct cpu_run *r) { each_block(r, r->op->norm.blocks, layer_task); }

enum status cpu_layer_norm(struct cpu_backend *b, struct bop *op, struct error *err)
{
    TRY(affine(b, op, err));
    op->norm.block_pixels = op->desc.x.c < ROWS_FLOATS ? ROWS_FLOATS / op->desc.x.c : 1;
    op->norm.blocks = ceil_int(operand_pixels(&op->desc.x), op->norm.block_pixels);
    op->run = layer_norm_run;
    return ST_OK;
}
