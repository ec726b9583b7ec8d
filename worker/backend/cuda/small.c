/* Ops that are one launch of an own kernel. */
#include <stdlib.h>

#include "worker/backend/check.h"
#include "worker/backend/cuda/cuda.h"

enum { THREADS = 256, GUIDANCE_THREADS = 512 };

static enum status nothing_to_make(struct cuda_backend *b, struct bop *op, struct error *err)
{
    (void)b;
    (void)op;
    (void)err;
    return ST_OK;
}

/* launch_over starts kernel ID with a thread for each element of O, as far as the device has them. */
static enum status launch_over(struct cuda_backend *b, enum kernel_id id, const struct operand *o, void *args, struct error *err)
{
    return cuda_launch(b, id, grid_of(b, operand_pixels(o) * o->c, THREADS), THREADS, args, err);
}

static enum status map_run(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    (void)workspace;
    const struct op_desc *d = &op->desc;
    struct k_map a = {
        .x = k_operand_of(&d->x, arena), .y = k_operand_of(&d->y, arena), .act = d->kind == OP_UNARY ? (int32_t)d->act : K_FN_NONE};
    return launch_over(b, KERNEL_map, &d->y, &a, err);
}
const struct cuda_op_kind cuda_map = {.make = nothing_to_make, .run = map_run};

static enum status binary_run(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    (void)workspace;
    const struct op_desc *d = &op->desc;
    struct k_binary a = {.x = k_operand_of(&d->x, arena), .z = k_operand_of(&d->binary.z, arena), .y = k_operand_of(&d->y, arena)};
    a.fn = d->binary.fn == BINARY_ADD ? K_ADD : K_MUL;
    return launch_over(b, KERNEL_binary, &d->y, &a, err);
}
const struct cuda_op_kind cuda_binary = {.make = nothing_to_make, .run = binary_run};

static enum status concat_run(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    (void)workspace;
    const struct op_desc *d = &op->desc;
    struct k_concat a = {.x = k_operand_of(&d->x, arena), .z = k_operand_of(&d->concat.z, arena), .y = k_operand_of(&d->y, arena)};
    return launch_over(b, KERNEL_concat, &d->y, &a, err);
}
const struct cuda_op_kind cuda_concat = {.make = nothing_to_make, .run = concat_run};

static enum status upsample_run(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    (void)workspace;
    const struct op_desc *d = &op->desc;
    struct k_upsample a = {.x = k_operand_of(&d->x, arena), .y = k_operand_of(&d->y, arena)};
    return launch_over(b, KERNEL_upsample, &d->y, &a, err);
}
const struct cuda_op_kind cuda_upsample = {.make = nothing_to_make, .run = upsample_run};

/* What an embedding's run needs. */
struct tables {
    struct k_weight table, position;
};

static enum status embed_make(struct cuda_backend *b, struct bop *op, struct error *err)
{
    const struct op_desc *d = &op->desc;
    CUdeviceptr at = 0;
    struct k_weight position;
    TRY(cuda_weight(b, d->weight, FORM_ROWS, d->y.dtype, &at, err));
    TRY(k_vector(b, d->embed.position, &position, err));
    struct tables *t = malloc(sizeof *t);
    if (!t)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for an op");
    int32_t rows = (int32_t)weight_source_of(d->weight)->shape[0];
    *t = (struct tables){.table = {.at = at, .dtype = (int32_t)d->y.dtype, .rows = rows}, .position = position};
    op->own = t;
    return ST_OK;
}

static enum status embed_run(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    (void)workspace;
    const struct op_desc *d = &op->desc;
    const struct tables *t = op->own;
    struct k_embed a = {.x = k_operand_of(&d->x, arena), .y = k_operand_of(&d->y, arena), .table = t->table, .position = t->position};
    return launch_over(b, KERNEL_embed, &d->y, &a, err);
}

static void embed_drop(struct cuda_backend *b, struct bop *op)
{
    (void)b;
    free(op->own);
}
const struct cuda_op_kind cuda_embed = {.make = embed_make, .run = embed_run, .drop = embed_drop};

static enum status time_embed_run(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    (void)workspace;
    const struct op_desc *d = &op->desc;
    struct k_time_embed a = {.x = k_operand_of(&d->x, arena), .y = k_operand_of(&d->y, arena)};
    return launch_over(b, KERNEL_time_embed, &d->y, &a, err);
}
const struct cuda_op_kind cuda_time_embed = {.make = nothing_to_make, .run = time_embed_run};

static enum status lincomb_run(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    (void)workspace;
    const struct op_desc *d = &op->desc;
    struct k_lincomb a = {.coef = k_operand_of(&d->lincomb.coef, arena), .y = k_operand_of(&d->y, arena), .count = d->lincomb.count};
    for (int k = 0; k < d->lincomb.count; k++)
        a.in[k] = k_operand_of(&d->lincomb.in[k], arena);
    return launch_over(b, KERNEL_lincomb, &d->y, &a, err);
}
const struct cuda_op_kind cuda_lincomb = {.make = nothing_to_make, .run = lincomb_run};

static enum status guidance_run(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    (void)workspace;
    const struct op_desc *d = &op->desc;
    struct k_guidance a = {
        .x = k_operand_of(&d->x, arena), .y = k_operand_of(&d->y, arena), .coef = k_operand_of(&d->guidance.coef, arena)};
    return cuda_launch(b, KERNEL_guidance, 1, GUIDANCE_THREADS, &a, err);
}
const struct cuda_op_kind cuda_guidance = {.make = nothing_to_make, .run = guidance_run};

static enum status pack_u8_run(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    (void)workspace;
    const struct op_desc *d = &op->desc;
    struct k_pack_u8 a = {.x = k_operand_of(&d->x, arena), .y = k_operand_of(&d->y, arena)};
    return launch_over(b, KERNEL_pack_u8, &d->y, &a, err);
}
const struct cuda_op_kind cuda_pack_u8 = {.make = nothing_to_make, .run = pack_u8_run};

static enum status latent_rgb_run(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err)
{
    (void)workspace;
    const struct op_desc *d = &op->desc;
    struct k_latent_rgb a = {.x = k_operand_of(&d->x, arena), .y = k_operand_of(&d->y, arena)};
    a.coef = k_operand_of(&d->rgb.coef, arena);
    a.smooth = k_operand_of(&d->rgb.smooth, arena);
    return launch_over(b, KERNEL_latent_rgb, &d->y, &a, err);
}
const struct cuda_op_kind cuda_latent_rgb = {.make = nothing_to_make, .run = latent_rgb_run};
