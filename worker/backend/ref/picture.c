/* Guidance, and the ends of the pipeline that make bytes. Bytes must come out equal everywhere, so that their arithmetic is float32, one
 * rounding per operation, in the order written here. */
#include <math.h>

#include "worker/backend/ref/ref.h"

enum status ref_guidance(const struct op_desc *d, unsigned char *arena, struct error *err)
{
    (void)err;
    int64_t plane = (int64_t)d->x.h * d->x.w;
    double s = get(arena, &d->guidance.coef, 0, 0), r = get(arena, &d->guidance.coef, 1, 0), n = (double)plane * d->x.c;
    double sums[2] = {0, 0}, squares[2] = {0, 0}, factor = 1;
    for (int pass = 0; pass < (r > 0 ? 2 : 0); pass++) /* means first, then squares about them */
        for (int64_t p = 0; p < plane; p++)
            for (int c = 0; c < d->x.c; c++) {
                double neg = get(arena, &d->x, p, c), pos = get(arena, &d->x, plane + p, c), v[2] = {pos, neg + s * (pos - neg)};
                for (int k = 0; k < 2; k++) {
                    double off = v[k] - sums[k] / n;
                    sums[k] += pass ? 0 : v[k];
                    squares[k] += pass ? off * off : 0;
                }
            }
    if (r > 0 && squares[1] > 0)
        factor = r * sqrt(squares[0] / squares[1]) + 1 - r;
    for (int64_t p = 0; p < plane; p++)
        for (int c = 0; c < d->x.c; c++) {
            double neg = get(arena, &d->x, p, c), pos = get(arena, &d->x, plane + p, c);
            put(arena, &d->y, p, c, (neg + s * (pos - neg)) * factor);
        }
    return ST_OK;
}

static float unit(float v) { return fminf(fmaxf(v, 0.0f), 1.0f); }

enum status ref_pack_u8(const struct op_desc *d, unsigned char *arena, struct error *err)
{
    (void)err;
    for (int64_t p = 0; p < operand_pixels(&d->x); p++)
        for (int c = 0; c < d->x.c; c++) {
            float v = (float)get(arena, &d->x, p, c);
            arena[d->y.offset + at(&d->y, p, c)] = (unsigned char)lrintf(unit(v * 0.5f + 0.5f) * 255.0f);
        }
    return ST_OK;
}

/* rgb_sum returns channel J of pixel P of x M, summed in the order of the channels. */
static float rgb_sum(const struct op_desc *d, const unsigned char *arena, int64_t p, int j)
{
    float sum = 0;
    for (int c = 0; c < d->x.c; c++)
        sum += (float)get(arena, &d->x, p, c) * (float)get(arena, &d->rgb.coef, c, j);
    return sum;
}

enum status ref_latent_rgb(const struct op_desc *d, unsigned char *arena, struct error *err)
{
    (void)err;
    for (int64_t p = 0; p < operand_pixels(&d->x); p++)
        for (int j = 0; j < 3; j++) {
            float v = 0;
            for (int k = 0; k < 9 && operand_set(&d->rgb.smooth); k++) {
                int64_t row = p / d->x.w + k / 3 - 1, col = p % d->x.w + k % 3 - 1;
                if (row >= 0 && row < d->x.h && col >= 0 && col < d->x.w)
                    v += (float)get(arena, &d->rgb.smooth, k, 0) * rgb_sum(d, arena, row * d->x.w + col, j);
            }
            if (!operand_set(&d->rgb.smooth))
                v = rgb_sum(d, arena, p, j);
            arena[d->y.offset + at(&d->y, p, j)] = (unsigned char)(unit((v + 1.0f) / 2.0f) * 255.0f);
        }
    return ST_OK;
}
