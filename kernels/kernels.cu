/* All kernels, one unit: for nvcc, and with GALLEY_KERNELS_ON_HOST for a C compiler. */
#include "kernels/device.h"
#include "kernels/map.cu"
#include "kernels/norm.cu"
#include "kernels/softmax.cu"
#include "kernels/step.cu"
#include "kernels/weights.cu"

#ifdef GALLEY_KERNELS_ON_HOST
#include "kernels/host.h"

#define RUN(name, args)                                                                                                                    \
    static void run_##name(const void *at, int block, int blocks)                                                                          \
    {                                                                                                                                      \
        grid.block = block;                                                                                                                \
        grid.blocks = blocks;                                                                                                              \
        galley_##name(*(const struct args *)at);                                                                                           \
    }
GALLEY_KERNELS(RUN)

#define ENTRY(name, args) {"galley_" #name, run_##name, sizeof(struct args)},
const struct host_kernel galley_host_kernels[KERNEL_COUNT] = {GALLEY_KERNELS(ENTRY)};
#endif
