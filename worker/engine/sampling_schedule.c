/* Noise schedules: betas, timestep spacing, sigmas (Ho et al. 2020; Karras et al. 2022, eq. 5), as diffusers lays them out. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "worker/engine/sampling_parts.h"

static const char *const spacing_name[] = { [SPACING_LEADING] = "leading", [SPACING_LINSPACE] = "linspace", [SPACING_TRAILING] = "trailing" };
static const char *const prediction_name[] = { [PREDICT_EPSILON] = "epsilon", [PREDICT_V] = "v_prediction" };

/* Switches of the reference that change the mathematics and that no solver here has. */
static const char *const refused_flags[] = {
    "thresholding", "rescale_betas_zero_snr", "use_exponential_sigmas", "use_beta_sigmas", "use_flow_sigmas", "use_lu_lambdas",
};

static enum status read_choice(const json_t *config, const char *key, const char *const *names, int n, int *value, struct error *err)
{
    const char *text = json_str(config, key, NULL);
    for (int i = 0; text && i < n; i++)
        if (strcmp(text, names[i]) == 0) {
            *value = i;
            return ST_OK;
        }
    return text ? FAIL(err, UNSUPPORTED, "scheduler config: %s \"%s\" is not supported; use %s or %s", key, text, names[0], names[1]) : ST_OK;
}

static enum status refuse_unknown_maths(const struct schedule *s, const json_t *config, struct error *err)
{
    for (size_t i = 0; i < sizeof refused_flags / sizeof *refused_flags; i++)
        if (json_flag(config, refused_flags[i], false))
            return FAIL(err, UNSUPPORTED, "scheduler config: %s true is not supported; set it to false", refused_flags[i]);
    if (json_is_array(json_object_get(config, "trained_betas")))
        return FAIL(err, UNSUPPORTED, "scheduler config: trained_betas is not supported; give beta_start, beta_end and beta_schedule");
    bool clips = strcmp(s->kind->name, "ddim") == 0 || strcmp(s->kind->name, "ddpm") == 0;
    bool knows_clip = clips || s->kind->half == HALF_NEXT || s->kind->layout == LAYOUT_CONSISTENCY;
    if (knows_clip && json_flag(config, "clip_sample", clips))
        return FAIL(err, UNSUPPORTED, "scheduler config: clip_sample true%s is not supported by %s; set it to false", clips ? " (also where the key is missing)" : "", s->kind->name);
    if (strcmp(s->kind->name, "ddpm") == 0 && strcmp(json_str(config, "variance_type", "fixed_small"), "fixed_small") != 0)
        return FAIL(err, UNSUPPORTED, "scheduler config: variance_type must be fixed_small");
    if (s->kind->layout == LAYOUT_PLMS && !json_flag(config, "skip_prk_steps", false))
        return FAIL(err, UNSUPPORTED, "scheduler config: skip_prk_steps false (also where the key is missing) is not supported by pndm; set it to true");
    if (s->kind->layout == LAYOUT_SIGMA && strcmp(json_str(config, "interpolation_type", "linear"), "linear") != 0)
        return FAIL(err, UNSUPPORTED, "scheduler config: interpolation_type must be linear");
    if (strcmp(json_str(config, "timestep_type", "discrete"), "discrete") != 0)
        return FAIL(err, UNSUPPORTED, "scheduler config: timestep_type must be discrete");
    if (s->kind->layout == LAYOUT_SIGMA_VP && strcmp(json_str(config, "algorithm_type", "dpmsolver++"), "dpmsolver++") != 0
        && strcmp(json_str(config, "algorithm_type", ""), "deis") != 0)
        return FAIL(err, UNSUPPORTED, "scheduler config: algorithm_type must be dpmsolver++");
    return ST_OK;
}

static enum status refuse_unknown_unipc(const json_t *config, struct error *err)
{
    if (!json_flag(config, "predict_x0", true) || !json_flag(config, "lower_order_final", true))
        return FAIL(err, UNSUPPORTED, "scheduler config: predict_x0 and lower_order_final must be true for unipc");
    if (json_array_size(json_object_get(config, "disable_corrector")) || json_is_object(json_object_get(config, "solver_p")))
        return FAIL(err, UNSUPPORTED, "scheduler config: disable_corrector and solver_p are not supported by unipc");
    return ST_OK;
}

