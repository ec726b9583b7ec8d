/* The random numbers that stochastic samplers add between steps, in the order and from the seeds of InvokeAI. */
#pragma once
#include "worker/engine/noise.h"
#include "worker/engine/sampling.h"

/* A Brownian path over [low, high] that is the same however it is asked (torchsde's virtual tree: each half of an interval is drawn from a
 * seed of its own, down to a millionth). */
struct noise_path;
/* noise_path_new makes the path of N independent values of SEED, 0 at LOW. */
NODISCARD enum status noise_path_new(size_t n, double low, double high, uint64_t seed, struct noise_path **ret, struct error *err);
void noise_path_free(struct noise_path *p);                               /* accepts NULL */
/* noise_path_increment writes the N values of W(TO) - W(FROM); times outside are moved to the ends. Allocates nothing. */
void noise_path_increment(struct noise_path *p, double from, double to, float *ret);

struct step_noise;
/* step_noise_new makes the source for a run of SAMPLER (borrowed for the call) on latents of N values [n, c, h, w]. SEED: of the run's noise; plain normals
 * come from SEED ^ 0xffffffff, a path from SEED itself. */
NODISCARD enum status step_noise_new(const struct sampler *sampler, uint64_t seed, size_t n, struct step_noise **ret, struct error *err);
void step_noise_free(struct step_noise *s);                               /* accepts NULL */
/* step_noise_draw writes the N normals of CALL. Calls that draw must be asked in order, each once. Allocates nothing. */
void step_noise_draw(struct step_noise *s, const struct sampler_call *call, float *ret);
