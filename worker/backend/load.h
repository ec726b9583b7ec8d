/* The CUDA module: loaded when a CUDA device is first asked for, so that a machine without CUDA's libraries runs the rest. */
#pragma once
#include "common/error.h"

struct cuda_module; /* worker/backend/cuda/module.h */

/* backend_module loads lib/galley/galley-cuda.so beside this program's folder, once per process. NO_DEVICE says why that cannot be done:
 * this build has none, or the library that it lacks. */
NODISCARD enum status backend_module(const struct cuda_module **ret, struct error *err);
