/* The kernels compiled for the host: what a simulated device finds in their place. A launch runs every block of its grid once, in any
 * order, on any thread; a block has one thread. */
#pragma once
#include "kernels/kernel_abi.h"
#include <stddef.h>

struct host_kernel {
    const char *name;                                     /* of the symbol: "galley_map" */
    void (*run)(const void *args, int block, int blocks); /* ARGS: the argument struct */
    size_t bytes;                                         /* of the argument struct */
};
/* In the order of enum kernel_id. */
extern const struct host_kernel galley_host_kernels[KERNEL_COUNT];
