/* Linear layers and attention as matrix products (gemm.h), with own kernels for what a product cannot take along. */
#include <stdlib.h>

#include "worker/backend/check.h"
#include "worker/backend/cuda/gemm.h"

enum { THREADS = 256, ALIGN = 256, ROWS_TOGETHER = 64 };
#define SCORES_MAX ((size_t)256 << 20) /* bytes of scores at a time */

/* reserve returns the offset of BYTES more of the workspace, which so far ends at *END. */
static size_t reserve(size_t *end, size_t bytes)
{
    size_t at = *end;
    *end += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return at;
}

/* An operand, or what stands for it in the workspace: of another dtype, or packed. */
struct part {
    struct operand o;
    bool staged;
};

/* stage makes PART a packed operand of the workspace with AS's pixels. */
static void stage(struct part *part, const struct operand *as, int32_t c, enum dtype dtype, size_t *end)
{
    part->staged = true;
    part->o = *as;
    part->o.c = part->o.ld = c;
    part->o.dtype = dtype;
    part->o.offset = 0;
    part->o.offset = reserve(end, operand_end(&part->o));
}

static CUdeviceptr part_at(const struct part *p, CUdeviceptr arena, CUdeviceptr workspace)
{
    return (p->staged ? workspace : arena) + p->o.offset;
}

static struct k_operand part_operand(const struct part *p, CUdeviceptr arena, CUdeviceptr workspace)
{
    return k_operand_of(&p->o, p->staged ? workspace : arena);
}

static enum status map_run(struct cuda_backend *b, struct k_operand x, struct k_operand y, enum act act, struct error *err)
{
    struct k_map args = {.x = x, .y = y, .act = (int32_t)act};
    return cuda_launch(b, KERNEL_map, grid_of(b, (int64_t)y.n * y.h * y.w * y.c, THREADS), THREADS, &args, err);
}

/* product_dtype returns the dtype in which a product of operands of dtype IN is made that Y is to have. */
static enum dtype product_dtype(enum dtype in, enum dtype y) { return y == in ? y : DT_F32; }

/* ---- linear */

enum { TAKE_BIAS = 1, TAKE_RESIDUAL = 2 }; /* what the product itself adds */

struct linear {
    struct gemm_plan *plan;
    CUdeviceptr weight;
    int taken;
    struct part target;   /* of the product */
    struct k_weight bias; /* that is left to a kernel; at 0: none */
    size_t scratch;       /* cuBLASLt's, in the workspace */
};

static bool overlap(const struct operand *a, const struct operand *b) { return a->offset < operand_end(b) && b->offset < operand_end(a); }

/* linear_target says where the product goes that takes TAKE along. */
static void linear_target(const struct op_desc *d, struct linear *l, int take, size_t *end)
{
    enum dtype dtype = product_dtype(d->x.dtype, d->y.dtype);
    bool spoils = operand_set(&d->residual) && !(take & TAKE_RESIDUAL) && overlap(&d->residual, &d->y);
    l->target = (struct part){.o = d->y};
    if (d->linear.geglu)
        stage(&l->target, &d->y, 2 * d->y.c, d->x.dtype, end);
    else if (dtype != d->y.dtype || spoils)
        stage(&l->target, &d->y, d->y.c, dtype, end);
}

static enum status linear_plan(struct cuda_backend *b, struct bop *op, int take, struct error *err)
{
    const struct op_desc *d = &op->desc;
    struct linear *l = op->own;
    size_t end = 0;
    linear_target(d, l, take, &end);
    const struct operand *y = &l->target.o;
    struct gemm_spec s = {
        .m = operand_pixels(&d->x),
        .n = y->c,
        .k = d->x.c,
        .b_transposed = true,
        .a = {.dtype = d->x.dtype, .ld = d->x.ld, .align = gemm_align(d->x.offset)},
        .b = {.dtype = d->x.dtype, .ld = d->x.c},
        .d = {.dtype = y->dtype, .ld = y->ld, .align = gemm_align(y->offset)},
        .alpha = 1,
    };
    if (take & TAKE_RESIDUAL) {
        s.c = (struct gemm_matrix){.dtype = d->residual.dtype, .ld = d->residual.ld, .align = gemm_align(d->residual.offset)};
        s.beta = 1;
    }
    if (take & TAKE_BIAS)
        TRY(cuda_weight(b, d->bias, FORM_ROWS, y->dtype, &s.bias, err));
    TRY(gemm_plan_new(b->gemm, &s, &l->plan, err));
    l->taken = take;
    l->scratch = reserve(&end, gemm_plan_workspace(l->plan));
    op->workspace = end;
    return ST_OK;
}

