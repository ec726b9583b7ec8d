/* Solvers over the log signal-to-noise ratio, where the latent keeps its variance. */
#include <math.h>
#include "worker/engine/sampling_parts.h"

static int dpmpp_order(const struct schedule *s, int i, int k)
{
    bool short_run = s->n < 15 && s->lower_order_final;
    int order = k + 1 < s->kind->order ? k + 1 : s->kind->order;
    if (i == s->n - 1 && (s->euler_at_final || short_run || !s->final_sigma_min))
        return 1;
    return i == s->n - 2 && short_run && order > 2 ? 2 : order;
}

/* Lu et al. 2022 (DPM-Solver++), algorithm 2 and its third-order form. Estimates of x0 live in SAVE0..2 in a ring. */
void dpmpp_multi_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    struct level now = level_at(s->sigma[i]), to = level_at(s->sigma[i + 1]);
    struct pair x0 = vp_x0(s, (float)now.alpha, (float)now.sigma);
    int order = dpmpp_order(s, i, k), ring = s->kind->order, m0 = SLOT_SAVE0 + k % ring;
    double h = to.lambda - now.lambda, e = expm1(-h), d0 = -to.alpha * e, d1 = 0, d2 = 0;
    double d1_scale = s->heun_solver ? to.alpha * (e / h + 1) : -0.5 * to.alpha * e;
    set_x0(c, x0);
    add_pair(add_update(c, m0), x0, 1);
    struct sampler_update *u = add_update(c, SLOT_X);
    add_term(u, SLOT_X, to.sigma / now.sigma);
    if (order == 2) {                /* D1 = (m0 - m1) / r0 */
        double r0 = (now.lambda - level_at(s->sigma[i - 1]).lambda) / h;
        d1 = -d1_scale / r0;
        d0 -= d1;
    } else if (order == 3) {
        double l1 = level_at(s->sigma[i - 1]).lambda, l2 = level_at(s->sigma[i - 2]).lambda;
        double r0 = (now.lambda - l1) / h, r1 = (l1 - l2) / h, c1 = to.alpha * (e / h + 1), c2 = -to.alpha * ((e + h) / (h * h) - 0.5);
        double w0 = (c1 * (1 + r0 / (r0 + r1)) + c2 / (r0 + r1)) / r0;      /* of m0 - m1 */
        double w1 = -(c1 * r0 / (r0 + r1) + c2 / (r0 + r1)) / r1;           /* of m1 - m2 */
        d0 += w0;
        d1 = w1 - w0;
        d2 = -w1;
    }
    add_term(u, m0, d0);
    if (order > 1)
        add_term(u, SLOT_SAVE0 + (k + ring - 1) % ring, d1);
    if (order > 2)
        add_term(u, SLOT_SAVE0 + (k + ring - 2) % ring, d2);
}

/* The same with noise (SDE-DPM-Solver++, Lu et al. 2022, section 6), order two. */
void dpmpp_sde_multi_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    struct level now = level_at(s->sigma[i]), to = level_at(s->sigma[i + 1]);
    struct pair x0 = vp_x0(s, (float)now.alpha, (float)now.sigma);
    int order = dpmpp_order(s, i, k), m0 = SLOT_SAVE0 + k % 2;
    double h = to.lambda - now.lambda, e = -expm1(-2 * h), d0 = to.alpha * e, d1 = 0;
    set_x0(c, x0);
    add_pair(add_update(c, m0), x0, 1);
    struct sampler_update *u = add_update(c, SLOT_X);
    add_term(u, SLOT_X, to.sigma / now.sigma * exp(-h));
    if (order == 2) {
        double r0 = (now.lambda - level_at(s->sigma[i - 1]).lambda) / h, scale = s->heun_solver ? to.alpha * (e / (-2 * h) + 1) : 0.5 * to.alpha * e;
        d1 = -scale / r0;
        d0 -= d1;
    }
    add_term(u, m0, d0);
    add_term(u, SLOT_SAVE0 + (k + 1) % 2, d1);
    add_noise(c, u, to.sigma * sqrt(e));
}

