/* Weights on their way in. */
#include "kernels/device.h"

GALLEY_KERNEL(repack, k_repack)
{
    for (struct walk i = walk_begin(a.outer * a.spatial, a.inner); walk_on(&i); walk_next(&i)) {
        int64_t outer = divide(i.row, a.spatial), s = i.row - outer * a.spatial;
        store(a.dst, a.dst_dtype, i.row * a.inner + i.c, load(a.src, a.src_dtype, (outer * a.inner + i.c) * a.spatial + s));
    }
}
