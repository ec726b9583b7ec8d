/* One function per solver: row I of a schedule becomes a network call and the linear combinations after it.
 * Tables are float32 as in the reference; what is derived from them is computed in double unless it too must match to the bit. */
#include <math.h>
#include "worker/engine/sampling_parts.h"

static struct sampler_update *add_update(struct sampler_call *c, int dst)
{
    struct sampler_update *u = &c->updates[c->n_updates++];
    *u = (struct sampler_update){ .dst = dst };
    return u;
}

static void add_term(struct sampler_update *u, int slot, double coef)
{
    for (int i = 0; i < u->n; i++)
        if (u->terms[i].slot == slot) {
            u->terms[i].coef += coef;
            return;
        }
    if (coef != 0)
        u->terms[u->n++] = (struct sampler_term){ slot, coef };
}

/* A value that is linear in the latent and the network's output. */
struct pair { double x, out; };

static void add_pair(struct sampler_update *u, struct pair p, double scale)
{
    add_term(u, SLOT_X, scale * p.x);
    add_term(u, SLOT_EPS, scale * p.out);
}

/* Estimates of the finished latent and of the noise in X = sqrt(A) x0 + sqrt(1 - A) eps. */
static struct pair vp_x0(const struct schedule *s, float root_a, float root_b)
{
    return s->prediction == PREDICT_V ? (struct pair){ root_a, -root_b } : (struct pair){ 1.0 / root_a, -(double)root_b / root_a };
}

static struct pair vp_eps(const struct schedule *s, float root_a, float root_b)
{
    return s->prediction == PREDICT_V ? (struct pair){ root_b, root_a } : (struct pair){ 0, 1 };
}

/* The same estimate in X = x0 + SIGMA eps, where the network saw X / sqrt(SIGMA^2 + 1). */
static struct pair ve_x0(const struct schedule *s, double sigma)
{
    double v = sigma * sigma + 1;
    return s->prediction == PREDICT_V ? (struct pair){ 1 / v, -sigma / sqrt(v) } : (struct pair){ 1, -sigma };
}

static void set_x0(struct sampler_call *c, struct pair p)
{
    c->has_x0 = true;
    c->x0 = (struct sampler_update){ .dst = SLOT_X };
    add_pair(&c->x0, p, 1);
}

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

/* Karras et al. 2022, algorithm 1 without churn. */
static double euler_start(const struct schedule *s, int i, struct sampler_call *c)
{
    double sigma = s->sigma[i];
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
    euler_move(s, c, euler_start(s, i, c), s->sigma[i + 1]);
}

/* k-diffusion's ancestral step: down to a lower sigma, then noise up to the next. */
void euler_a_call(const struct schedule *s, int i, int k, struct sampler_call *c)
{
    (void)k;
    double sigma = euler_start(s, i, c), to = s->sigma[i + 1];
    double up = sqrt(to * to * (sigma * sigma - to * to) / (sigma * sigma)), down = sqrt(to * to - up * up);
    euler_move(s, c, sigma, down);
    c->draws_noise = up > 0;
    if (c->draws_noise)
        add_term(&c->updates[0], SLOT_NOISE, up);
}

/* alpha_t, sigma_t and lambda of a variance preserving process at noise ratio SIGMA. */
struct level { double alpha, sigma, lambda; };

static struct level level_at(double sigma)
{
    double alpha = 1 / sqrt(sigma * sigma + 1);
    return (struct level){ alpha, sigma * alpha, -log(sigma) };
}

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
