/* Solvers over sigma, where the latent is x0 + sigma eps. */
#include <math.h>
#include "worker/engine/sampling_parts.h"

/* Karras et al. 2022, algorithm 1 without churn. */
static double start_at(const struct schedule *s, double sigma, struct sampler_call *c)
{
    c->input_scale = 1 / sqrt(sigma * sigma + 1);
    set_x0(c, ve_x0(s, sigma));
    return sigma;
}

static void euler_move(const struct schedule *s, struct sampler_call *c, double sigma, double to)
{
    struct sampler_update *u = add_update(c, SLOT_X);
    add_term(u, SLOT_X, to / sigma);
    add_pair(u, ve_x0(s, sigma), 1 - to / sigma);
}

void euler_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    (void)k;
    euler_move(s, c, start_at(s, s->sigma[i], c), s->sigma[i + 1]);
}

/* k-diffusion's ancestral step: down to a lower sigma, then noise up to the next. */
void euler_a_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    (void)k;
    double sigma = start_at(s, s->sigma[i], c), to = s->sigma[i + 1];
    double up = sqrt(to * to * (sigma * sigma - to * to)) / sigma;
    euler_move(s, c, sigma, to * to / sigma);
    add_noise(c, &c->updates[0], up);
}

/* Adds SCALE times the derivative (X - x0) / SIGMA. */
static void add_derivative(const struct schedule *s, struct sampler_update *u, double sigma, double scale)
{
    add_term(u, SLOT_X, scale / sigma);
    add_pair(u, ve_x0(s, sigma), -scale / sigma);
}

/* Karras et al. 2022, algorithm 1: an Euler step, then again with the mean of both ends' derivatives. SAVE0 holds the latent, SAVE1 the
 * first derivative. */
void heun_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    (void)k;
    double now = s->sigma[i / 2], next = s->sigma[i / 2 + 1], dt = next - now;
    if (i % 2 == 0) {
        start_at(s, now, c);
        add_term(add_update(c, SLOT_SAVE0), SLOT_X, 1);
        add_derivative(s, add_update(c, SLOT_SAVE1), now, 1);
        euler_move(s, c, now, next);
        return;
    }
    start_at(s, next, c);
    struct sampler_update *u = add_update(c, SLOT_X);
    add_derivative(s, u, next, dt / 2);
    add_term(u, SLOT_SAVE0, 1);
    add_term(u, SLOT_SAVE1, dt / 2);
}

/* The two calls of DPM-Solver-2 in k-diffusion's form: to the middle, then from the start to TO with the middle's derivative. */
static void midpoint_call(const struct schedule *s, int i, double to, struct sampler_call *c)
{
    double now = s->sigma[i / 2], middle = schedule_half_sigma(s, i / 2);
    if (i % 2 == 0) {
        start_at(s, now, c);
        add_term(add_update(c, SLOT_SAVE0), SLOT_X, 1);
        euler_move(s, c, now, middle);
        return;
    }
    start_at(s, middle, c);
    struct sampler_update *u = add_update(c, SLOT_X);
    add_derivative(s, u, middle, to - now);
    add_term(u, SLOT_SAVE0, 1);
}

void kdpm_2_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    (void)k;
    midpoint_call(s, i, s->sigma[i / 2 + 1], c);
}

void kdpm_2_a_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    (void)k;
    double now = s->sigma[i / 2], next = s->sigma[i / 2 + 1];
    midpoint_call(s, i, next * next / now, c);
    if (i % 2)
        add_noise(c, &c->updates[c->n_updates - 1], sqrt(next * next * (now * now - next * next)) / now);
}

/* The reference asks its path at sigmas that went through a float32 logarithm and back, the middle one as the mean of two logarithms; a
 * time that differs in the sixth decimal would be another place on the path. */
static float log_time(double sigma)
{
    return -(float)log(sigma);
}

static double path_time(float t)
{
    return (float)exp(-(double)t);
}

/* DPM-Solver++ (stochastic) in k-diffusion's form: an ancestral step to the middle, then one over the whole from the start with the middle's
 * estimate. SAVE0 holds the start. */
void dpmpp_sde_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    (void)k;
    bool second = i % 2;
    double now = s->sigma[i / 2], middle = schedule_half_sigma(s, i / 2), to = second ? (double)s->sigma[i / 2 + 1] : middle, down = to * to / now;
    double at = start_at(s, second ? middle : now, c);
    if (!second)
        add_term(add_update(c, SLOT_SAVE0), SLOT_X, 1);
    struct sampler_update *u = add_update(c, SLOT_X);
    add_term(u, second ? SLOT_SAVE0 : SLOT_X, down / now);
    add_pair(u, ve_x0(s, at), 1 - down / now);
    add_noise(c, u, fmin(to, sqrt(to * to * (now * now - to * to)) / now));
    if (!c->draws_noise)
        return;
    float from = log_time(now), until = log_time(s->sigma[i / 2 + 1]);
    c->path_from = path_time(from);
    c->path_to = path_time(second ? until : from + (until - from) * 0.5f);
}

/* Integral from sigma[I] to sigma[I + 1] of the Lagrange polynomial that is 1 at sigma[I - J] and 0 at the other ORDER - 1 last sigmas;
 * two Gauss points are exact for its degree. */
static double lagrange_integral(const struct schedule *s, int i, int order, int j)
{
    double a = s->sigma[i], b = s->sigma[i + 1], sum = 0;
    for (int g = -1; g <= 1; g += 2) {
        double x = (a + b) / 2 + g * (b - a) / (2 * sqrt(3)), product = 1;
        for (int k = 0; k < order; k++)
            if (k != j)
                product *= (x - s->sigma[i - k]) / ((double)s->sigma[i - j] - s->sigma[i - k]);
        sum += product;
    }
    return sum * (b - a) / 2;
}

/* k-diffusion's linear multistep method of order four. Derivatives live in SAVE0..3 in a ring. As in the reference, the order follows the
 * place in the table even where a run that starts late has fewer derivatives. */
void lms_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    enum { ORDER = 4 };
    int order = i + 1 < ORDER ? i + 1 : ORDER, held = k + 1 < order ? k + 1 : order;
    double sigma = start_at(s, s->sigma[i], c);
    add_derivative(s, add_update(c, SLOT_SAVE0 + k % ORDER), sigma, 1);
    struct sampler_update *u = add_update(c, SLOT_X);
    add_term(u, SLOT_X, 1);
    for (int j = 0; j < held; j++)
        add_term(u, SLOT_SAVE0 + (k - j) % ORDER, lagrange_integral(s, i, order, j));
}
