/* Modules and kernels. What a fatbin holds is for a real device; here every module has the kernels that are compiled for the
 * host (kernels/host.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "kernels/host.h"
#include "tests/vgpu/inside.h"

struct CUmod_st {
    struct handle handle;
};

struct CUfunc_st {
    struct handle handle;
    CUmodule module;
    enum kernel_id id;
};

/* ---- what a kernel touches: checked before it runs, as the device would find out while it does */

struct touch {
    char what[96];          /* that is not in memory, if any */
    const char *kernel;
    bool bad;
};

static size_t bytes_of(int dtype) { return dtype == K_U8 ? 1 : dtype == K_F16 || dtype == K_BF16 ? 2 : 4; }

static void touch(struct touch *t, const char *name, uint64_t at, int64_t bytes)
{
    if (t->bad || (at && bytes > 0 && vgpu_holds(at, (size_t)bytes)))
        return;
    t->bad = true;
    snprintf(t->what, sizeof t->what, "%s: %s: %lld bytes at %#llx", t->kernel, name, (long long)bytes, (unsigned long long)at);
}

static void touch_operand(struct touch *t, const char *name, const struct k_operand *o)
{
    bool always = !strcmp(name, "x") || !strcmp(name, "y");
    if (o->at || always)
        touch(t, name, o->at, (((int64_t)o->n * o->h * o->w - 1) * o->ld + o->c) * (int64_t)bytes_of(o->dtype));
}

static void touch_weight(struct touch *t, const char *name, const struct k_weight *w, int64_t elements)
{
    if (w->at)
        touch(t, name, w->at, elements * (int64_t)bytes_of(w->dtype));
}

#define OPERAND(m) touch_operand(t, #m, &a->m)
#define WEIGHT(m, elements) touch_weight(t, #m, &a->m, elements)

static void touch_map(struct touch *t, const struct k_map *a) { OPERAND(x), OPERAND(y); }
static void touch_binary(struct touch *t, const struct k_binary *a) { OPERAND(x), OPERAND(z), OPERAND(y); }
static void touch_concat(struct touch *t, const struct k_concat *a) { OPERAND(x), OPERAND(z), OPERAND(y); }
static void touch_upsample(struct touch *t, const struct k_upsample *a) { OPERAND(x), OPERAND(y); }
static void touch_time_embed(struct touch *t, const struct k_time_embed *a) { OPERAND(x), OPERAND(y); }
static void touch_guidance(struct touch *t, const struct k_guidance *a) { OPERAND(x), OPERAND(y), OPERAND(coef); }
static void touch_pack_u8(struct touch *t, const struct k_pack_u8 *a) { OPERAND(x), OPERAND(y); }

static void touch_embed(struct touch *t, const struct k_embed *a)
{
    OPERAND(x), OPERAND(y);
    WEIGHT(table, (int64_t)a->table.rows * a->y.c);
    WEIGHT(position, (int64_t)a->y.h * a->y.w * a->y.c);
}

static void touch_lincomb(struct touch *t, const struct k_lincomb *a)
{
    OPERAND(coef), OPERAND(y);
    for (int k = 0; k < a->count && k < K_LINCOMB_MAX; k++)
        OPERAND(in[k]);
}

static void touch_latent_rgb(struct touch *t, const struct k_latent_rgb *a) { OPERAND(x), OPERAND(y), OPERAND(coef), OPERAND(smooth); }

static void touch_epilogue(struct touch *t, const struct k_epilogue *a)
{
    OPERAND(y), OPERAND(add), OPERAND(residual);
    WEIGHT(bias, a->y.c);
}

static void touch_geglu(struct touch *t, const struct k_geglu *a)
{
    OPERAND(x), OPERAND(y);
    WEIGHT(bias, 2 * (int64_t)a->y.c);
}

static void touch_parts(struct touch *t, const struct k_group_norm *a)
{
    touch(t, "parts", a->parts, (int64_t)a->x.n * a->groups * a->chunks * 3 * (int64_t)sizeof(float));
}

static void touch_group_norm_sums(struct touch *t, const struct k_group_norm *a)
{
    OPERAND(x);
    touch_parts(t, a);
}

static void touch_group_norm(struct touch *t, const struct k_group_norm *a)
{
    OPERAND(x), OPERAND(y);
    WEIGHT(weight, a->x.c), WEIGHT(bias, a->x.c);
    touch_parts(t, a);
}

static void touch_layer_norm(struct touch *t, const struct k_layer_norm *a)
{
    OPERAND(x), OPERAND(y);
    WEIGHT(weight, a->x.c), WEIGHT(bias, a->x.c);
}

