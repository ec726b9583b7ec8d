/* Attention: cuDNN's fused one where it has a plan, else in pieces. */
#include <stdlib.h>

#include "worker/backend/cuda/cuda.h"
#include "worker/backend/cuda/dnn.h"

struct sdpa_op {
    const struct dnn_plan *plan;
    struct dnn_pack pack;
    float scale; /* read when the op is enqueued */
};

/* in_pieces makes OP one of cuda_attention_pieces for good. */
static enum status in_pieces(struct cuda_backend *b, struct bop *op, struct error *err)
{
    op->kind = &cuda_attention_pieces;
    return op->kind->make(b, op, err);
}

/* device_works tells whether a failure was cuDNN's own (a kernel that it cannot compile here), not a broken device's. */
static bool device_works(void)
{
    size_t spare = 0, total = 0;
    return cu.memory_info(&spare, &total) == CUDA_SUCCESS;
}

static enum status sdpa_make(struct cuda_backend *b, struct bop *op, struct error *err)
{
    struct dnn_shape shape;
    const struct dnn_plan *plan = NULL;
    if (cudnnGetVersion() < DNN_VERSION_SDPA || !sdpa_shape_of(&op->desc, &shape))
        return in_pieces(b, op, err);
    enum status s = dnn_plan_of(b, &shape, &plan, err);
    if (s == ST_UNSUPPORTED || (s == ST_INTERNAL && device_works()))
        return in_pieces(b, op, err);
    if (s != ST_OK)
        return s;
    struct sdpa_op *a = calloc(1, sizeof *a);
    if (!a)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for an op");
    *a = (struct sdpa_op){.plan = plan, .scale = op->desc.attention.scale};
    op->own = a;
    op->workspace = plan->workspace;
    return ST_OK;
}

static enum status sdpa_run(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    struct sdpa_op *a = op->own;
    const struct op_desc *d = &op->desc;
    const void *at[DNN_SDPA_COUNT] = {
        [DNN_Q] = (const void *)(arena + d->x.offset),
        [DNN_K] = (const void *)(arena + d->attention.key.offset),
        [DNN_V] = (const void *)(arena + d->attention.value.offset),
        [DNN_O] = (const void *)(arena + d->y.offset),
        [DNN_SCALE] = &a->scale,
    };
    return dnn_run(b, a->plan, &a->pack, at, (const void *)workspace, err);
}

static void sdpa_drop(struct cuda_backend *b, struct bop *op)
{
    (void)b;
    struct sdpa_op *a = op->own;
    dnn_pack_drop(&a->pack);
    free(a);
    op->own = NULL;
}

const struct cuda_op_kind cuda_attention = {sdpa_make, sdpa_run, sdpa_drop};