static enum status linear_make(struct cuda_backend *b, struct bop *op, struct error *err)
{
    const struct op_desc *d = &op->desc;
    struct linear *l = op->own = calloc(1, sizeof *l);
    if (!l)
        return FAIL(err, OUT_OF_MEMORY, "linear: out of memory for its plan");
    bool bias = d->bias && !d->linear.geglu;
    bool residual = operand_set(&d->residual) && d->residual.dtype == product_dtype(d->x.dtype, d->y.dtype);
    int wanted = (bias ? TAKE_BIAS : 0) | (residual ? TAKE_RESIDUAL : 0);
    enum status st = ST_UNSUPPORTED;
    TRY(cuda_weight(b, d->weight, FORM_ROWS, d->x.dtype, &l->weight, err));
    for (int take = TAKE_BIAS | TAKE_RESIDUAL; take >= 0 && st == ST_UNSUPPORTED; take--)
        if (!(take & ~wanted))
            st = linear_plan(b, op, take, err);
    TRY(st);
    return l->taken & TAKE_BIAS ? ST_OK : k_vector(b, d->bias, &l->bias, err);
}

static void linear_drop(struct cuda_backend *b, struct bop *op)
{
    (void)b;
    struct linear *l = op->own;
    gemm_plan_free(l->plan);
    free(l);
}

/* linear_finish adds what the product did not, and brings it to y. */
static enum status linear_finish(struct cuda_backend *b, const struct op_desc *d, const struct linear *l, struct k_operand target,
                                 CUdeviceptr arena, struct error *err)
{
    struct k_operand y = k_operand_of(&d->y, arena);
    int64_t elements = operand_pixels(&d->y) * d->y.c;
    if (d->linear.geglu) {
        struct k_geglu args = {.x = target, .y = y, .bias = l->bias};
        return cuda_launch(b, KERNEL_geglu, grid_of(b, elements, THREADS), THREADS, &args, err);
    }
    struct k_epilogue args = {.y = target, .bias = l->bias, .act = l->target.staged ? K_FN_NONE : (int32_t)d->act};
    if (operand_set(&d->residual) && !(l->taken & TAKE_RESIDUAL))
        args.residual = k_operand_of(&d->residual, arena);
    if (args.bias.at || args.residual.at || args.act != K_FN_NONE)
        TRY(cuda_launch(b, KERNEL_epilogue, grid_of(b, elements, THREADS), THREADS, &args, err));
    return l->target.staged ? map_run(b, target, y, d->act, err) : ST_OK;
}

static enum status linear_run(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    const struct op_desc *d = &op->desc;
    const struct linear *l = op->own;
    CUdeviceptr to = part_at(&l->target, arena, workspace);
    TRY(gemm_run(l->plan, arena + d->x.offset, l->weight, arena + d->residual.offset, to, workspace + l->scratch, err));
    return linear_finish(b, d, l, part_operand(&l->target, arena, workspace), arena, err);
}

const struct cuda_op_kind cuda_linear = {linear_make, linear_run, linear_drop};

/* ---- attention */

enum { WHOLE, LAST, SIZES }; /* pieces of queries: all but the last have the same size */

struct attention {
    struct part q, k, v, y, mask;
    int queries, keys, dim;
    int pieces, rows[SIZES];
    struct gemm_plan *scores[SIZES], *values[SIZES];
    size_t scores_at, scratch;
};

static int tokens(const struct operand *o) { return o->h * o->w; }

