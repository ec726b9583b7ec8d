/* Inside of the simulated libcudnn: what a plan computes, as plain data that outlives every descriptor. */
#pragma once
#include <cudnn_graph.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/vgpu/vgpu.h"

enum { CUDNN_RANK = 4 };
struct cudnn_tensor {
    int64_t id, dim[CUDNN_RANK], stride[CUDNN_RANK], align;
    cudnnDataType_t type;
    bool between, by_value; /* not in memory: between two operations; on the host */
    const void *at;
};
struct cudnn_conv {
    struct cudnn_tensor x, w, y, bias, z; /* bias, z: at NULL: none */
    int64_t stride[2], before[2], after[2];
    const void *workspace;
    int64_t workspace_bytes;
};
struct cudnn_sdpa {
    struct cudnn_tensor q, k, v, o;
    float scale;
    const void *workspace;
    int64_t workspace_bytes;
};
/* Both run on the stream's thread; ARGS is one of the above. Memory that is not the device's fails the context. */
void cudnn_run_conv(const void *args);
void cudnn_run_sdpa(const void *args);