static enum status read_config(struct schedule *s, const json_t *config, struct error *err)
{
    TRY(refuse_unknown_maths(s, config, err));
    if (s->kind->call == unipc_call)
        TRY(refuse_unknown_unipc(config, err));
    long long distilled = json_int(config, "original_inference_steps", 50);
    long long train = json_int(config, "num_train_timesteps", 1000), offset = json_int(config, "steps_offset", 0);
    if (train < 2 || train > TRAIN_STEPS_MAX)
        return FAIL(err, UNSUPPORTED, "scheduler config: num_train_timesteps %lld is outside 2..%d", train, TRAIN_STEPS_MAX);
    if (offset < 0 || offset >= train)
        return FAIL(err, UNSUPPORTED, "scheduler config: steps_offset %lld is outside 0..%lld", offset, train - 1);
    if (distilled < 1 || distilled > train)
        return FAIL(err, UNSUPPORTED, "scheduler config: original_inference_steps %lld is outside 1..%lld", distilled, train);
    s->train = (int)train;
    s->distilled_steps = (int)distilled;
    s->timestep_scaling = json_num(config, "timestep_scaling", 10);
    s->offset = (int)offset;
    s->beta_start = json_num(config, "beta_start", 0.0001);
    s->beta_end = json_num(config, "beta_end", 0.02);
    if (!(s->beta_start > 0 && s->beta_start <= s->beta_end && s->beta_end < 1))
        return FAIL(err, UNSUPPORTED, "scheduler config: betas %g to %g do not rise within (0, 1)", s->beta_start, s->beta_end);
    s->beta_schedule = json_str(config, "beta_schedule", "linear");
    int spacing = (int)s->kind->spacing, prediction = PREDICT_EPSILON;
    if (!s->kind->fixed_spacing)
        TRY(read_choice(config, "timestep_spacing", spacing_name, 3, &spacing, err));
    TRY(read_choice(config, "prediction_type", prediction_name, 2, &prediction, err));
    s->spacing = (enum spacing)spacing;
    s->prediction = (enum prediction)prediction;
    s->alpha_one = json_flag(config, "set_alpha_to_one", s->kind->layout != LAYOUT_PLMS);
    const char *final = json_str(config, "final_sigmas_type", "zero");
    s->final_sigma_min = strcmp(final, "sigma_min") == 0;
    if (!s->final_sigma_min && strcmp(final, "zero") != 0)
        return FAIL(err, UNSUPPORTED, "scheduler config: final_sigmas_type \"%s\" is not supported; use zero or sigma_min", final);
    s->lower_order_final = json_flag(config, "lower_order_final", true);
    s->euler_at_final = json_flag(config, "euler_at_final", false);
    s->heun_solver = strcmp(json_str(config, "solver_type", "midpoint"), "heun") == 0;
    s->bh1_solver = strcmp(json_str(config, "solver_type", "bh2"), "bh1") == 0;
    s->sigma_min = json_num(config, "sigma_min", -1);
    s->sigma_max = json_num(config, "sigma_max", -1);
    return ST_OK;
}

/* torch.linspace in float32: counted from both ends. */
static float linspace_f32(float a, float b, int n, int i)
{
    float step = (b - a) / (float)(n - 1);
    return i < n / 2 ? a + step * (float)i : b - step * (float)(n - 1 - i);
}

static double cosine_bar(double t)
{
    double c = cos((t + 0.008) / 1.008 * M_PI / 2);
    return c * c;
}

static enum status make_alphas(struct schedule *s, struct error *err)
{
    bool scaled = strcmp(s->beta_schedule, "scaled_linear") == 0, cosine = strcmp(s->beta_schedule, "squaredcos_cap_v2") == 0;
    if (!scaled && !cosine && strcmp(s->beta_schedule, "linear") != 0)
        return FAIL(err, UNSUPPORTED, "scheduler config: beta_schedule \"%s\" is not supported; use linear, scaled_linear or squaredcos_cap_v2", s->beta_schedule);
    s->alphas = malloc(sizeof(float) * (size_t)s->train);
    s->train_sigmas = malloc(sizeof(float) * (size_t)s->train);
    if (!s->alphas || !s->train_sigmas)
        return FAIL(err, OUT_OF_MEMORY, "no memory for %d noise levels", s->train);
    double product = 1;
    for (int i = 0; i < s->train; i++) {
        float beta;
        if (cosine) {
            beta = (float)fmin(1 - cosine_bar((double)(i + 1) / s->train) / cosine_bar((double)i / s->train), 0.999);
        } else if (scaled) {
            float root = linspace_f32((float)sqrt(s->beta_start), (float)sqrt(s->beta_end), s->train, i);
            beta = root * root;
        } else {
            beta = linspace_f32((float)s->beta_start, (float)s->beta_end, s->train, i);
        }
        product *= 1.0f - beta;
        s->alphas[i] = (float)product;
        s->train_sigmas[i] = sqrtf((1.0f - s->alphas[i]) / s->alphas[i]);
    }
    return ST_OK;
}

