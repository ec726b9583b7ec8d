/* Solvers over timesteps, one function each: row I of a schedule becomes a network call and the linear combinations after it.
 * Tables are float32 as in the reference; what is derived from them is computed in double unless it too must match to the bit. */
#include <math.h>
#include "worker/engine/sampling_parts.h"

/* Song et al. 2020, eq. 12, without noise. */
void ddim_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    (void)k;
    int t = (int)s->t[i];
    float a = schedule_alpha(s, t), prev = schedule_alpha(s, t - s->train / s->steps);
    float root_a = sqrtf(a), root_b = sqrtf(1.0f - a);
    struct pair x0 = vp_x0(s, root_a, root_b);
    struct sampler_update *u = add_update(c, SLOT_X);
    add_pair(u, x0, sqrtf(prev));
    add_pair(u, vp_eps(s, root_a, root_b), sqrtf(1.0f - prev));
    set_x0(c, x0);
}

/* Ho et al. 2020, eq. 7 with the small variance, between the timesteps of the table. */
void ddpm_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    (void)k;
    double a = schedule_alpha(s, (int)s->t[i]), prev = i + 1 < s->n ? (double)schedule_alpha(s, (int)s->t[i + 1]) : 1;
    double step_alpha = a / prev, step_beta = 1 - step_alpha, b = 1 - a;
    struct pair x0 = vp_x0(s, (float)sqrt(a), (float)sqrt(b));
    struct sampler_update *u = add_update(c, SLOT_X);
    add_pair(u, x0, sqrt(prev) * step_beta / b);
    add_term(u, SLOT_X, sqrt(step_alpha) * (1 - prev) / b);
    add_noise(c, u, sqrt((1 - prev) / b * step_beta));
    set_x0(c, x0);
}

/* Liu et al. 2022, eq. 9: the transfer from T to PREV along the noise estimate held in U's terms so far. */
static void pndm_transfer(const struct schedule *s, struct sampler_update *u, int from, int t, int prev)
{
    float a = schedule_alpha(s, t), p = schedule_alpha(s, prev), b = 1.0f - a, q = 1.0f - p;
    double keep = sqrtf(p / a), move = -(double)(p - a) / (a * sqrtf(q) + sqrtf(a * b * p));
    for (int i = 0; i < u->n; i++)
        u->terms[i].coef *= s->prediction == PREDICT_V ? move * sqrtf(a) : move;
    add_term(u, from, keep + (s->prediction == PREDICT_V ? move * sqrtf(b) : 0));
}

/* Liu et al. 2022, eq. 12 (linear multistep), started by one step that is made twice. Slots SAVE0..2 hold the last outputs in a
 * ring, SAVE3 the latent of the first call. */
void pndm_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    static const double weight[4][4] = {
        { 1 }, { 3.0 / 2, -1.0 / 2 }, { 23.0 / 12, -16.0 / 12, 5.0 / 12 }, { 55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24 },
    };
    int t = (int)s->t[i], ratio = s->train / s->steps, prev = t - ratio, from = SLOT_X;
    float a = schedule_alpha(s, t);
    set_x0(c, vp_x0(s, sqrtf(a), sqrtf(1.0f - a)));
    if (k == 0)
        add_term(add_update(c, SLOT_SAVE3), SLOT_X, 1);
    if (k == 1) {                    /* the first step again, with the mean of both ends */
        prev = t;
        t += ratio;
        from = SLOT_SAVE3;
    }
    int outputs = k == 0 ? 1 : k < 5 ? k : 4, kept = k < 2 ? k : k - 1;     /* outputs in use; outputs put into the ring before */
    struct sampler_update *u = add_update(c, SLOT_X);
    if (k == 1) {
        add_term(u, SLOT_EPS, 0.5);
        add_term(u, SLOT_SAVE0, 0.5);
    } else {
        add_term(u, SLOT_EPS, weight[outputs - 1][0]);
        for (int j = 1; j < outputs; j++)
            add_term(u, SLOT_SAVE0 + (kept - j) % 3, weight[outputs - 1][j]);
    }
    pndm_transfer(s, u, from, t, prev);
    if (k != 1)                      /* the second call's output is only averaged */
        add_term(add_update(c, SLOT_SAVE0 + kept % 3), SLOT_EPS, 1);
}

/* Luo et al. 2023: jump to the finished latent, then noise it again to the next timestep. */
void lcm_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    (void)k;
    const double data = 0.5;
    bool last = i == s->n - 1;
    float a = schedule_alpha(s, (int)s->t[i]), next = last ? 1.0f : schedule_alpha(s, (int)s->t[i + 1]);
    double scaled = s->t[i] * s->timestep_scaling, skip = data * data / (scaled * scaled + data * data), out = scaled / sqrt(scaled * scaled + data * data);
    struct pair x0 = vp_x0(s, sqrtf(a), sqrtf(1.0f - a));
    struct sampler_update *u = add_update(c, SLOT_X);
    add_pair(u, x0, out * sqrtf(next));
    add_term(u, SLOT_X, skip * sqrtf(next));
    add_noise(c, u, sqrtf(1.0f - next));
    set_x0(c, x0);
}

/* Zheng et al. 2024 with full stochasticity: down to the first trained level, then noised again to the next timestep. */
void tcd_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    (void)k;
    bool last = i == s->n - 1;
    float a = schedule_alpha(s, (int)s->t[i]), low = s->alphas[0], next = last ? low : schedule_alpha(s, (int)s->t[i + 1]);
    float root_a = sqrtf(a), root_b = sqrtf(1.0f - a), keep = sqrtf(next / low);
    struct pair x0 = vp_x0(s, root_a, root_b);
    struct sampler_update *u = add_update(c, SLOT_X);
    add_pair(u, x0, (double)keep * sqrtf(low));
    add_pair(u, vp_eps(s, root_a, root_b), (double)keep * sqrtf(1.0f - low));
    add_noise(c, u, sqrtf(1.0f - next / low));
    set_x0(c, x0);
}
