/* What the CUDA module galley-cuda.so exports. No CUDA header is needed to include this. */
#pragma once
#include "worker/backend/backend.h"
#include <jansson.h>

/* What module and worker must have in common: both come from one build. */
struct cuda_module_build {
    char version[32];
    uint32_t api_bytes, desc_bytes, ops;
};
#define CUDA_MODULE_BUILD {GALLEY_VERSION, sizeof(struct backend_api), sizeof(struct op_desc), OP_COUNT}
extern const struct cuda_module_build galley_cuda_build;
extern const struct backend_api galley_cuda_backend;
/* galley_cuda_probe returns a list of the devices that the process sees, without making a context on any: [{device: "cuda:N", kind: "cuda",
 * name, uuid: "GPU-...", memory_bytes, compute_capability: "9.0", driver: "13.0"}], with "unusable": why where
 * the module cannot use it. NO_DEVICE says why there is none. Caller decrefs. */
NODISCARD enum status galley_cuda_probe(json_t **ret, struct error *err);

/* The module, loaded. */
struct cuda_module {
    const struct backend_api *backend;
    __typeof__(galley_cuda_probe) *probe;
};
