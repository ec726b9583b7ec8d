/* The transforms of Winograd's F(2x2, 3x3), Lavin & Gray 2016, eq. 8 to 10. */
#include "worker/backend/cpu/kernels_internal.h"
#include "worker/backend/cpu/vec.h"

/* input_rows applies B^T to four vectors STEP apart, in place. */
INLINE void input_rows(vf *t, int step)
{
    vf a = t[0], b = t[step], c = t[2 * step], d = t[3 * step];
    t[0] = a - c;
    t[step] = b + c;
    t[2 * step] = c - b;
    t[3 * step] = b - d;
}

INLINE void transform_in(vf t[16])
{
    UNROLL
    for (int j = 0; j < 4; j++)
        input_rows(t + j, 4);
    UNROLL
    for (int i = 0; i < 4; i++)
        input_rows(t + 4 * i, 1);
}

void KERNEL(kernel_winograd_in)(const float *const d[16], size_t channels, float *v, size_t plane)
{
    vf t[16];
    size_t c = 0;
    for (; c + W <= channels; c += W) {
        UNROLL
        for (int i = 0; i < 16; i++)
            t[i] = v_load(d[i] + c);
        transform_in(t);
        UNROLL
        for (int i = 0; i < 16; i++)
            v_store(v + (size_t)i * plane + c, t[i]);
    }
    size_t n = channels - c;
    if (n == 0)
        return;
    for (int i = 0; i < 16; i++)
        t[i] = v_load_n(d[i] + c, n);
    transform_in(t);
    for (int i = 0; i < 16; i++)
        v_store_n(v + (size_t)i * plane + c, t[i], n);
}

void KERNEL(kernel_winograd_out)(const float *m, size_t plane, float *top, float *bottom)
{
    for (size_t c = 0; c < 2 * W; c += W) {
        vf up[4], down[4];
        UNROLL
        for (size_t j = 0; j < 4; j++) {
            vf m0 = v_load(m + j * plane + c), m1 = v_load(m + (4 + j) * plane + c);
            vf m2 = v_load(m + (8 + j) * plane + c), m3 = v_load(m + (12 + j) * plane + c);
            up[j] = m0 + m1 + m2;
            down[j] = m1 - m2 - m3;
        }
        v_store(top + c, up[0] + up[1] + up[2]);
        v_store(top + 2 * W + c, up[1] - up[2] - up[3]);
        v_store(bottom + c, down[0] + down[1] + down[2]);
        v_store(bottom + 2 * W + c, down[1] - down[2] - down[3]);
    }
}
