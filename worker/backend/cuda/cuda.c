#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/backend/check.h"
#include "worker/backend/cuda/core.h"
#include "worker/backend/cuda/module.h"

enum {
    CAPABILITY_LEAST = 80, /* bfloat16, and what the kernels are compiled for */
    UUID_TEXT = 41
};

extern const unsigned char galley_fatbin[], galley_fatbin_end[];

static const char *const kernel_names[KERNEL_COUNT] = {
#define KERNEL(name, args) "galley_" #name,
    GALLEY_KERNELS(KERNEL)
#undef KERNEL
};

static const struct cuda_op_kind *const kinds[OP_COUNT] = {
    [OP_CONV2D] = &cuda_conv2d,         [OP_LINEAR] = &cuda_linear,
    [OP_ATTENTION] = &cuda_attention,   [OP_GROUP_NORM] = &cuda_group_norm,
    [OP_LAYER_NORM] = &cuda_layer_norm, [OP_UNARY] = &cuda_map,
    [OP_BINARY] = &cuda_binary,         [OP_UPSAMPLE] = &cuda_upsample,
    [OP_CONCAT] = &cuda_concat,         [OP_CAST] = &cuda_map,
    [OP_EMBED] = &cuda_embed,           [OP_TIME_EMBED] = &cuda_time_embed,
    [OP_LINCOMB] = &cuda_lincomb,       [OP_GUIDANCE] = &cuda_guidance,
    [OP_PACK_U8] = &cuda_pack_u8,       [OP_LATENT_RGB] = &cuda_latent_rgb,
};

enum status cuda_alive(const struct cuda_backend *b, struct error *err)
{
    if (b->lost == ST_OK)
        return ST_OK;
    return error_set(err, b->lost, __FILE__, __LINE__, "the device has stopped working for this process");
}

static bool broken(enum status st) { return st == ST_DEVICE_FAULT || st == ST_DEVICE_LOST; }

enum status cuda_settle(struct cuda_backend *b, enum status st, struct error *err)
{
    size_t spare = 0, total = 0;
    if (st == ST_INTERNAL) { /* a library that was the first to meet a sticky error has its own words for it: the driver tells */
        CUresult r = cu.memory_info(&spare, &total);
        if (broken(driver_status(r)))
            st = driver_fail(err, r, "the device");
    }
    if (broken(st) && b->lost == ST_OK)
        b->lost = st;
    return st;
}

static enum status attribute(CUdevice device, CUdevice_attribute what, int *ret, struct error *err)
{
    CU(err, "asking for a device's attribute", cu.device_attribute(ret, what, device));
    return ST_OK;
}

static enum status capability(CUdevice device, int *ret, struct error *err)
{
    int major = 0, minor = 0;
    TRY(attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, &major, err));
    TRY(attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, &minor, err));
    *ret = 10 * major + minor;
    return ST_OK;
}

/* find_device takes "cuda", the first that the process sees, or "cuda:N". */
static enum status find_device(const char *name, CUdevice *ret, struct error *err)
{
    int count = 0;
    long n = name[4] == ':' ? strtol(name + 5, NULL, 10) : 0;
    CU(err, "counting the devices", cu.device_count(&count));
    if (n < 0 || n >= count)
        return FAIL(err, NO_DEVICE, "no device '%s': %d CUDA devices are visible", name, count);
    CU(err, "finding the device", cu.device_get(ret, (int)n));
    return ST_OK;
}

static enum status open_context(struct cuda_backend *b, const char *name, struct error *err)
{
    int able = 0;
    TRY(find_device(name, &b->device, err));
    TRY(capability(b->device, &able, err));
    if (able < CAPABILITY_LEAST)
        return FAIL(err, UNSUPPORTED, "the device has compute capability %d.%d, at least %d.%d is needed", able / 10, able % 10,
                    CAPABILITY_LEAST / 10, CAPABILITY_LEAST % 10);
    TRY(attribute(b->device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, &b->processors, err));
    TRY(attribute(b->device, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, &b->threads_per_processor, err));
    CU(err, "making a context", cu.context_retain(&b->context, b->device));
    CU(err, "making a context", cu.context_set(b->context));
    CU(err, "making a stream", cu.stream_new(&b->stream, CU_STREAM_NON_BLOCKING));
    CU(err, "making a stream", cu.stream_new(&b->copies, CU_STREAM_NON_BLOCKING));
    return ST_OK;
}

