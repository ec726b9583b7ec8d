/* Recorded single passes of networks: text encoder, UNet, decoder. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "golden/fixture_model.h"
#include "golden/golden.h"

enum { TOKENS_MAX = 128, ROWS_MAX = 16 };

/* as_tensor gives the engine's form to a recorded tensor; it lives in the case's arena. */
static enum golden_result as_tensor(struct golden_case *c, const char *group, const char *label, struct tensor *ret)
{
    struct golden_tensor shape;
    GOLDEN_TRY(golden_floats(c, group, label, &shape, &ret->data));
    if (shape.ndim < 1 || shape.ndim > 4)
        return golden_fail(c, "%s has %d dimensions", label, shape.ndim);
    ret->ndim = shape.ndim;
    for (int i = 0; i < 4; i++)
        ret->dim[i] = i < shape.ndim ? shape.dim[i] : 1;
    return GOLDEN_PASS;
}

static double tolerance(const struct golden_case *c)
{
    static const double fallback[DT_COUNT] = {[DT_F32] = 1e-4, [DT_F16] = 5e-3, [DT_BF16] = 3e-2};
    return golden_tolerance(c, "rel_l2", dtype_name(fixture_dtype()), fallback[fixture_dtype()]);
}

/* ---- text encoder */

static enum golden_result read_ids(struct golden_case *c, int tokens, int32_t *ids, int *ret_rows)
{
    const json_t *rows = json_object_get(c->inputs, "ids");
    size_t n = json_array_size(rows);
    if (n < 1 || n > ROWS_MAX)
        return golden_fail(c, "ids has %zu rows", n);
    for (size_t r = 0; r < n; r++) {
        const json_t *row = json_array_get(rows, r);
        if (json_array_size(row) != (size_t)tokens)
            return golden_fail(c, "ids has a row of %zu tokens, the encoder takes %d", json_array_size(row), tokens);
        for (size_t i = 0; i < (size_t)tokens; i++)
            ids[r * (size_t)tokens + i] = (int32_t)json_integer_value(json_array_get(row, i));
    }
    *ret_rows = (int)n;
    return GOLDEN_PASS;
}

static enum golden_result run_text(struct golden_case *c, struct model *m)
{
    enum { STRIDE = 16 };
    struct text_encode te;
    struct error err;
    int32_t ids[ROWS_MAX * TOKENS_MAX];
    int rows = 0;
    enum status s = model_text_encoder(m, 0, NULL, &te, &err);
    if (s != ST_OK || te.tokens > TOKENS_MAX)
        return golden_status(c, s, &err);
    GOLDEN_TRY(read_ids(c, te.tokens, ids, &rows));
    size_t n = (size_t)rows * (size_t)te.tokens * (size_t)te.width;
    float *got = arena_alloc(c->arena, n * sizeof *got), *part = arena_alloc(c->arena, n / STRIDE * sizeof *part);
    if (!got || !part)
        return golden_fail(c, "out of memory");
    s = te.encode(te.self, ids, NULL, rows, got, &err);
    if (s != ST_OK)
        return golden_status(c, s, &err);
    for (size_t i = 0; i < n / STRIDE; i++)
        part[i] = got[i * STRIDE];
    return golden_compare_f32(c, "last_hidden_state_stride16", part, n / STRIDE, MEASURE_REL_L2, tolerance(c));
}

/* ---- UNet */

static enum golden_result run_unet(struct golden_case *c, struct model *m)
{
    struct tensor x, context, mask, *eps;
    struct error err;
    bool masked = golden_has(c, "tensors_in", "encoder_attention_mask");
    GOLDEN_TRY(as_tensor(c, "tensors_in", "x", &x));
    GOLDEN_TRY(as_tensor(c, "tensors_in", "context", &context));
    if (masked) {
        GOLDEN_TRY(as_tensor(c, "tensors_in", "encoder_attention_mask", &mask));
        for (int64_t i = 0; i < tensor_count(&mask); i++)
            mask.data[i] = mask.data[i] != 0 ? 0 : -10000;
    }
    enum status s = model_unet_masked(m, &x, json_num(c->inputs, "timestep", 0), &context, masked ? &mask : NULL, &eps, &err);
    if (s != ST_OK)
        return golden_status(c, s, &err);
    enum golden_result r = golden_compare_f32(c, "eps", eps->data, (size_t)tensor_count(eps), MEASURE_REL_L2, tolerance(c));
    tensor_free(eps);
    return r;
}

