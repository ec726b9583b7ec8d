/* Kernels of the pipeline's ends and of a denoising step: a few times per picture or step. */
#include "kernels/device.h"

GALLEY_KERNEL(embed, k_embed)
{
    int64_t tokens = plane_of(&a.y);
    const int32_t *ids = (const int32_t *)(uintptr_t)a.x.at;
    FOR_EACH (i, &a.y) {
        int32_t id = ids[i.row * a.x.ld];
        int64_t row = id >= 0 && id < a.table.rows ? id : 0, token = i.row - divide(i.row, tokens) * tokens;
        float v = load(a.table.at, a.table.dtype, row * a.y.c + i.c);
        put(&a.y, i.row, i.c, v + weight_get(&a.position, token * a.y.c + i.c, 0));
    }
}

/* The angle in turns and in float64, as a timestep of 1000 leaves float32 too few bits; less whole turns it is small enough. */
GALLEY_KERNEL(time_embed, k_time_embed)
{
    int half = a.y.c / 2;
    for (struct walk i = walk_begin(pixels_of(&a.y), half); walk_on(&i); walk_next(&i)) {
        double w = exp(-9.2103403719761827361 * (double)i.c / half); /* ln(10000) */
        double turns = (double)get(&a.x, i.row, 0) * w * 0.15915494309189533577;
        float rest = (float)(turns - rint(turns));
        put(&a.y, i.row, i.c, cos_of_turns(rest));
        put(&a.y, i.row, half + i.c, sin_of_turns(rest));
    }
}

GALLEY_KERNEL(lincomb, k_lincomb)
{
    int64_t plane = plane_of(&a.y);
    float coef[K_LINCOMB_MAX];
    UNROLL
    for (int k = 0; k < K_LINCOMB_MAX; k++)
        coef[k] = k < a.count ? get(&a.coef, k, 0) : 0;
    FOR_EACH (i, &a.y) {
        float v = 0;
        UNROLL
        for (int k = 0; k < K_LINCOMB_MAX; k++)
            if (k < a.count) {
                int64_t period = plane * a.in[k].n, from = a.in[k].n == a.y.n ? i.row : i.row - divide(i.row, period) * period;
                v += coef[k] * get(&a.in[k], from, i.c);
            }
        put(&a.y, i.row, i.c, v);
    }
}

/* rescale returns by how much guidance of strength S is to shrink: deviations over all elements, by this block alone. */
DEVICE float rescale(const struct k_guidance *a, float s, float share)
{
    int64_t plane = plane_of(&a->x), elements = plane * a->x.c;
    struct stat positive = {0, 0, 0}, mixed = {0, 0, 0};
    for (int64_t i = thread_id(); i < elements; i += block_threads()) {
        int64_t p = divide(i, a->x.c), c = i - p * a->x.c;
        float neg = get(&a->x, p, c), pos = get(&a->x, plane + p, c);
        positive = stat_join(positive, stat_of_one(pos));
        mixed = stat_join(mixed, stat_of_one(neg + s * (pos - neg)));
    }
    positive = block_stat(positive);
    mixed = block_stat(mixed);
    return mixed.square > 0 ? share * sqrtf(positive.square / mixed.square) + 1.0f - share : 1.0f;
}

GALLEY_KERNEL(guidance, k_guidance)
{
    int64_t plane = plane_of(&a.x);
    float s = get(&a.coef, 0, 0), share = get(&a.coef, 1, 0), factor = share > 0 ? rescale(&a, s, share) : 1.0f;
    FOR_EACH (i, &a.y) {
        float neg = get(&a.x, i.row, i.c), pos = get(&a.x, plane + i.row, i.c);
        put(&a.y, i.row, i.c, (neg + s * (pos - neg)) * factor);
    }
}

DEVICE float unit(float v) { return fminf(fmaxf(v, 0.0f), 1.0f); }

GALLEY_KERNEL(pack_u8, k_pack_u8)
{
    unsigned char *y = (unsigned char *)(uintptr_t)a.y.at;
    FOR_EACH (i, &a.y) {
        float v = add_rn(mul_rn(get(&a.x, i.row, i.c), 0.5f), 0.5f);
        y[i.row * a.y.ld + i.c] = (unsigned char)rintf(mul_rn(unit(v), 255.0f));
    }
}

/* rgb_sum returns channel J of pixel P of x M, summed in the order of the channels. */
DEVICE float rgb_sum(const struct k_latent_rgb *a, int64_t p, int64_t j)
{
    float sum = 0;
    for (int c = 0; c < a->x.c; c++)
        sum = add_rn(sum, mul_rn(get(&a->x, p, c), get(&a->coef, c, j)));
    return sum;
}

DEVICE float rgb_smooth(const struct k_latent_rgb *a, int64_t p, int64_t j)
{
    int64_t y = divide(p, a->x.w), x = p - y * a->x.w;
    float v = 0;
    for (int k = 0; k < 9; k++) {
        int64_t row = y + k / 3 - 1, column = x + k % 3 - 1;
        if (row >= 0 && row < a->x.h && column >= 0 && column < a->x.w)
            v = add_rn(v, mul_rn(get(&a->smooth, k, 0), rgb_sum(a, row * a->x.w + column, j)));
    }
    return v;
}

GALLEY_KERNEL(latent_rgb, k_latent_rgb)
{
    unsigned char *y = (unsigned char *)(uintptr_t)a.y.at;
    FOR_EACH (i, &a.y) {
        float v = a.smooth.at ? rgb_smooth(&a, i.row, i.c) : rgb_sum(&a, i.row, i.c);
        y[i.row * a.y.ld + i.c] = (unsigned char)mul_rn(unit(mul_rn(add_rn(v, 1.0f), 0.5f)), 255.0f);
    }
}
