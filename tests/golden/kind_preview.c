/* Latents to small pictures, on every backend of this build that computes on the host. */
#include <math.h>
#include <string.h>
#include "common/json.h"
#include "golden/golden.h"
#include "worker/backend/backend.h"
#include "worker/engine/preview.h"

enum { LATENTS_AT = 0, MATRIX_BYTES = 1024, PIXELS_MAX = 1 << 16 };

struct layout { struct op_desc op; size_t bytes, matrix_at, smooth_at, rgb_at; };

/* Arena: latents, matrix, filter, picture. */
static struct layout lay_out(int h, int w, int channels, bool smooth)
{
    struct layout l = { .matrix_at = ((size_t)(h * w * channels) * sizeof(float) + 63) / 64 * 64 };
    l.smooth_at = l.matrix_at + MATRIX_BYTES;
    l.rgb_at = l.smooth_at + MATRIX_BYTES;
    l.bytes = l.rgb_at + ((size_t)(h * w * 3) + 63) / 64 * 64;
    l.op = (struct op_desc){ .kind = OP_LATENT_RGB, .x = { LATENTS_AT, DT_F32, 1, h, w, channels, channels }, .y = { l.rgb_at, DT_U8, 1, h, w, 3, 3 } };
    l.op.rgb.coef = (struct operand){ l.matrix_at, DT_F32, 1, 1, channels, 3, 3 };
    if (smooth)
        l.op.rgb.smooth = (struct operand){ l.smooth_at, DT_F32, 1, 3, 3, 1, 1 };
    return l;
}

static enum status convert(struct backend *b, const struct layout *l, const struct preview_matrix *m, const float *latents, uint8_t *rgb, struct error *err)
{
    struct bmem *arena = NULL;
    struct bop *op = NULL;
    const struct operand *x = &l->op.x;
    size_t pixels = (size_t)x->h * (size_t)x->w;
    enum status s = b->api->mem_new(b, l->bytes, &arena, err);
    if (s == ST_OK)
        s = b->api->upload(b, arena, LATENTS_AT, latents, pixels * (size_t)x->c * sizeof(float), err);
    if (s == ST_OK)
        s = b->api->upload(b, arena, l->matrix_at, m->rgb, (size_t)x->c * 3 * sizeof(float), err);
    if (s == ST_OK && m->smooth)
        s = b->api->upload(b, arena, l->smooth_at, m->smooth, 9 * sizeof(float), err);
    if (s == ST_OK)
        s = b->api->op_new(b, &l->op, &op, err);
    if (s == ST_OK)
        s = b->api->op_run(b, op, arena, NULL, err);
    if (s == ST_OK)
        s = b->api->download(b, arena, l->rgb_at, rgb, pixels * 3, err);
    b->api->op_free(b, op);
    b->api->mem_free(b, arena);
    return s;
}

static enum golden_result run_on(struct golden_case *c, const struct backend_api *api, const struct preview_matrix *m, const struct golden_tensor *shape, const float *planes)
{
    int channels = (int)shape->dim[1], h = (int)shape->dim[2], w = (int)shape->dim[3];
    struct layout l = lay_out(h, w, channels, m->smooth != NULL);
    size_t pixels = (size_t)h * (size_t)w;
    float *latents = arena_alloc(c->arena, shape->n * sizeof *latents);
    uint8_t *rgb = arena_alloc(c->arena, pixels * 3);
    double *wide = arena_alloc(c->arena, pixels * 3 * sizeof *wide);
    if (!latents || !rgb || !wide)
        return golden_fail(c, "out of memory");
    for (size_t i = 0; i < shape->n; i++)
        latents[i % pixels * (size_t)channels + i / pixels] = planes[i];
    struct error err;
    struct backend *b = NULL;
    enum status s = api->open(&(struct backend_spec){ .device = api->name, .compute = DT_F32 }, &b, &err);
    if (s == ST_OK)
        s = convert(b, &l, m, latents, rgb, &err);
    api->close(b);
    GOLDEN_TRY(golden_status(c, s, &err));
    for (size_t i = 0; i < pixels * 3; i++)
        wide[i] = rgb[i];
    return golden_compare(c, "rgb", wide, pixels * 3, MEASURE_MAX_ABS, golden_tolerance(c, "max_abs", NULL, 1));
}

/* The recorded factors have to be the engine's. */
static enum golden_result compare_factors(struct golden_case *c, const struct preview_matrix *m)
{
    const json_t *rows = json_object_get(c->inputs, "factors");
    for (size_t i = 0; i < (size_t)m->channels; i++)
        for (size_t j = 0; j < 3; j++) {
            double want = json_number_value(json_array_get(json_array_get(rows, i), j));
            if (fabs(m->rgb[3 * i + j] - want) > 1e-6)
                return golden_fail(c, "factor [%zu][%zu] is %g, expected %g", i, j, m->rgb[3 * i + j], want);
        }
    return GOLDEN_PASS;
}

enum golden_result kind_preview(struct golden_case *c)
{
    const char *base = json_str(c->inputs, "base", "");
    const struct preview_matrix *m = strcmp(base, "sdxl") == 0 ? &preview_sdxl : strcmp(base, "sd1") == 0 || strcmp(base, "sd2") == 0 ? &preview_sd1 : NULL;
    struct golden_tensor shape;
    float *planes;
    if (!m)
        return golden_skip(c, "base %s", base);
    GOLDEN_TRY(golden_floats(c, "tensors_in", "latents", &shape, &planes));
    if (shape.ndim == 3) {               /* one latent without its batch */
        memmove(shape.dim + 1, shape.dim, 3 * sizeof *shape.dim);
        shape.ndim = 4;
        shape.dim[0] = 1;
    }
    if (shape.ndim != 4 || shape.dim[0] != 1 || shape.dim[1] != m->channels || shape.n > PIXELS_MAX)
        return golden_fail(c, "latents of another shape than [1, %d, h, w]", m->channels);
    GOLDEN_TRY(compare_factors(c, m));
    const struct backend_api *const all[] = { &backend_ref, &backend_cpu };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        GOLDEN_TRY(run_on(c, all[i], m, &shape, planes));
    return GOLDEN_PASS;
}
