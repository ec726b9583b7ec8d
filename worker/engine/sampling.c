/* The table of samplers, and their compilation into calls. */
#include "worker/engine/sampling.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "worker/engine/sampling_parts.h"

/* InvokeAI's 31 names in alphabetical order. A row without a call is known, but not in this build. */
static const struct sampler_kind kinds[] = {
    { .name = "ddim", LAYOUT_PLAIN, SPACING_LEADING, .call = ddim_call },
    { .name = "ddpm", LAYOUT_PLAIN, SPACING_LEADING, .call = ddpm_call },
    { .name = "deis", LAYOUT_SIGMA_VP, SPACING_LINSPACE, .last = LAST_LOWEST, .call = deis_call },
    { .name = "deis_k", LAYOUT_SIGMA_VP, SPACING_LINSPACE, .karras = true, .last = LAST_LOWEST, .call = deis_call },
    { .name = "dpmpp_2m", LAYOUT_SIGMA_VP, SPACING_LINSPACE, .order = 2, .call = dpmpp_multi_call },
    { .name = "dpmpp_2m_k", LAYOUT_SIGMA_VP, SPACING_LINSPACE, .karras = true, .order = 2, .call = dpmpp_multi_call },
    { .name = "dpmpp_2m_sde", LAYOUT_SIGMA_VP, SPACING_LINSPACE, .order = 2, .call = dpmpp_sde_multi_call },
    { .name = "dpmpp_2m_sde_k", LAYOUT_SIGMA_VP, SPACING_LINSPACE, .karras = true, .order = 2, .call = dpmpp_sde_multi_call },
    { .name = "dpmpp_2s", LAYOUT_SIGMA_VP, SPACING_LINSPACE, .fixed_spacing = true, .call = dpmpp_single_call },
    { .name = "dpmpp_2s_k", LAYOUT_SIGMA_VP, SPACING_LINSPACE, .fixed_spacing = true, .karras = true, .call = dpmpp_single_call },
    { .name = "dpmpp_3m", LAYOUT_SIGMA_VP, SPACING_LINSPACE, .order = 3, .call = dpmpp_multi_call },
    { .name = "dpmpp_3m_k", LAYOUT_SIGMA_VP, SPACING_LINSPACE, .karras = true, .order = 3, .call = dpmpp_multi_call },
    { .name = "dpmpp_sde", LAYOUT_SIGMA, SPACING_LINSPACE, .path = true, .half = HALF_MIDDLE, .last = LAST_ZERO, .call = dpmpp_sde_call },
    { .name = "dpmpp_sde_k", LAYOUT_SIGMA, SPACING_LINSPACE, .karras = true, .path = true, .half = HALF_MIDDLE, .last = LAST_ZERO, .call = dpmpp_sde_call },
    { .name = "er_sde", LAYOUT_SIGMA_VP, SPACING_LINSPACE, .last = LAST_ZERO, .call = er_sde_call },
    { .name = "euler", LAYOUT_SIGMA, SPACING_LINSPACE, .call = euler_call },
    { .name = "euler_a", LAYOUT_SIGMA, SPACING_LINSPACE, .last = LAST_ZERO, .call = euler_a_call },
    { .name = "euler_k", LAYOUT_SIGMA, SPACING_LINSPACE, .karras = true, .call = euler_call },
    { .name = "heun", LAYOUT_SIGMA, SPACING_LINSPACE, .half = HALF_NEXT, .last = LAST_ZERO, .call = heun_call },
    { .name = "heun_k", LAYOUT_SIGMA, SPACING_LINSPACE, .karras = true, .half = HALF_NEXT, .last = LAST_ZERO, .call = heun_call },
    { .name = "kdpm_2", LAYOUT_SIGMA, SPACING_LINSPACE, .half = HALF_MIDDLE, .last = LAST_ZERO, .call = kdpm_2_call },
    { .name = "kdpm_2_a", LAYOUT_SIGMA, SPACING_LINSPACE, .half = HALF_DOWN, .last = LAST_ZERO, .call = kdpm_2_a_call },
    { .name = "kdpm_2_a_k", LAYOUT_SIGMA, SPACING_LINSPACE, .karras = true, .whole_karras = true, .half = HALF_DOWN, .last = LAST_ZERO, .call = kdpm_2_a_call },
    { .name = "kdpm_2_k", LAYOUT_SIGMA, SPACING_LINSPACE, .karras = true, .whole_karras = true, .half = HALF_MIDDLE, .last = LAST_ZERO, .call = kdpm_2_call },
    { .name = "lcm", LAYOUT_CONSISTENCY, SPACING_LEADING, .call = lcm_call },
    { .name = "lms", LAYOUT_SIGMA, SPACING_LINSPACE, .last = LAST_ZERO, .call = lms_call },
    { .name = "lms_k", LAYOUT_SIGMA, SPACING_LINSPACE, .karras = true, .last = LAST_ZERO, .call = lms_call },
    { .name = "pndm", LAYOUT_PLMS, SPACING_LEADING, .call = pndm_call },
    { .name = "tcd", LAYOUT_CONSISTENCY, SPACING_LEADING, .call = tcd_call },
    { .name = "unipc", LAYOUT_SIGMA_VP, SPACING_LINSPACE, .call = unipc_call },
    { .name = "unipc_k", LAYOUT_SIGMA_VP, SPACING_LINSPACE, .karras = true, .call = unipc_call },
};
enum { KINDS = sizeof kinds / sizeof *kinds };

