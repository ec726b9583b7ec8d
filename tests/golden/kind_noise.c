/* Recorded draws of torch's CPU generator. */
#include <stdio.h>
#include <string.h>
#include "common/json.h"
#include "golden/golden.h"
#include "worker/engine/step_noise.h"

static enum golden_result draw_words(struct golden_case *c, struct rng *r)
{
    size_t n = (size_t)json_int(c->inputs, "count", 0);
    double *got = arena_alloc(c->arena, sizeof(double) * (n + 1));
    for (size_t i = 0; got && i < n; i++)
        got[i] = rng_u32(r);
    return got ? golden_compare(c, "uint32", got, n, MEASURE_MAX_ABS, 0) : golden_fail(c, "out of memory");
}

/* N normals of DTYPE, compared with LABEL. float32 has to match to the bit. */
static enum golden_result draw(struct golden_case *c, struct rng *r, const char *dtype, const char *label, size_t n)
{
    double *wide = arena_alloc(c->arena, sizeof(double) * (n + 1));
    float *narrow = arena_alloc(c->arena, sizeof(float) * (n + 1));
    if (!wide || !narrow)
        return golden_fail(c, "out of memory");
    double tolerance = 0;
    if (strcmp(dtype, "float64") == 0) {
        rng_normal_f64(r, wide, n);
        return golden_compare(c, label, wide, n, MEASURE_MAX_ABS, golden_tolerance(c, "max_abs", NULL, 1e-13));
    }
    if (strcmp(dtype, "float16") == 0)
        rng_normal_f16(r, narrow, n);
    else if (strcmp(dtype, "float32") == 0)
        rng_normal_f32(r, narrow, n);
    else
        return golden_skip(c, "numbers of type %s", dtype);
    return golden_compare_f32(c, label, narrow, n, MEASURE_MAX_ABS, tolerance);
}

static enum golden_result draw_stream(struct golden_case *c, struct rng *r)
{
    const json_t *counts = json_object_get(c->inputs, "counts");
    for (size_t k = 0; k < json_array_size(counts); k++) {
        char label[32] = "draw";
        label[4] = (char)('0' + k);
        GOLDEN_TRY(draw(c, r, "float32", label, (size_t)json_integer_value(json_array_get(counts, k))));
    }
    return json_array_size(counts) ? GOLDEN_PASS : golden_fail(c, "no counts");
}

static size_t count_shape(const json_t *shape)
{
    size_t n = 1;
    for (size_t i = 0; i < json_array_size(shape); i++)
        n *= (size_t)json_integer_value(json_array_get(shape, i));
    return n;
}

static enum golden_result ask_path(struct golden_case *c, struct noise_path *p, size_t n)
{
    const json_t *queries = json_object_get(c->inputs, "queries");
    float *got = arena_alloc(c->arena, sizeof(float) * (n + 1));
    for (size_t k = 0; got && k < json_array_size(queries); k++) {
        char label[32];
        const json_t *q = json_array_get(queries, k);
        float from = (float)json_number_value(json_array_get(q, 0)), to = (float)json_number_value(json_array_get(q, 1));
        snprintf(label, sizeof label, "q%zu", k);
        noise_path_increment(p, from, to, got);
        GOLDEN_TRY(golden_compare_f32(c, label, got, n, MEASURE_REL_L2, golden_tolerance(c, "rel_l2", NULL, 1e-5)));
    }
    return got ? GOLDEN_PASS : golden_fail(c, "out of memory");
}

static enum golden_result run_path(struct golden_case *c)
{
    struct error err;
    struct noise_path *p = NULL;
    size_t n = count_shape(json_object_get(c->inputs, "shape"));
    float low = (float)json_num(c->inputs, "t0", 0), high = (float)json_num(c->inputs, "t1", 1);
    GOLDEN_TRY(golden_status(c, noise_path_new(n, low, high, (uint64_t)json_int(c->inputs, "seed", 0), &p, &err), &err));
    enum golden_result result = ask_path(c, p, n);
    noise_path_free(p);
    return result;
}

enum golden_result kind_noise(struct golden_case *c)
{
    struct rng r;
    rng_seed(&r, (uint64_t)json_int(c->inputs, "seed", 0));
    if (json_object_get(c->inputs, "queries"))
        return run_path(c);
    if (golden_has(c, "expect", "uint32"))
        return draw_words(c, &r);
    if (json_object_get(c->inputs, "counts"))
        return draw_stream(c, &r);
    const json_t *shape = json_object_get(c->inputs, "shape");
    size_t n = count_shape(shape);
    if (!shape)
        n = 4 * (size_t)(json_int(c->inputs, "width", 0) / 8) * (size_t)(json_int(c->inputs, "height", 0) / 8);
    return draw(c, &r, json_str(c->inputs, "dtype", "float32"), "noise", n);
}
