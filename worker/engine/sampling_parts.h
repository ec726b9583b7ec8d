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
    LAYOUT_CONSISTENCY, /* PLAIN, but picked from the few timesteps that consistency models were distilled at */
    LAYOUT_SIGMA,       /* fractional timesteps, sigma by interpolation; noised latent x + sigma noise */
    LAYOUT_SIGMA_VP     /* integer timesteps of steps + 1 points without the last; sigma; noised latent keeps its variance */
};

/* Solvers of order two call the network again between two sigmas, save after the last. */
enum half {
    HALF_NONE,
    HALF_NEXT,          /* at the next sigma */
    HALF_MIDDLE,        /* at the geometric mean of both */
    HALF_DOWN           /* at the geometric mean with what the ancestral step falls to, next^2 / now: that is the next sigma too */
};

/* What follows the last sigma of the table. */
enum last_sigma {
    LAST_CHOICE,        /* zero, or the lowest trained one if the config says so */
    LAST_ZERO,
    LAST_LOWEST,        /* the lowest trained one; a Karras table repeats its own last */
};

struct schedule;
struct sampler_kind {
    const char *name;                /* InvokeAI's */
    enum layout layout;
    enum spacing spacing;            /* when the config states none */
    bool fixed_spacing;              /* the config's is ignored */
    bool karras, whole_karras;       /* the latter: timesteps of Karras sigmas are rounded */
    bool path;                       /* noise comes from a Brownian path over sigma */
    enum half half;
    enum last_sigma last;
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
    int offset, distilled_steps;
    double timestep_scaling;
    bool alpha_one, final_sigma_min, lower_order_final, euler_at_final, heun_solver, bh1_solver;
    double sigma_min, sigma_max;     /* of the Karras range; < 0: the table's ends */
    /* tables */
    int steps, n;                    /* asked for; rows, one per network call */
    float *alphas;                   /* [train]: cumulative products of 1 - beta; float32 as the reference keeps them */
    float *train_sigmas;             /* [train] */
    double *t;                       /* [n], falling */
    float *sigma;                    /* [steps + 1]; layouts with sigma */
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

/* schedule_half_sigma returns the sigma of the second call of STEP; 0 for the last step, which has none. */
double schedule_half_sigma(const struct schedule *s, int step);

/* ---- linear forms */
struct sampler_update *add_update(struct sampler_call *c, int dst);
/* add_term adds COEF * slot; terms of one slot are summed, zeros left out. */
void add_term(struct sampler_update *u, int slot, double coef);
/* A value that is linear in the latent and the network's output. */
struct pair { double x, out; };
void add_pair(struct sampler_update *u, struct pair p, double scale);
/* set_x0 makes P the estimate shown in previews. */
void set_x0(struct sampler_call *c, struct pair p);
/* add_noise adds COEF * fresh normals, which the call then draws; nothing if COEF is 0. */
void add_noise(struct sampler_call *c, struct sampler_update *u, double coef);
/* vp_x0 and vp_eps estimate the finished latent and the noise in X = ROOT_A x0 + ROOT_B eps. */
struct pair vp_x0(const struct schedule *s, float root_a, float root_b);
struct pair vp_eps(const struct schedule *s, float root_a, float root_b);
/* ve_x0 estimates the finished latent in X = x0 + SIGMA eps, where the network saw X / sqrt(SIGMA^2 + 1). */
struct pair ve_x0(const struct schedule *s, double sigma);
/* alpha_t, sigma_t and lambda = log(alpha_t / sigma_t) of a variance preserving process at noise ratio SIGMA. */
struct level { double alpha, sigma, lambda; };
struct level level_at(double sigma);

/* ---- solvers */
#define SAMPLER_CALL(name) void name(const struct schedule *s, int i, int k, struct sampler_call *c)
SAMPLER_CALL(ddim_call);
SAMPLER_CALL(ddpm_call);
SAMPLER_CALL(pndm_call);
SAMPLER_CALL(lcm_call);
SAMPLER_CALL(tcd_call);
SAMPLER_CALL(euler_call);
SAMPLER_CALL(euler_a_call);
SAMPLER_CALL(heun_call);
SAMPLER_CALL(kdpm_2_call);
SAMPLER_CALL(kdpm_2_a_call);
SAMPLER_CALL(lms_call);
SAMPLER_CALL(dpmpp_sde_call);
SAMPLER_CALL(dpmpp_multi_call);
SAMPLER_CALL(dpmpp_sde_multi_call);
SAMPLER_CALL(dpmpp_single_call);
SAMPLER_CALL(deis_call);
SAMPLER_CALL(unipc_call);
SAMPLER_CALL(er_sde_call);
