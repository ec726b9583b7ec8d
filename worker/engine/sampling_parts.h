/* Inside of sampling.h: a schedule (which timesteps, which sigmas) and the solvers that turn its rows into calls. */
#pragma once
#include "worker/engine/sampling.h"

enum { TRAIN_STEPS_MAX = 10000 };

enum spacing { SPACING_LEADING, SPACING_LINSPACE, SPACING_TRAILING };
enum prediction { PREDICT_EPSILON, PREDICT_V };

/* How a solver lays out its timesteps. */
enum layout {
    LAYOUT_PLAIN,       /* one integer timestep per step; the noised latent keeps its variance: sqrt(a) x + sqrt(1 - a) noise */
    LAYOUT_PLMS,        /* PLAIN with the second timestep twice */
    LAYOUT_SIGMA,       /* fractional timesteps, sigma by interpolation; noised latent x + sigma noise */
    LAYOUT_SIGMA_VP     /* integer timesteps of steps + 1 points without the last; sigma; noised latent keeps its variance */
};

struct schedule;
struct sampler_kind {
    const char *name;                /* InvokeAI's */
    enum layout layout;
    enum spacing spacing;            /* when the config states none */
    bool karras;
    int order;                       /* of a multistep solver */
    /* call fills C for row I of the table, the K-th call of this run. NULL: the sampler is known but not in this build. */
    void (*call)(const struct schedule *s, int i, int k, struct sampler_call *c);
};

struct schedule {
    const struct sampler_kind *kind;
    /* config */
    int train;
    double beta_start, beta_end;
    const char *beta_schedule;       /* borrowed from the config */
    enum spacing spacing;
    enum prediction prediction;
    int offset;
    bool alpha_one, final_sigma_min, lower_order_final, euler_at_final, heun_solver;
    double sigma_min, sigma_max;     /* of the Karras range; < 0: the table's ends */
    /* tables */
    int steps, n;                    /* asked for; rows */
    float *alphas;                   /* [train]: cumulative products of 1 - beta; float32 as the reference keeps them */
    float *train_sigmas;             /* [train] */
    double *t;                       /* [n], falling */
    float *sigma;                    /* [n + 1]; layouts with sigma */
    int first, count;                /* rows within the denoising range */
};

/* schedule_init makes the tables of KIND for STEPS between START and END under CONFIG, which must outlive S. UNSUPPORTED or
 * BAD_ARGUMENT name the config key or argument. Call schedule_fini in any case. */
NODISCARD enum status schedule_init(struct schedule *s, const struct sampler_kind *kind, const json_t *config, int steps, double start, double end, struct error *err);
void schedule_fini(struct schedule *s);
/* schedule_alpha returns the cumulative alpha at timestep T; below 0 that of the finished picture. */
float schedule_alpha(const struct schedule *s, int t);

/* The row of scheduler NAME, NULL if there is none. */
const struct sampler_kind *sampler_kind_find(const char *name);

/* Solvers. */
void ddim_call(const struct schedule *s, int i, int k, struct sampler_call *c);
void pndm_call(const struct schedule *s, int i, int k, struct sampler_call *c);
void euler_call(const struct schedule *s, int i, int k, struct sampler_call *c);
void euler_a_call(const struct schedule *s, int i, int k, struct sampler_call *c);
void dpmpp_multi_call(const struct schedule *s, int i, int k, struct sampler_call *c);