/* convert makes PART stand for O in DTYPE. */
static void convert(struct part *part, const struct operand *o, enum dtype dtype, size_t *end)
{
    *part = (struct part){.o = *o};
    if (o->dtype != dtype)
        stage(part, o, o->c, dtype, end);
}

static void attention_parts(const struct op_desc *d, struct attention *a, size_t *end)
{
    const struct operand *key = &d->attention.key, *value = &d->attention.value, *mask = &d->attention.mask;
    enum dtype common = product_dtype(d->x.dtype, key->dtype);
    convert(&a->q, &d->x, common, end);
    convert(&a->k, key, common, end);
    convert(&a->v, value, value->dtype, end);
    convert(&a->y, &d->y, product_dtype(value->dtype, d->y.dtype), end);
    a->mask = (struct part){.o = *mask};
    if (operand_set(mask) && mask->ld != 1)
        stage(&a->mask, mask, 1, DT_F32, end);
}

static void attention_split(const struct op_desc *d, struct attention *a)
{
    size_t most = SCORES_MAX / ((size_t)d->attention.heads * (size_t)a->keys * sizeof(float));
    most = most > ROWS_TOGETHER ? most / ROWS_TOGETHER * ROWS_TOGETHER : most ? most : 1;
    a->rows[WHOLE] = most < (size_t)a->queries ? (int)most : a->queries;
    a->pieces = (a->queries + a->rows[WHOLE] - 1) / a->rows[WHOLE];
    a->rows[LAST] = a->queries - (a->pieces - 1) * a->rows[WHOLE];
}

/* head_matrix describes one head of P, the first of them: pointers of a run step by heads, by samples and by pieces of ROWS tokens (0:
 * never). */
static struct gemm_matrix head_matrix(const struct op_desc *d, const struct part *p, int dim, int rows)
{
    size_t bytes = dtype_bytes(p->o.dtype), steps = p->o.offset;
    steps |= d->attention.heads > 1 ? (size_t)dim * bytes : 0;
    steps |= p->o.n > 1 ? (size_t)tokens(&p->o) * (size_t)p->o.ld * bytes : 0;
    steps |= (size_t)rows * (size_t)p->o.ld * bytes;
    return (struct gemm_matrix){.dtype = p->o.dtype, .ld = p->o.ld, .stride = dim, .align = gemm_align(steps)};
}

/* attention_plan plans the two products of a piece of SIZE. */
static enum status attention_plan(struct cuda_backend *b, const struct op_desc *d, struct attention *a, int size, struct error *err)
{
    int64_t rows = a->rows[size], keys = a->keys;
    int step = a->pieces > 1 ? a->rows[WHOLE] : 0, heads = d->attention.heads;
    int64_t wide = keys * (int64_t)(sizeof(float) / dtype_bytes(a->v.o.dtype)); /* a row of probabilities begins where its scores did */
    size_t align = heads > 1 ? gemm_align((size_t)(rows * keys) * sizeof(float)) : ALIGN;
    struct gemm_spec scores = {
        .m = rows,
        .n = keys,
        .k = a->dim,
        .batch = heads,
        .b_transposed = true,
        .a = head_matrix(d, &a->q, a->dim, step),
        .b = head_matrix(d, &a->k, a->dim, 0),
        .d = {DT_F32, keys, rows * keys, align},
        .alpha = 1,
    };
    struct gemm_spec values = {
        .m = rows,
        .n = a->dim,
        .k = keys,
        .batch = heads,
        .a = {a->v.o.dtype, wide, rows * wide, align},
        .b = head_matrix(d, &a->v, a->dim, 0),
        .d = head_matrix(d, &a->y, a->dim, step),
        .alpha = 1,
    };
    TRY(gemm_plan_new(b->gemm, &scores, &a->scores[size], err));
    return gemm_plan_new(b->gemm, &values, &a->values[size], err);
}

