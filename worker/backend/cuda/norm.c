/* Group and layer normalisation. */
#include <stdlib.h>

#include "worker/backend/check.h"
#include "worker/backend/cuda/cuda.h"

enum {
    WARP = 32,
    THREADS = 512,            /* of a group norm's block, at most */
    ROW_THREADS = 256,        /* of a layer norm's: a warp takes a row */
    BLOCKS_PER_PROCESSOR = 2, /* that a group norm's registers leave room for */
    CHUNK_PIXELS = 16,        /* for each thread, at least: less is not worth a partial sum */
    PART_BYTES = 3 * sizeof(float)
};

/* What a norm's run needs. */
struct norm {
    struct k_weight weight, bias;
    int threads, chunks;
    int64_t pieces; /* blocks that rewrite y */
};

static enum status norm_new(struct cuda_backend *b, struct bop *op, struct error *err)
{
    struct norm m = {0};
    TRY(k_vector(b, op->desc.weight, &m.weight, err));
    TRY(k_vector(b, op->desc.bias, &m.bias, err));
    struct norm *own = malloc(sizeof *own);
    if (!own)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for an op");
    *own = m;
    op->own = own;
    return ST_OK;
}

static void norm_drop(struct cuda_backend *b, struct bop *op)
{
    (void)b;
    free(op->own);
}

static int64_t clamp(int64_t v, int64_t least, int64_t most) { return v > most ? (most > least ? most : least) : v < least ? least : v; }

/* A block takes as many whole groups as it has threads for their channels, the same number in every block, and several rows of pixels if
 * there is room left. */
static enum status group_norm_make(struct cuda_backend *b, struct bop *op, struct error *err)
{
    TRY(norm_new(b, op, err));
    struct norm *m = op->own;
    const struct operand *x = &op->desc.x;
    int64_t groups = op->desc.norm.groups, each = x->c / groups, plane = (int64_t)x->h * x->w;
    int64_t slabs = (groups + clamp(THREADS / each, 1, groups) - 1) / clamp(THREADS / each, 1, groups);
    int64_t width = clamp((groups + slabs - 1) / slabs * each, 1, THREADS), rows = THREADS / width;
    m->threads = (int)((rows * width + WARP - 1) / WARP * WARP);
    int64_t blocks = (int64_t)BLOCKS_PER_PROCESSOR * b->processors, most = clamp(plane / (CHUNK_PIXELS * rows), 1, K_NORM_CHUNKS_MAX);
    m->chunks = (int)clamp(blocks / (slabs * x->n), 1, most);
    m->pieces = clamp(blocks, x->n, x->n * clamp(plane / rows, 1, plane));
    op->workspace = (size_t)x->n * (size_t)groups * (size_t)m->chunks * PART_BYTES;
    return ST_OK;
}

static enum status group_norm_run(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    const struct op_desc *d = &op->desc;
    const struct norm *m = op->own;
    struct k_group_norm a = {
        .x = k_operand_of(&d->x, arena), .y = k_operand_of(&d->y, arena), .weight = m->weight, .bias = m->bias, .parts = workspace};
    a.groups = d->norm.groups;
    a.chunks = m->chunks;
    a.act = (int32_t)d->act;
    a.eps = d->norm.eps;
    int64_t fit = clamp(m->threads / (d->x.c / a.groups), 1, a.groups), slabs = (a.groups + fit - 1) / fit;
    TRY(cuda_launch(b, KERNEL_group_norm_sums, d->x.n * slabs * a.chunks, m->threads, &a, err));
    return cuda_launch(b, KERNEL_group_norm, m->pieces, m->threads, &a, err);
}
const struct cuda_op_kind cuda_group_norm = {.make = group_norm_make, .run = group_norm_run, .drop = norm_drop};

static enum status layer_norm_run(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    (void)workspace;
    const struct op_desc *d = &op->desc;
    const struct norm *m = op->own;
    struct k_layer_norm a = {
        .x = k_operand_of(&d->x, arena), .y = k_operand_of(&d->y, arena), .weight = m->weight, .bias = m->bias, .eps = d->norm.eps};
    return cuda_launch(b, KERNEL_layer_norm, grid_of(b, operand_pixels(&d->x) * WARP, ROW_THREADS), ROW_THREADS, &a, err);
}
const struct cuda_op_kind cuda_layer_norm = {.make = norm_new, .run = layer_norm_run, .drop = norm_drop};
