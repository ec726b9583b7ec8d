/* Inside of an open model, for the files that run its networks. */
#pragma once
#include "common/paths.h"
#include "worker/engine/clip.h"
#include "worker/engine/model.h"
#include "worker/engine/plan.h"
#include "worker/engine/sampling.h"
#include "worker/engine/unet.h"
#include "worker/engine/vae.h"

enum { MODEL_PLANS = 12 };

enum plan_kind { PLAN_UNET, PLAN_TIMES, PLAN_VAE, PLAN_TEXT };
/* The two segments of a UNet's plan; other plans have the first alone. */
enum { SEGMENT_PROMPT = 0, SEGMENT_STEP = 1, SEGMENT_ALL = 0 };

/* What is put into and read from a plan, as operands of its arena. Latents are f32 pixels of 4 channels. */
enum plan_io {
    IO_IN,          /* UNET latents [n, h, w, 4]; TIMES timesteps; VAE scaled latents; TEXT ids */
    IO_OUT,         /* UNET prediction f32 [n, h, w, 4]; TIMES rows in the compute dtype; VAE u8 [1, 8h, 8w, 3]; TEXT f32 features */
    IO_CONTEXT,     /* UNET: f32 [n, 1, tokens, context] */
    IO_MASK,        /* UNET, TEXT: f32 [n, 1, tokens, 1], added to the scores; only if the key says masked */
    IO_TIMES,       /* UNET: the row of time projections of this step */
    IO_COEF,        /* UNET: coefficients of this step's sampler ops, f32 [1, 1, COEF_ROW, 1] */
    IO_PREVIEW, IO_RGB, IO_MATRIX,  /* UNET: preview latents, their u8 [1, h, w, 3], the matrix f32 [1, 1, 4, 3] */
    IO_SLOT,        /* UNET: the sampler's slots f32 [1, h, w, 4], SLOT_COUNT of them */
    IO_COUNT = IO_SLOT + SLOT_COUNT
};
enum { COEF_SLOT = 16, COEF_ROW = 9 * COEF_SLOT };  /* floats: input scale; guidance; six updates; preview */

struct plan_key {
    enum plan_kind kind;
    int n, h, w, tokens, skipped, masked;    /* those that the kind does not know are 0 */
};
struct net_plan {
    struct plan_key key;
    struct plan *plan;
    struct operand io[IO_COUNT];
    uint64_t used;                           /* when, on the model's own count */
    int pins;
};

struct text_self { struct model *model; int skipped; struct engine_hooks hooks; };

struct model {
    char dir[PATH_BYTES];
    struct backend *backend;
    enum dtype compute;
    struct unet_config unet_config;
    struct vae_config vae_config;
    struct clip_config clip_config;
    struct weights *unet, *vae, *text;
    struct unet_times times;
    struct tokenizer *tokenizer;
    json_t *scheduler_config;
    struct text_self *texts;                 /* one per number of skipped layers */
    struct net_plan plans[MODEL_PLANS];
    const struct model_room *room;           /* NULL: alone on its device */
    struct plan_room plan_room;
    size_t loaded;                           /* bytes of weights in the device's memory, as model_weight_bytes counts */
    uint64_t clock;
};

/* model_plan returns the plan for KEY, made now (cancelable by HOOKS, which may be NULL) or kept from before, pinned until model_unpin. When
 * memory is short what nobody uses is dropped, of M's plans or as M's room decides, and the plan is tried again. */
NODISCARD enum status model_plan(struct model *m, const struct plan_key *key, const struct engine_hooks *hooks, struct net_plan **ret, struct error *err);
void model_unpin(struct net_plan *p);                                     /* accepts NULL */
/* model_weight_bytes returns what the weights of all plans that were described so far take on the device. */
size_t model_weight_bytes(const struct model *m);
/* model_check describes every network of M once without a plan: BAD_MODEL if a weight is missing or of another shape. */
NODISCARD enum status model_check(struct model *m, struct error *err);

/* plan_put copies host bytes into operand IO of P, plan_get out of it (all of it, tightly packed). */
NODISCARD enum status plan_put(struct model *m, const struct net_plan *p, int io, const void *src, struct error *err);
NODISCARD enum status plan_get(struct model *m, const struct net_plan *p, int io, void *dst, struct error *err);
/* pixels_from_planes turns N x C x H x W into N x H x W x C; planes_from_pixels back. */
void pixels_from_planes(const float *src, int64_t n, int64_t c, int64_t h, int64_t w, float *ret);
void planes_from_pixels(const float *src, int64_t n, int64_t c, int64_t h, int64_t w, float *ret);
enum { PAD_BIAS = -10000 };      /* added to the attention scores of padding, as the reference does */
/* model_timesteps computes the time projections of N timesteps in a plan whose IO_OUT has at least N rows. */
NODISCARD enum status model_timesteps(struct model *m, const float *t, int n, const struct engine_hooks *hooks, struct net_plan **ret, struct error *err);