static void touch_softmax(struct touch *t, const struct k_softmax *a)
{
    touch(t, "scores", a->scores, (int64_t)a->heads * a->rows * a->keys * (int64_t)sizeof(float));
    if (a->mask)
        touch(t, "mask", a->mask, a->keys * (int64_t)sizeof(float));
}

static void touch_repack(struct touch *t, const struct k_repack *a)
{
    int64_t elements = a->outer * a->inner * a->spatial;
    touch(t, "src", a->src, elements * (int64_t)bytes_of(a->src_dtype));
    touch(t, "dst", a->dst, elements * (int64_t)bytes_of(a->dst_dtype));
}

static void touch_all(struct touch *t, enum kernel_id id, const void *args)
{
    switch (id) {
#define KERNEL(name, type)                                                                                                                 \
    case KERNEL_##name: touch_##name(t, (const struct type *)args); break;
        GALLEY_KERNELS(KERNEL)
#undef KERNEL
    case KERNEL_COUNT: break;
    }
}

/* ---- a launch */

struct launch {
    enum kernel_id id;
    int64_t blocks;
    unsigned char args[512];
};
#define KERNEL(name, type) ABI_ASSERT(sizeof(struct type) <= 512, #name);
GALLEY_KERNELS(KERNEL)
#undef KERNEL

/* The blocks FIRST, FIRST + STEP ... of a launch, by one thread. */
struct share {
    const struct launch *launch;
    int first, step, blocks;
    pthread_t thread;
};

static void *share_run(void *arg)
{
    const struct share *s = arg;
    for (int i = s->first; i < s->blocks; i += s->step)
        galley_host_kernels[s->launch->id].run(s->launch->args, s->blocks - 1 - i, s->blocks);
    return NULL;
}

static void shares_run(const struct launch *l, int blocks, int threads)
{
    struct share shares[64] = {{.launch = l, .step = threads, .blocks = blocks}};
    int started = 0;
    for (int i = 1; i < threads; i++)
        shares[i] = (struct share){.launch = l, .first = i, .step = threads, .blocks = blocks};
    for (int i = 1; i < threads && !pthread_create(&shares[i].thread, NULL, share_run, &shares[i]); i++)
        started = i;
    share_run(&shares[0]);
    for (int i = 1; i < threads; i++) {
        if (i <= started)
            pthread_join(shares[i].thread, NULL);
        else
            share_run(&shares[i]);
    }
}

/* A kernel gives the same for every grid: it runs in few blocks, that what they touch is near; with a seed in a number that changes. */
static void launch_run(const void *args)
{
    static _Thread_local uint64_t random;
    const struct launch *l = args;
    struct touch t = {.kernel = galley_host_kernels[l->id].name};
    touch_all(&t, l->id, l->args);
    if (t.bad) {
        vgpu_fail(CUDA_ERROR_ILLEGAL_ADDRESS, t.what);
        return;
    }
    int64_t blocks = rig.threads;
    if (rig.seed) {
        random = random ? random : (uint64_t)rig.seed * 0x9e3779b97f4a7c15u;
        blocks += (int64_t)(stream_random(&random) % 7);
    }
    blocks = blocks < l->blocks ? blocks : l->blocks;
    shares_run(l, (int)blocks, (int)(blocks < rig.threads ? blocks : rig.threads));
}

static bool shape_fits(const unsigned grid[3], const unsigned block[3], unsigned shared)
{
    bool some = grid[0] && grid[1] && grid[2] && block[0] && block[1] && block[2];
    return some && grid[0] <= INT32_MAX && grid[1] <= 65535 && grid[2] <= 65535 && block[0] <= 1024 && block[1] <= 1024 && block[2] <= 64 &&
           (uint64_t)block[0] * block[1] * block[2] <= 1024 && shared <= 232448;
}

ENTRY CUresult cuLaunchKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ, unsigned int blockDimX,
                              unsigned int blockDimY, unsigned int blockDimZ, unsigned int sharedMemBytes, CUstream hStream,
                              void **kernelParams, void **extra)
{
    CUresult r = enter("cuLaunchKernel", context_here, ENTER_CONTEXT);
    const unsigned grid[3] = {gridDimX, gridDimY, gridDimZ}, block[3] = {blockDimX, blockDimY, blockDimZ};
    if (r || extra || !kernelParams || !kernelParams[0] || !shape_fits(grid, block, sharedMemBytes))
        return r ? r : CUDA_ERROR_INVALID_VALUE;
    struct launch l = {.blocks = (int64_t)gridDimX * gridDimY * gridDimZ};
    rig_lock();
    r = stream_find(&hStream);
    if (!r && (!handle_live(f, HANDLE_FUNCTION) || f->handle.context != hStream->handle.context))
        r = CUDA_ERROR_INVALID_HANDLE;
    if (!r) {
        l.id = f->id;
        memcpy(l.args, kernelParams[0], galley_host_kernels[l.id].bytes);
        r = stream_put(hStream, launch_run, NULL, &l, sizeof l);
    }
    rig_unlock();
    return r;
}

