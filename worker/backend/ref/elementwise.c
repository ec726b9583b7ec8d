/* Ops that touch each element once or a few times. */
#include <math.h>
#include <string.h>

#include "worker/backend/ref/ref.h"

enum status ref_unary(const struct op_desc *d, unsigned char *arena, struct error *err)
{
    (void)err;
    for (int64_t p = 0; p < operand_pixels(&d->x); p++)
        for (int c = 0; c < d->x.c; c++)
            put(arena, &d->y, p, c, ref_act(d->act, get(arena, &d->x, p, c)));
    return ST_OK;
}

enum status ref_cast(const struct op_desc *d, unsigned char *arena, struct error *err)
{
    (void)err;
    for (int64_t p = 0; p < operand_pixels(&d->x); p++)
        for (int c = 0; c < d->x.c; c++)
            put(arena, &d->y, p, c, get(arena, &d->x, p, c));
    return ST_OK;
}

enum status ref_binary(const struct op_desc *d, unsigned char *arena, struct error *err)
{
    (void)err;
    const struct operand *z = &d->binary.z;
    int64_t plane = (int64_t)d->x.h * d->x.w, z_plane = (int64_t)z->h * z->w;
    for (int64_t p = 0; p < operand_pixels(&d->x); p++) {
        int64_t n = z->n == 1 ? 0 : p / plane, from = n * z_plane + (z_plane == 1 ? 0 : p % plane);
        for (int c = 0; c < d->x.c; c++) {
            double a = get(arena, &d->x, p, c), b = get(arena, z, from, c);
            put(arena, &d->y, p, c, d->binary.fn == BINARY_ADD ? a + b : a * b);
        }
    }
    return ST_OK;
}

enum status ref_upsample(const struct op_desc *d, unsigned char *arena, struct error *err)
{
    (void)err;
    for (int64_t p = 0; p < operand_pixels(&d->y); p++) {
        int64_t j = p % d->y.w * d->x.w / d->y.w, i = p / d->y.w % d->y.h * d->x.h / d->y.h, n = p / d->y.w / d->y.h;
        for (int c = 0; c < d->y.c; c++)
            put(arena, &d->y, p, c, get(arena, &d->x, (n * d->x.h + i) * d->x.w + j, c));
    }
    return ST_OK;
}

enum status ref_concat(const struct op_desc *d, unsigned char *arena, struct error *err)
{
    (void)err;
    for (int64_t p = 0; p < operand_pixels(&d->y); p++)
        for (int c = 0; c < d->y.c; c++)
            put(arena, &d->y, p, c, c < d->x.c ? get(arena, &d->x, p, c) : get(arena, &d->concat.z, p, c - d->x.c));
    return ST_OK;
}

enum status ref_embed(const struct op_desc *d, unsigned char *arena, struct error *err)
{
    (void)err;
    const struct weight_source *table = weight_source_of(d->weight),
                               *position = d->embed.position ? weight_source_of(d->embed.position) : NULL;
    int64_t tokens = (int64_t)d->x.h * d->x.w;
    for (int64_t p = 0; p < operand_pixels(&d->x); p++) {
        int32_t id;
        memcpy(&id, arena + d->x.offset + at(&d->x, p, 0) * sizeof id, sizeof id);
        size_t row = id >= 0 && id < table->shape[0] ? (size_t)id : 0, width = (size_t)d->y.c;
        for (int c = 0; c < d->y.c; c++) {
            double v = load(table->data, table->dtype, row * width + (size_t)c);
            put(arena, &d->y, p, c, v + (position ? load(position->data, position->dtype, (size_t)(p % tokens) * width + (size_t)c) : 0));
        }
    }
    return ST_OK;
}

enum status ref_time_embed(const struct op_desc *d, unsigned char *arena, struct error *err)
{
    (void)err;
    int half = d->y.c / 2;
    for (int64_t p = 0; p < operand_pixels(&d->x); p++)
        for (int i = 0; i < half; i++) {
            double angle = get(arena, &d->x, p, 0) * exp(-9.2103403719761827361 * i / half); /* ln(10000) */
            put(arena, &d->y, p, i, cos(angle));
            put(arena, &d->y, p, half + i, sin(angle));
        }
    return ST_OK;
}

enum status ref_lincomb(const struct op_desc *d, unsigned char *arena, struct error *err)
{
    (void)err;
    int64_t plane = (int64_t)d->y.h * d->y.w;
    for (int64_t p = 0; p < operand_pixels(&d->y); p++)
        for (int c = 0; c < d->y.c; c++) {
            double v = 0;
            for (int k = 0; k < d->lincomb.count; k++) {
                const struct operand *in = &d->lincomb.in[k];
                v += get(arena, &d->lincomb.coef, k, 0) * get(arena, in, p / plane % in->n * plane + p % plane, c);
            }
            put(arena, &d->y, p, c, v);
        }
    return ST_OK;
}
