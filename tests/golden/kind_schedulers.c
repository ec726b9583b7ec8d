/* Samplers on a closed-form stand-in for the network: timestep tables, sigmas, whole trajectories. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "common/json.h"
#include "golden/golden.h"
#include "worker/engine/sampling_parts.h"
#include "worker/engine/step_noise.h"

/* The scheduler files of the three model families; other models of a manifest use the effective config it records. */
static json_t *stock_config(const struct golden_case *c, const char *model, const char *scheduler)
{
    json_t *j = json_pack("{s:f, s:f, s:s, s:b, s:b, s:b, s:i, s:i}", "beta_start", 0.00085, "beta_end", 0.012, "beta_schedule", "scaled_linear",
                          "clip_sample", 0, "set_alpha_to_one", 0, "skip_prk_steps", 1, "steps_offset", 1, "num_train_timesteps", 1000);
    if (strcmp(model, "sd2") == 0) {
        json_object_set_new(j, "prediction_type", json_string("v_prediction"));
    } else if (strcmp(model, "sdxl") == 0) {
        json_object_set_new(j, "timestep_spacing", json_string("leading"));
        json_object_set_new(j, "interpolation_type", json_string("linear"));
        json_object_set_new(j, "use_karras_sigmas", json_false());
    } else if (strcmp(model, "sd1") != 0) {
        char key[128];
        snprintf(key, sizeof key, "%s/%s", model, scheduler);
        json_decref(j);
        j = json_object_get(json_object_get(json_object_get(json_object_get(c->manifest, "reference"), "effective_config"), key), "config");
        return json_incref(j);
    }
    return j;
}

struct trajectory {
    const struct sampler *s;
    size_t n;                        /* elements of a latent */
    bool narrow;                     /* float32 at every step */
    double *slot[SLOT_COUNT], *out;
    double *trace, *inputs, *x0;     /* one latent per call; trace has the start too */
    struct step_noise *noise;
};

static double kept(const struct trajectory *t, double v)
{
    return t->narrow ? (double)(float)v : v;
}

static void combine(const struct trajectory *t, const struct sampler_update *u, double *dst)
{
    for (size_t i = 0; i < t->n; i++) {
        double sum = 0;
        for (int k = 0; k < u->n; k++)
            sum += u->terms[k].coef * t->slot[u->terms[k].slot][i];
        t->out[i] = kept(t, sum);
    }
    memcpy(dst, t->out, sizeof(double) * t->n);
}

/* One output of the stand-in: A sin(x) + B cos(t / C). */
static double stand_in(const struct trajectory *t, double x, double time, double a, double b, double c)
{
    return kept(t, kept(t, a * kept(t, sin(x))) + kept(t, b * cos(time / c)));
}

/* Guided output with InvokeAI's rescaling: towards the standard deviation of the positive half. */
static void guide(const struct trajectory *t, const double *x, double time, double scale, double rescale, double *ret)
{
    double mean_c = 0, mean_g = 0, var_c = 0, var_g = 0;
    for (size_t i = 0; i < t->n; i++) {
        double c = stand_in(t, x[i], time, 0.5, 0.1, 100), u = stand_in(t, x[i], time, 0.4, 0.05, 77);
        ret[i] = kept(t, u + scale * (c - u));
        mean_c += c / (double)t->n;
        mean_g += ret[i] / (double)t->n;
    }
    for (size_t i = 0; i < t->n; i++) {
        double c = stand_in(t, x[i], time, 0.5, 0.1, 100);
        var_c += (c - mean_c) * (c - mean_c);
        var_g += (ret[i] - mean_g) * (ret[i] - mean_g);
    }
    for (size_t i = 0; rescale > 0 && i < t->n; i++)
        ret[i] = kept(t, rescale * ret[i] * sqrt(var_c / var_g) + (1 - rescale) * ret[i]);
}

