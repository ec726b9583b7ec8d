/* The CUDA driver, reached by dlopen alone: the module loads on a machine that has none. */
#pragma once
#include <cuda.h>
#include "common/error.h"

/* Every entry point that is used: DRIVER(member, symbol). */
#define DRIVER_CALLS(DRIVER)                                                                                                               \
    DRIVER(init, cuInit) DRIVER(version, cuDriverGetVersion) DRIVER(error_name, cuGetErrorName) DRIVER(error_text, cuGetErrorString)       \
    DRIVER(device_count, cuDeviceGetCount) DRIVER(device_get, cuDeviceGet) DRIVER(device_name, cuDeviceGetName)                            \
    DRIVER(device_uuid, cuDeviceGetUuid_v2) DRIVER(device_memory, cuDeviceTotalMem_v2) DRIVER(device_attribute, cuDeviceGetAttribute)      \
    DRIVER(context_retain, cuDevicePrimaryCtxRetain) DRIVER(context_release, cuDevicePrimaryCtxRelease_v2)                                 \
    DRIVER(context_set, cuCtxSetCurrent) DRIVER(memory_info, cuMemGetInfo_v2) DRIVER(mem_alloc, cuMemAlloc_v2)                             \
    DRIVER(mem_free, cuMemFree_v2) DRIVER(host_alloc, cuMemHostAlloc) DRIVER(host_free, cuMemFreeHost)                                     \
    DRIVER(to_device, cuMemcpyHtoDAsync_v2) DRIVER(to_host, cuMemcpyDtoHAsync_v2) DRIVER(device_copy, cuMemcpyDtoDAsync_v2)                \
    DRIVER(fill, cuMemsetD8Async) DRIVER(stream_new, cuStreamCreate) DRIVER(stream_free, cuStreamDestroy_v2)                               \
    DRIVER(stream_sync, cuStreamSynchronize) DRIVER(stream_wait, cuStreamWaitEvent) DRIVER(event_new, cuEventCreate)                       \
    DRIVER(event_free, cuEventDestroy_v2) DRIVER(event_record, cuEventRecord) DRIVER(event_sync, cuEventSynchronize)                       \
    DRIVER(module_load, cuModuleLoadData) DRIVER(module_unload, cuModuleUnload) DRIVER(module_function, cuModuleGetFunction)               \
    DRIVER(launch, cuLaunchKernel) DRIVER(capture_begin, cuStreamBeginCapture_v2) DRIVER(capture_end, cuStreamEndCapture)                  \
    DRIVER(graph_instantiate, cuGraphInstantiateWithFlags) DRIVER(graph_launch, cuGraphLaunch) DRIVER(graph_exec_free, cuGraphExecDestroy) \
    DRIVER(graph_free, cuGraphDestroy)

struct driver {
#define DRIVER(member, symbol) __typeof__(symbol) *member;
    DRIVER_CALLS(DRIVER)
#undef DRIVER
};
extern struct driver cu;             /* filled by driver_load */

/* driver_load opens libcuda.so.1 and initialises it, once per process. NO_DEVICE says why there is none: no library, a missing entry point,
 * a driver that is too old, no device. */
NODISCARD enum status driver_load(struct error *err);
/* driver_status maps a driver's error to the status list: OUT_OF_MEMORY, DEVICE_FAULT for what only a new process mends (sticky),
 * DEVICE_LOST for what that does not mend either, NO_DEVICE, UNSUPPORTED, else INTERNAL. */
enum status driver_status(CUresult r);
/* CU runs a driver call; on an error it fills ERR and returns from the caller. */
#define CU(err, what, call)                                                                                                                \
    do {                                                                                                                                   \
        CUresult cu_ = (call);                                                                                                             \
        if (cu_ != CUDA_SUCCESS)                                                                                                           \
            return driver_fail(err, cu_, what);                                                                                            \
    } while (0)
enum status driver_fail(struct error *err, CUresult r, const char *what);