/* Lu et al. 2022 (DPM-Solver++), algorithm 1: steps of order one and two in turn, the second from the latent before the first. SAVE0 holds
 * the last estimate of x0, SAVE1 that latent. */
void dpmpp_single_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    bool pairs_only = !s->lower_order_final && s->final_sigma_min && s->n % 2 == 0, last = i == s->n - 1;
    int order = i % 2 == 0 || k == 0 || (last && !pairs_only) ? 1 : 2;
    struct level now = level_at(s->sigma[i]), to = level_at(s->sigma[i + 1]);
    struct pair x0 = vp_x0(s, (float)now.alpha, (float)now.sigma);
    set_x0(c, x0);
    if (order == 1) {
        double e = expm1(now.lambda - to.lambda);
        add_pair(add_update(c, SLOT_SAVE0), x0, 1);
        add_term(add_update(c, SLOT_SAVE1), SLOT_X, 1);
        struct sampler_update *u = add_update(c, SLOT_X);
        add_term(u, SLOT_X, to.sigma / now.sigma);
        add_term(u, SLOT_SAVE0, -to.alpha * e);
        return;
    }
    struct level before = level_at(s->sigma[i - 1]);
    double h = to.lambda - before.lambda, r0 = (now.lambda - before.lambda) / h, e = expm1(-h);
    double d1 = (s->heun_solver ? to.alpha * (e / h + 1) : -0.5 * to.alpha * e) / r0;
    struct sampler_update *u = add_update(c, SLOT_X);
    add_pair(u, x0, d1);
    add_term(u, SLOT_SAVE0, -to.alpha * e - d1);
    add_term(u, SLOT_SAVE1, to.sigma / before.sigma);
}

/* Integral of (log t - log c) / (log b - log c) over t. */
static double log_integral(double t, double b, double c)
{
    return t * (log(t) - log(c) - 1) / (log(b) - log(c));
}

/* Zhang & Chen 2023 (DEIS), log-rho multistep of order two. Noise estimates live in SAVE0 and SAVE1 in turn. */
void deis_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    struct level now = level_at(s->sigma[i]), to = level_at(s->sigma[i + 1]);
    float root_a = (float)now.alpha, root_b = (float)now.sigma;
    int m0 = SLOT_SAVE0 + k % 2;
    set_x0(c, vp_x0(s, root_a, root_b));
    add_pair(add_update(c, m0), vp_eps(s, root_a, root_b), 1);
    struct sampler_update *u = add_update(c, SLOT_X);
    add_term(u, SLOT_X, to.alpha / now.alpha);
    if (k == 0 || (i == s->n - 1 && s->lower_order_final && s->n < 15)) {
        add_term(u, m0, -to.sigma * expm1(to.lambda - now.lambda));
        return;
    }
    double rho = s->sigma[i + 1], rho0 = s->sigma[i], rho1 = s->sigma[i - 1];
    add_term(u, m0, to.alpha * (log_integral(rho, rho0, rho1) - log_integral(rho0, rho0, rho1)));
    add_term(u, SLOT_SAVE0 + (k + 1) % 2, to.alpha * (log_integral(rho, rho1, rho0) - log_integral(rho0, rho1, rho0)));
}

/* UniPC's functions of one step from FROM to TO: x = x_scale * x + m0_scale * m0 + B * (weighted differences of estimates). */
struct unipc_step { double x_scale, m0_scale, b, b1, b2; };

static struct unipc_step unipc_step(const struct schedule *s, struct level from, struct level to)
{
    double hh = from.lambda - to.lambda, e = expm1(hh), base = s->bh1_solver ? hh : e, phi = e / hh - 1;
    return (struct unipc_step){ to.sigma / from.sigma, -to.alpha * e, -to.alpha * base, phi / base, (phi / hh - 0.5) * 2 / base };
}

static int unipc_order(const struct schedule *s, int i, int k)
{
    int order = s->n - i < 2 ? s->n - i : 2;
    return k + 1 < order ? k + 1 : order;
}

/* Zhao et al. 2023 (UniPC), order two: the last step is corrected with this call's estimate, then the next is predicted. Estimates of x0
 * live in SAVE0..2 in a ring, SAVE3 holds the corrected latent. */
