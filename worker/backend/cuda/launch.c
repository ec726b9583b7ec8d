#include "worker/backend/cuda/core.h"

struct k_operand k_operand_of(const struct operand *o, CUdeviceptr arena)
{
    if (o->w == 0)
        return (struct k_operand){0};
    return (struct k_operand){.at = arena + o->offset, .dtype = (int32_t)o->dtype, .n = o->n, .h = o->h, .w = o->w, .c = o->c, .ld = o->ld};
}

enum status k_vector(struct cuda_backend *b, const struct bweight *w, struct k_weight *ret, struct error *err)
{
    *ret = (struct k_weight){0};
    if (!w)
        return ST_OK;
    CUdeviceptr at = 0;
    bool table = w->source.ndim > 1;
    enum dtype dtype = table ? w->source.dtype : DT_F32;
    TRY(cuda_weight(b, w, FORM_ROWS, dtype, &at, err));
    *ret = (struct k_weight){.at = at, .dtype = (int32_t)dtype, .rows = table ? (int32_t)w->source.shape[0] : 1};
    return ST_OK;
}

enum status cuda_launch_on(struct cuda_backend *b, CUstream stream, enum kernel_id id, int64_t blocks, int threads, void *args,
                           struct error *err)
{
    void *arguments[] = {args};
    unsigned grid = blocks < 1 ? 1 : blocks > INT32_MAX ? INT32_MAX : (unsigned)blocks;
    CU(err, "starting a kernel", cu.launch(b->kernels[id], grid, 1, 1, (unsigned)threads, 1, 1, 0, stream, arguments, NULL));
    return ST_OK;
}

enum status cuda_launch(struct cuda_backend *b, enum kernel_id id, int64_t blocks, int threads, void *args, struct error *err)
{
    return cuda_launch_on(b, b->stream, id, blocks, threads, args, err);
}

int64_t grid_of(const struct cuda_backend *b, int64_t n, int threads)
{
    int64_t want = (n + threads - 1) / threads, most = (int64_t)b->processors * (b->threads_per_processor / threads);
    return want < 1 ? 1 : want > most ? most : want;
}
