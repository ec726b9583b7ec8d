/* Inside of the CUDA module: one device, its context, and what its ops share. See kernels/kernel_abi.h for the device's side. */
#pragma once
#include <cuda.h>
#include "kernels/kernel_abi.h"
#include "worker/backend/backend.h"
#include "worker/backend/cuda/driver.h"

struct staging;
struct gemm;         /* gemm.c: cuBLASLt */
struct dnn;          /* dnn.c: cuDNN */

struct bmem {
    size_t bytes;
    CUdeviceptr at;
};

/* A copy of a weight in device memory, in the layout and dtype that ops asked for. */
enum weight_form {
    FORM_ROWS,       /* as stored: matrix rows [out][in], vectors, tables */
    FORM_CHANNELS_LAST /* convolution [out][kh][kw][in] */
};
struct cuda_layout {
    struct cuda_layout *next;
    enum weight_form form;
    enum dtype dtype;
    struct bmem *mem;
};
struct bweight {
    struct weight_source source; /* first: see weight_source_of */
    struct cuda_layout *layouts;
};

struct cuda_backend {
    struct backend base;         /* first */
    CUdevice device;
    CUcontext context;           /* the primary one: cuBLASLt and cuDNN use it too */
    CUstream stream;             /* all work, in the order of the calls */
    CUstream copies;             /* weights on their way, and pictures on theirs */
    CUmodule module;
    CUfunction kernels[KERNEL_COUNT];
    enum dtype compute;
    size_t reserve_bytes, used_bytes;
    int processors, threads_per_processor; /* multiprocessors, and what each holds at a time */
    struct staging *staging;     /* memory.c: pinned memory that uploads and downloads go through */
    struct gemm *gemm;
    struct dnn *dnn;
    enum status lost;            /* ST_OK, or DEVICE_FAULT, DEVICE_LOST: nothing works in this process any more */
};

/* One op. RUN only enqueues: no allocation, no wait, no lookup. What a failed MAKE leaves in OP->own, DROP gets. DROP is called when the
 * stream is done with the op, and after the device was lost too. */
struct bop;
struct cuda_op_kind {
    enum status (*make)(struct cuda_backend *b, struct bop *op, struct error *err);     /* OP->desc has passed op_check */
    enum status (*run)(struct cuda_backend *b, struct bop *op, CUdeviceptr arena, CUdeviceptr workspace, struct error *err);
    void (*drop)(struct cuda_backend *b, struct bop *op);                               /* frees OP->own, called if that is set; may be NULL */
};
struct bop {
    struct op_desc desc;
    const struct cuda_op_kind *kind;
    size_t extent, workspace;    /* bytes of arena reached, of workspace needed */
    void *own;                   /* the kind's */
};

/* ---- small.c, norm.c: own kernels; product.c: linear and attention's fallback; conv.c, sdpa.c: cuDNN */
extern const struct cuda_op_kind cuda_map, cuda_binary, cuda_concat, cuda_upsample, cuda_embed, cuda_time_embed, cuda_lincomb, cuda_guidance,
    cuda_pack_u8, cuda_latent_rgb, cuda_group_norm, cuda_layer_norm, cuda_linear, cuda_conv2d, cuda_attention;
/* Attention without cuDNN: any head size and dtype, float32 scores in pieces of bounded size. cuda_attention uses it where sdpa.c has no plan. */
extern const struct cuda_op_kind cuda_attention_pieces;

/* ---- gemm.c */
NODISCARD enum status gemm_open(struct cuda_backend *b, struct gemm **ret, struct error *err);
void gemm_close(struct gemm *g);                                                         /* accepts NULL */
/* ---- dnn.c */
NODISCARD enum status dnn_open(struct cuda_backend *b, struct dnn **ret, struct error *err);
void dnn_close(struct dnn *d);                                                           /* accepts NULL */

/* ---- weights.c: cuda_weight returns W in FORM and DTYPE, made at first use (in op_new, never in op_run) and kept with the weight. */
NODISCARD enum status cuda_weight(struct cuda_backend *b, const struct bweight *w, enum weight_form form, enum dtype dtype, CUdeviceptr *ret, struct error *err);

/* ---- launch.c */
struct k_operand k_operand_of(const struct operand *o, CUdeviceptr arena);               /* at 0 if O is not set */
/* k_vector returns W as kernels read it: a vector in float32, a table as it is stored; at 0 if W is NULL. */
NODISCARD enum status k_vector(struct cuda_backend *b, const struct bweight *w, struct k_weight *ret, struct error *err);
/* cuda_launch starts kernel ID on the stream: BLOCKS of THREADS. ARGS is its argument struct. */
NODISCARD enum status cuda_launch(struct cuda_backend *b, enum kernel_id id, int64_t blocks, int threads, void *args, struct error *err);
/* grid_of returns blocks of THREADS for N elements, few enough for the device to have no idle tail, at least 1. */
int64_t grid_of(const struct cuda_backend *b, int64_t n, int threads);
