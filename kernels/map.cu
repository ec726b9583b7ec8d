/* Kernels that touch each element once. Some y may be x itself: an element is read before it is written, by the same thread. */
#include "kernels/device.h"

GALLEY_KERNEL(map, k_map)
{
    FOR_EACH (i, &a.y)
        put(&a.y, i.row, i.c, act_of(a.act, get(&a.x, i.row, i.c)));
}

/* repeated returns the pixel of Z that goes with pixel P of an operand with planes of PLANE. */
DEVICE int64_t repeated(const struct k_operand *z, int64_t p, int64_t plane)
{
    int64_t z_plane = plane_of(z);
    if (z_plane == plane)
        return z->n == 1 ? p - divide(p, plane) * plane : p;
    return z->n == 1 ? 0 : divide(p, plane);
}

GALLEY_KERNEL(binary, k_binary)
{
    int64_t plane = plane_of(&a.x);
    FOR_EACH (i, &a.y) {
        float x = get(&a.x, i.row, i.c), z = get(&a.z, repeated(&a.z, i.row, plane), i.c);
        put(&a.y, i.row, i.c, a.fn == K_ADD ? x + z : x * z);
    }
}

GALLEY_KERNEL(concat, k_concat)
{
    FOR_EACH (i, &a.y)
        put(&a.y, i.row, i.c, i.c < a.x.c ? get(&a.x, i.row, i.c) : get(&a.z, i.row, i.c - a.x.c));
}

GALLEY_KERNEL(upsample, k_upsample)
{
    FOR_EACH (i, &a.y) {
        int64_t line = divide(i.row, a.y.w), n = divide(line, a.y.h), column = i.row - line * a.y.w;
        int64_t row = divide((line - n * a.y.h) * a.x.h, a.y.h);
        column = divide(column * a.x.w, a.y.w);
        put(&a.y, i.row, i.c, get(&a.x, (n * a.x.h + row) * a.x.w + column, i.c));
    }
}

GALLEY_KERNEL(epilogue, k_epilogue)
{
    int64_t plane = plane_of(&a.y);
    int one = pixels_of(&a.add) == 1;
    FOR_EACH (i, &a.y) {
        float v = get(&a.y, i.row, i.c) + weight_get(&a.bias, i.c, 0);
        if (a.add.at)
            v += get(&a.add, one ? 0 : divide(i.row, plane), i.c);
        if (a.residual.at)
            v += get(&a.residual, i.row, i.c);
        put(&a.y, i.row, i.c, act_of(a.act, v));
    }
}

GALLEY_KERNEL(geglu, k_geglu)
{
    FOR_EACH (i, &a.y) {
        float v = get(&a.x, i.row, i.c) + weight_get(&a.bias, i.c, 0);
        float gate = get(&a.x, i.row, i.c + a.y.c) + weight_get(&a.bias, i.c + a.y.c, 0);
        put(&a.y, i.row, i.c, v * gelu(gate));
    }
}
