/* Models on disk (diffusers folders) and in memory: what is there, and the networks of an open one. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include "worker/backend/backend.h"
#include "worker/engine/conditioning.h"
#include "worker/engine/tensor.h"

/* ---- what is on disk */
struct model_info {
    char key[128];          /* the folder's name: the key that graphs may use */
    char name[128];         /* the folder's name */
    char path[512];
    char base[16];          /* "sd-1" */
    char type[16];          /* "main" */
    char hash[80];          /* "" unless recorded beside the model */
    int64_t bytes;          /* of the weight files */
    int sample_size;        /* pixels of a side, 8 * unet sample_size */
    json_t *default_settings;  /* object of default_settings.json or NULL; owned */
};
/* model_identify reads the configs of folder DIR (no weights). BAD_MODEL: what is missing or unknown; UNSUPPORTED names the family. */
NODISCARD enum status model_identify(const char *dir, struct model_info *ret, struct error *err);
void model_info_fini(struct model_info *m);

/* ---- an open model */
struct model;

/* model_open maps the weights of DIR for BACKEND and checks every tensor's shape against the configs. COMPUTE: dtype of activations. Parts are prepared on first use. */
NODISCARD enum status model_open(const char *dir, struct backend *backend, enum dtype compute, struct model **ret, struct error *err);
void model_free(struct model *m);
size_t model_bytes(const struct model *m);                  /* memory it holds now */
size_t model_idle_bytes(const struct model *m);             /* of that, plans that nobody uses now */
bool model_trim(struct model *m);                           /* drops those plans; false if there were none */

/* Who keeps several models on one device: MAKE frees what is idle until NEED more bytes fit; OUT_OF_MEMORY (needed and free) if they cannot.
 * LESS is asked after the device had less than it said: it frees one thing more, false if nothing is left. */
struct model_room {
    void *self;
    enum status (*make)(void *self, size_t need, struct error *err);
    bool (*less)(void *self);
};
/* model_share makes M ask ROOM (borrowed) before each plan loads or allocates. Both calls may trim M. */
void model_share(struct model *m, const struct model_room *room);

/* Called between ops by whatever runs long. TICK returns false to stop: the call then ends with ST_CANCELED. */
struct engine_hooks {
    void *self;
    bool (*tick)(void *self);
    /* STEP (0 = before the first) of TOTAL; preview(w, h, rgb8) is only valid inside the call. RGB is NULL unless WANT_PREVIEW said yes. */
    void (*step)(void *self, int step, int total, const uint8_t *rgb, int width, int height);
    bool (*want_preview)(void *self);
};

/* model_text_encoder fills RET (valid while M lives) with the encoder that stops SKIPPED layers early (clip skip), cancelable by HOOKS. */
NODISCARD enum status model_text_encoder(struct model *m, int skipped, const struct engine_hooks *hooks, struct text_encode *ret, struct error *err);
const struct tokenizer *model_tokenizer(const struct model *m);
const json_t *model_scheduler_config(const struct model *m);

struct denoise_args {
    const struct tensor *positive, *negative;   /* [1, tokens, width]; of unequal length: the shorter is zero-padded and masked */
    const struct tensor *latents;               /* [1, 4, h, w] or NULL (zeros) */
    const struct tensor *noise;                 /* same shape, or NULL: nothing is added */
    int steps;
    const double *cfg_scale;                    /* one value, or STEPS of them */
    int n_cfg_scale;
    double cfg_rescale;                         /* [0, 1) */
    double start, end;
    const char *scheduler;
    uint64_t seed;                              /* of the noise; stochastic samplers draw from seed ^ 0xffffffff */
};
/* model_denoise runs the UNet loop and returns latents [1, 4, h, w]. Nothing is allocated between the first and the last step.
 * BAD_ARGUMENT, OUT_OF_MEMORY (needed and free, before any work), CANCELED. */
NODISCARD enum status model_denoise(struct model *m, const struct denoise_args *a, const struct engine_hooks *hooks, struct tensor **ret, struct error *err);
/* model_decode turns latents [1, 4, h, w] into 8h x 8w RGB bytes (caller frees). */
NODISCARD enum status model_decode(struct model *m, const struct tensor *latents, const struct engine_hooks *hooks, uint8_t **ret_rgb, int *ret_width, int *ret_height, struct error *err);
/* model_unet is one forward pass: SAMPLE [n, 4, h, w], timestep, CONTEXT [n, tokens, width] -> eps like SAMPLE. For tests and benchmarks of the same plan that model_denoise runs. */
NODISCARD enum status model_unet(struct model *m, const struct tensor *sample, double timestep, const struct tensor *context, struct tensor **ret, struct error *err);
/* model_unet_masked also takes MASK [n, tokens], added to the attention scores of each prompt token (0, or -10000 on padding). */
NODISCARD enum status model_unet_masked(struct model *m, const struct tensor *sample, double timestep, const struct tensor *context, const struct tensor *mask, struct tensor **ret, struct error *err);
