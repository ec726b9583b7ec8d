/* cuDNN by its graph API: what is to be computed is a shape, a shape has a plan, a plan runs on addresses. The upper half of this header
 * needs no device: a plan is made for a handle or for the description of a device. */
#pragma once
#include "worker/backend/backend.h"
#include <cudnn_graph.h>

/* A convolution of channels-last pictures with a [cout][kh][kw][cin] filter, with a bias of Y's dtype if BIAS is not 0, and Z (like Y but
 * for its LD) added to it if Z_LD is not 0: only with a bias. */
struct conv_shape {
    int32_t dtype, n, h, w, cin, x_ld; /* x and its elements from pixel to pixel */
    int32_t kh, kw, stride, pad_top, pad_left, pad_bottom, pad_right;
    int32_t y_h, y_w, cout, y_ld, bias, z_ld;
};
/* Attention of HEADS heads of DIM channels that lie side by side in tokens LD elements apart; y = softmax(q k^T * scale) v. */
struct sdpa_shape {
    int32_t dtype, n, heads, dim, tq, tk, q_ld, k_ld, v_ld, y_ld;
};

enum dnn_kind { DNN_CONV, DNN_SDPA };
/* What a plan is for. Unset members are zero, so that equal shapes have equal bytes: begin with dnn_shape_new. */
struct dnn_shape {
    int32_t kind;
    union {
        struct conv_shape conv;
        struct sdpa_shape sdpa;
        int32_t all[19];
    };
};
struct dnn_shape dnn_shape_new(enum dnn_kind kind);
struct dnn_text {
    char s[200];
};
/* dnn_shape_text names SHAPE for messages: "conv2d f16 2x64x64x320 -> 320, 3x3". */
struct dnn_text dnn_shape_text(const struct dnn_shape *shape);

/* The order of a plan's addresses. */
enum { DNN_X, DNN_W, DNN_Y, DNN_BIAS, DNN_Z };                  /* a shape without bias or z stops before it */
enum { DNN_Q, DNN_K, DNN_V, DNN_O, DNN_SCALE, DNN_SDPA_COUNT }; /* SCALE: a float on the host */
enum { DNN_ADDRESSES_MAX = 5, DNN_WORKSPACE_MAX = 256 << 20 };

/* Where a plan is to run: HANDLE's device, or (HANDLE NULL) the one that PROPERTIES, a finalised CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR,
 * describes. */
struct dnn_where {
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t properties;
};
struct dnn_plan {
    cudnnBackendDescriptor_t graph, config, plan;
    int64_t engine;              /* its number within the graph's engines */
    int32_t addresses;           /* how many a run takes */
    uint32_t numerics, behavior; /* one bit per CUDNN_NUMERICAL_NOTE_, CUDNN_BEHAVIOR_NOTE_ */
    size_t workspace;
};
/* dnn_plan_new finds the first engine of the heuristics that computes SHAPE in float32 inside, gives the same result in every run and needs
 * at most DNN_WORKSPACE_MAX; engines that need no compiler come first. UNSUPPORTED names the shape if there is none; INTERNAL or
 * OUT_OF_MEMORY if something went wrong on the way and nothing else was found. */
NODISCARD enum status dnn_plan_new(struct dnn_where where, const struct dnn_shape *shape, struct dnn_plan *ret, struct error *err);
void dnn_plan_free(struct dnn_plan *p);

/* dnn_fail maps a status of cuDNN to the status list and fills ERR with WHAT and cuDNN's own words. */
enum status dnn_fail(struct error *err, cudnnStatus_t s, const char *what);
#define DNN(err, what, call)                                                                                                               \
    do {                                                                                                                                   \
        cudnnStatus_t dnn_ = (call);                                                                                                       \
        if (dnn_ != CUDNN_STATUS_SUCCESS)                                                                                                  \
            return dnn_fail(err, dnn_, what);                                                                                              \
    } while (0)

enum { DNN_VERSION_SDPA = 91301 }; /* the first with the whole attention operation */

/* conv_shape_of and sdpa_shape_of tell what cuDNN is asked for by an op that has passed op_check; false: nothing, another way
 * is taken. The bias of a convolution is in X's dtype. */
bool conv_shape_of(const struct op_desc *d, struct dnn_shape *ret);
/* conv_in_place tells whether Y overwrites the residual: the convolution then goes elsewhere, packed, and is added to it. */
bool conv_in_place(const struct op_desc *d);
/* conv_shape_less takes the last thing that a convolution's plan adds out of SHAPE, for a kernel of our own to add: the residual, then the
 * bias. False: nothing is left to take. */
bool conv_shape_less(struct dnn_shape *shape);
bool sdpa_shape_of(const struct op_desc *d, struct dnn_shape *ret);

/* ---- dnn_graph.c */
/* dnn_graph_new builds and finalises the graph of SHAPE; destroy it with cudnnBackendDestroyDescriptor. */
NODISCARD enum status dnn_graph_new(struct dnn_where where, const struct dnn_shape *shape, cudnnBackendDescriptor_t *ret,
                                    struct error *err);

/* ---- on a device */
struct cuda_backend;
/* The addresses of one op, in cuDNN's form, kept from run to run while they stay the same. All zero at first. */
struct dnn_pack {
    cudnnBackendDescriptor_t pack;
    const void *at[DNN_ADDRESSES_MAX];
    const void *workspace;
};
void dnn_pack_drop(struct dnn_pack *p);
/* dnn_plan_of returns the plan of SHAPE for B's device, made at its first use and kept as long as B. The first call opens cuDNN.
 * UNSUPPORTED: there is none. */
NODISCARD enum status dnn_plan_of(struct cuda_backend *b, const struct dnn_shape *shape, const struct dnn_plan **ret, struct error *err);
/* dnn_run enqueues PLAN on B's stream. AT has PLAN's number of addresses, in the order of the enums above. */
NODISCARD enum status dnn_run(struct cuda_backend *b, const struct dnn_plan *plan, struct dnn_pack *pack, const void *const *at,
                              const void *workspace, struct error *err);
