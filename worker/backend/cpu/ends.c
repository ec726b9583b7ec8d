/* Where a picture begins and ends: embeddings, guidance, previews. Small ops that run once per step at most. */
#include <math.h>
#include <string.h>

#include "worker/backend/cpu/cpu.h"

static void embed_run(const struct cpu_run *r)
{
    const struct op_desc *d = &r->op->desc;
    const struct weight_source *table = weight_source_of(d->weight);
    size_t tokens = (size_t)d->x.h * (size_t)d->x.w, width = (size_t)d->y.c;
    float position[256];
    for (size_t p = 0; p < (size_t)operand_pixels(&d->x); p++) {
        int32_t id;
        memcpy(&id, r->arena + d->x.offset + p * (size_t)d->x.ld * sizeof id, sizeof id);
        size_t row = id >= 0 && id < table->shape[0] ? (size_t)id : 0;
        float *y = run_floats(r, &d->y) + p * (size_t)d->y.ld;
        cpu_weight_floats(r->b, d->weight, row * width, width, y);
        for (size_t c = 0; d->embed.position && c < width; c += 256) {
            size_t n = min_size(256, width - c);
            cpu_weight_floats(r->b, d->embed.position, p % tokens * width + c, n, position);
            r->b->k->binary(y + c, y + c, position, n, BINARY_ADD);
        }
    }
}

static void time_embed_run(const struct cpu_run *r)
{
    const struct op_desc *d = &r->op->desc;
    int half = d->y.c / 2;
    for (int i = 0; i < half; i++) {
        double w = exp(-9.2103403719761827361 * i / half); /* ln(10000) */
        for (size_t p = 0; p < (size_t)operand_pixels(&d->x); p++) {
            double angle = (double)run_floats(r, &d->x)[p * (size_t)d->x.ld] * w;
            float *y = run_floats(r, &d->y) + p * (size_t)d->y.ld;
            y[i] = (float)cos(angle);
            y[half + i] = (float)sin(angle);
        }
    }
}

enum status cpu_embed(struct cpu_backend *b, struct bop *op, struct error *err)
{
    (void)b;
    (void)err;
    op->run = op->desc.kind == OP_EMBED ? embed_run : time_embed_run;
    return ST_OK;
}

/* spread returns the sum of squares of neg + s (pos - neg) about its mean. */
static double spread(const struct cpu_run *r, double s)
{
    const struct op_desc *d = &r->op->desc;
    size_t plane = (size_t)d->x.h * (size_t)d->x.w, ld = (size_t)d->x.ld;
    const float *x = run_floats(r, &d->x);
    double sum = 0, square = 0, mean = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t p = 0; p < plane; p++)
            for (size_t c = 0; c < (size_t)d->x.c; c++) {
                double neg = (double)x[p * ld + c], v = neg + s * ((double)x[(plane + p) * ld + c] - neg) - mean;
                sum += v;
                square += v * v;
            }
        if (pass == 0) {
            mean = sum / ((double)plane * d->x.c);
            square = 0;
        }
    }
    return square;
}

static void guidance_run(const struct cpu_run *r)
{
    const struct op_desc *d = &r->op->desc;
    const float *coef = run_floats(r, &d->guidance.coef);
    size_t plane = (size_t)d->x.h * (size_t)d->x.w;
    float s = coef[0], rescale = coef[d->guidance.coef.ld], factor = 1;
    if (rescale > 0) {
        double mixed = spread(r, (double)s);
        factor = mixed > 0 ? (float)((double)rescale * sqrt(spread(r, 1) / mixed) + 1 - (double)rescale) : 1;
    }
    for (size_t p = 0; p < plane; p++)
        r->b->k->guide(run_floats(r, &d->y) + p * (size_t)d->y.ld, run_floats(r, &d->x) + p * (size_t)d->x.ld,
                       run_floats(r, &d->x) + (plane + p) * (size_t)d->x.ld, (size_t)d->x.c, s, factor);
}

enum status cpu_guidance(struct cpu_backend *b, struct bop *op, struct error *err)
{
    (void)b;
    (void)err;
    op->run = guidance_run;
    return ST_OK;
}

static void mix_rgb(const struct cpu_run *r, size_t p, float rgb[3])
{
    const struct op_desc *d = &r->op->desc;
    const float *x = run_floats(r, &d->x) + p * (size_t)d->x.ld, *m = run_floats(r, &d->rgb.coef);
    for (int j = 0; j < 3; j++)
        rgb[j] = 0;
    for (int c = 0; c < d->x.c; c++)
        for (int j = 0; j < 3; j++)
            rgb[j] += x[c] * m[c * d->rgb.coef.ld + j];
}

/* smooth_rgb is the 3 x 3 filter at pixel P, which mixes the neighbours afresh: latents are small. */
static void smooth_rgb(const struct cpu_run *r, int p, float rgb[3])
{
    const struct op_desc *d = &r->op->desc;
    const float *filter = run_floats(r, &d->rgb.smooth);
    for (int j = 0; j < 3; j++)
        rgb[j] = 0;
    for (int k = 0; k < 9; k++) {
        int row = p / d->x.w + k / 3 - 1, col = p % d->x.w + k % 3 - 1;
        if (row < 0 || row >= d->x.h || col < 0 || col >= d->x.w)
            continue;
        float one[3];
        mix_rgb(r, (size_t)row * (size_t)d->x.w + (size_t)col, one);
        for (int j = 0; j < 3; j++)
            rgb[j] += filter[k * d->rgb.smooth.ld] * one[j];
    }
}

static void latent_rgb_run(const struct cpu_run *r)
{
    const struct op_desc *d = &r->op->desc;
    for (int p = 0; p < d->x.h * d->x.w; p++) {
        float rgb[3];
        if (operand_set(&d->rgb.smooth))
            smooth_rgb(r, p, rgb);
        else
            mix_rgb(r, (size_t)p, rgb);
        for (int j = 0; j < 3; j++) {
            float v = fminf(fmaxf((rgb[j] + 1.0f) / 2.0f, 0.0f), 1.0f);
            r->arena[d->y.offset + (size_t)p * (size_t)d->y.ld + (size_t)j] = (unsigned char)(v * 255.0f);
        }
    }
}

enum status cpu_latent_rgb(struct cpu_backend *b, struct bop *op, struct error *err)
{
    (void)b;
    (void)err;
    op->run = latent_rgb_run;
    return ST_OK;
}
