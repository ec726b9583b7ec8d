/* Convolution: cuDNN's with the bias and, where Y is another, the residual; then one kernel of our own for what is left. */
#include <stdlib.h>

#include "worker/backend/check.h"
#include "worker/backend/cuda/cuda.h"
#include "worker/backend/cuda/dnn.h"

enum { ALIGN = 256, THREADS = 256 };

struct conv_op {
    const struct dnn_plan *plan;
    struct dnn_pack pack;
    CUdeviceptr weight, bias;  /* as cuDNN takes them */
    struct k_weight late_bias; /* as the kernel takes it, where the plan does not */
    bool residual;             /* the plan adds it */
    size_t product;            /* bytes of the workspace that take the convolution, 0: Y does */
};

static size_t up(size_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

/* product_of describes the convolution in the workspace: packed, in Y's dtype. */
static struct k_operand product_of(const struct op_desc *d, CUdeviceptr at)
{
    return (struct k_operand){.at = at, .dtype = (int32_t)d->y.dtype, .n = d->y.n, .h = d->y.h, .w = d->y.w, .c = d->y.c, .ld = d->y.c};
}

static bool something_follows(const struct op_desc *d, const struct conv_op *c)
{
    return (operand_set(&d->residual) && !c->residual) || operand_set(&d->conv.add) || d->act != FN_NONE || c->late_bias.at;
}

/* find picks the plan: with the residual and the bias if there is one for that, else the kernel adds them. */
static enum status find(struct cuda_backend *b, const struct op_desc *d, struct dnn_shape *shape, struct conv_op *c, struct error *err)
{
    enum status s = dnn_plan_of(b, shape, &c->plan, err);
    while ((s == ST_UNSUPPORTED || s == ST_INTERNAL) && conv_shape_less(shape))
        s = dnn_plan_of(b, shape, &c->plan, err);
    if (s != ST_OK)
        return s;
    c->residual = shape->conv.z_ld != 0;
    return d->bias && !shape->conv.bias ? k_vector(b, d->bias, &c->late_bias, err) : ST_OK;
}

static enum status conv_make(struct cuda_backend *b, struct bop *op, struct error *err)
{
    const struct op_desc *d = &op->desc;
    struct dnn_shape shape;
    if (!conv_shape_of(d, &shape))
        return FAIL(err, UNSUPPORTED, "conv2d: from %s to %s; both must be the same", dtype_name(d->x.dtype), dtype_name(d->y.dtype));
    if (conv_in_place(d) && (d->residual.offset != d->y.offset || d->residual.ld != d->y.ld || d->residual.dtype != d->y.dtype))
        return FAIL(err, UNSUPPORTED, "conv2d: the residual overlaps y but is not y");
    struct conv_op *c = calloc(1, sizeof *c);
    if (!c)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for an op");
    op->own = c;
    if (conv_in_place(d))
        c->product = (size_t)operand_pixels(&d->y) * (size_t)d->y.c * dtype_bytes(d->y.dtype);
    TRY(find(b, d, &shape, c, err));
    TRY(cuda_weight(b, d->weight, FORM_CHANNELS_LAST, d->x.dtype, &c->weight, err));
    if (shape.conv.bias)
        TRY(cuda_weight(b, d->bias, FORM_ROWS, d->x.dtype, &c->bias, err));
    op->workspace = up(c->product) + c->plan->workspace;
    return ST_OK;
}

/* follow adds to what the convolution has left, in Y or, where Y still holds the residual, beside it. */
static enum status follow(struct cuda_backend *b, const struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    const struct op_desc *d = &op->desc;
    const struct conv_op *c = op->own;
    if (!something_follows(d, c))
        return ST_OK;
    struct k_epilogue args = {
        .y = k_operand_of(&d->y, arena), .add = k_operand_of(&d->conv.add, arena), .bias = c->late_bias, .act = (int32_t)d->act};
    if (c->product)
        args.residual = product_of(d, workspace);
    else if (!c->residual)
        args.residual = k_operand_of(&d->residual, arena);
    return cuda_launch(b, KERNEL_epilogue, grid_of(b, operand_pixels(&d->y) * d->y.c, THREADS), THREADS, &args, err);
}

static enum status conv_run(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    struct conv_op *c = op->own;
    const struct op_desc *d = &op->desc;
    CUdeviceptr to = c->product ? workspace : arena + d->y.offset;
    const void *at[DNN_ADDRESSES_MAX] = {
        [DNN_X] = (const void *)(arena + d->x.offset),
        [DNN_W] = (const void *)c->weight,
        [DNN_Y] = (const void *)to,
        [DNN_BIAS] = (const void *)c->bias,
        [DNN_Z] = (const void *)(arena + d->residual.offset),
    };
    TRY(dnn_run(b, c->plan, &c->pack, at, (const void *)(workspace + up(c->product)), err));
    return follow(b, op, arena, workspace, err);
}

static void conv_drop(struct cuda_backend *b, struct bop *op)
{
    (void)b;
    struct conv_op *c = op->own;
    dnn_pack_drop(&c->pack);
    free(c);
    op->own = NULL;
}

const struct cuda_op_kind cuda_conv2d = {conv_make, conv_run, conv_drop};