static void run_call(struct trajectory *t, int k, const json_t *cfg, double rescale)
{
    const struct sampler_call *call = &t->s->calls[k];
    double *x = t->inputs + (size_t)k * t->n, *eps = t->slot[SLOT_EPS];
    for (size_t i = 0; i < t->n; i++)
        x[i] = kept(t, call->input_scale * t->slot[SLOT_X][i]);
    if (cfg) {
        const json_t *scale = json_is_array(cfg) ? json_array_get(cfg, (size_t)k) : cfg;
        guide(t, x, call->timestep, json_number_value(scale), rescale, eps);
    } else {
        for (size_t i = 0; i < t->n; i++)
            eps[i] = stand_in(t, x[i], call->timestep, 0.5, 0.1, 100);
    }
    if (call->draws_noise) {
        float noise[4096];
        step_noise_draw(t->noise, call, noise);
        for (size_t i = 0; i < t->n; i++)
            t->slot[SLOT_NOISE][i] = noise[i];
    }
    if (call->has_x0)
        combine(t, &call->x0, t->x0 + (size_t)k * t->n);
    for (int u = 0; u < call->n_updates; u++)
        combine(t, &call->updates[u], t->slot[call->updates[u].dst]);
    memcpy(t->trace + (size_t)(k + 1) * t->n, t->slot[SLOT_X], sizeof(double) * t->n);
}

/* Whole run from the case's start; T is filled from the arena. */
static enum golden_result run_all(struct golden_case *c, const struct sampler *s, bool narrow, struct trajectory *t)
{
    struct golden_tensor noise, latents;
    GOLDEN_TRY(golden_tensor(c, "tensors_in", "noise", &noise));
    GOLDEN_TRY(golden_tensor(c, "tensors_in", "latents", &latents));
    if (noise.n != latents.n || noise.n > 4096)
        return golden_fail(c, "latents of %zu values, noise of %zu; at most 4096", latents.n, noise.n);
    size_t n = noise.n, rows = (size_t)s->n_calls + 1;
    *t = (struct trajectory){ .s = s, .n = n, .narrow = narrow };
    double *memory = arena_alloc(c->arena, sizeof(double) * n * (3 * rows + SLOT_COUNT + 1));
    if (!memory)
        return golden_fail(c, "out of memory");
    t->trace = memory;
    t->inputs = memory + rows * n;
    t->x0 = memory + 2 * rows * n;
    for (int i = 0; i < SLOT_COUNT; i++)
        t->slot[i] = memory + (3 * rows + (size_t)i) * n;
    t->out = memory + (3 * rows + SLOT_COUNT) * n;
    bool zeros = strcmp(json_str(c->inputs, "start", "zeros"), "zeros") == 0;
    for (size_t i = 0; i < n; i++) {
        double x = zeros ? 0 : latents.data[i];
        t->slot[SLOT_X][i] = t->trace[i] = s->n_calls ? kept(t, s->add_x * x + s->add_noise * noise.data[i]) : x;
    }
    struct error err;
    GOLDEN_TRY(golden_status(c, step_noise_new(s, (uint64_t)json_int(c->inputs, "seed", 0), n, &t->noise, &err), &err));
    for (int k = 0; k < s->n_calls; k++)
        run_call(t, k, json_object_get(c->inputs, "cfg_scale"), json_num(c->inputs, "cfg_rescale_multiplier", 0));
    step_noise_free(t->noise);
    return GOLDEN_PASS;
}

/* The reference keeps two sigmas for each step of a second-order sampler: the first once, the others twice; one of them writes the final
 * zero more than once. */
static enum golden_result compare_sigmas(struct golden_case *c, const struct schedule *table, double tolerance)
{
    struct golden_tensor want;
    GOLDEN_TRY(golden_tensor(c, "expect", "sigmas", &want));
    double *sigma = arena_alloc(c->arena, sizeof(double) * (want.n + 1));
    bool doubled = table->kind->half != HALF_NONE;
    size_t rows = (size_t)table->steps + 1, least = doubled ? 2 * rows - 2 : rows;
    if (!sigma || want.n < least || want.n > least + (doubled ? 2 : 0))
        return golden_fail(c, "%zu sigmas for %d steps", want.n, table->steps);
    for (size_t i = 0; i < want.n; i++) {
        size_t step = doubled ? (i + 1) / 2 : i;
        sigma[i] = table->sigma[step < rows ? step : rows - 1];
    }
    return golden_compare(c, "sigmas", sigma, want.n, MEASURE_REL_L2, tolerance);
}

/* How much more than the tolerance is allowed where the reference hangs on the last place of its float32 sigmas (whose square roots are not
 * rounded correctly, so that they differ between machines): kdpm_2_a takes a difference that cancels when there are two steps, and a
 * Brownian path is asked at sigmas rounded to six decimals, where the next decimal is another place on the path. */
static double slack(const struct schedule *table)
{
    return table->kind->path || (table->kind->half == HALF_DOWN && table->steps == 2) ? 20 : 1;
}

