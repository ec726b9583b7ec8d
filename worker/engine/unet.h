/* The UNet of Stable Diffusion 1 at any width, depth and number of layers (Rombach et al. 2022; Ronneberger et al. 2015). */
#pragma once
#include <jansson.h>
#include "worker/engine/net.h"

enum { UNET_LEVELS_MAX = 8, UNET_RESNETS_MAX = 256 };

struct unet_level {
    int channels, layers, heads, depth;      /* depth: transformer blocks per attention */
    bool down_cross, up_cross;               /* cross attention on the way down, on the way up */
};
struct unet_config {
    int n_levels, in_channels, out_channels, context, groups, sample_size;
    double eps;
    bool linear_projection;
    struct unet_level level[UNET_LEVELS_MAX];   /* 0: full size */
};

/* unet_config_read reads a diffusers UNet2DConditionModel config. UNSUPPORTED names the key of what this engine has not;
 * BAD_MODEL the key with a value out of range. */
NODISCARD enum status unet_config_read(const json_t *config, struct unet_config *ret, struct error *err);

/* Where each resnet's time projection lies in a row of all of them; filled by a check of the network, in the order of its resnets. */
struct unet_times {
    struct { char name[120]; int channels, offset; } item[UNET_RESNETS_MAX];
    int n, total;                            /* elements of a row */
};

struct unet_inputs {
    struct operand sample;                   /* [n, h, w, in] */
    struct operand context;                  /* [n, 1, tokens, context] */
    struct operand mask;                     /* [n, 1, tokens, 1] float32, added to the scores; or unset */
    struct operand times;                    /* [1, 1, 1, total]: one row of unet_time_rows */
    int prompt_segment;                      /* where what depends on the prompt alone goes; the rest goes to the net's segment */
};
/* unet_forward describes the noise prediction [n, h, w, out]. In a check (no plan) TIMES is filled, in a plan it is read. */
struct operand unet_forward(struct net *n, const struct unet_config *c, struct unet_times *times, struct unet_inputs in);
/* unet_time_rows describes the time projections of all resnets for TIMESTEPS (f32 [1, 1, rows, 1]): [1, 1, rows, total]. */
struct operand unet_time_rows(struct net *n, const struct unet_config *c, const struct unet_times *times, struct operand timesteps);