static enum status open_kernels(struct cuda_backend *b, struct error *err)
{
    CU(err, "loading the kernels", cu.module_load(&b->module, galley_fatbin));
    for (int k = 0; k < KERNEL_COUNT; k++)
        CU(err, kernel_names[k], cu.module_function(&b->kernels[k], b->module, kernel_names[k]));
    return ST_OK;
}

static enum status open_all(struct cuda_backend *b, const char *name, struct error *err)
{
    TRY(open_context(b, name, err));
    TRY(open_kernels(b, err));
    TRY(staging_open(b, err));
    TRY(gemm_open(b, &b->gemm, err));
    return dnn_open(b, &b->dnn, err);
}

static void cuda_close(struct backend *backend)
{
    struct cuda_backend *b = (struct cuda_backend *)backend;
    if (!b)
        return;
    if (b->context) {
        (void)cu.context_set(b->context);
        if (b->lost == ST_OK && b->copies)
            (void)cu.stream_sync(b->copies);
        if (b->lost == ST_OK && b->stream)
            (void)cu.stream_sync(b->stream);
    }
    dnn_close(b->dnn);
    gemm_close(b->gemm);
    staging_close(b);
    if (b->module)
        (void)cu.module_unload(b->module);
    if (b->copies)
        (void)cu.stream_free(b->copies);
    if (b->stream)
        (void)cu.stream_free(b->stream);
    if (b->context) {
        (void)cu.context_set(NULL);
        (void)cu.context_release(b->device);
    }
    free(b);
}

static enum status cuda_open(const struct backend_spec *spec, struct backend **ret, struct error *err)
{
    if (spec->compute != DT_F32 && spec->compute != DT_F16 && spec->compute != DT_BF16)
        return FAIL(err, UNSUPPORTED, "%s: activations in %s are not supported, use f32, f16 or bf16", spec->device,
                    dtype_name(spec->compute));
    enum status st = driver_load(err);
    if (st != ST_OK)
        return error_prefix(err, "%s", spec->device);
    struct cuda_backend *b = calloc(1, sizeof *b);
    if (!b)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a backend");
    b->base.api = &galley_cuda_backend;
    b->compute = spec->compute;
    b->reserve_bytes = spec->reserve_bytes;
    st = open_all(b, spec->device, err);
    if (st != ST_OK) {
        cuda_close(&b->base);
        return error_prefix(err, "%s", spec->device);
    }
    *ret = &b->base;
    return ST_OK;
}

static void cuda_op_free(struct backend *backend, struct bop *op)
{
    struct cuda_backend *b = (struct cuda_backend *)backend;
    if (!op)
        return;
    if (op->own && op->kind->drop) {
        if (b->lost == ST_OK)
            (void)cu.stream_sync(b->stream);
        op->kind->drop(b, op);
    }
    free(op);
}

static enum status cuda_op_new(struct backend *backend, const struct op_desc *desc, struct bop **ret, struct error *err)
{
    struct cuda_backend *b = (struct cuda_backend *)backend;
    TRY(cuda_alive(b, err));
    TRY(op_check(desc, err));
    if (!kinds[desc->kind])
        return FAIL(err, UNSUPPORTED, "cuda: no op '%s'", op_name(desc->kind));
    struct bop *op = calloc(1, sizeof *op);
    if (!op)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for an op");
    *op = (struct bop){.desc = *desc, .kind = kinds[desc->kind], .extent = op_extent(desc)};
    enum status st = cuda_settle(b, op->kind->make(b, op, err), err);
    if (st != ST_OK) {
        cuda_op_free(backend, op);
        return st;
    }
    *ret = op;
    return ST_OK;
}

static size_t cuda_op_workspace(const struct bop *op) { return op->workspace; }

enum status cuda_op_enqueue(struct cuda_backend *b, struct bop *op, const struct bmem *arena, const struct bmem *workspace,
                            struct error *err)
{
    TRY(op_extent_check(op->desc.kind, op->extent, arena->bytes, op->workspace, workspace ? workspace->bytes : 0, err));
    return op->kind->run(b, op, arena->at, workspace ? workspace->at : 0, err);
}