const struct sampler_kind *sampler_kind_find(const char *name)
{
    for (int i = 0; i < KINDS; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

bool sampler_known(const char *name)
{
    return sampler_kind_find(name) != NULL;
}

bool sampler_available(const char *name)
{
    const struct sampler_kind *kind = sampler_kind_find(name);
    return kind && kind->call;
}

/* Filled before main so that readers on any thread see a finished list. */
static const char *available[KINDS];
static size_t n_available;

__attribute__((constructor)) static void list_available(void)
{
    for (int i = 0; i < KINDS; i++)
        if (kinds[i].call)
            available[n_available++] = kinds[i].name;
}

const char *const *sampler_names(size_t *ret_n)
{
    *ret_n = n_available;
    return available;
}

static enum status find_kind(const char *name, const struct sampler_kind **ret, struct error *err)
{
    const char *names[KINDS];
    for (int i = 0; i < KINDS; i++)
        names[i] = kinds[i].name;
    const struct sampler_kind *kind = sampler_kind_find(name);
    if (!kind) {
        const char *near = nearest_name(name, names, KINDS);
        return FAIL(err, BAD_ARGUMENT, "scheduler \"%.60s\" is unknown%s%s", name, near ? "; nearest is " : "", near ? near : "");
    }
    if (!kind->call)
        return FAIL(err, NOT_AVAILABLE, "scheduler %s is not in this build; use euler, euler_a, dpmpp_2m_k or another available one", name);
    *ret = kind;
    return ST_OK;
}

static void set_start(const struct schedule *s, struct sampler *out)
{
    if (s->count == 0)
        return;
    double sigma = s->sigma[s->kind->half != HALF_NONE ? s->first / 2 : s->kind->layout == LAYOUT_PLMS ? 0 : s->first];
    switch (s->kind->layout) {
    case LAYOUT_PLAIN:
    case LAYOUT_PLMS:
    case LAYOUT_CONSISTENCY: {
        double a = schedule_alpha(s, (int)s->t[s->first]);
        out->add_x = sqrt(a);
        out->add_noise = sqrt(1 - a);
        break;
    }
    case LAYOUT_SIGMA:
        out->add_x = 1;
        out->add_noise = sigma;
        break;
    case LAYOUT_SIGMA_VP:
        out->add_x = 1 / sqrt(sigma * sigma + 1);
        out->add_noise = sigma * out->add_x;
        break;
    }
}

/* The step that call K belongs to, counted from 1: the first of PLMS and all of second order but the last take two calls. */
static int step_after(const struct schedule *s, int k)
{
    if (s->kind->half != HALF_NONE)
        return k / 2 + 1;
    return s->kind->layout == LAYOUT_PLMS && k > 0 ? k : k + 1;
}

static enum status compile(const struct schedule *s, struct sampler **ret, struct error *err)
{
    struct sampler *out = calloc(1, sizeof *out);
    struct sampler_call *calls = calloc((size_t)s->count + 1, sizeof *calls);
    if (!out || !calls) {
        free(out);
        free(calls);
        return FAIL(err, OUT_OF_MEMORY, "no memory for %d sampler calls", s->count);
    }
    *out = (struct sampler){ .name = s->kind->name, .n_calls = s->count, .steps = s->count ? step_after(s, s->count - 1) : 0, .calls = calls };
    for (int k = 0; k < s->count; k++) {
        calls[k].timestep = s->t[s->first + k];
        calls[k].input_scale = 1;
        calls[k].step = step_after(s, k);
        s->kind->call(s, s->first + k, k, &calls[k]);
    }
    set_start(s, out);
    if (s->kind->path) {
        out->path_low = s->sigma[s->steps - 1];
        out->path_high = s->sigma[0];
    }
    *ret = out;
    return ST_OK;
}

enum status sampler_new(const char *name, const json_t *scheduler_config, int steps, double start, double end, struct sampler **ret, struct error *err)
{
    const struct sampler_kind *kind = NULL;
    TRY(find_kind(name, &kind, err));
    AUTO_JSON *sd1 = NULL;
    if (!scheduler_config) {
        sd1 = json_pack("{s:f, s:f, s:s, s:b, s:b, s:b, s:i}", "beta_start", 0.00085, "beta_end", 0.012, "beta_schedule", "scaled_linear",
                        "clip_sample", 0, "set_alpha_to_one", 0, "skip_prk_steps", 1, "steps_offset", 1);
        if (!sd1)
            return FAIL(err, OUT_OF_MEMORY, "no memory for the scheduler config");
    }
    struct schedule s;
    enum status status = schedule_init(&s, kind, scheduler_config ? scheduler_config : sd1, steps, start, end, err);
    if (status == ST_OK)
        status = compile(&s, ret, err);
    schedule_fini(&s);
    return status;
}

void sampler_free(struct sampler *s)
{
    if (!s)
        return;
    free(s->calls);
    free(s);
}
