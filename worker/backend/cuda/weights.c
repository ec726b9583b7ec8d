/* Weights on the device, in the layouts that ops ask for. They travel on b->copies beside what b->stream computes. */
#include <stdlib.h>

#include "worker/backend/check.h"
#include "worker/backend/cuda/core.h"

/* What of a source is repacked at a time: rows of INNER x SPATIAL elements, so many that they fit the scratch. */
struct repacking {
    const unsigned char *from;
    CUdeviceptr to;
    enum dtype from_dtype, to_dtype;
    int64_t outer, inner, spatial;
};

enum status cuda_weight_new(struct backend *backend, const struct weight_source *source, struct bweight **ret, struct error *err)
{
    (void)backend;
    TRY(weight_check(source, err));
    struct bweight *w = calloc(1, sizeof *w);
    if (!w)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a weight");
    w->source = *source;
    *ret = w;
    return ST_OK;
}

void cuda_weight_free(struct backend *backend, struct bweight *w)
{
    while (w && w->layouts) {
        struct cuda_layout *l = w->layouts;
        w->layouts = l->next;
        cuda_mem_free(backend, l->mem);
        free(l);
    }
    free(w);
}

/* plan_of says how W becomes FORM in DTYPE. A cast alone has no rows: elements one by one. */
static struct repacking plan_of(const struct weight_source *s, enum weight_form form, enum dtype dtype, CUdeviceptr to)
{
    struct repacking p = {
        .from = s->data, .to = to, .from_dtype = s->dtype, .to_dtype = dtype, .outer = s->shape[0], .inner = 1, .spatial = 1};
    for (int i = 1; i < s->ndim; i++)
        *(i == 1 ? &p.inner : &p.spatial) *= s->shape[i];
    if (form == FORM_CHANNELS_LAST && p.spatial > 1 && p.inner > 1)
        return p;
    p.outer *= p.inner * p.spatial;
    p.inner = p.spatial = 1;
    return p;
}

static enum status repack(struct cuda_backend *b, const struct repacking *p, struct error *err)
{
    int64_t row = p->inner * p->spatial;
    size_t from_bytes = (size_t)row * dtype_bytes(p->from_dtype), to_bytes = (size_t)row * dtype_bytes(p->to_dtype);
    if (from_bytes > SCRATCH_BYTES)
        return FAIL(err, UNSUPPORTED, "weight: %zu bytes of one output channel, at most %d can be repacked", from_bytes, SCRATCH_BYTES);
    int64_t most = (int64_t)(SCRATCH_BYTES / from_bytes);
    for (int64_t done = 0; done < p->outer; done += most) {
        int64_t n = p->outer - done < most ? p->outer - done : most;
        struct k_repack k = {.src = staging_scratch(b),
                             .dst = p->to + (size_t)done * to_bytes,
                             .src_dtype = (int32_t)p->from_dtype,
                             .dst_dtype = (int32_t)p->to_dtype,
                             .outer = row == 1 ? 1 : n,
                             .inner = row == 1 ? n : p->inner,
                             .spatial = p->spatial};
        TRY(staging_send(b, b->copies, staging_scratch(b), p->from + (size_t)done * from_bytes, (size_t)n * from_bytes, err));
        TRY(cuda_launch_on(b, b->copies, KERNEL_repack, grid_of(b, n * row, 256), 256, &k, err));
    }
    return ST_OK;
}

static enum status fill_layout(struct cuda_backend *b, const struct weight_source *s, const struct cuda_layout *l, struct error *err)
{
    struct repacking p = plan_of(s, l->form, l->dtype, l->mem->at);
    if (p.from_dtype == p.to_dtype && p.spatial == 1)
        TRY(staging_send(b, b->copies, p.to, p.from, (size_t)p.outer * dtype_bytes(p.to_dtype), err));
    else
        TRY(repack(b, &p, err));
    return staging_join(b, err);
}

static enum status layout_new(struct cuda_backend *b, const struct weight_source *s, enum weight_form form, enum dtype dtype,
                              struct cuda_layout **ret, struct error *err)
{
    size_t bytes = dtype_bytes(dtype);
    for (int i = 0; i < s->ndim; i++)
        bytes *= (size_t)s->shape[i];
    struct cuda_layout *l = calloc(1, sizeof *l);
    if (!l)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a weight");
    l->form = form;
    l->dtype = dtype;
    enum status st = cuda_alloc(b, bytes, &l->mem, err);
    if (st == ST_OK)
        st = fill_layout(b, s, l, err);
    if (st != ST_OK) {
        cuda_mem_free(&b->base, l->mem);
        free(l);
        return error_prefix(err, "loading a weight");
    }
    *ret = l;
    return ST_OK;
}

enum status cuda_weight(struct cuda_backend *b, const struct bweight *w, enum weight_form form, enum dtype dtype, CUdeviceptr *ret,
                        struct error *err)
{
    /* The contract hands weights over as const: the layouts are a cache behind it. */
    struct bweight *cache = (struct bweight *)(uintptr_t)w;
    struct cuda_layout *l = cache->layouts;
    while (l && (l->form != form || l->dtype != dtype))
        l = l->next;
    if (!l) {
        TRY(layout_new(b, &w->source, form, dtype, &l, err));
        l->next = cache->layouts;
        cache->layouts = l;
    }
    *ret = l->mem->at;
    return ST_OK;
}