static enum status cuda_op_run(struct backend *backend, struct bop *op, struct bmem *arena, struct bmem *workspace, struct error *err)
{
    struct cuda_backend *b = (struct cuda_backend *)backend;
    TRY(cuda_alive(b, err));
    return cuda_settle(b, cuda_op_enqueue(b, op, arena, workspace, err), err);
}

/* uuid_text writes the name by which the driver's own tools, and CUDA_VISIBLE_DEVICES, know a device. */
static void uuid_text(const CUuuid *uuid, const char *name, char ret[UUID_TEXT])
{
    const unsigned char *u = (const unsigned char *)uuid->bytes;
    int n = snprintf(ret, UUID_TEXT, "%s", strstr(name, " MIG ") ? "MIG" : "GPU");
    for (int i = 0; i < 16; i++)
        n += snprintf(ret + n, (size_t)(UUID_TEXT - n), i == 0 || i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", u[i]);
}

/* why_not is why the module cannot use a device, NULL when it can. */
static const char *why_not(int able)
{
    return able < CAPABILITY_LEAST ? "its compute capability is below 8.0 (Ampere)" : NULL;
}

static enum status describe(int i, json_t *list, struct error *err)
{
    CUdevice device;
    CUuuid uuid;
    char name[128] = "", uuid_is[UUID_TEXT], device_is[16], capability_is[16], driver_is[16];
    size_t bytes = 0;
    int able = 0, version = 0;
    CU(err, "asking for a device", cu.device_get(&device, i));
    CU(err, "asking for a device's name", cu.device_name(name, sizeof name, device));
    CU(err, "asking for a device's uuid", cu.device_uuid(&uuid, device));
    CU(err, "asking for a device's memory", cu.device_memory(&bytes, device));
    CU(err, "asking for the driver's version", cu.version(&version));
    TRY(capability(device, &able, err));
    uuid_text(&uuid, name, uuid_is);
    snprintf(device_is, sizeof device_is, "cuda:%d", i);
    snprintf(capability_is, sizeof capability_is, "%d.%d", able / 10, able % 10);
    snprintf(driver_is, sizeof driver_is, "%d.%d", version / 1000, version % 1000 / 10);
    json_t *d = json_pack("{s:s s:s s:s s:s s:I s:s s:s}", "device", device_is, "kind", "cuda", "name", name, "uuid", uuid_is,
                          "memory_bytes", (json_int_t)bytes, "compute_capability", capability_is, "driver", driver_is);
    if (d && why_not(able))
        json_object_set_new(d, "unusable", json_string(why_not(able)));
    if (!d || json_array_append_new(list, d) != 0)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the list of devices");
    return ST_OK;
}

enum status galley_cuda_probe(json_t **ret, struct error *err)
{
    int n = 0;
    TRY(driver_load(err));
    CU(err, "counting the devices", cu.device_count(&n));
    if (n == 0)
        return FAIL(err, NO_DEVICE, "no CUDA device is visible");
    json_t *list = json_array();
    if (!list)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the list of devices");
    enum status st = ST_OK;
    for (int i = 0; i < n; i++) {    /* one that does not answer is left out */
        enum status one = describe(i, list, err);
        st = one == ST_OK ? st : one;
    }
    if (json_array_size(list)) {
        *ret = list;
        return ST_OK;
    }
    json_decref(list);
    return st;
}

const struct cuda_module_build galley_cuda_build = CUDA_MODULE_BUILD;
const struct backend_api galley_cuda_backend = {
    .name = "cuda",
    .open = cuda_open,
    .close = cuda_close,
    .memory = cuda_memory,
    .mem_new = cuda_mem_new,
    .mem_free = cuda_mem_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .copy = cuda_copy,
    .fill = cuda_fill,
    .sync = cuda_sync,
    .weight_new = cuda_weight_new,
    .weight_free = cuda_weight_free,
    .op_new = cuda_op_new,
    .op_free = cuda_op_free,
    .op_workspace = cuda_op_workspace,
    .op_run = cuda_op_run,
    .sequence_new = cuda_sequence_new,
    .sequence_run = cuda_sequence_run,
    .sequence_free = cuda_sequence_free,
};
