/* Samplers and schedules, one const row per name. A sampler is compiled before the loop to a list of calls, each a few linear
 * combinations with fixed coefficients, so that any backend runs any sampler with one op (LINCOMB) and nothing is decided in the loop. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"

enum { SLOT_X, SLOT_EPS, SLOT_NOISE, SLOT_SAVE0, SLOT_SAVE1, SLOT_SAVE2, SLOT_SAVE3, SLOT_SAVE4, SLOT_COUNT };

struct sampler_term { int slot; double coef; };
struct sampler_update {              /* slot[DST] = sum of terms, every term read before DST is written */
    int dst, n;
    struct sampler_term terms[8];
};
struct sampler_call {                /* one network evaluation and what follows it */
    double timestep;                 /* fed to the network */
    double input_scale;              /* the network sees input_scale * slot[X] */
    bool draws_noise;                /* fill SLOT_NOISE with fresh normals before the updates: step_noise_draw */
    double path_from, path_to;       /* if they differ, the normals are a Brownian path's increment between these times, scaled to 1 */
    int n_updates;
    struct sampler_update updates[6];
    bool has_x0;                     /* an estimate of the final latents for previews: */
    struct sampler_update x0;        /* DST unused; of X and EPS as they are before the updates; without one previews show X after */
    int step;                        /* user-visible step after this call, 1..steps */
};
struct sampler {
    const char *name;
    int n_calls, steps;              /* steps: what progress reports as total */
    struct sampler_call *calls;
    /* start: X = add_x * latents (or zeros) + add_noise * noise; when n_calls is 0 latents come back untouched, without noise. */
    double add_x, add_noise;
    double path_low, path_high;      /* where the Brownian path of the calls begins and ends; equal: there is none */
};

/* sampler_new compiles NAME for STEPS (1..1000) between START and END (0..1, InvokeAI's denoising_start, denoising_end) under the
 * model's scheduler config (scheduler_config.json; NULL: SD1's). BAD_ARGUMENT: unknown name with the nearest; NOT_AVAILABLE: one of
 * InvokeAI's 31 names that is not there yet. Formulas: DDIM (Song et al. 2020, eq. 12), Euler and ancestral (Karras et al. 2022,
 * alg. 1; k-diffusion), DPM-Solver++ 2M (Lu et al. 2022, alg. 2), PNDM/PLMS (Liu et al. 2022, eq. 12). Free with sampler_free. */
NODISCARD enum status sampler_new(const char *name, const json_t *scheduler_config, int steps, double start, double end, struct sampler **ret, struct error *err);
void sampler_free(struct sampler *s);
/* sampler_known tells whether NAME is one of InvokeAI's 31; sampler_available whether this build has it. */
bool sampler_known(const char *name);
bool sampler_available(const char *name);
/* sampler_names returns the N available names. */
const char *const *sampler_names(size_t *ret_n);