void unipc_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    struct level now = level_at(s->sigma[i]), to = level_at(s->sigma[i + 1]);
    struct pair x0 = vp_x0(s, (float)now.alpha, (float)now.sigma);
    int m0 = SLOT_SAVE0 + k % 3, m1 = SLOT_SAVE0 + (k + 2) % 3, m2 = SLOT_SAVE0 + (k + 1) % 3;
    set_x0(c, x0);
    add_pair(add_update(c, m0), x0, 1);
    if (k > 0) {
        struct level before = level_at(s->sigma[i - 1]);
        struct unipc_step f = unipc_step(s, before, now);
        double here = 0.5, older = 0, r = 1;      /* weights of m0 - m1 and (m2 - m1) / r */
        if (unipc_order(s, i - 1, k - 1) == 2) {
            r = (level_at(s->sigma[i - 2]).lambda - before.lambda) / (now.lambda - before.lambda);
            older = (f.b1 - f.b2) / (1 - r);
            here = f.b1 - older;
        }
        struct sampler_update *u = add_update(c, SLOT_X);
        add_term(u, SLOT_SAVE3, f.x_scale);
        add_term(u, m0, f.b * here);
        add_term(u, m1, f.m0_scale - f.b * (here + older / r));
        add_term(u, m2, f.b * older / r);
    }
    add_term(add_update(c, SLOT_SAVE3), SLOT_X, 1);
    struct unipc_step f = unipc_step(s, now, to);
    struct sampler_update *u = add_update(c, SLOT_X);
    double half = 0;
    if (unipc_order(s, i, k) == 2)
        half = 0.5 * f.b * (to.lambda - now.lambda) / (level_at(s->sigma[i - 1]).lambda - now.lambda);
    add_term(u, SLOT_X, f.x_scale);
    add_term(u, m0, f.m0_scale - half);
    add_term(u, m1, half);
}

/* Cui et al. 2023 (ER-SDE), the noise scale of its appendix A.8. */
static double er_scale(double sigma)
{
    return sigma * (exp(pow(sigma, 0.3)) + 10);
}

/* Order three in Taylor form; its integrals are sums of 100 left rectangles as in the reference. Estimates of x0 live in SAVE0..2. */
void er_sde_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    enum { POINTS = 100 };
    double now = s->sigma[i], next = s->sigma[i + 1], ratio = er_scale(next) / er_scale(now);
    struct level from = level_at(now), to = level_at(next);
    struct pair x0 = vp_x0(s, (float)from.alpha, (float)from.sigma);
    int m0 = SLOT_SAVE0 + k % 3, m1 = SLOT_SAVE0 + (k + 2) % 3, m2 = SLOT_SAVE0 + (k + 1) % 3;
    set_x0(c, x0);
    add_pair(add_update(c, m0), x0, 1);
    struct sampler_update *u = add_update(c, SLOT_X);
    add_term(u, SLOT_X, to.alpha / from.alpha * ratio);
    add_term(u, m0, to.alpha * (1 - ratio));
    if (next > 0 && k > 0) {
        double first = 0, second = 0, step = (now - next) / POINTS;
        for (int p = 0; p < POINTS; p++) {
            double at = next + p * step;
            first += step / er_scale(at);
            second += step * (at - now) / er_scale(at);
        }
        double apart = now - s->sigma[i - 1], slope = to.alpha * (next - now + first * er_scale(next)) / apart;
        add_term(u, m0, slope);
        add_term(u, m1, -slope);
        if (k > 1) {
            double before = s->sigma[i - 1] - (double)s->sigma[i - 2];
            double bend = to.alpha * ((next - now) * (next - now) / 2 + second * er_scale(next)) * 2 / (now - (double)s->sigma[i - 2]);
            add_term(u, m0, bend / apart);
            add_term(u, m1, -bend / apart - bend / before);
            add_term(u, m2, bend / before);
        }
    }
    add_noise(c, u, sqrt(fmax(next * next - now * now * ratio * ratio, 0)) * to.alpha);
}