/* ---- modules */

struct fatbin {             /* 0xBA55ED50: the header, then entries */
    uint32_t magic;
    uint16_t version, header_bytes;
    uint64_t bytes;         /* of all entries */
};
struct fatbin_entry {
    uint16_t kind, version; /* kind 1: PTX, 2: machine code */
    uint32_t header_bytes;
    uint64_t bytes;         /* of what follows this header */
    uint32_t packed_bytes, options;
    uint16_t minor, major;
    uint32_t arch;          /* 90: compute capability 9.0 */
};

/* image_check tells whether IMAGE has code for a device of compute capability 9.0. */
static CUresult image_check(const void *image)
{
    struct fatbin f;
    if (!image)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&f, image, sizeof f);
    if (f.magic != 0xBA55ED50u || f.version != 1 || f.header_bytes < sizeof f)
        return CUDA_ERROR_INVALID_IMAGE;
    const unsigned char *at = (const unsigned char *)image + f.header_bytes, *end = at + f.bytes;
    for (struct fatbin_entry e; (size_t)(end - at) >= sizeof e; at += e.header_bytes + e.bytes) {
        memcpy(&e, at, sizeof e);
        if (e.header_bytes < sizeof e || e.bytes > (uint64_t)(end - at))
            return CUDA_ERROR_INVALID_IMAGE;
        if ((e.kind == 1 && e.arch <= 90) || (e.kind == 2 && e.arch == 90))
            return CUDA_SUCCESS;
    }
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
}

ENTRY CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    CUresult r = enter("cuModuleLoadData", context_here, ENTER_CONTEXT);
    if (!r)
        r = module ? image_check(image) : CUDA_ERROR_INVALID_VALUE;
    if (r)
        return r;
    CUmodule m = calloc(1, sizeof *m);
    if (!m)
        return CUDA_ERROR_OUT_OF_MEMORY;
    rig_lock();
    r = capture_forbids();
    if (r) {
        free(m);
    } else {
        handle_add(m, HANDLE_MODULE, context_here);
        *module = m;
    }
    rig_unlock();
    return r;
}

void module_free(CUmodule module)
{
    for (struct handle *h = rig.handles, *next; h; h = next) {
        next = h->next;
        if (h->kind == HANDLE_FUNCTION && ((CUfunction)h)->module == module) {
            handle_remove(h);
            free(h);
        }
    }
    handle_remove(module);
    free(module);
}

ENTRY CUresult cuModuleUnload(CUmodule hmod)
{
    CUresult r = enter("cuModuleUnload", context_here, ENTER_CONTEXT);
    if (r)
        return r;
    rig_lock();
    r = handle_live(hmod, HANDLE_MODULE) ? capture_forbids() : CUDA_ERROR_INVALID_HANDLE;
    if (!r) {
        stream_idle(context_here);
        module_free(hmod);
    }
    rig_unlock();
    return r;
}

/* function_find returns MODULE's handle of kernel ID, made at the first call. */
static CUresult function_find(CUmodule module, enum kernel_id id, CUfunction *ret)
{
    for (struct handle *h = rig.handles; h; h = h->next) {
        CUfunction f = (CUfunction)h;
        if (h->kind == HANDLE_FUNCTION && f->module == module && f->id == id) {
            *ret = f;
            return CUDA_SUCCESS;
        }
    }
    CUfunction f = calloc(1, sizeof *f);
    if (!f)
        return CUDA_ERROR_OUT_OF_MEMORY;
    f->module = module;
    f->id = id;
    handle_add(f, HANDLE_FUNCTION, module->handle.context);
    *ret = f;
    return CUDA_SUCCESS;
}

ENTRY CUresult cuModuleGetFunction(CUfunction *hfunc, CUmodule hmod, const char *name)
{
    CUresult r = enter("cuModuleGetFunction", context_here, ENTER_CONTEXT);
    if (r || !hfunc || !name)
        return r ? r : CUDA_ERROR_INVALID_VALUE;
    int id = 0;
    while (id < KERNEL_COUNT && strcmp(galley_host_kernels[id].name, name))
        id++;
    rig_lock();
    if (!handle_live(hmod, HANDLE_MODULE))
        r = CUDA_ERROR_INVALID_HANDLE;
    else if (id == KERNEL_COUNT)
        r = CUDA_ERROR_NOT_FOUND;
    else
        r = function_find(hmod, (enum kernel_id)id, hfunc);
    rig_unlock();
    return r;
}
