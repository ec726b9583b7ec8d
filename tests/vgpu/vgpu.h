/* The simulated GPU, inside: what its three libraries share. libcuda.so.1 has the devices, memory, streams, events and graphs; libcublasLt.so.13 and
 * libcudnn.so.9 enqueue their work through it. All of it runs on the host's processors, as late and as unordered as a device would: a stream is
 * a thread, and only what is ordered by streams and events is ordered. */
#pragma once
#include <cuda.h>
#include <stdbool.h>
#include <stddef.h>

/* Work: FN gets the copied arguments. It runs on the stream's thread, or each time the graph runs that captured it. */
typedef void vgpu_fn(const void *args);
/* vgpu_work appends work to STREAM (NULL: the default stream of the current context): a copy of BYTES at ARGS. While STREAM is being captured the
 * work becomes a node of the graph. The error is what the caller's call must return. */
CUresult vgpu_work(CUstream stream, vgpu_fn *fn, const void *args, size_t bytes);
/* vgpu_enter stands first in every entry point of the three libraries: counts the call, waits for a slow one, and returns the fault that the plan has for it
 * (or the error that the context keeps since a sticky one), CUDA_SUCCESS to go on. CALL is the symbol's name. */
CUresult vgpu_enter(const char *call);
/* vgpu_holds tells whether [AT, AT + BYTES) lies in one live allocation of the current device: what is not may not be touched by work. */
bool vgpu_holds(CUdeviceptr at, size_t bytes);
/* vgpu_fail makes the current context fail for good, as a kernel does that touches memory which is not its own: every later call returns R. */
void vgpu_fail(CUresult r, const char *what);

/* 16-bit helpers shared by the three: see worker/backend/half.h. */