/* Value I (0 = smallest) of the POINTS that the spacing makes. */
static double spaced(const struct schedule *s, int points, int i)
{
    bool whole = s->kind->layout != LAYOUT_SIGMA;
    switch (s->spacing) {
    case SPACING_LEADING:
        return (double)i * (s->train / points) + s->offset;
    case SPACING_TRAILING:
        return rint(s->train - (double)(s->steps - 1 - i) * ((double)s->train / s->steps)) - 1;
    case SPACING_LINSPACE:
        break;
    }
    double v = points == 1 ? 0 : i == points - 1 ? s->train - 1 : i * ((double)(s->train - 1) / (points - 1));
    return whole ? rint(v) : (double)(float)v;
}

/* Piecewise linear value of the trained sigmas at fractional timestep T, clamped to the ends. */
static double sigma_at(const struct schedule *s, double t)
{
    if (t <= 0)
        return s->train_sigmas[0];
    if (t >= s->train - 1)
        return s->train_sigmas[s->train - 1];
    int low = (int)t;
    double a = s->train_sigmas[low], b = s->train_sigmas[low + 1];
    return (b - a) * (t - low) + a;
}

/* The fractional timestep whose sigma is SIGMA, linear in the logarithm. */
static double timestep_at(const struct schedule *s, double sigma)
{
    double log_sigma = log(fmax(sigma, 1e-10));
    int low = 0, high = s->train - 1;        /* the last level below, if any */
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (log_sigma - logf(s->train_sigmas[middle]) >= 0)
            low = middle;
        else
            high = middle;
    }
    double a = logf(s->train_sigmas[low]), b = logf(s->train_sigmas[low + 1]);
    double w = fmin(fmax((a - log_sigma) / (a - b), 0), 1);
    return (1 - w) * low + w * (low + 1);
}

/* Karras et al. 2022, eq. 5: between the ends of the table, or of all trained sigmas for integer timesteps. */
static void make_karras(struct schedule *s)
{
    bool vp = s->kind->layout == LAYOUT_SIGMA_VP, whole = vp || s->kind->whole_karras;
    double max = vp ? (double)s->train_sigmas[s->train - 1] : (double)s->sigma[0];
    double min = vp ? (double)s->train_sigmas[0] : (double)s->sigma[s->steps - 1];
    if (!vp && s->sigma_min >= 0)
        min = s->sigma_min;
    if (!vp && s->sigma_max >= 0)
        max = s->sigma_max;
    double rho = 7, a = pow(max, 1 / rho), b = pow(min, 1 / rho);
    for (int i = 0; i < s->steps; i++) {
        double ramp = s->steps == 1 ? 0 : i == s->steps - 1 ? 1 : i * (1.0 / (s->steps - 1));
        double sigma = pow(a + ramp * (b - a), rho), t = timestep_at(s, sigma);
        s->sigma[i] = (float)sigma;
        s->t[i] = whole ? rint(t) : (double)(float)t;
    }
}

double schedule_half_sigma(const struct schedule *s, int step)
{
    double now = s->sigma[step], next = s->sigma[step + 1];
    if (step == s->steps - 1)
        return 0;
    switch (s->kind->half) {
    case HALF_NEXT:
    case HALF_DOWN: return next;
    case HALF_MIDDLE: return sqrt(now * next);
    case HALF_NONE: break;
    }
    return 0;
}

/* Puts the second calls between the steps, from the end so that nothing is overwritten before it is read. */
static void make_halves(struct schedule *s)
{
    for (int i = s->steps - 1; i > 0; i--) {
        double next = s->t[i];
        s->t[2 * i] = next;
        s->t[2 * i - 1] = s->kind->half == HALF_NEXT ? next : timestep_at(s, schedule_half_sigma(s, i - 1));
    }
}