static enum golden_result compare_tables(struct golden_case *c, const struct sampler *s, const struct schedule *table)
{
    double tolerance = golden_tolerance(c, "tables", NULL, 1e-6) * slack(table);
    double *t = arena_alloc(c->arena, sizeof(double) * (size_t)(s->n_calls + 1));
    if (!t)
        return golden_fail(c, "out of memory");
    for (int k = 0; k < s->n_calls; k++)
        t[k] = s->calls[k].timestep;
    if (golden_has(c, "expect", "timesteps"))
        GOLDEN_TRY(golden_compare(c, "timesteps", t, (size_t)s->n_calls, MEASURE_REL_L2, tolerance));
    if (golden_has(c, "expect", "init_timestep") && s->n_calls)
        GOLDEN_TRY(golden_compare(c, "init_timestep", t, 1, MEASURE_REL_L2, tolerance));
    if (golden_has(c, "expect", "timesteps_table"))
        GOLDEN_TRY(golden_compare(c, "timesteps_table", table->t, (size_t)table->n, MEASURE_REL_L2, tolerance));
    if (golden_has(c, "expect", "sigmas"))
        GOLDEN_TRY(compare_sigmas(c, table, tolerance));
    long long calls = json_int(c->json, "calls", s->n_calls);
    return calls == s->n_calls ? GOLDEN_PASS : golden_fail(c, "%d network calls, expected %lld", s->n_calls, calls);
}

static enum golden_result compare_runs(struct golden_case *c, const struct sampler *s, const struct schedule *table)
{
    struct trajectory t;
    double f32 = golden_tolerance(c, "rel_l2", "f32", 2e-5) * slack(table);
    GOLDEN_TRY(run_all(c, s, true, &t));
    size_t calls = (size_t)s->n_calls;
    if (golden_has(c, "expect", "model_inputs_f32"))
        GOLDEN_TRY(golden_compare(c, "model_inputs_f32", t.inputs, calls * t.n, MEASURE_REL_L2, f32));
    if (golden_has(c, "expect", "trace_f32"))
        GOLDEN_TRY(golden_compare(c, "trace_f32", t.trace, (calls + 1) * t.n, MEASURE_REL_L2, f32));
    if (golden_has(c, "expect", "predicted_original_f32"))
        GOLDEN_TRY(golden_compare(c, "predicted_original_f32", t.x0, calls * t.n, MEASURE_REL_L2, f32));
    GOLDEN_TRY(golden_compare(c, "final_f32", t.slot[SLOT_X], t.n, MEASURE_REL_L2, f32));
    if (strcmp(json_str(c->json, "float64", ""), "computed in float64") != 0 || !golden_has(c, "expect", "final_f64"))
        return GOLDEN_PASS;
    /* The reference computes its coefficients in float32 even for float64 latents, with square roots and logarithms to within one last
     * place: differences of a few 1e-6 are its own, and the proposed 1e-9 cannot be asked of other coefficients. */
    GOLDEN_TRY(run_all(c, s, false, &t));
    return golden_compare(c, "final_f64", t.slot[SLOT_X], t.n, MEASURE_REL_L2, 1e-5);
}

enum golden_result kind_schedulers(struct golden_case *c)
{
    const char *name = json_str(c->inputs, "scheduler", "");
    if (json_object_get(c->json, "raises"))
        return golden_skip(c, "the reference raises");
    if (golden_has(c, "tensors_in", "mask"))
        return golden_skip(c, "mask guidance");
    AUTO_JSON *config = stock_config(c, json_str(c->inputs, "model", "sd1"), name);
    if (!config)
        return golden_fail(c, "no scheduler config for this model");
    int steps = (int)json_int(c->inputs, "steps", 0);
    double start = json_num(c->inputs, "denoising_start", 0), end = json_num(c->inputs, "denoising_end", 1);
    struct error err;
    struct sampler *s = NULL;
    GOLDEN_TRY(golden_status(c, sampler_new(name, config, steps, start, end, &s, &err), &err));
    struct schedule table;
    enum golden_result result = golden_status(c, schedule_init(&table, sampler_kind_find(name), config, steps, start, end, &err), &err);
    if (result == GOLDEN_PASS)
        result = compare_tables(c, s, &table);
    if (result == GOLDEN_PASS)
        result = compare_runs(c, s, &table);
    schedule_fini(&table);
    sampler_free(s);
    return result;
}
