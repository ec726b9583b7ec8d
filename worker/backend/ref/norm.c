/* Group and layer normalisation: variance over the population, as in Wu & He 2018 (eq. 2) and Ba et al. 2016 (eq. 4). */
#include <math.h>

#include "worker/backend/ref/ref.h"

/* normalise rewrites channels [FIRST, FIRST + COUNT) of pixels [P, P + PIXELS) by their common mean and variance. */
static void normalise(const struct op_desc *d, unsigned char *arena, int64_t p, int64_t pixels, int first, int count)
{
    double sum = 0, square = 0, elements = (double)pixels * count;
    for (int64_t i = p; i < p + pixels; i++)
        for (int c = first; c < first + count; c++)
            sum += get(arena, &d->x, i, c);
    double mean = sum / elements;
    for (int64_t i = p; i < p + pixels; i++)
        for (int c = first; c < first + count; c++) {
            double v = get(arena, &d->x, i, c) - mean;
            square += v * v;
        }
    double scale = 1 / sqrt(square / elements + (double)d->norm.eps);
    const struct weight_source *w = weight_source_of(d->weight), *b = d->bias ? weight_source_of(d->bias) : NULL;
    for (int64_t i = p; i < p + pixels; i++)
        for (int c = first; c < first + count; c++) {
            double v = (get(arena, &d->x, i, c) - mean) * scale * load(w->data, w->dtype, (size_t)c);
            put(arena, &d->y, i, c, ref_act(d->act, v + (b ? load(b->data, b->dtype, (size_t)c) : 0)));
        }
}

enum status ref_group_norm(const struct op_desc *d, unsigned char *arena, struct error *err)
{
    (void)err;
    int64_t plane = (int64_t)d->x.h * d->x.w;
    int count = d->x.c / d->norm.groups;
    for (int n = 0; n < d->x.n; n++)
        for (int g = 0; g < d->norm.groups; g++)
            normalise(d, arena, n * plane, plane, g * count, count);
    return ST_OK;
}

enum status ref_layer_norm(const struct op_desc *d, unsigned char *arena, struct error *err)
{
    (void)err;
    for (int64_t p = 0; p < operand_pixels(&d->x); p++)
        normalise(d, arena, p, 1, 0, d->x.c);
    return ST_OK;
}
