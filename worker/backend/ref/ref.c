#include "worker/backend/ref/ref.h"

#include <math.h>
#include <stdlib.h>

#include "worker/backend/host.h"

struct bop {
    struct op_desc desc;
    size_t extent;
};

static ref_fn *const run[OP_COUNT] = {
    [OP_CONV2D] = ref_conv2d,         [OP_LINEAR] = ref_linear,     [OP_ATTENTION] = ref_attention, [OP_GROUP_NORM] = ref_group_norm,
    [OP_LAYER_NORM] = ref_layer_norm, [OP_UNARY] = ref_unary,       [OP_BINARY] = ref_binary,       [OP_UPSAMPLE] = ref_upsample,
    [OP_CONCAT] = ref_concat,         [OP_CAST] = ref_cast,         [OP_EMBED] = ref_embed,         [OP_TIME_EMBED] = ref_time_embed,
    [OP_LINCOMB] = ref_lincomb,       [OP_GUIDANCE] = ref_guidance, [OP_PACK_U8] = ref_pack_u8,     [OP_LATENT_RGB] = ref_latent_rgb,
};

double ref_act(enum act act, double v)
{
    switch (act) {
    case FN_SILU: return v / (1 + exp(-v));
    case FN_GELU: return 0.5 * v * (1 + erf(v * 0.70710678118654752440));
    case FN_QUICK_GELU: return v / (1 + exp(-1.702 * v));
    case FN_NONE: break;
    }
    return v;
}

double *ref_weight(const struct bweight *w)
{
    size_t count = 1;
    for (int i = 0; i < w->source.ndim; i++)
        count *= (size_t)w->source.shape[i];
    double *out = malloc(count * sizeof *out);
    for (size_t i = 0; out && i < count; i++)
        out[i] = load(w->source.data, w->source.dtype, i);
    return out;
}

double *ref_operand(const unsigned char *base, const struct operand *o)
{
    int64_t pixels = operand_pixels(o);
    double *out = malloc((size_t)pixels * (size_t)o->c * sizeof *out);
    for (int64_t p = 0; out && p < pixels; p++)
        for (int c = 0; c < o->c; c++)
            out[(size_t)p * (size_t)o->c + (size_t)c] = get(base, o, p, c);
    return out;
}

static enum status ref_open(const struct backend_spec *spec, struct backend **ret, struct error *err)
{
    struct host_backend *h = calloc(1, sizeof *h);
    if (!h)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a backend");
    h->base.api = &backend_ref;
    h->reserve_bytes = spec->reserve_bytes;
    *ret = &h->base;
    return ST_OK;
}

static void ref_close(struct backend *b) { free(b); }

static void ref_weight_free(struct backend *b, struct bweight *w)
{
    (void)b;
    free(w);
}

static enum status ref_op_new(struct backend *b, const struct op_desc *desc, struct bop **ret, struct error *err)
{
    (void)b;
    TRY(op_check(desc, err));
    if (!run[desc->kind])
        return FAIL(err, UNSUPPORTED, "ref: no op '%s'", op_name(desc->kind));
    struct bop *op = calloc(1, sizeof *op);
    if (!op)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for an op");
    *op = (struct bop){.desc = *desc, .extent = op_extent(desc)};
    *ret = op;
    return ST_OK;
}

static void ref_op_free(struct backend *b, struct bop *op)
{
    (void)b;
    free(op);
}

static size_t ref_op_workspace(const struct bop *op)
{
    (void)op;
    return 0;
}

static enum status ref_op_run(struct backend *b, struct bop *op, struct bmem *arena, struct bmem *workspace, struct error *err)
{
    (void)b;
    (void)workspace;
    TRY(op_extent_check(op->desc.kind, op->extent, arena->bytes, 0, 0, err));
    return run[op->desc.kind](&op->desc, arena->data, err);
}

const struct backend_api backend_ref = {
    .name = "ref",
    .open = ref_open,
    .close = ref_close,
    .memory = host_memory,
    .mem_new = host_mem_new,
    .mem_free = host_mem_free,
    .upload = host_upload,
    .download = host_download,
    .copy = host_copy,
    .fill = host_fill,
    .sync = host_sync,
    .weight_new = host_weight_new,
    .weight_free = ref_weight_free,
    .op_new = ref_op_new,
    .op_free = ref_op_free,
    .op_workspace = ref_op_workspace,
    .op_run = ref_op_run,
};