/* ---- decoder */

static double psnr(const uint8_t *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum == 0 ? INFINITY : 10 * log10(255.0 * 255.0 * (double)n / sum);
}

/* decode_and_compare decodes Z and wants WANT, interleaved bytes, at 60 dB: the decoder computes in float32 whatever the dtype is. */
static enum golden_result decode_and_compare(struct golden_case *c, struct model *m, const struct tensor *z, const double *want, size_t n)
{
    uint8_t *rgb;
    int w, h;
    struct error err;
    enum status s = model_decode(m, z, NULL, &rgb, &w, &h, &err);
    if (s != ST_OK)
        return golden_status(c, s, &err);
    double db = (size_t)w * (size_t)h * 3 == n ? psnr(rgb, want, n) : -1;
    free(rgb);
    return db >= 60 ? GOLDEN_PASS : golden_fail(c, "decoded picture %d x %d: PSNR %.1f dB, at least 60 wanted", w, h, db);
}

static enum golden_result run_decode(struct golden_case *c, struct model *m)
{
    struct tensor z;
    struct golden_tensor planes, bytes;
    double scaling = json_num(c->inputs, "scaling_factor", 0.18215);
    GOLDEN_TRY(as_tensor(c, "tensors_in", "latents", &z));
    if (golden_has(c, "expect", "image_u8_of_scaled")) {
        GOLDEN_TRY(golden_tensor(c, "expect", "image_u8_of_scaled", &bytes));
        GOLDEN_TRY(decode_and_compare(c, m, &z, bytes.data, bytes.n));
    }
    GOLDEN_TRY(golden_tensor(c, "expect", "decoded", &planes));
    size_t pixels = planes.n / 3;
    double *want = arena_alloc(c->arena, planes.n * sizeof *want);
    if (!want)
        return golden_fail(c, "out of memory");
    for (size_t i = 0; i < planes.n; i++)
        want[i % pixels * 3 + i / pixels] = nearbyint(fmin(fmax(planes.data[i] / 2 + 0.5, 0), 1) * 255);
    for (int64_t i = 0; i < tensor_count(&z); i++)       /* recorded as the decoder takes them, unscaled */
        z.data[i] *= (float)scaling;
    return decode_and_compare(c, m, &z, want, planes.n);
}

enum golden_result kind_networks(struct golden_case *c)
{
    const json_t *fixture = json_object_get(c->json, "fixture");
    struct model *m;
    struct error err;
    if (json_is_array(fixture))
        return golden_skip(c, "model part %s", json_string_value(json_array_get(fixture, json_array_size(fixture) - 1)));
    if (json_array_size(json_object_get(c->inputs, "loras")))
        return golden_skip(c, "LoRA");
    if (json_object_get(c->inputs, "tile_size"))
        return golden_skip(c, "tiled decoding");
    bool text = !strcmp(json_str(c->inputs, "component", ""), "text_encoder"), unet = golden_has(c, "expect", "eps");
    if (!text && !unet && !golden_has(c, "expect", "decoded"))
        return golden_skip(c, "VAE encoding");
    const char *name = json_string_value(fixture);
    enum status s = fixture_model(name ? name : "", &m, &err);
    if (s == ST_NOT_AVAILABLE)
        return golden_skip(c, "model family of fixture %s", name);
    if (s != ST_OK)
        return golden_status(c, s, &err);
    return text ? run_text(c, m) : unet ? run_unet(c, m) : run_decode(c, m);
}
