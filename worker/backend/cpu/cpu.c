#include "worker/backend/cpu/cpu.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* pick_kernels returns the best kernels of this processor. GALLEY_CPU_ISA (plain, avx2, avx512) in the environment sets the most that may
 * be used, so that pictures can be compared between machines. */
static enum status pick_kernels(const struct kernels **ret, struct error *err)
{
    const struct kernels *known[] = {
        &kernels_plain,
#if defined __x86_64__
        &kernels_avx2,
        &kernels_avx512,
#endif
    };
    int most = (int)(sizeof known / sizeof *known) - 1, can = 0;
    const char *limit = getenv("GALLEY_CPU_ISA");
    if (limit && *limit) {
        while (most >= 0 && strcmp(known[most]->name, limit) != 0)
            most--;
        if (most < 0)
            return FAIL(err, BAD_CONFIG, "GALLEY_CPU_ISA is \"%.32s\": this build knows plain%s", limit,
                        sizeof known > sizeof *known ? ", avx2, avx512" : "");
    }
#if defined __x86_64__
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); /* and F16C, which is older than AVX2 */
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512bw");
    can = avx512 ? 2 : avx2 ? 1 : 0;
#endif
    *ret = known[can < most ? can : most];
    return ST_OK;
}

/* settle confines the calling thread, and so the pool's, to the spec's cores, and returns how many threads to use in *RET. */
static enum status settle(const struct backend_spec *spec, int *ret, struct error *err)
{
    cpu_set_t set;
    if (!spec->cores) {
        int n = spec->n_cores;
        if (n < 1)
            n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
        *ret = n;
        return ST_OK;
    }
    CPU_ZERO(&set);
    for (int i = 0; i < spec->n_cores; i++) {
        if (spec->cores[i] < 0 || spec->cores[i] >= CPU_SETSIZE)
            return FAIL(err, NO_DEVICE, "%s: logical processor %d is out of range, at most %d", spec->device, spec->cores[i],
                        CPU_SETSIZE - 1);
        CPU_SET(spec->cores[i], &set);
    }
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        return FAIL(err, NO_DEVICE, "%s: none of its %d logical processors may be used here", spec->device, spec->n_cores);
    *ret = CPU_COUNT(&set);
    return ST_OK;
}

static void cpu_close(struct backend *backend)
{
    struct cpu_backend *b = (struct cpu_backend *)backend;
    if (!b)
        return;
    pool_free(b->pool);
    free(b->zeros);
    free(b);
}

static enum status cpu_open(const struct backend_spec *spec, struct backend **ret, struct error *err)
{
    if (spec->compute != DT_F32)
        return FAIL(err, UNSUPPORTED, "%s: activations in %s are not supported on a CPU, use float32", spec->device,
                    dtype_name(spec->compute));
    struct cpu_backend *b = calloc(1, sizeof *b);
    if (!b)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a backend");
    b->host.base.api = &backend_cpu;
    b->host.reserve_bytes = spec->reserve_bytes;
    int threads = 1;
    enum status st = pick_kernels(&b->k, err);
    if (st == ST_OK)
        st = settle(spec, &threads, err);
    if (st == ST_OK)
        st = pool_new(threads, &b->pool, err);
    if (st != ST_OK) {
        cpu_close(&b->host.base);
        return st;
    }
    *ret = &b->host.base;
    return ST_OK;
}

static cpu_prepare *const prepare[OP_COUNT] = {
    [OP_CONV2D] = cpu_product,
    [OP_LINEAR] = cpu_product,
    [OP_ATTENTION] = cpu_attention,
    [OP_GROUP_NORM] = cpu_group_norm,
    [OP_LAYER_NORM] = cpu_layer_norm,
    [OP_UNARY] = cpu_map,
    [OP_BINARY] = cpu_map,
    [OP_UPSAMPLE] = cpu_map,
    [OP_CONCAT] = cpu_map,
    [OP_CAST] = cpu_map,
    [OP_EMBED] = cpu_embed,
    [OP_TIME_EMBED] = cpu_embed,
    [OP_LINCOMB] = cpu_map,
    [OP_GUIDANCE] = cpu_guidance,
    [OP_PACK_U8] = cpu_map,
    [OP_LATENT_RGB] = cpu_latent_rgb,
};