static enum status attention_make(struct cuda_backend *b, struct bop *op, struct error *err)
{
    const struct op_desc *d = &op->desc;
    struct attention *a = op->own = calloc(1, sizeof *a);
    if (!a)
        return FAIL(err, OUT_OF_MEMORY, "attention: out of memory for its plan");
    size_t end = 0, scratch = 0;
    a->queries = tokens(&d->x);
    a->keys = tokens(&d->attention.key);
    a->dim = d->x.c / d->attention.heads;
    attention_parts(d, a, &end);
    attention_split(d, a);
    a->scores_at = reserve(&end, (size_t)d->attention.heads * (size_t)a->rows[WHOLE] * (size_t)a->keys * sizeof(float));
    for (int size = a->pieces > 1 ? WHOLE : LAST; size < SIZES; size++) {
        TRY(attention_plan(b, d, a, size, err));
        size_t need[] = {gemm_plan_workspace(a->scores[size]), gemm_plan_workspace(a->values[size])};
        scratch = need[0] > scratch ? need[0] : scratch;
        scratch = need[1] > scratch ? need[1] : scratch;
    }
    a->scratch = reserve(&end, scratch);
    op->workspace = end;
    return ST_OK;
}

static void attention_drop(struct cuda_backend *b, struct bop *op)
{
    (void)b;
    struct attention *a = op->own;
    for (int size = 0; size < SIZES; size++) {
        gemm_plan_free(a->scores[size]);
        gemm_plan_free(a->values[size]);
    }
    free(a);
}

/* bring_in fills PART from O if it stands for it in the workspace. */
static enum status bring_in(struct cuda_backend *b, const struct part *part, const struct operand *o, CUdeviceptr arena,
                            CUdeviceptr workspace, struct error *err)
{
    if (!part->staged)
        return ST_OK;
    return map_run(b, k_operand_of(o, arena), k_operand_of(&part->o, workspace), FN_NONE, err);
}

/* token_at returns where token T of sample N of P is. */
static CUdeviceptr token_at(const struct part *p, int n, int t, CUdeviceptr arena, CUdeviceptr workspace)
{
    size_t token = (size_t)n * (size_t)tokens(&p->o) + (size_t)t;
    return part_at(p, arena, workspace) + token * (size_t)p->o.ld * dtype_bytes(p->o.dtype);
}

static enum status piece_run(struct cuda_backend *b, const struct op_desc *d, const struct attention *a, int n, int piece,
                             CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    int size = piece == a->pieces - 1 ? LAST : WHOLE, first = piece * a->rows[WHOLE];
    CUdeviceptr scores = workspace + a->scores_at, scratch = workspace + a->scratch;
    TRY(gemm_run(a->scores[size], token_at(&a->q, n, first, arena, workspace), token_at(&a->k, n, 0, arena, workspace), 0, scores, scratch,
                 err));
    struct k_softmax args = {
        .scores = scores,
        .mask = operand_set(&d->attention.mask) ? token_at(&a->mask, n, 0, arena, workspace) : 0,
        .heads = d->attention.heads,
        .rows = a->rows[size],
        .keys = a->keys,
        .first = first,
        .dtype = (int32_t)a->v.o.dtype,
        .causal = d->attention.causal,
        .scale = d->attention.scale,
    };
    int64_t all = (int64_t)args.heads * args.rows;
    TRY(cuda_launch(b, KERNEL_softmax, grid_of(b, all * THREADS, THREADS), THREADS, &args, err));
    return gemm_run(a->values[size], scores, token_at(&a->v, n, 0, arena, workspace), 0, token_at(&a->y, n, first, arena, workspace),
                    scratch, err);
}

static enum status attention_run(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    const struct op_desc *d = &op->desc;
    const struct attention *a = op->own;
    TRY(bring_in(b, &a->q, &d->x, arena, workspace, err));
    TRY(bring_in(b, &a->k, &d->attention.key, arena, workspace, err));
    TRY(bring_in(b, &a->mask, &d->attention.mask, arena, workspace, err));
    for (int n = 0; n < d->x.n; n++)
        for (int piece = 0; piece < a->pieces; piece++)
            TRY(piece_run(b, d, a, n, piece, arena, workspace, err));
    return a->y.staged ? map_run(b, k_operand_of(&a->y.o, workspace), k_operand_of(&d->y, arena), FN_NONE, err) : ST_OK;
}

const struct cuda_op_kind cuda_attention_pieces = {attention_make, attention_run, attention_drop};