/* The timesteps that consistency models learnt, thinned evenly from the noisiest. */
static enum status make_distilled(struct schedule *s, struct error *err)
{
    if (s->steps > s->distilled_steps)
        return FAIL(err, BAD_ARGUMENT, "steps %d: scheduler %s has at most %d here", s->steps, s->kind->name, s->distilled_steps);
    int apart = s->train / s->distilled_steps;
    for (int i = 0; i < s->steps; i++) {
        int place = (int)floor(i * ((double)s->distilled_steps / s->steps));
        s->t[i] = (s->distilled_steps - place) * apart - 1;
    }
    return ST_OK;
}

static enum status make_timesteps(struct schedule *s, struct error *err)
{
    bool vp = s->kind->layout == LAYOUT_SIGMA_VP, plms = s->kind->layout == LAYOUT_PLMS && s->steps > 1;
    int points = s->steps + vp;
    if (s->kind->layout == LAYOUT_CONSISTENCY)
        return make_distilled(s, err);
    if (points > s->train)
        return FAIL(err, BAD_ARGUMENT, "steps %d: scheduler %s has at most %d here", s->steps, s->kind->name, s->train - vp);
    for (int i = 0; i < s->steps + plms; i++) {
        int row = plms && i > 0 ? i - 1 + (i == 1) : i;
        s->t[i] = s->spacing == SPACING_TRAILING ? spaced(s, s->steps, s->steps - 1 - row) : spaced(s, points, points - 1 - row);
    }
    if (s->t[0] > s->train - 1)
        return FAIL(err, BAD_ARGUMENT, "steps %d: the first timestep would be %g of %d trained ones; use fewer steps", s->steps, s->t[0], s->train);
    return ST_OK;
}

static enum status make_table(struct schedule *s, struct error *err)
{
    s->n = s->kind->half != HALF_NONE ? 2 * s->steps - 1 : s->steps + (s->kind->layout == LAYOUT_PLMS && s->steps > 1);
    s->t = calloc((size_t)s->n, sizeof(double));
    s->sigma = calloc((size_t)s->steps + 1, sizeof(float));
    if (!s->t || !s->sigma)
        return FAIL(err, OUT_OF_MEMORY, "no memory for %d timesteps", s->n);
    TRY(make_timesteps(s, err));
    for (int i = 0; i < s->steps; i++)
        s->sigma[i] = (float)sigma_at(s, s->t[i]);
    if (s->kind->karras)
        make_karras(s);
    if (s->kind->last == LAST_LOWEST)
        s->sigma[s->steps] = s->kind->karras ? s->sigma[s->steps - 1] : s->train_sigmas[0];
    else if (s->kind->last == LAST_CHOICE && s->final_sigma_min)
        s->sigma[s->steps] = s->train_sigmas[0];
    if (s->kind->half != HALF_NONE)
        make_halves(s);
    return ST_OK;
}

/* The denoising range drops the steps that are noisier than its start and those cleaner than its end. */
static void pick_range(struct schedule *s, double start, double end)
{
    double skip_from = rint(s->train * (1 - start)), keep_from = rint(s->train * (1 - end));
    int stride = s->kind->half != HALF_NONE ? 2 : 1;
    for (int i = 0; i < s->n; i += stride)
        s->first += s->t[i] >= skip_from ? stride : 0;
    for (int i = s->first; i < s->n; i += stride)
        s->count += s->t[i] >= keep_from ? stride : 0;
    if (s->first + s->count > s->n)      /* the last step is one call */
        s->count = s->n - s->first;
}

enum status schedule_init(struct schedule *s, const struct sampler_kind *kind, const json_t *config, int steps, double start, double end, struct error *err)
{
    *s = (struct schedule){ .kind = kind, .steps = steps };
    if (steps < 1 || steps > 1000)
        return FAIL(err, BAD_ARGUMENT, "steps %d is outside 1..1000", steps);
    if (!(start >= 0 && start <= 1 && end >= 0 && end <= 1))
        return FAIL(err, BAD_ARGUMENT, "denoising_start %g and denoising_end %g must lie in 0..1", start, end);
    TRY(read_config(s, config, err));
    TRY(make_alphas(s, err));
    TRY(make_table(s, err));
    pick_range(s, start, end);
    return ST_OK;
}

void schedule_fini(struct schedule *s)
{
    free(s->alphas);
    free(s->train_sigmas);
    free(s->t);
    free(s->sigma);
    *s = (struct schedule){ 0 };
}

float schedule_alpha(const struct schedule *s, int t)
{
    if (t < 0)
        return s->alpha_one ? 1.0f : s->alphas[0];
    return s->alphas[t < s->train ? t : s->train - 1];
}