static enum status float32_only(const struct op_desc *d, const char *member, const struct operand *o, struct error *err)
{
    if (!operand_set(o) || o->dtype == DT_F32 || o->dtype == DT_U8 || o->dtype == DT_I32 || d->kind == OP_CAST)
        return ST_OK;
    return FAIL(err, UNSUPPORTED, "%s: %s is %s, the cpu backend takes float32", op_name(d->kind), member, dtype_name(o->dtype));
}

static enum status dtypes_check(const struct op_desc *d, struct error *err)
{
    TRY(float32_only(d, "x", &d->x, err));
    TRY(float32_only(d, "y", &d->y, err));
    TRY(float32_only(d, "residual", &d->residual, err));
    switch (d->kind) {
    case OP_CONV2D: return float32_only(d, "add", &d->conv.add, err);
    case OP_ATTENTION: TRY(float32_only(d, "key", &d->attention.key, err)); return float32_only(d, "value", &d->attention.value, err);
    case OP_BINARY: return float32_only(d, "z", &d->binary.z, err);
    case OP_CONCAT: return float32_only(d, "z", &d->concat.z, err);
    case OP_LINCOMB:
        for (int k = 0; k < d->lincomb.count; k++)
            TRY(float32_only(d, "in", &d->lincomb.in[k], err));
        break;
    default: break;
    }
    return ST_OK;
}

static void cpu_op_free(struct backend *backend, struct bop *op)
{
    (void)backend;
    if (!op)
        return;
    if (op->desc.kind == OP_CONV2D && cpu_winograd_fits(&op->desc))
        free(op->winograd.bias);
    else if (op->desc.kind == OP_CONV2D || op->desc.kind == OP_LINEAR)
        free(op->product.bias);
    if (op->desc.kind == OP_GROUP_NORM || op->desc.kind == OP_LAYER_NORM) {
        free(op->norm.scale);
        free(op->norm.shift);
    }
    free(op);
}

static enum status cpu_op_new(struct backend *backend, const struct op_desc *desc, struct bop **ret, struct error *err)
{
    TRY(op_check(desc, err));
    TRY(dtypes_check(desc, err));
    struct bop *op = calloc(1, sizeof *op);
    if (!op)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for an op");
    op->desc = *desc;
    op->extent = op_extent(desc);
    cpu_prepare *how = desc->kind == OP_CONV2D && cpu_winograd_fits(desc) ? cpu_winograd : prepare[desc->kind];
    enum status st = how ? how((struct cpu_backend *)backend, op, err) : FAIL(err, UNSUPPORTED, "cpu: no op '%s'", op_name(desc->kind));
    if (st != ST_OK) {
        cpu_op_free(backend, op);
        return st;
    }
    *ret = op;
    return ST_OK;
}

static size_t cpu_op_workspace(const struct bop *op) { return op->workspace; }

static enum status cpu_op_run(struct backend *backend, struct bop *op, struct bmem *arena, struct bmem *workspace, struct error *err)
{
    TRY(op_extent_check(op->desc.kind, op->extent, arena->bytes, op->workspace, workspace ? workspace->bytes : 0, err));
    struct cpu_run r = {(const struct cpu_backend *)backend, op, arena->data, workspace ? workspace->data : NULL};
    op->run(&r);
    return ST_OK;
}

const struct backend_api backend_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .memory = host_memory,
    .mem_new = host_mem_new,
    .mem_free = host_mem_free,
    .upload = host_upload,
    .download = host_download,
    .copy = host_copy,
    .fill = host_fill,
    .sync = host_sync,
    .weight_new = host_weight_new,
    .weight_free = cpu_weight_free,
    .op_new = cpu_op_new,
    .op_free = cpu_op_free,
    .op_workspace = cpu_op_workspace,
    .op_run = cpu_op_run,
};
