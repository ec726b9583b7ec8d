/* Building the linear forms that solvers are compiled to. */
#include <math.h>
#include "worker/engine/sampling_parts.h"

struct sampler_update *add_update(struct sampler_call *c, int dst)
{
    struct sampler_update *u = &c->updates[c->n_updates++];
    *u = (struct sampler_update){ .dst = dst };
    return u;
}

void add_term(struct sampler_update *u, int slot, double coef)
{
    for (int i = 0; i < u->n; i++)
        if (u->terms[i].slot == slot) {
            u->terms[i].coef += coef;
            return;
        }
    if (coef != 0)
        u->terms[u->n++] = (struct sampler_term){ slot, coef };
}

void add_pair(struct sampler_update *u, struct pair p, double scale)
{
    add_term(u, SLOT_X, scale * p.x);
    add_term(u, SLOT_EPS, scale * p.out);
}

struct pair vp_x0(const struct schedule *s, float root_a, float root_b)
{
    return s->prediction == PREDICT_V ? (struct pair){ root_a, -root_b } : (struct pair){ 1.0 / root_a, -(double)root_b / root_a };
}

struct pair vp_eps(const struct schedule *s, float root_a, float root_b)
{
    return s->prediction == PREDICT_V ? (struct pair){ root_b, root_a } : (struct pair){ 0, 1 };
}

struct pair ve_x0(const struct schedule *s, double sigma)
{
    double v = sigma * sigma + 1;
    return s->prediction == PREDICT_V ? (struct pair){ 1 / v, -sigma / sqrt(v) } : (struct pair){ 1, -sigma };
}

void set_x0(struct sampler_call *c, struct pair p)
{
    c->has_x0 = true;
    c->x0 = (struct sampler_update){ .dst = SLOT_X };
    add_pair(&c->x0, p, 1);
}

void add_noise(struct sampler_call *c, struct sampler_update *u, double coef)
{
    c->draws_noise = coef != 0;
    add_term(u, SLOT_NOISE, coef);
}

struct level level_at(double sigma)
{
    double alpha = 1 / sqrt(sigma * sigma + 1);
    return (struct level){ alpha, sigma * alpha, -log(sigma) };
}
